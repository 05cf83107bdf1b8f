"""The flags of `semsynth experiment` (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro.conf

from semsynth.augmentation.experiment.arms import DEFAULT, chosen_arms
from semsynth.core.errors import UserError
from semsynth.segmentation.config import segmenter_file

Stage = Literal["development", "final"]
DRAWS: dict[Stage, tuple[int, ...]] = {"development": (0, 1), "final": (2, 3, 4, 5, 6)}
"""Settings are chosen on the first draws, and reported on the others."""
LEAST_REAL = 4


@dataclass(frozen=True)
class ExperimentConfig:
    """Measure what synthesis adds to the strongest segmenter of n real images, draw by draw.

    Each draw takes n images by sequence, field or tile, trains the generator on those alone, makes
    the extra images of each arm, and trains the same segmenter on each arm. The same command
    resumes; what is finished is kept by its content.

    Raises:
        UserError: a value outside its range.
    """

    data: Path = Path("./data/sidewalk_processed")
    """Prepared data set: the pool that images are drawn from, and the images for scoring."""
    output: Path = Path("./results/experiment")
    """Folder for draws, experiment.json and experiment.html."""
    n: tuple[int, ...] = (40,)
    """Numbers of real images; each is an experiment of its own."""
    stage: Stage = "development"
    """development: draws 0 and 1, to choose settings. final: draws 2 to 6, with the frozen settings
    and no others."""
    freeze: bool = False
    """Write these settings to frozen.json, and stop: --stage final runs with them alone."""
    draws: tuple[int, ...] = ()
    """Only these draws of the stage; by default all of them."""
    arms: tuple[str, ...] = DEFAULT
    """What segmenters are trained on (docs/how-to/experiment.md); strong is always one."""
    seeds: int = 3
    """Segmenters of each arm and draw, whose scores are averaged."""
    list_: bool = False
    """Print the tasks, one arm of a draw each, and what is finished; and stop."""
    plan: bool = False
    """Say what is left to do and how long it takes here, which is measured; and stop."""
    task: str | None = None
    """K: run the K-th of the tasks that --list prints; K/N: the K-th of N parts of them. Several
    processes may run at once, such as a job array."""
    split: str = "train"
    """Split that the real images are drawn from."""
    eval_split: str = "val"
    """Split of the real images on which all segmenters are scored."""
    kind: str | None = None
    """Draw and score only images of this kind, if the data record kinds (nuclei: stained)."""
    draw_by: Literal["group", "image"] = "group"
    """group: whole sequences, fields or tiles (of films at least 10 s); image: one by one."""
    generator_data: Path | None = None
    """Other prepared data that the generator is also trained on: images of another kind, or
    another set with the same labels. Images of the pool in it are left out."""
    unlabelled: Path | None = None
    """Real images without masks, for the arms of a mean teacher and for the list of what to label
    next: a folder of image files, or prepared data, whose masks are not read. By default those of
    the pool that were not drawn."""
    generator_unlabelled: bool = False
    """Train the generator also on the images without masks, with the masks that two segmenters of
    the draw predict for them: pixels on which they agree."""
    teacher: Path | None = None
    """Segmenter that filters labels, its file or folder; by default the draw's own, trained on the
    n images."""
    teacher_part: Literal["whole", "half"] = "whole"
    """The draw's own teacher: the segmenter of all n images, or of half of them, whose losses on
    the other half say what it believes of images that it does not know."""
    allow_overlap: bool = False
    """Continue although scored images were used in a training; the report says so."""
    recipe: str = "camvid"
    """Recipe of the generator: a name, or a YAML file."""
    set: tuple[str, ...] = ()
    """Changes of the recipe, as section.key=value."""
    from_checkpoint: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Start the generators from a model of built-in streets, or of images that are not here."""
    images_per_real: int = 3
    """Synthetic (or edited) images for each real one."""
    strength: float = 0.5
    """Of the arms that start from an image: share of the schedule's time, above 0, at most 1."""
    keep: Literal["none", "outside"] = "none"
    """outside: of edited images only the edited region is regenerated."""
    segment: tuple[str, ...] = ()
    """Settings of all segmenters, as flag=value of `semsynth segment train`."""
    generate: tuple[str, ...] = ()
    """Settings of `semsynth generate`, as flag=value."""
    edit: tuple[str, ...] = ()
    """Settings of `semsynth edit`, as flag=value."""
    filter: tuple[str, ...] = ()
    """Settings of `semsynth filter`, as flag=value."""
    larger: tuple[str, ...] = ("enlarge=2",)
    """What strong_larger has besides --segment, as flag=value of `semsynth segment train`: an
    encoder that takes the generator's time, such as enlarge=2, or init_from of a larger one."""
    longer_most: float = 0.0
    """Above 0: strong_longer takes at most so many times the steps; the report says so."""
    min_class_images: int = 15
    """Classes in fewer scored images are named, but not averaged."""
    seed: int = 0
    """Seed of draws, generators, segmenters and intervals."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.n:
            raise UserError("--n: give at least one number of real images")
        for n in self.n:
            if n < LEAST_REAL:
                raise UserError(f"--n is {n}: must be at least {LEAST_REAL}")
            if self.n.count(n) > 1:
                raise UserError(f"--n {n}: is given more than once; give each number once")
        if self.plan and self.task is not None:
            raise UserError("--plan: is of all tasks that are left; drop --task")
        for draw in self.draws:
            if draw not in DRAWS[self.stage]:
                own = ", ".join(map(str, DRAWS[self.stage]))
                raise UserError(
                    f"--draws {draw}: is not one of --stage {self.stage}, which has {own}"
                )
        if not 0 < self.strength <= 1:
            raise UserError(f"--strength is {self.strength}: must be above 0 and at most 1")
        for name, value, low, high in (
            ("seeds", self.seeds, 1, 100),
            ("images-per-real", self.images_per_real, 1, 1000),
            ("min-class-images", self.min_class_images, 1, 10**6),
            ("longer-most", self.longer_most, 0, 10**6),
        ):
            if not low <= value <= high:
                raise UserError(f"--{name} is {value}: must be from {low} to {high}")
        arms = chosen_arms(self.arms)
        for arm in arms:
            if arm.needs_other_data and self.generator_data is None:
                raise UserError(f"--arms {arm.name}: needs --generator-data")

    @property
    def teacher_file(self) -> Path | None:
        """The file of ``teacher``, which may be the folder of `semsynth segment train`."""
        return None if self.teacher is None else segmenter_file(self.teacher)

    @property
    def draws_of_stage(self) -> tuple[int, ...]:
        """The draws to run."""
        return tuple(dict.fromkeys(self.draws)) or DRAWS[self.stage]


@dataclass(frozen=True)
class ProbeConfig:
    """Say in ten minutes whether synthesis is likely to help here, before a night is spent on it.

    The experiment with small settings, on images that are scaled down where they are large: a curve
    of real images alone, a quick generator, and two arms of its images.

    Raises:
        UserError: a value outside its range.
    """

    data: Path = Path("./data/sidewalk_processed")
    """Prepared data set: your labelled images, and others for scoring."""
    output: Path = Path("./results/probe")
    """Folder for probe.json and probe.html; the same command resumes."""
    minutes: float = 10.0
    """About how long it may take here; the speed of this machine decides the numbers of steps."""
    n: int | None = None
    """Number of real images; by default all of --split, at most 200."""
    split: str = "train"
    """Split of the real images."""
    eval_split: str = "val"
    """Split of the real images on which all segmenters are scored."""
    kind: str | None = None
    """Only images of this kind, where the data record kinds."""
    generator_data: Path | None = None
    """Other prepared data that the generator is trained on, besides the n images."""
    unlabelled: Path | None = None
    """Real images without masks, for the list of what to label next: a folder of image files, or
    prepared data, whose masks are not read."""
    allow_overlap: bool = False
    """Continue although scored images were used in a training; the page says so."""
    recipe: str = "streets_demo"
    """Recipe of the quick generator; its size and its steps are set here."""
    set: tuple[str, ...] = ()
    """Changes of the recipe, as section.key=value."""
    segment: tuple[str, ...] = ()
    """Settings of the segmenters, as flag=value of `semsynth segment train`."""
    generate: tuple[str, ...] = ()
    """Settings of `semsynth generate`, as flag=value."""
    min_class_images: int = 5
    """Classes in fewer scored images are named, but not averaged."""
    seed: int = 0
    """Seed of everything random."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n is not None and self.n < LEAST_REAL:
            raise UserError(f"--n is {self.n}: must be at least {LEAST_REAL}")
        if not 0 < self.minutes <= 24 * 60:
            raise UserError(f"--minutes is {self.minutes:g}: must be above 0 and at most 1440")

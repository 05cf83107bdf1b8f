"""What is left to do of an experiment, and how long it will take; said before it begins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from semsynth.augmentation.experiment.arms import Arm
from semsynth.augmentation.experiment.score import EvaluationImages, score_path
from semsynth.augmentation.experiment.settings import segment_settings, teachers_of
from semsynth.augmentation.experiment.speeds import Speeds
from semsynth.augmentation.experiment.stages import Stages
from semsynth.core.distributed.run_status import read_status
from semsynth.core.durations import duration
from semsynth.evaluation.report.formats import plural
from semsynth.segmentation.config import SegmentTrainConfig

# With fewer steps left an estimate would take longer than the work.
LEAST_STEPS = 1000
# A step with as many unlabelled as labelled images (docs/how-to/segmenters.md).
_UNLABELLED = 4
# One of --enlarge 2, measured (docs/how-to/segmenters.md); other encoders take other times.
_LARGER = 3
Kind = Literal["generator", "distill", "segmenter", "image"]


@dataclass(frozen=True)
class Piece:
    """Something that is to be made.

    Attributes:
        root: its folder.
        kind: what takes the time.
        count: steps, of the strong arm's kind; or images.
        scored: images that are scored with it.
    """

    root: Path
    kind: Kind
    count: float
    scored: int = 0

    def seconds(self, speeds: Speeds) -> float:
        """Return how long it will take."""
        return self.count * float(getattr(speeds, self.kind)) + self.scored * speeds.scored


def pieces(
    stages: Stages, arm: Arm, eval_images: EvaluationImages, speeds: Speeds
) -> Iterator[Piece]:
    """Yield what the scores of an arm need and is not there yet; each thing may come often."""
    made = [stages.segmenter(arm, number) for number in range(stages.config.seeds)]
    left = [one for one in made if not score_path(stages, one, eval_images).exists()]
    if not left:
        return
    if arm.synthetic or arm.longer:
        yield from _generator(stages)
    if arm.fresh:
        yield from (Piece(one.root / "fresh", "image", _fresh(stages, arm)) for one in left)
    elif arm.masks is not None and arm.start is not None:
        samples = stages.samples(arm.masks, arm.start)
        if not samples.finished:
            yield Piece(samples.root, "image", stages.count(arm.masks))
    for teacher in teachers_of(stages.config, arm):
        own = stages.segmenter(teacher, 0)
        if not own.finished:
            yield Piece(own.root, "segmenter", _steps(stages, teacher))
    for one in left:
        yield Piece(one.root, "segmenter", _steps(stages, arm, speeds), len(eval_images.stems))


def _generator(stages: Stages) -> Iterator[Piece]:
    made, recipe = stages.generator(), stages.recipe
    if made.finished:
        return
    status = read_status(made.root) if made.root.exists() else None
    done = 0 if status is None else status.step
    first = max(recipe.diffusion_steps - done, 0)
    yield Piece(made.root, "generator", first)
    last = recipe.total_steps - max(done, recipe.diffusion_steps)
    yield Piece(made.root / "distill", "distill", last)


def _fresh(stages: Stages, arm: Arm) -> float:
    """Return how many images a training makes: its share of each batch changes evenly."""
    config = SegmentTrainConfig(**segment_settings(stages.config, arm, True))
    last = config.mix_share if config.mix_share_end is None else config.mix_share_end
    return config.steps * config.batch_size * (config.mix_share + last) / 2


def _steps(stages: Stages, arm: Arm, speeds: Speeds | None = None) -> float:
    """Return the steps of a segmenter, in steps of one of ``strong``."""
    settings = segment_settings(stages.config, arm, False)
    steps = float(settings.get("steps", SegmentTrainConfig.steps))
    if arm.unlabelled:
        return _UNLABELLED * steps
    if arm.larger:
        return _LARGER * steps
    if not arm.longer or speeds is None:
        return steps
    recipe, own = stages.recipe, steps * speeds.segmenter
    generator = recipe.diffusion_steps * speeds.generator + recipe.distill.steps * speeds.distill
    times, most = 1 + generator / max(own, 1e-9), stages.config.longer_most
    return steps * (min(times, most) if most else times)


@dataclass(frozen=True)
class Left:
    """What is left of some tasks.

    Attributes:
        of_task: seconds of each of them, in order; what several need counts for the first.
        counts: steps and images by kind.
        seconds: by kind.
    """

    of_task: tuple[float, ...]
    counts: Mapping[str, float]
    seconds: Mapping[str, float]

    @classmethod
    def of(
        cls, tasks: Sequence[tuple[Stages, Arm]], eval_images: EvaluationImages, speeds: Speeds
    ) -> Left:
        """Count what the tasks need, one after the other."""
        seen: set[Path] = set()
        counts: dict[str, float] = defaultdict(float)
        seconds: dict[str, float] = defaultdict(float)
        of_task = []
        for stages, arm in tasks:
            total = 0.0
            for piece in pieces(stages, arm, eval_images, speeds):
                if piece.root not in seen:
                    seen.add(piece.root)
                    took = piece.seconds(speeds)
                    counts[piece.kind] += piece.count
                    seconds[piece.kind] += took
                    total += took
            of_task.append(total)
        return cls(tuple(of_task), dict(counts), dict(seconds))

    @property
    def steps(self) -> float:
        """The steps of all trainings together."""
        return sum(count for kind, count in self.counts.items() if kind != "image")

    @property
    def total(self) -> float:
        """The seconds of all tasks together."""
        return sum(self.of_task)


def in_words(left: Left, speeds: Speeds) -> list[str]:
    """Return what is left and how long it takes, in a few lines."""
    if not left.total:
        return ["nothing is left to train"]
    lines = [f"about {duration(left.total)} at the speed of this machine, as busy as it was then:"]
    names = {
        "generator": ("generators", "step"),
        "distill": ("their last phase", "step"),
        "segmenter": ("segmenters, and their scores", "step"),
        "image": ("generated images", "image"),
    }
    for kind, (name, unit) in names.items():
        count = round(left.counts.get(kind, 0))
        if count:
            each = getattr(speeds, kind)
            lines.append(
                f"  {name}: {plural(count, unit)} of {each:.2g} s, {duration(left.seconds[kind])}"
            )
    return [*lines, "  edits, filters and copies are not counted: some minutes a draw"]

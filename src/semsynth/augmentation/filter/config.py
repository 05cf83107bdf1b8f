"""The flags of `semsynth filter` (no torch)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from semsynth.core.errors import UserError

Rule = Literal["freemask", "relabel", "none"]
# They decide where and how, not what.
_NOT_IN_KEY = ("samples", "segmenter", "real", "output", "overwrite", "preview", "device", "shard")


@dataclass(frozen=True)
class FilterConfig:
    """Ignore or correct labels of synthetic images that a segmenter does not believe.

    Images that are far from the real ones are left out, and copies of training images are found.

    Raises:
        UserError: a value outside its range.
    """

    samples: Path = Path("./results/synthetic")
    """Generated images (semsynth generate) with their masks; all splits are filtered."""
    segmenter: str = "./checkpoints/segmenter"
    """The teacher: segmenter.pth or its folder, or a Transformers model (a folder or Hub id), with
    the classes of the data."""
    real: Path = Path("./data/sidewalk_processed")
    """Prepared data set with the real images."""
    output: Path = Path("./results/filtered")
    """Folder for the filtered data set, filter.json and filter.png; the same command resumes."""
    overwrite: bool = False
    """Replace a set that was filtered from something else or otherwise; it stays until the new one
    is complete."""
    split: str = "train"
    """Split of the real training images."""
    mean_split: str | None = None
    """Split of the real images whose mean loss by class is the measure (default: --split). A
    teacher that knows these images has low losses there, so more synthetic pixels are ignored."""
    val_split: str = "val"
    """Split of held-out real images, which set the threshold for copies."""
    rule: Rule = "freemask"
    """freemask: a pixel is ignored where the teacher's loss is above --tolerance times the mean of
    its class; relabel: as freemask, but where the teacher is sure of another class, that is taken;
    none: labels stay."""
    tolerance: float = 1.25
    """Largest loss of a pixel that is believed, over the mean loss of its class in real images."""
    relabel_above: float = 0.9
    """Probability above which the teacher is sure, 0.5 to 1."""
    keep_at_least: float = 0.5
    """Share of its pixels that every class keeps, 0 to 1: its tolerance is raised until it does. 0:
    a class may vanish."""
    border: int = 1
    """Width in pixels of what is ignored on each side of a border between classes; 0: nothing."""
    drop_far: float = 0.05
    """Share of the images, 0 to 1, that may be left out because they are farther from the real ones
    than real images are from each other; the farthest first."""
    drop_copies: bool = False
    """Leave out images that are copies of training images. Images that were made from real ones
    (generate --from-image, edit) are not looked at."""
    preview: bool = False
    """Also write filter.png: images, their masks before and after, and what the teacher sees."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    shard: str | None = None
    """K/N: measure only this part of the images; the last part to finish writes the set."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, low, high in (
            ("tolerance", self.tolerance, 0.0, 1e6),
            ("relabel-above", self.relabel_above, 0.5, 1.0),
            ("keep-at-least", self.keep_at_least, 0.0, 1.0),
            ("border", self.border, 0, 1000),
            ("drop-far", self.drop_far, 0.0, 1.0),
        ):
            if not low <= value <= high:
                raise UserError(f"--{name} is {value}: must be from {low:g} to {high:g}")

    @property
    def splits(self) -> tuple[str, str]:
        """The splits of the real training images, and of those of the mean losses."""
        return self.split, self.mean_split or self.split

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result besides the inputs, as JSON values."""
        found = {k: v for k, v in asdict(self).items() if k not in _NOT_IN_KEY}
        return {**found, "mean_split": self.splits[1]}

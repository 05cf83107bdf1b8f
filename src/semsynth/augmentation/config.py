"""The flags of `semsynth augment` (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from semsynth.core.errors import UserError


@dataclass(frozen=True)
class AugmentConfig:
    """Measure what synthetic images add to a segmenter that has few real ones.

    Trains the same segmenter on real images alone, and on real and synthetic ones, with the
    same number of steps, and scores both on held-out real images; repeated for several trials.

    Raises:
        UserError: a value outside its range.
    """

    data: Path = Path("./data/sidewalk_processed")
    """Prepared data set with the real images."""
    samples: Path = Path("./results/synthetic")
    """Generated images (semsynth generate --split train) of masks that are not held out."""
    output: Path = Path("./results/augmentation")
    """Folder for augmentation.json; the same command resumes an interrupted experiment."""
    overwrite: bool = False
    """Replace an experiment with other images or settings; it stays until the new one is
    complete."""
    split: str = "train"
    """Split of the real training images."""
    samples_split: str = "train"
    """Split of the generated images."""
    val_split: str = "val"
    """Split of the held-out real images, on which all segmenters are scored."""
    real_images: int = 100
    """Number of real images to train on; each trial draws others."""
    mix_share: float = 0.5
    """Share of each batch that is synthetic, 0 to 1."""
    trials: int = 3
    """Repetitions, each with other real images and other initial weights."""
    keep_share: float = 1.0
    """Below 1: also train with only this share of the synthetic images, those whose masks agree
    best with the predictions of the segmenter of real images."""
    ignore_below: float = 0.0
    """Above 0: also train with those classes of an image ignored where the IoU of that segmenter
    is below."""
    ceiling: bool = True
    """Also train with the real images of the synthetic ones' masks: an upper bound of the gain."""
    steps: int = 600
    """Optimizer steps of each segmenter."""
    batch_size: int = 16
    """Images per step."""
    width: int = 24
    """Channels of the segmenter's finest level."""
    seed: int = 0
    """Seed of the choice of images, the initial weights and the order."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, low, high in (
            ("real-images", self.real_images, 1, 10**9),
            ("mix-share", self.mix_share, 0.0, 1.0),
            ("trials", self.trials, 1, 100),
            ("keep-share", self.keep_share, 0.01, 1.0),
            ("ignore-below", self.ignore_below, 0.0, 1.0),
            ("steps", self.steps, 1, 10**9),
        ):
            if not low <= value <= high:
                raise UserError(f"--{name} is {value}: must be from {low} to {high}")

    @property
    def filters(self) -> bool:
        """Whether there is an arm with filtered synthetic images."""
        return self.keep_share < 1 or self.ignore_below > 0

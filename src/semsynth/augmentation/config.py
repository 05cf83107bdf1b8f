"""The flags of `semsynth augment` (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from semsynth.core.errors import UserError


@dataclass(frozen=True)
class AugmentConfig:
    """Measure what synthetic images add to a segmenter that has few real ones.

    Trains the same segmenter on real images alone, and on real and synthetic ones, with the
    same number of steps, and scores both on held-out real images; several times.

    Raises:
        UserError: a value outside its range.
    """

    data: Path = Path("./data/sidewalk_processed")
    """Prepared data set with the real images."""
    samples: Path = Path("./results/synthetic")
    """Generated images (semsynth generate --split train), of masks that are not held out."""
    output: Path = Path("./results/augmentation")
    """Folder of augmentation.json; run the same command again to go on where it stopped."""
    split: str = "train"
    """Split of the real training images."""
    samples_split: str = "train"
    """Split of the generated images."""
    val_split: str = "val"
    """Split of the held-out real images, which only score."""
    real_images: int = 100
    """How many real images a segmenter may see; another choice each trial."""
    mix_share: float = 0.5
    """Share of each batch that is synthetic, 0 to 1."""
    trials: int = 3
    """Repetitions, with other real images and other initial weights."""
    keep_share: float = 1.0
    """Also try with this share of the synthetic images only: those that the segmenter of the
    real images agrees with most."""
    ignore_below: float = 0.0
    """Also try with classes ignored, image by image, where that segmenter's IoU is below."""
    ceiling: bool = True
    """Also try with the real images of the synthetic ones' masks: what could be gained."""
    steps: int = 600
    """Optimizer steps of each segmenter."""
    batch_size: int = 16
    """Images a step."""
    width: int = 24
    """Channels of the segmenter's finest level."""
    seed: int = 0
    """Decides the choice of images, the initial weights and the order."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, least, most in (
            ("real-images", self.real_images, 1, 10**9),
            ("mix-share", self.mix_share, 0.0, 1.0),
            ("trials", self.trials, 1, 100),
            ("keep-share", self.keep_share, 0.01, 1.0),
            ("ignore-below", self.ignore_below, 0.0, 1.0),
            ("steps", self.steps, 1, 10**9),
        ):
            if not least <= value <= most:
                raise UserError(f"--{name} is {value}: must be from {least} to {most}")

    @property
    def filters(self) -> bool:
        """Whether synthetic images are filtered in an experiment of their own."""
        return self.keep_share < 1 or self.ignore_below > 0

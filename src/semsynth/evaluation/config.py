"""The flags of `semsynth evaluate` (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from semsynth.core.distributed.shards import parse_shard
from semsynth.core.errors import UserError


@dataclass(frozen=True)
class EvaluateConfig:
    """Score generated images, or a codec alone, and write report.json and report.html.

    Raises:
        UserError: a value outside its range.
    """

    samples: Path = Path("./results/generated")
    """Generated images in the layout of prepared data; files are named MASK__NNN."""
    data: Path = Path("./data/sidewalk_processed")
    """Prepared data set with the real images."""
    output: Path = Path("./results/report")
    """Folder for report.json and report.html."""
    overwrite: bool = False
    """Replace a report of something else; it stays until the new one is complete."""
    split: str = "val"
    """Split of masks that were not used for training, in the data and in the samples."""
    train_split: str = "train"
    """Split of the mean-colour baseline, and of the real training images."""
    segmenter: Path = Path("./checkpoints/segmenter")
    """Segmenter trained on real training images (semsynth segment train): file or folder."""
    features: tuple[str, ...] = ()
    """Vision models of the Transformers library, folders or Hub ids, for Frechet distances."""
    inception: Path | None = None
    """File pt_inception-2015-12-05-6726825d.pth for FID and KID; downloaded if not given."""
    lpips_backbone: Path | None = None
    """File alexnet-owt-7be5be79.pth for LPIPS; downloaded if not given."""
    lpips_heads: Path | None = None
    """File alex.pth (LPIPS v0.1) for LPIPS; downloaded if not given."""
    download: bool = True
    """Download the public weights of FID and LPIPS if no file is given."""
    augmentation: Path | None = None
    """augmentation.json of semsynth augment, which the report shows."""
    run: Path | None = None
    """Run folder of semsynth train, whose loss curves the report shows."""
    rows: int = 8
    """Number of masks that the report shows."""
    batch_size: int = 32
    """Images per batch."""
    seed: int = 0
    """Seed of the shuffled masks, the subsets of KID, the intervals and the masks shown."""
    codec_only: bool = False
    """Measure the error of a codec alone: encode and decode the real images of the split."""
    codec: Literal["haar", "pixel"] | None = None
    """Codec of --codec-only: haar (the default) or pixel."""
    vae: str | None = None
    """Codec of --codec-only: a Diffusers autoencoder, a folder or OWNER/NAME of the Hub."""
    model: Path | None = None
    """Codec of --codec-only: that of a trained model; final_model.pth, run or Diffusers folder."""
    shard: str | None = None
    """K/N: measure the K-th of N parts of the images, K from 1 to N. By default torchrun, srun and
    job arrays determine it. The last process to finish writes the report."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in (("rows", self.rows), ("batch-size", self.batch_size)):
            if value < 1:
                raise UserError(f"--{name} is {value}: must be at least 1")
        if self.shard is not None:
            parse_shard(self.shard)
        given = [name for name in ("codec", "vae", "model") if getattr(self, name) is not None]
        if given and not self.codec_only:
            raise UserError(f"--{given[0]}: needs --codec-only, which is not given")
        if len(given) > 1:
            raise UserError(f"--{given[0]} and --{given[1]} are both given; choose one")

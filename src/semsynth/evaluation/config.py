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
    """Generated images in the prepared layout; each stem is MASK__NNN."""
    data: Path = Path("./data/sidewalk_processed")
    """Prepared data set with the real images."""
    output: Path = Path("./results/report")
    """Folder for report.json and report.html."""
    split: str = "val"
    """Split of masks that were not trained on, in the data and in the samples."""
    train_split: str = "train"
    """Split that the colours of the mean-colour baseline come from."""
    segmenter: Path = Path("./checkpoints/segmenter")
    """Segmenter trained on real training images (semsynth segment train): file or folder."""
    features: tuple[str, ...] = ()
    """Vision models of the Transformers library, folders or ids, for Frechet distances."""
    inception: Path | None = None
    """File pt_inception-2015-12-05-6726825d.pth for FID and KID; downloaded when not given."""
    lpips_backbone: Path | None = None
    """File alexnet-owt-7be5be79.pth for LPIPS; downloaded when not given."""
    lpips_heads: Path | None = None
    """File alex.pth (LPIPS v0.1) for LPIPS; downloaded when not given."""
    download: bool = True
    """Download the public weights of FID and LPIPS where no file is given."""
    augmentation: Path | None = None
    """augmentation.json of semsynth augment, to be shown in the report."""
    run: Path | None = None
    """Run folder of semsynth train, whose loss curves are shown in the report."""
    rows: int = 8
    """Masks shown in the report's grid."""
    batch_size: int = 32
    """Images at a time."""
    seed: int = 0
    """Decides the shuffling of the masks, the subsets of KID and the masks shown."""
    codec_only: bool = False
    """Say what a codec alone costs: the split's real images go through it and back."""
    codec: Literal["haar", "pixel"] | None = None
    """Codec of --codec-only: haar (also when nothing else is given) or pixel."""
    vae: str | None = None
    """Codec of --codec-only: a Diffusers autoencoder, a folder or OWNER/NAME of the Hub."""
    model: Path | None = None
    """Codec of --codec-only: that of a trained model, final_model.pth or a Diffusers folder."""
    shard: str | None = None
    """K/N: look at the K-th of N parts of the images, K from 1 to N. By default torchrun, srun
    and job arrays say which part is whose. The last process to finish writes the report."""
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
            raise UserError(f"--{given[0]}: is for --codec-only, which is not given")
        if len(given) > 1:
            raise UserError(f"--{given[0]} and --{given[1]} are both given; choose one")

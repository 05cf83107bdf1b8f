"""The flags of `semsynth prepare` (no torch)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from semsynth.runtime.errors import UserError

SourceName = Literal["sidewalk", "streets", "folder", "camvid", "cityscapes", "ade20k"]

# Flags that only some sources know: given to another they would be ignored silently.
_ONLY_FOR: dict[str, tuple[SourceName, ...]] = {
    "data": ("sidewalk", "folder", "camvid", "cityscapes", "ade20k"),
    "repo": ("sidewalk",),
    "images": ("folder",),
    "masks": ("folder",),
    "labels": ("folder",),
    "colored_masks": ("folder",),
    "group_by": ("folder",),
    "licence": ("folder", "sidewalk"),
    "val_share": ("folder", "sidewalk"),
    "holdout": ("camvid",),
    "train_count": ("streets",),
    "val_count": ("streets",),
}


@dataclass(frozen=True)
class PrepareConfig:
    """Turn a source of pictures and masks into a prepared data set.

    Raises:
        UserError: a value outside its range, or a flag that the source does not know.
    """

    source: SourceName = "sidewalk"
    """Where pictures come from: sidewalk (Hugging Face), streets (built in, nothing is
    downloaded), folder (your own pictures and masks), camvid, cityscapes, ade20k (as published)."""
    output: Path | None = None
    """Folder of the prepared data; run the same command again to go on where it stopped.
    ./data/SOURCE_processed by default."""
    data: Path | None = None
    """Folder of the raw data. For sidewalk: a local copy of the data set repository."""
    repo: str = "segments/sidewalk-semantic"
    """Hugging Face data set (or a local copy) with columns pixel_values and label and an
    id2label.json."""
    images: Path | None = None
    """Source folder: the images, where they are not in DATA/images."""
    masks: Path | None = None
    """Source folder: the masks, where they are not in DATA/masks."""
    labels: Path | None = None
    """Source folder: YAML file of the labels, where it is not DATA/labels.yaml."""
    colored_masks: bool = False
    """Source folder: masks are in the colours that the labels file gives, not ids."""
    height: int = 1024
    """Height of the prepared pictures in pixels."""
    width: int = 1024
    """Width of the prepared pictures in pixels."""
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    """stretch to the size, crop the centre to its shape first, or pad around all of it."""
    image_format: Literal["auto", "jpg", "png"] = "auto"
    """auto: jpg (quality 95, full colour) where a side has 512 pixels or more, else png."""
    val_share: float = 0.1
    """Share of pictures that are held out, 0 to 0.5, for sources without splits of their own."""
    group_by: str | None = None
    """Source folder: what belongs together stays on one side of the split. A number n: the first
    n parts of the stem between underscores. Else a regular expression: its first group."""
    holdout: str = "0006R0"
    """Source camvid: the sequence that is held out."""
    near_copies: int | None = None
    """Leave out training pictures whose perceptual hash (64 bits) differs from a held-out one's in
    at most so many bits; -1 keeps all. 6 for sidewalk, -1 elsewhere by default."""
    licence: str | None = None
    """Licence of the pictures, for sources where it is not known."""
    train_count: int = 1500
    """Source streets: training pictures."""
    val_count: int = 200
    """Source streets: held-out pictures."""
    seed: int = 0
    """Decides the split, and what streets paints."""
    workers: int | None = None
    """Processes; all cores by default. The result does not depend on it."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, least, most in (
            ("height", self.height, 8, 8192),
            ("width", self.width, 8, 8192),
            ("val-share", self.val_share, 0, 0.5),
            ("near-copies", self.near_copies or 0, -1, 64),
            ("train-count", self.train_count, 1, 1_000_000),
            ("val-count", self.val_count, 0, 1_000_000),
            ("workers", 1 if self.workers is None else self.workers, 1, 1024),
        ):
            if not least <= value <= most:
                raise UserError(f"--{name} is {value}: must be from {least} to {most}")
        for field in fields(self):
            known = _ONLY_FOR.get(field.name)
            if known and self.source not in known and getattr(self, field.name) != field.default:
                flag = field.name.replace("_", "-")
                raise UserError(
                    f"--{flag} is for --source {' or '.join(known)}, not for {self.source}"
                )

    @property
    def output_folder(self) -> Path:
        """Where the prepared data go."""
        return self.output or Path("data") / f"{self.source}_processed"

    @property
    def file_format(self) -> Literal["jpg", "png"]:
        """The format of the prepared images."""
        if self.image_format == "auto":
            return "jpg" if max(self.height, self.width) >= 512 else "png"
        return self.image_format

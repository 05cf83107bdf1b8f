"""The flags of `semsynth prepare` (no torch)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from tyro.conf import Positional

from semsynth.core.errors import UserError

ResizeMode = Literal["stretch", "crop", "pad"]
ChannelRule = Literal["auto", "rgb", "all"]
# "paper": as the official code of the paper, with a mode for each split; the images record it.
ResizeRule = Literal["stretch", "crop", "pad", "paper"]
LayoutName = Literal[
    "folder",
    "voc",
    "mapillary",
    "coco",
    "cvat_xml",
    "labelme",
    "labelstudio",
    "yolo",
    "segments",
    "supervisely",
    "datumaro",
    "via",
    "qupath",
    "darwin",
]
PublishedName = Literal[
    "camvid", "cityscapes", "ade20k", "celebamask", "cocostuff", "nuclei", "aerial"
]
SourceName = Literal["auto", LayoutName, "hf", "sidewalk", "streets", PublishedName]
# Folders and exports of one's own, recognised by their files; "auto" tries all of them.
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)
_OWN: tuple[SourceName, ...] = ("auto", *LAYOUTS, "hf")
_PUBLISHED: tuple[SourceName, ...] = get_args(PublishedName)

# Default height, width and resize; for the four data sets of the paper as in its code.
DEFAULTS: dict[str, tuple[int, int, ResizeRule]] = {
    "ade20k": (256, 256, "paper"),
    "celebamask": (256, 256, "paper"),
    "cityscapes": (256, 512, "paper"),
    "cocostuff": (256, 256, "paper"),
    "camvid": (352, 480, "stretch"),
    "nuclei": (256, 256, "stretch"),
    "aerial": (256, 256, "stretch"),
}
# Published images that are cut into tiles of the size.
_CUT = ("nuclei", "aerial")
_VAL_SHARE = {"nuclei": 0.25}
_OTHERS: tuple[int, int, ResizeRule] = (1024, 1024, "stretch")
_TILED_PIXELS = 1_000_000_000
_PAPER = ("ade20k", "celebamask", "cityscapes", "cocostuff")

# Flags of some sources only: others would ignore them silently.
_ONLY_FOR: dict[str, tuple[SourceName, ...]] = {
    "data": ("sidewalk", *_OWN, *_PUBLISHED),
    "repo": ("sidewalk", "hf"),
    "image_column": ("auto", "hf"),
    "mask_column": ("auto", "hf"),
    "images": ("auto", "folder", "voc"),
    "masks": ("auto", "folder", "voc", "mapillary"),
    "image_suffix": ("auto", "folder"),
    "mask_suffix": ("auto", "folder"),
    "labels": _OWN,
    "masks_as": (*_OWN, "sidewalk"),
    "exif": (*_OWN, "sidewalk"),
    "window": (*_OWN, "sidewalk"),
    "channels": ("auto", *LAYOUTS),
    "group_by": _OWN,
    "licence": (*_OWN, "sidewalk"),
    "tile": _OWN,
    "overlap": _OWN,
    "max_pixels": (*_OWN, "sidewalk"),
    "resize_masks": _OWN,
    "val_share": (*_OWN, "sidewalk", "nuclei"),
    "holdout": ("camvid", "aerial"),
    "kind": ("nuclei",),
    "classes": ("nuclei",),
    "instances": ("cityscapes",),
    "large": ("sidewalk", *_OWN, *_PUBLISHED),
    "train_count": ("streets",),
    "val_count": ("streets",),
}


@dataclass(frozen=True)
class PrepareConfig:
    """Turn a source of images and masks into a prepared data set.

    Raises:
        UserError: a value outside its range, or a flag of another source.
    """

    path: Positional[Path | None] = None
    """Your data: a folder, a zip or an annotation file, in the layout that its files show."""
    source: SourceName | None = None
    """Where images come from. auto (the default with a PATH): your own folder, zip or export, in
    the layout that its files show; or that layout by name: folder (images and masks), voc (Pascal
    VOC, CVAT's segmentation masks), mapillary (Vistas), coco (instances, panoptic), cvat_xml (CVAT
    for images), labelme, labelstudio, yolo (segmentation), segments (Segments.ai), supervisely,
    datumaro, via (VGG Image Annotator), qupath (GeoJSON), darwin (V7); hf: a Hugging Face data
    set, of a folder or the hub (--repo). sidewalk (the default without a PATH):
    segments/sidewalk-semantic. streets: built in, nothing is downloaded. As published: camvid,
    cityscapes, ade20k, celebamask (CelebAMask-HQ), cocostuff (COCO-Stuff), nuclei (Data Science
    Bowl 2018, BBBC038), aerial (towns from above, Humans in the Loop)."""
    output: Path | None = None
    """Folder of the prepared data; run the same command again to resume.
    ./data/SOURCE_processed by default."""
    data: Path | None = None
    """The same as PATH, for --source by name. For sidewalk: a local copy of the data set
    repository."""
    repo: str = "segments/sidewalk-semantic"
    """Sources sidewalk and hf: the Hugging Face data set, by its name on the hub."""
    image_column: str | None = None
    """Hugging Face data sets: the column of the images, if it is not clear."""
    mask_column: str | None = None
    """Hugging Face data sets: the column of the masks, if it is not clear."""
    images: Path | None = None
    """Your own folders: the images; a folder (its path may begin in PATH), or the name of folders
    anywhere in it. By default those that are called as folders of images usually are."""
    masks: Path | None = None
    """Your own folders: the masks; a folder (its path may begin in PATH), or the name of folders
    anywhere in it, or a pattern in quotes ('*_GT/SEG')."""
    image_suffix: str | None = None
    """Your own folders: only files whose stems end so are images (_leftImg8bit)."""
    mask_suffix: str | None = None
    """Your own folders: only files whose stems end so are masks (_gtFine_labelIds)."""
    labels: Path | None = None
    """Your own data: the label file (YAML, JSON, CSV or text). By default one in PATH with a usual
    name, such as labels.yaml."""
    masks_as: Literal["ids", "colors", "instances", "auto"] = "auto"
    """Your own data and sidewalk: masks hold ids, or the colours of the label file. auto: what
    their values and palettes say; where these can be read in both ways it asks for this flag.
    instances (folders of images and masks): they number objects of one class, 0 is background."""
    exif: Literal["apply", "ignore"] | None = None
    """Your own data and sidewalk: turn images and masks as their EXIF orientation says, or take
    the pixels as they are stored. By default as the sizes tell; where an image is turned, its mask
    is not, and both fit, it asks for this flag."""
    window: tuple[float, float] | None = None
    """Your own data and sidewalk: LOW HIGH, the values that become black and white in images of
    more than 8 bits. By default 0 65535 if they use all 16 bits, else it asks for this flag."""
    channels: ChannelRule = "auto"
    """Your own folders: all keeps the channels (1 to 8) and bits (8 or 16) of the images as they
    are; rgb makes RGB of 8 bits of everything. auto: all for images that are not RGB, such as
    TIFFs of 2 or of 5 to 8 channels, else rgb."""
    height: int | None = None
    """Height of the prepared images in pixels. By default for your own data the median of the
    images, at most 1024 on the longer side, rounded to multiples of 32; 256 for cityscapes, ade20k,
    celebamask and cocostuff, 352 for camvid, else 1024; the images of nuclei and aerial are cut
    into tiles of 256."""
    width: int | None = None
    """Width of the prepared images in pixels. By default for your own data as --height; 512 for
    cityscapes, 256 for ade20k, celebamask and cocostuff, 480 for camvid, else 1024; tiles of
    256 for nuclei and aerial."""
    resize: ResizeRule | None = None
    """stretch to the size, crop the centre to its aspect ratio first, or pad all around (the
    default for your own data, where an image has another shape). paper (the default of cityscapes,
    ade20k, celebamask and cocostuff): as the official code of the paper, which stretches, but crops
    the training images of all but cityscapes."""
    tile: int | None = None
    """Your own data: cut images that are larger into tiles of so many pixels on a side, at their
    own scale. A tile is named STEM@TOP_LEFT; those of an image stay on one side of the split."""
    overlap: int = 0
    """With --tile: how many pixels neighbouring tiles share at least."""
    max_pixels: int | None = None
    """Images of more pixels are refused: damaged or hostile files would fill the memory. By default
    179 million, with --tile a billion."""
    resize_masks: bool = False
    """Your own data: resize masks (and instance maps) of another size than their image to its size,
    with nearest neighbour. Without it they are refused."""
    large: Literal["auto"] | float = "auto"
    """Keep training images and their masks at so many times the size, too (1: no; at most 4): with
    train.crop below 1, crops are then scaled down and stay sharp. auto: the most up to 2 at which
    no image is enlarged, if that is 1.25 or more and the size at most 256x256 pixels; a folder that
    is there stays as it is."""
    image_format: Literal["auto", "jpg", "png"] = "auto"
    """auto: png for --resize paper, else jpg (quality 95, full colour) if a side has 512 pixels or
    more, and png otherwise."""
    val_share: float | None = None
    """Share of images that are held out, 0 to 0.5, for sources without splits of their own: 0.1 by
    default. Source nuclei: of the fields of each kind, 0.25 by default."""
    group_by: str | None = None
    """Your own data: images of one group stay on one side of the split. A number n: the group is
    the first n parts of the stem between underscores. Else a regular expression: its first
    group."""
    holdout: str | None = None
    """What is held out: of camvid a sequence (0006R0 by default), of aerial a tile (tile8; by
    default the one of the highest number)."""
    kind: Literal["all", "fluorescence", "stained", "bright-field"] = "all"
    """Source nuclei: only images of this kind of microscopy."""
    classes: Literal["kinds", "plain"] = "kinds"
    """Source nuclei: kinds: background and nucleus of each kind of microscopy, six classes; plain:
    background and nucleus."""
    instances: Literal["whole", "clipped"] = "whole"
    """Source cityscapes: whole keeps the 16-bit ids of the instances; clipped replaces ids above
    255 by 255, as the official code of the paper does. For checkpoints of its authors only."""
    near_duplicates: int | None = None
    """Exclude training images whose perceptual hash (64 bits) differs from that of a held-out image
    in at most so many bits; -1: exclude none. By default 6 for sidewalk, else -1."""
    licence: str | None = None
    """Licence of the images, for sources that do not state one."""
    train_count: int = 1500
    """Source streets: training images."""
    val_count: int = 200
    """Source streets: held-out images."""
    dry_run: bool = False
    """Only read the data and show what was understood: layout, splits, sizes, a table of classes, a
    sheet of overlays, a labels.yaml to correct. Nothing is prepared."""
    seed: int = 0
    """Decides the split, and the scenes of streets."""
    workers: int | None = None
    """Processes; all cores by default. The result does not depend on it."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.path is not None and self.data is not None:
            raise UserError(f"{self.path} and --data {self.data}: give one of them")
        if self.source is None:
            object.__setattr__(self, "source", "sidewalk" if self.path is None else "auto")
        object.__setattr__(self, "data", self.path or self.data)
        object.__setattr__(self, "path", None)
        for name, value, low, high in (
            ("height", self.size[0], 8, 8192),
            ("width", self.size[1], 8, 8192),
            ("val-share", self.held_share, 0, 0.5),
            ("near-duplicates", self.near_duplicates or 0, -1, 64),
            ("train-count", self.train_count, 1, 1_000_000),
            ("val-count", self.val_count, 0, 1_000_000),
            ("tile", self.tile or 1024, 64, 8192),
            ("overlap", self.overlap, 0, (self.tile or 8192) - 1),
            ("large", 1 if self.large == "auto" else self.large, 1, 4),
            ("max-pixels", self.max_pixels or 1, 1, 1 << 40),
            ("workers", 1 if self.workers is None else self.workers, 1, 1024),
        ):
            if not low <= value <= high:
                raise UserError(f"--{name} is {value}: must be from {low} to {high}")
        if self.overlap and self.tile is None:
            raise UserError(f"--overlap {self.overlap}: is for tiles; give --tile SIZE, too")
        if self.window is not None and not -math.inf < self.window[0] < self.window[1] < math.inf:
            raise UserError(
                f"--window {self.window[0]} {self.window[1]}: the first must be below the second"
            )
        for field in fields(self):
            known = _ONLY_FOR.get(field.name)
            if known and self.source not in known and getattr(self, field.name) != field.default:
                flag = field.name.replace("_", "-")
                own = ["your own data (a PATH)"] if "auto" in known else []
                named = " or ".join(name for name in known if name not in _OWN)
                others = [f"--source {named}"] if named else []
                raise UserError(f"--{flag} is for {' or '.join(own + others)}, not {self.source}")
        if self.masks_as == "instances" and self.source not in ("auto", "folder", "voc"):
            raise UserError(
                f"--masks-as instances is for folders of images and masks, not {self.source}"
            )
        if self.resize == "paper" and self.source not in _PAPER:
            raise UserError(
                f"--resize paper is for --source {', '.join(_PAPER)}, not for {self.source}; give "
                "stretch, crop or pad"
            )

    @property
    def pixel_limit(self) -> int | None:
        """How many pixels an image may have; None: what Pillow takes for safe."""
        return self.max_pixels or (_TILED_PIXELS if self.tile else None)

    @property
    def source_name(self) -> SourceName:
        """The source, by default or as given."""
        assert self.source is not None, "set when this was made"
        return self.source

    @property
    def held_share(self) -> float:
        """The share that is held out: as given, or by default."""
        default = _VAL_SHARE.get(self.source_name, 0.1)
        return default if self.val_share is None else self.val_share

    @property
    def takes_large(self) -> bool:
        """Whether the source may have larger copies of its training images (``large``)."""
        return self.source in _ONLY_FOR["large"]

    @property
    def is_cut(self) -> bool:
        """Whether the images of a published data set are cut into tiles of the size."""
        return self.source in _CUT

    @property
    def has_own_layout(self) -> bool:
        """Whether the data are the user's own: files in one of ``LAYOUTS``, or in any ("auto")."""
        return self.source_name == "auto" or self.source_name in LAYOUTS

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the prepared images."""
        height, width, _ = DEFAULTS.get(self.source_name, _OTHERS)
        return (
            height if self.height is None else self.height,
            width if self.width is None else self.width,
        )

    @property
    def resize_rule(self) -> ResizeRule:
        """How images are brought to the size."""
        return self.resize or DEFAULTS.get(self.source_name, _OTHERS)[2]

    def resize_mode(self, split: str) -> ResizeMode:
        """Return how the images of a split are brought to the size."""
        if self.resize_rule != "paper":
            return self.resize_rule
        return "crop" if split == "train" and self.source != "cityscapes" else "stretch"

    @property
    def output_folder(self) -> Path:
        """Where the prepared data go."""
        return self.output or Path("data") / f"{self.source}_processed"

    @property
    def file_format(self) -> Literal["jpg", "png"]:
        """The format of the prepared images."""
        if self.image_format != "auto":
            return self.image_format
        return "jpg" if max(self.size) >= 512 and self.resize_rule != "paper" else "png"

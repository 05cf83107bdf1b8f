"""Where raw images come from: one small file for each data set, and the table of them.

A source is a module with a function ``open_source(config)`` that checks what is cheap to check
(the folder, the pairs, the headers) and returns a ``raw.source.Source``. To add one, write the
module, add a line to ``SOURCES`` and a name to ``config.PublishedName`` or ``SourceName``.

The module of a layout (one of ``LAYOUTS``) has two functions instead. ``recognise(tree)`` returns
what it knows the layout by ("JPEGImages/ and SegmentationClass/"), or None; it looks at names, and
at the heads of few files. ``open_layout(tree, config)`` returns the source; it tells the tree which
files it uses, and which it leaves out and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from semsynth.core.errors import UserError
from semsynth.data.config import DEFAULTS, LAYOUTS, PrepareConfig
from semsynth.data.image_files.images import allow_pixels
from semsynth.data.labels import LabelSet
from semsynth.data.raw.source import Source
from semsynth.data.raw.tiles import TiledSource
from semsynth.data.raw.tree import FileTree

# Modules by the names of --source; only the one that is used is imported.
SOURCES = {
    "aerial": "semsynth.data.sources.aerial",
    "ade20k": "semsynth.data.sources.ade20k",
    "camvid": "semsynth.data.sources.camvid",
    "celebamask": "semsynth.data.sources.celebamask",
    "cityscapes": "semsynth.data.sources.cityscapes",
    "coco": "semsynth.data.sources.coco",
    "cocostuff": "semsynth.data.sources.cocostuff",
    "cvat_xml": "semsynth.data.sources.cvat_xml",
    "labelme": "semsynth.data.sources.labelme",
    "labelstudio": "semsynth.data.sources.labelstudio",
    "yolo": "semsynth.data.sources.yolo",
    "segments": "semsynth.data.sources.segments",
    "supervisely": "semsynth.data.sources.supervisely",
    "datumaro": "semsynth.data.sources.datumaro",
    "via": "semsynth.data.sources.via",
    "qupath": "semsynth.data.sources.qupath",
    "darwin": "semsynth.data.sources.darwin",
    "folder": "semsynth.data.sources.folder",
    "mapillary": "semsynth.data.sources.mapillary",
    "nuclei": "semsynth.data.sources.nuclei",
    "sidewalk": "semsynth.data.sources.sidewalk",
    "streets": "semsynth.data.sources.streets",
    "voc": "semsynth.data.sources.voc",
}

# Layouts of images and masks, which no single file describes.
_OF_FOLDERS = ("folder", "voc", "mapillary")
# The data sets of the paper, with instance edges or without: the official scripts give ADE20K none;
# to CelebAMask-HQ's faces they give those of the label map. For COCO-Stuff nothing is published.
_EDGES = {"ade20k": False, "celebamask": True, "cityscapes": True, "cocostuff": False}
PRESETS = tuple(_EDGES)


@dataclass(frozen=True)
class Preset:
    """What the official code feeds its network of one data set: for a checkpoint without data.

    Ids, channels and sizes are those of WeilunWang/semantic-diffusion-model, whose one-hot maps
    have 151, 35, 19 and 183 channels.

    Attributes:
        labels: ids of the published masks, names, colours, condition channels.
        height: in pixels.
        width: in pixels.
        instances: whether the edges of the instances are one more channel.
        licence: the terms of the images.
    """

    labels: LabelSet
    height: int
    width: int
    instances: bool
    licence: str


def preset(name: str) -> Preset:
    """Return the preset of one of ``PRESETS``; UserError for another name."""
    if name not in PRESETS:
        raise UserError(f"'{name}': no preset of this name; there are {', '.join(PRESETS)}")
    module = import_module(SOURCES[name])
    height, width, _ = DEFAULTS[name]
    return Preset(module.LABELS, height, width, _EDGES[name], module.LICENCE)


def open_source(config: PrepareConfig) -> Source:
    """Open the source that ``config`` names; UserError if its raw data are not as expected."""
    allow_pixels(config.pixel_limit)
    name = config.source_name
    if not config.has_own_layout:
        return import_module(SOURCES[name]).open_source(config)  # type: ignore[no-any-return]
    given = [path for path in (config.data, config.images, config.masks) if path is not None]
    # With a PATH, --images and --masks may be in it.
    given = [p for p in given if p is config.data or p.is_absolute() or p.exists()] or given
    if not given:
        raise UserError(f"--source {name} needs a PATH: the folder, zip or file of your data")
    tree = FileTree.open(*given)
    # With --masks somebody says which folder is which, whatever it is called.
    other = "folder" if config.masks is not None and tree.start is None else None
    layout = recognise(tree, str(given[0]), other) if name == "auto" else name
    source = import_module(SOURCES[layout]).open_layout(tree, config)
    return (
        source if config.tile is None else TiledSource(source, (config.tile,) * 2, config.overlap)
    )


def recognise(tree: FileTree, where: str, other: str | None = None) -> str:
    """Return the name of the layout that the files show.

    Args:
        tree: all files.
        where: the folder or file, for messages.
        other: the layout to take if none is recognised.

    Raises:
        UserError: none of ``LAYOUTS``, or more than one: names what was seen of each.
    """
    # A file that is given instead of a folder is one of annotations.
    names = [name for name in LAYOUTS if tree.start is None or name not in _OF_FOLDERS]
    seen = {name: _recognised(name, tree, other) for name in names}
    found = {name: because for name, because in seen.items() if because}
    if not found and other is not None:
        return other
    if not found:
        raise UserError(
            f"{where}: no layout of {', '.join(names)} is recognised in its {len(tree.files)} "
            "files; if they are images and masks, say which with --images FOLDER --masks FOLDER"
        )
    if len(found) > 1:
        readings = " or as ".join(f"{name} ({because})" for name, because in found.items())
        flags = " or ".join(f"--source {name}" for name in found)
        raise UserError(f"{where}: can be read as {readings}; say {flags}")
    return next(iter(found))


def _recognised(name: str, tree: FileTree, other: str | None) -> str | None:
    try:
        return import_module(SOURCES[name]).recognise(tree)  # type: ignore[no-any-return]
    except UserError:
        if name != other:
            raise
        return "--masks"  # what is wrong may be in folders that are not meant

"""Where raw images come from: one small file for each data set, and the table of them.

A source is a module with a function ``open_source(config)`` that checks what is cheap to check
(the folder, the pairs, the headers) and returns a ``base.Source``. To add one, write the module,
add a line to ``SOURCES`` and a name to ``config.SourceName``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from semsynth.core.errors import UserError
from semsynth.data.config import DEFAULTS, PrepareConfig
from semsynth.data.labels import LabelSet
from semsynth.data.sources.base import Source

# Modules by the names of --source; only the one that is used is imported.
SOURCES = {
    "ade20k": "semsynth.data.sources.ade20k",
    "camvid": "semsynth.data.sources.camvid",
    "celebamask": "semsynth.data.sources.celebamask",
    "cityscapes": "semsynth.data.sources.cityscapes",
    "cocostuff": "semsynth.data.sources.cocostuff",
    "folder": "semsynth.data.sources.folder",
    "sidewalk": "semsynth.data.sources.sidewalk",
    "streets": "semsynth.data.sources.streets",
}

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
    source: Source = import_module(SOURCES[config.source]).open_source(config)
    return source

"""The label sets of the paper's data sets, for those who have a checkpoint and no data.

Ids, channels and sizes are those of the official code (WeilunWang/semantic-diffusion-model): its
one-hot maps have 151, 35, 19 and 183 channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from semsynth.core.errors import UserError
from semsynth.data.config import DEFAULTS
from semsynth.data.labels import LabelSet
from semsynth.data.sources import SOURCES

# With instance edges, or without: the official scripts give ADE20K none; to CelebAMask-HQ's faces
# they give those of the label map. For COCO-Stuff nothing is published.
_EDGES = {"ade20k": False, "celebamask": True, "cityscapes": True, "cocostuff": False}
PRESETS = tuple(_EDGES)


@dataclass(frozen=True)
class Preset:
    """What the official code feeds its network of one data set.

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
    """Return a preset; UserError when there is none of that name."""
    if name not in PRESETS:
        raise UserError(f"'{name}': no preset of this name; there are {', '.join(PRESETS)}")
    module = import_module(SOURCES[name])
    height, width, _ = DEFAULTS[name]
    return Preset(module.LABELS, height, width, _EDGES[name], module.LICENCE)


def preset_labels(name: str) -> LabelSet:
    """Return the labels of a preset; UserError when there is none of that name."""
    return preset(name).labels


def preset_licence(name: str) -> str:
    """Return the terms of a preset's images; UserError when there is none of that name."""
    return preset(name).licence

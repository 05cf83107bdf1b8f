"""Mapillary Vistas as published: training/images, training/v2.0/labels and config_v2.0.json.

Neuhold et al., "The Mapillary Vistas dataset for semantic understanding of street scenes", 2017.
Each version has ids in the indices of a palette, maps of objects (id * 256 + number) and polygons.
"""

from __future__ import annotations

import re

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.label_files.files import read_label_file
from semsynth.data.pairing.arrange import arrange, source_of
from semsynth.data.pairing.found_labels import FoundLabels
from semsynth.data.pairing.sides import Sides, sides_of
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.splits import SplitLists
from semsynth.data.raw.tree import FileTree

_MASK = re.compile(r"(training|validation)/(v\d\.\d)/labels/")


def recognise(tree: FileTree) -> str | None:
    """Return what the layout is known by: training/images, training/v2.0/labels, config_v2.0."""
    versions = _versions(tree)
    if not versions or not any(name.startswith("training/images/") for name in tree.names()):
        return None
    return f"training/images, training/{versions[-1]}/labels and config_{versions[-1]}.json"


def _versions(tree: FileTree) -> list[str]:
    found = {match[2] for name in tree.names() if (match := _MASK.match(name))}
    return sorted(version for version in found if f"config_{version}.json" in tree.files)


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Pair images and labels of one version: the newest, or the one that ``--masks`` names.

    Raises:
        UserError: another layout, files without a partner, or no such version.
    """
    because, versions, sides = recognise(tree), _versions(tree), sides_of(tree)
    if because is None or sides is None:
        raise UserError(f"{tree.root}: has no training/images, training/v2.0/labels, config_v2.0")
    version = str(config.masks or versions[-1])
    if version not in versions:
        raise UserError(f"--masks {version}: no such version; there are {', '.join(versions)}")
    inside = f"/{version}/"
    arranged = arrange(
        tree,
        Sides(
            sides.images,
            [file for file in sides.masks if inside in file.name],
            [file for file in sides.instances if inside in file.name],
            because,
        ),
        config,
        SplitLists(),
    )
    for other in versions:
        if other != version:
            names = [name for name in tree.names() if f"/{other}/" in name]
            tree.leave_out(f"of version {other} (--masks {other})", *names)
            arranged.notes += (f"masks: {version}; --masks {other} takes the others",)
    tree.leave_out("polygons of masks that are read", *_polygons(tree, inside))
    path = config.labels or tree.path(f"config_{version}.json")
    tree.use(path)
    file = read_label_file(path)
    found = FoundLabels(file, f"{path.name} ({file.form})", file.notes)
    return source_of(tree, config, arranged, ("Mapillary Vistas", because), found)


def _polygons(tree: FileTree, inside: str) -> list[str]:
    return [name for name in tree.names() if f"{inside}polygons/" in name]

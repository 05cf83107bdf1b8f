"""Published data sets in their published folders: labels, if the files prove which set it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module

import numpy as np

from semsynth.data.image_files.images import read_size
from semsynth.data.image_files.masks import stored_numbers
from semsynth.data.image_files.raw_masks import open_mask
from semsynth.data.labels import LabelSet
from semsynth.data.pairing.arrange import Arranged
from semsynth.data.pairing.found_labels import FoundLabels

# How many maps of objects are looked at.
_SAMPLE = 5
_ADE_STEM = re.compile(r"ADE_(train|val|test)_\d{8}")
_CAMVID_STEM = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+")
_CITYSCAPES_STEM = re.compile(r"[a-z-]+_\d{6}_\d{6}")
_CITYSCAPES_SIZE = (1024, 2048)
_CITYSCAPES_THINGS = range(24, 34)


def with_known_labels(arranged: Arranged, found: FoundLabels) -> FoundLabels:
    """Return the labels of the published data set that these pairs are, or ``found``.

    Only masks without a label file are looked at: their names, all their ids, and what else the
    data set has in each of its files.
    """
    if found.values is None or found.values.colors:
        return found
    ids = set(found.values.ids)
    for name, (proof, because) in _PROOFS.items():
        module = import_module(f"semsynth.data.sources.{name}")
        labels: LabelSet = module.LABELS
        if ids <= labels.by_id.keys() and proof(arranged):
            title = {"ade20k": "ADE20K", "camvid": "CamVid", "cityscapes": "Cityscapes"}[name]
            note = (
                f"labels: those of {title} ({because}); --source {name} prepares it as published, "
                "--labels gives other names"
            )
            file = replace(found.file, labels=labels, stored=labels, remap=None)
            return FoundLabels(file, title, (note,), found.values, module.LICENCE)
    if arranged.chosen.found.suffix == "_gtFine_labelIds":
        note = "labels: files are named as in Cityscapes; if they are, --source cityscapes"
        return replace(found, notes=(*found.notes, note))
    return found


def _is_ade20k(arranged: Arranged) -> bool:
    return _all_match(_ADE_STEM, (record.stem for record in arranged.records))


def _is_camvid(arranged: Arranged) -> bool:
    return _all_match(_CAMVID_STEM, (record.stem for record in arranged.records))


def _is_cityscapes(arranged: Arranged) -> bool:
    found = arranged.chosen.found
    if (found.image_suffix, found.suffix) != ("_leftImg8bit", "_gtFine_labelIds"):
        return False
    if not _all_match(_CITYSCAPES_STEM, (key for key, _, _ in found.pairs)):
        return False
    pairs = [record.payload for record in arranged.records[:_SAMPLE]]
    if all(read_size(pair.image) == _CITYSCAPES_SIZE for pair in pairs):
        return True
    numbered = False
    for pair in pairs:
        if pair.instances is None:
            return False
        ids, objects = (
            stored_numbers(open_mask(path, str(path))).astype(np.int64)
            for path in (pair.mask, pair.instances)
        )
        # A map of objects has the id itself, or 1000 times a thing's id and a number.
        single = objects >= 1000
        if (
            ids.shape != objects.shape
            or not (np.where(single, objects // 1000, objects) == ids).all()
        ):
            return False
        numbered |= bool(single.any())
        if not np.isin(ids[single], _CITYSCAPES_THINGS).all():
            return False
    return numbered


def _all_match(pattern: re.Pattern[str], stems: Iterable[str]) -> bool:
    return all(pattern.fullmatch(stem) for stem in stems)


_PROOFS: dict[str, tuple[Callable[[Arranged], bool], str]] = {
    "cityscapes": (_is_cityscapes, "names, ids, and maps of objects or sizes are its"),
    "ade20k": (_is_ade20k, "names and ids are its"),
    "camvid": (_is_camvid, "names and ids are its; its val is a part of a clip in train"),
}

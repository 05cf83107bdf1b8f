"""Cityscapes as published: leftImg8bit and gtFine, all label ids, 16-bit instance maps.

Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", 2016. As in the
official code of the paper every id has a channel, the unlabelled 0 too. Its network has 35: one
for license plates, whose published id is -1, so that no mask has it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import LabelSet
from semsynth.data.raw.files import Pair, PairSource
from semsynth.data.raw.published import list_images, pair_up, require_folder
from semsynth.data.raw.source import Record, Sample

# id: (name, published colour; None if another label has the same).
CLASSES: dict[int, tuple[str, tuple[int, int, int] | None]] = {
    0: ("unlabeled", (0, 0, 0)),
    1: ("ego vehicle", None),
    2: ("rectification border", None),
    3: ("out of roi", None),
    4: ("static", None),
    5: ("dynamic", (111, 74, 0)),
    6: ("ground", (81, 0, 81)),
    7: ("road", (128, 64, 128)),
    8: ("sidewalk", (244, 35, 232)),
    9: ("parking", (250, 170, 160)),
    10: ("rail track", (230, 150, 140)),
    11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)),
    13: ("fence", (190, 153, 153)),
    14: ("guard rail", (180, 165, 180)),
    15: ("bridge", (150, 100, 100)),
    16: ("tunnel", (150, 120, 90)),
    17: ("pole", (153, 153, 153)),
    18: ("polegroup", None),
    19: ("traffic light", (250, 170, 30)),
    20: ("traffic sign", (220, 220, 0)),
    21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)),
    23: ("sky", (70, 130, 180)),
    24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)),
    26: ("car", (0, 0, 142)),
    27: ("truck", (0, 0, 70)),
    28: ("bus", (0, 60, 100)),
    29: ("caravan", (0, 0, 90)),
    30: ("trailer", (0, 0, 110)),
    31: ("train", (0, 80, 100)),
    32: ("motorcycle", (0, 0, 230)),
    33: ("bicycle", (119, 11, 32)),
    34: ("license plate", None),
}
LABELS = replace(
    LabelSet.from_names(
        {i: name for i, (name, _) in CLASSES.items()},
        colors={i: color for i, (_, color) in CLASSES.items() if color is not None},
        things=[CLASSES[i][0] for i in range(24, 34)],
    ),
    ignore_id=0,
)
LICENCE = "Cityscapes terms: non-commercial research"
LAYOUT = "leftImg8bit/{train,val}/CITY and gtFine/{train,val}/CITY"


class ClippedSource(PairSource):
    """Cityscapes with instance ids as 8-bit reading clips them: all above 255 are one."""

    def read(self, record: Record) -> Sample:
        """Read the files of one image."""
        sample = super().read(record)
        assert sample.instances is not None, "every image of Cityscapes has a map"
        return replace(sample, instances=np.minimum(sample.instances, 255))


def open_source(config: PrepareConfig) -> PairSource:
    """Pair images, label ids and instance ids of the published train and val splits.

    Raises:
        UserError: another layout, or files without a partner.
    """
    root = require_folder(config.data, "--data", LAYOUT)
    records = [record for split in ("train", "val") for record in _split(root, split)]
    kind = ClippedSource if config.instances == "clipped" else PairSource
    return kind(
        name="cityscapes",
        origin="Cityscapes, fine annotations (Cordts et al. 2016)",
        licence=LICENCE,
        labels=LABELS,
        pairs=records,
    )


def _split(root: Path, split: str) -> list[Record]:
    images = require_folder(root / "leftImg8bit" / split, "--data", LAYOUT)
    truth = require_folder(root / "gtFine" / split, "--data", LAYOUT)
    cities = sorted(path.name for path in images.iterdir() if path.is_dir())
    if not cities:
        raise UserError(f"{images}: has no folders of cities")
    records = []
    for city in cities:
        masks = list_images(truth / city, "_gtFine_labelIds")
        instances = list_images(truth / city, "_gtFine_instanceIds")
        for stem, pair in pair_up(list_images(images / city, "_leftImg8bit"), masks):
            if stem not in instances:
                raise UserError(f"{pair.mask}: has no {stem}_gtFine_instanceIds.png beside it")
            full = Pair(pair.image, pair.mask, instances[stem])
            records.append(Record(stem, split, str(pair.mask), full))
    return records

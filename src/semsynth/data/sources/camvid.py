"""CamVid with 11 classes, in the folders of the SegNet tutorial; split by sequence.

Brostow et al., "Semantic object classes in video", 2009. The published train and val folders cut
one clip into pieces, so neighbouring frames are on both sides; here both are joined and a whole
sequence is held out.
"""

from __future__ import annotations

from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import LabelSet
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.published import list_images, pair_up, require_folder
from semsynth.data.raw.source import Record

LABELS = LabelSet.from_names(
    {
        0: "Sky",
        1: "Building",
        2: "Pole",
        3: "Road",
        4: "Pavement",
        5: "Tree",
        6: "SignSymbol",
        7: "Fence",
        8: "Car",
        9: "Pedestrian",
        10: "Bicyclist",
        11: "Unlabelled",
    },
    ignore_id=11,
    colors={
        0: (128, 128, 128),
        1: (128, 0, 0),
        2: (192, 192, 128),
        3: (128, 64, 128),
        4: (60, 40, 222),
        5: (128, 128, 0),
        6: (192, 128, 128),
        7: (64, 64, 128),
        8: (64, 0, 128),
        9: (64, 64, 0),
        10: (0, 128, 192),
        11: (0, 0, 0),
    },
    things=("Car", "Pedestrian", "Bicyclist"),
)
LICENCE = "no licence stated; research use"
HOLDOUT = "0006R0"
LAYOUT = "train, trainannot, val and valannot; or one of these parts"
_PARTS = ("train", "val")


def open_source(config: PrepareConfig) -> PairSource:
    """Pair the files of both folders; the stem's first part is the sequence.

    Raises:
        UserError: another layout, files without a partner, or no such sequence.
    """
    root = require_folder(config.data, "--data", LAYOUT)
    pairs = []
    for images, masks in _parts(root):
        pairs += pair_up(list_images(images), list_images(masks))
    sequences = sorted({stem.split("_")[0] for stem, _ in pairs})
    holdout = config.holdout or HOLDOUT
    if holdout not in sequences:
        known = ", ".join(sequences)
        raise UserError(f"--holdout {holdout}: no such sequence in {root}; it has {known}")
    records = [
        Record(stem, "val" if stem.startswith(f"{holdout}_") else "train", str(p.mask), p)
        for stem, p in sorted(pairs)
    ]
    return PairSource(
        name="camvid",
        origin="CamVid, 11 classes (SegNet tutorial); cite Brostow et al. 2008, 2009",
        licence=LICENCE,
        labels=LABELS,
        pairs=records,
    )


def _parts(root: Path) -> list[tuple[Path, Path]]:
    """Return the folders of images and of masks of the parts in a folder, or of the folder itself.

    As published (`train` and `trainannot`), or in one folder for each part (`train/images` and
    `train/labels`). The published `test` is left out: results are compared on it.
    """
    found = []
    for folder in (root, *(root / part for part in _PARTS)):
        whole = folder.absolute()
        published = folder, whole.parent / f"{whole.name}annot"
        forms = (published, (folder / "images", folder / "labels"))
        found += [form for form in forms if all(side.is_dir() for side in form)][:1]
    if not found:
        raise UserError(f"{root}: must be the folder with {LAYOUT}")
    return found

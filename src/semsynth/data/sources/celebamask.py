"""CelebAMask-HQ as published: faces, and a mask for each part of each face.

Lee et al., "MaskGAN: towards diverse and interactive facial image manipulation", 2020. The parts
are merged in the published order, later ones on top. Whole masks are read too: in
CelebAMask-HQ-mask, where the published script writes them, or in train/{images,labels} and
test/{images,labels}, the layout of the official code of the paper.

As in the official code of the paper there are 19 classes, with the background, and the instances
whose edges the network gets are the parts themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semsynth.core.errors import UserError
from semsynth.core.files import read_text
from semsynth.core.logging import progress
from semsynth.data.config import PrepareConfig
from semsynth.data.image_files.images import read_rgb
from semsynth.data.image_files.masks import read_ids
from semsynth.data.label_files.files import LabelFile
from semsynth.data.labels import Array, Color, LabelSet
from semsynth.data.raw.published import list_images, pair_up, require_folder
from semsynth.data.raw.source import Layout, Reading, Record, Sample
from semsynth.data.raw.tree import FileTree

# In the order of the ids: the part's name in file names, our name, the published colour.
PARTS: tuple[tuple[str, str, Color], ...] = (
    ("", "background", (0, 0, 0)),
    ("skin", "skin", (204, 0, 0)),
    ("nose", "nose", (76, 153, 0)),
    ("eye_g", "eyeglasses", (204, 204, 0)),
    ("l_eye", "left eye", (51, 51, 255)),
    ("r_eye", "right eye", (204, 0, 204)),
    ("l_brow", "left brow", (0, 255, 255)),
    ("r_brow", "right brow", (255, 204, 204)),
    ("l_ear", "left ear", (102, 51, 0)),
    ("r_ear", "right ear", (255, 0, 0)),
    ("mouth", "mouth", (102, 204, 0)),
    ("u_lip", "upper lip", (255, 255, 0)),
    ("l_lip", "lower lip", (0, 0, 153)),
    ("hair", "hair", (0, 0, 204)),
    ("hat", "hat", (255, 51, 153)),
    ("ear_r", "earring", (0, 204, 204)),
    ("neck_l", "necklace", (0, 51, 0)),
    ("neck", "neck", (255, 153, 51)),
    ("cloth", "cloth", (0, 204, 0)),
)
LABELS = LabelSet.from_names(
    {i: name for i, (_, name, _) in enumerate(PARTS)},
    colors={i: color for i, (_, _, color) in enumerate(PARTS)},
)
LICENCE = "CelebAMask-HQ terms: non-commercial research and education, no redistribution"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
LAYOUT = f"CelebA-HQ-img, CelebAMask-HQ-mask-anno and {MAPPING}"
# The published split: by the number of the image in CelebA.
FIRST_VAL, FIRST_TEST = 162_771, 182_638


@dataclass(frozen=True)
class Face:
    """The files of one face: a whole mask, or its parts by id, lower ones first."""

    image: Path
    mask: Path | None = None
    parts: tuple[tuple[int, Path], ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is made from."""
        masks = () if self.mask is None else (self.mask,)
        return (self.image, *masks, *(path for _, path in self.parts))


@dataclass
class FaceSource:
    """The faces; an image has twice the side of its mask."""

    faces: list[Record]
    name: str = "celebamask"
    origin: str = "CelebAMask-HQ (Lee et al. 2020)"
    licence: str = LICENCE
    near_duplicates: int = -1
    reading: Reading | None = None
    layout: Layout | None = None
    tree: FileTree | None = None
    sizes: Mapping[tuple[int, int], int] | None = None
    label_file: LabelFile | None = None

    def __post_init__(self) -> None:
        """Set what follows from the faces."""
        self.labels = LABELS
        self.faces = [replace(record, files=record.payload.files) for record in self.faces]
        self.total: int | None = len(self.faces)

    def records(self) -> Iterator[Record]:
        """Return the faces one by one."""
        return iter(self.faces)

    def read(self, record: Record) -> Sample:
        """Read a face and merge its parts, at the size of its image."""
        face: Face = record.payload
        image = read_rgb(face.image, str(face.image))
        mask = _merge(face.parts) if face.mask is None else read_ids(face.mask, str(face.mask))
        LABELS.check_ids(mask, record.where)
        # Whole numbers of repetitions: nearest resizing then picks the same ids.
        steps = [a // b for a, b in zip(image.shape, mask.shape, strict=False)]
        mask = mask.repeat(max(1, steps[0]), 0).repeat(max(1, steps[1]), 1)
        if mask.shape != image.shape[:2]:
            raise UserError(
                f"{record.where}: the mask does not fit its image {face.image} "
                f"({image.shape[1]}x{image.shape[0]}), which must be 1, 2, 3, … times as large"
            )
        return Sample(image, mask, mask)


def open_source(config: PrepareConfig) -> FaceSource:
    """Find the faces, their masks or parts, and the published split.

    Raises:
        UserError: another layout, or faces without a mask or a split.
    """
    root = require_folder(config.data, "--data", LAYOUT)
    if (root / "CelebAMask-HQ").is_dir():
        root = root / "CelebAMask-HQ"
    if (root / "train").is_dir() or (root / "test").is_dir():
        return FaceSource(_in_split_folders(root))
    images = list_images(require_folder(root / "CelebA-HQ-img", "--data", LAYOUT))
    splits = _read_splits(root / MAPPING)
    whole = root / "CelebAMask-HQ-mask"
    if whole.is_dir():
        masks = list_images(whole)
        faces = {stem: Face(pair.image, masks[stem]) for stem, pair in pair_up(images, masks)}
    else:
        faces = _by_parts(images, root / "CelebAMask-HQ-mask-anno")
    records = []
    for stem, face in faces.items():
        number = _number(images[stem], stem)
        if number not in splits:
            raise UserError(f"{images[stem]}: is not in {root / MAPPING}")
        where = str(face.mask or face.image)
        records.append(Record(f"{number:05d}", splits[number], where, face))
    return FaceSource(sorted(records, key=lambda record: record.stem))


def _in_split_folders(root: Path) -> list[Record]:
    records = []
    for split, part in (("train", "train"), ("val", "test")):
        images = list_images(root / part / "images")
        masks = list_images(root / part / "labels")
        records += [
            Record(stem, split, str(pair.mask), Face(pair.image, masks[stem]))
            for stem, pair in pair_up(images, masks)
        ]
    return records


def _by_parts(images: dict[str, Path], folder: Path) -> dict[str, Face]:
    require_folder(folder, "--data", LAYOUT)
    ids = {part: number for number, (part, _, _) in enumerate(PARTS) if part}
    parts: dict[int, list[tuple[int, Path]]] = {}
    for path in progress(sorted(folder.rglob("*.png")), "list", unit="part"):
        number, _, part = path.stem.partition("_")
        if part not in ids:
            raise UserError(f"{path}: '{part}' is not a part; there are {', '.join(ids)}")
        parts.setdefault(_number(path, number), []).append((ids[part], path))
    faces = {}
    for stem, image in images.items():
        own = parts.get(_number(image, stem))
        if own is None:
            raise UserError(f"{image}: image without parts in {folder}")
        faces[stem] = Face(image, None, tuple(sorted(own)))
    return faces


def _merge(parts: Sequence[tuple[int, Path]]) -> Array:
    """Merge parts, later ones on top: (H, W) uint8 ids, 0 for no part."""
    mask: Array | None = None
    for number, path in parts:
        covered = read_rgb(path, str(path)).any(-1)
        if mask is None:
            mask = np.zeros(covered.shape, np.uint8)
        if covered.shape != mask.shape:
            raise UserError(f"{path}: has another size than {parts[0][1]}")
        mask[covered] = number
    assert mask is not None, "a face has at least one part"
    return mask


def _number(path: Path, stem: str) -> int:
    if not stem.isdecimal():
        raise UserError(f"{path}: its name must begin with the number of the face")
    return int(stem)


def _read_splits(path: Path) -> dict[int, str]:
    if not path.exists():
        raise UserError(f"{path}: is missing; it lists the split of the faces")
    lines = read_text(path).splitlines()
    splits = {}
    for count, line in enumerate(lines[1:], 2):
        try:
            number, original = (int(word) for word in line.split()[:2])
        except ValueError:
            raise UserError(
                f"{path}: line {count} must have two numbers, idx and orig_idx"
            ) from None
        held = "test" if original >= FIRST_TEST else "val"
        splits[number] = held if original >= FIRST_VAL else "train"
    return splits

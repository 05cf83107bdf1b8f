"""The labels of masks in folders: from a label file, else from what the masks hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from skimage import measure

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_json
from semsynth.core.logging import progress
from semsynth.data.config import PrepareConfig
from semsynth.data.image_files.masks import MasksAs, stored_numbers
from semsynth.data.image_files.raw_masks import open_mask
from semsynth.data.label_files.files import LabelFile, find_label_file, label_file, read_label_file
from semsynth.data.label_files.unnamed import values_of
from semsynth.data.labels import BLACK, Array, Color, LabelSet
from semsynth.data.raw.tree import FileTree

# Of masks without a label file; more are those of a photo, or of smoothed edges.
_MOST_COLORS = 64
_IGNORED = 255
# More ids of one piece each are numbers of objects rather than classes.
_MOST_CLASSES = 30
_TOGETHER = 256
_NNUNET = {"numTraining", "file_ending", "channel_names", "modality"}
_VOC = """
    background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse
    motorbike person pottedplant sheep sofa train tvmonitor
"""


@dataclass
class Values:
    """What the masks of a data set hold.

    Attributes:
        ids: pixels by id.
        colors: pixels by colour, of coloured masks.
        palette: the colours that palettes give to the ids that are used.
        differing: an id that two palettes give different colours, and their files.
        several: masks with two ids or more beside 0.
        connected: those of them where the pixels of an id are connected.
        counted: those of them whose ids are 1, 2, ... without a gap.
        highest: the highest ids of those.
    """

    ids: Counter[int] = field(default_factory=Counter)
    colors: Counter[Color] = field(default_factory=Counter)
    palette: dict[int, Color] = field(default_factory=dict)
    differing: str = ""
    several: int = 0
    connected: int = 0
    counted: int = 0
    highest: set[int] = field(default_factory=set)

    def add_numbers(self, ids: Sequence[int], connected: bool) -> None:
        """Count a mask with these ids beside 0, two or more."""
        self.several += 1
        self.connected += connected
        if ids[-1] == len(ids):
            self.counted += 1
            self.highest.add(ids[-1])


@dataclass(frozen=True)
class FoundLabels:
    """The labels of a layout.

    Attributes:
        file: what the values in its masks mean.
        origin: where their names come from, for readers.
        notes: what else a reader must know.
        values: what the masks hold, if all of them were read.
        licence: of the images, if that is known.
    """

    file: LabelFile
    origin: str
    notes: tuple[str, ...] = ()
    values: Values | None = None
    licence: str = ""


def find_labels(
    tree: FileTree, config: PrepareConfig, masks: Sequence[Path], folders: Sequence[Path] = ()
) -> FoundLabels:
    """Read the label file that is given, or lies in the root or ``folders``, else all masks.

    Raises:
        UserError: the file is wrong, or masks without one have values that cannot be labels.
    """
    given = [] if config.data is None or not config.data.is_dir() else [config.data]
    path = config.labels or find_label_file(tree.root, *given, *folders)
    if path is None and (known := _of_nnunet(tree)):
        return known
    if path is None and config.masks_as == "instances":
        return _of_objects(str(tree.root))
    if path is None:
        values = read_values(masks, config.masks_as)
        found = labels_of_values(values, str(tree.root))
        if config.masks_as == "auto":
            _refuse_objects(values, str(tree.root))
        return found
    file = read_label_file(path)
    tree.use(path, *(each for f in folders if (each := f / path.name).is_file()))
    found = FoundLabels(file, f"{path.name} ({file.form})", file.notes)
    return found if config.masks_as == "instances" else _white_as_one(found, masks)


def _of_objects(where: str) -> FoundLabels:
    """Return the labels of masks that number objects."""
    labels = {0: "background", 1: {"name": "object", "thing": True}}
    note = (
        "labels: masks number objects, so 0 is called background and all others are of the class "
        "object (--labels gives other names to 0 and 1)"
    )
    return FoundLabels(label_file({"labels": labels}, where), "numbers of objects", (note,))


def _of_nnunet(tree: FileTree) -> FoundLabels | None:
    """Return the labels in nnU-Net's dataset.json, which has other things, too."""
    path = tree.root / "dataset.json"
    value = read_json(path) if path.is_file() else None
    if not isinstance(value, dict) or not _NNUNET & value.keys() or "labels" not in value:
        return None
    stated = value["labels"]
    if isinstance(stated, dict) and isinstance(stated.get("ignore"), int):
        names = {i: name for name, i in stated.items()}
        stated = {"labels": names, "ignore": stated["ignore"]}
    file = label_file(stated, str(path))
    tree.use(path)
    return FoundLabels(file, "dataset.json (nnU-Net)", file.notes)


def prefers_colors(tree: FileTree, config: PrepareConfig) -> bool:
    """Return whether the label file has a colour for each label, and no ids of its own.

    Its ids are then the order of its lines, and those of a mask may be others.
    """
    path = config.labels or find_label_file(tree.root)
    if path is None:
        return False
    file = read_label_file(path)
    return file.colors_given and not file.stated.has_ids


def _white_as_one(found: FoundLabels, masks: Sequence[Path]) -> FoundLabels:
    """Return what 255 means in black and white masks, if the file has the ids 0 and 1 alone.

    It is 1: read otherwise, no mask of the whole data set has a pixel of it.
    """
    stored = found.file.stored
    if sorted(stored.by_id) != [0, 1] or found.file.remap is not None:
        return found
    first = open_mask(masks[0], str(masks[0]))
    if first.metadata.layout != "grey" or set(values_of(first)[0]) not in ({0, 255}, {255}):
        return found
    values = read_values(masks)
    if set(values.ids) != {0, 255} or values.colors:
        return found
    names = {0: stored.names[0], 255: stored.names[1]}
    colors = {0: stored.by_id[0].color, 255: stored.by_id[1].color}
    ignore = None if stored.ignore_id is None else (0, 255)[stored.ignore_id]
    white = LabelSet.from_names(names, ignore, colors)
    file = replace(found.file, stored=white, remap={0: 0, 255: 1})
    where = found.origin.partition(" (")[0]
    note = f"masks are black and white, so 255 is read as 1, '{names[255]}' ({where})"
    return replace(found, file=file, notes=(*found.notes, note))


def read_values(masks: Sequence[Path], masks_as: MasksAs | Literal["instances"] = "auto") -> Values:
    """Read all masks for the ids or colours that they use.

    Args:
        masks: their files.
        masks_as: what somebody says that they hold, where their palettes differ.

    Raises:
        UserError: one that is not a mask, or palettes that differ, so that ids and colours do.
    """
    found = Values()
    seen: dict[int, tuple[Color, str]] = {}
    by_palette: Counter[Color] = Counter()
    with ThreadPoolExecutor(4) as pool:
        # Some at a time: what waits is in memory.
        parts = (masks[start : start + _TOGETHER] for start in range(0, len(masks), _TOGETHER))
        read = (each for part in parts for each in pool.map(_values_of, part))
        results = progress(read, "values", len(masks), "mask")
        for path, (ids, colors, palette, connected) in zip(masks, results, strict=True):
            found.ids += ids
            if connected is not None:
                found.add_numbers(sorted(ids.keys() - {0}), connected)
            found.colors += colors
            by_palette += Counter({color: ids[index] for index, color in palette.items()})
            if len(found.colors) > _MOST_COLORS and not _one_number(found.colors):
                raise UserError(
                    f"{path}: is one of the masks with more than {_MOST_COLORS} colours, so they "
                    "are not labels; save masks without smoothing, or give the labels with --labels"
                )
            for index, color in palette.items():
                first, where = seen.setdefault(index, (color, str(path)))
                if first != color and not found.differing:
                    found.differing = f"{path}: index {index} is {color}, in {where} it is {first}"
    found.palette = {index: color for index, (color, _) in seen.items()}
    if found.differing and masks_as != "ids" and by_palette.total() == found.ids.total():
        if masks_as == "auto" and len(by_palette) > len(found.ids):
            raise UserError(
                f"{found.differing}; give --masks-as ids if the indices are the ids, --masks-as "
                "colors if the colours tell the classes"
            )
        # Palettes that were made mask by mask: only their colours mean the same everywhere.
        return Values(colors=found.colors + by_palette)
    if found.colors and (channel := _one_number(found.colors)):
        found.ids += Counter({color[channel - 1]: n for color, n in found.colors.items()})
        found.colors.clear()
    return found


def _one_number(colors: Mapping[Color, int]) -> int:
    """Return the channel, from 1, that holds the id of a pixel in three channels; 0: none does."""
    if all(red == green == blue for red, green, blue in colors):
        return 1
    filled = [channel for channel in range(3) if any(color[channel] for color in colors)]
    return filled[0] + 1 if len(filled) == 1 else 0


def _values_of(path: Path) -> tuple[Counter[int], Counter[Color], dict[int, Color], bool | None]:
    """Return ids, or colours, with their pixels; the palette; and whether ids are connected."""
    mask = open_mask(path, str(path))
    if mask.metadata.layout == "rgb" and not mask.metadata.has_alpha:
        mask.metadata.refuse_as_mask()
        pixels = mask.pixels().astype(np.int64)
        codes = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
        values, counts = np.unique(codes, return_counts=True)
        pairs = zip(values.tolist(), counts.tolist(), strict=True)
        found = {(c >> 16, c >> 8 & 255, c & 255): n for c, n in pairs}
        return Counter(), Counter(found), {}, None
    ids, own = values_of(mask)
    colors = mask.metadata.palette_colors() if mask.metadata.layout == "palette" else []
    count = len(ids.keys() - {0})
    connected = _are_connected(stored_numbers(mask), count) if count > 1 else None
    return ids, own, {i: colors[i] for i in ids if 0 <= i < len(colors)}, connected


def _are_connected(numbers: Array, count: int) -> bool:
    """Return whether the pixels of each of ``count`` numbers beside 0 (H, W) are connected.

    But for one in ten of them.
    """
    return int(measure.label(numbers, background=0, connectivity=2).max()) <= 1.1 * count


def _refuse_objects(values: Values, where: str) -> None:
    """Ask whether ids are numbers of objects: of one piece each, and many or counted from 1."""
    ids = len(values.ids.keys() - {0})
    if not values.several or values.connected < 0.9 * values.several:
        return
    counted = values.counted > 0.9 * values.several and len(values.highest) > 1 and ids > 5
    if counted or ids > _MOST_CLASSES:
        raise UserError(
            f"{where}: masks have {ids} ids, and the pixels of each are connected, as if they "
            "numbered objects; say --masks-as instances if they do (0 is background), or "
            "--masks-as ids if each is a class"
        )


def labels_of_values(values: Values, where: str) -> FoundLabels:
    """Name labels by the values of masks, as there is nothing else.

    Raises:
        UserError: values that cannot be labels, or ids beside colours.
    """
    if values.colors:
        return replace(_of_colors(values, where), values=values)
    ids = sorted(values.ids)
    if not ids or ids[0] < 0:
        raise UserError(f"{where}: masks have negative values; give the labels with --labels")
    if ids == [0, 255] and not values.palette:
        note = (
            "labels: no file names them; masks are black and white, so 0 is called background and "
            "255 foreground (--labels gives other names)"
        )
        names = {0: "background", 255: "foreground"}
        return FoundLabels(label_file({"labels": names}, where), "black and white", (note,), values)
    _refuse_smooth(values, where)
    ignore = _IGNORED if _is_ignored(ids) else None
    note = "labels: no file names them, so classes are called by their ids (--labels gives names)"
    if values.palette and not values.differing:
        note += "; colours are those of the masks' palette"
    stated: dict[str, Any] = {"labels": _entries(values, ids, ignore)}
    notes: tuple[str, ...] = (note,)
    if ignore is not None:
        stated["ignore"] = ignore
        notes += ("labels: 255 marks pixels without a label, as usual beside small ids: ignored",)
    return FoundLabels(label_file(stated, where), "their ids", notes, values)


def _entries(values: Values, ids: Sequence[int], ignore: int | None) -> dict[int, Any]:
    colors = {} if values.differing else values.palette
    unique = len({colors[i] for i in ids if i in colors}) == len([i for i in ids if i in colors])
    entries: dict[int, Any] = {}
    for i in ids:
        name = "ignored" if i == ignore else f"class_{i}"
        entries[i] = {"name": name, "color": list(colors[i])} if unique and i in colors else name
    return entries


def _of_colors(values: Values, where: str) -> FoundLabels:
    if values.ids:
        shown = abbreviate([str(i) for i in sorted(values.ids)], 5)
        raise UserError(
            f"{where}: some masks hold ids ({shown}) and others colours; give the labels and their "
            "colours with --labels"
        )
    order = sorted(values.colors, key=lambda color: (color != BLACK, color))
    names = {
        number: {"name": "color_{:02x}{:02x}{:02x}".format(*color), "color": list(color)}
        for number, color in enumerate(order)
    }
    note = (
        "labels: no file names them, so each colour of the masks is a class that is called by it "
        "(--labels gives names)"
    )
    return FoundLabels(label_file({"labels": names}, where), "their colours", (note,))


def _is_ignored(ids: Sequence[int]) -> bool:
    """Return whether 255 is a mark beside ids that are counted from the bottom."""
    others = [i for i in ids if i != _IGNORED]
    near = max(others, default=0) <= max(40, 2 * len(others)) and len(others) > 1
    # 0, 10, 20 and 255 may be grey levels; 0, 1, 2 and 255 are not.
    return _IGNORED in ids and near and others[1] - others[0] <= 8


def _refuse_smooth(values: Values, where: str) -> None:
    """Refuse grey levels between black and white that only edges have."""
    total = values.ids.total()
    ends = values.ids[0] + values.ids[255]
    levels = set(values.ids) - {0, 255}
    between = len(levels)
    # Ids are small; smoothed edges have light grey, too.
    light = sum(level > 223 for level in levels)
    few, many = between > 8 and ends > 0.9 * total, between > 64 and ends > 0.25 * total
    if values.ids[0] and values.ids[255] and ((few and light) or (many and light > 7)):
        raise UserError(
            f"{where}: masks are black and white with {between} grey levels between them, as after "
            "smoothing or resizing; save them with two values, or give the labels with --labels"
        )


def voc_labels(found: FoundLabels, where: str) -> FoundLabels:
    """Return what Pascal VOC means by ids: 0 is background, 255 is ignored.

    Its 21 names are taken only if the palette is VOC's and no id is above 20.
    """
    if found.values is None or found.values.colors:
        return found
    ids = sorted(set(found.values.ids) - {_IGNORED})
    palette = found.values.palette
    proven = bool(palette) and max(ids) <= 20 and all(palette.get(i) == voc_color(i) for i in ids)
    entries = _entries(found.values, ids, None)
    if proven and len(ids) > 1:
        entries = {i: {"name": name, "color": voc_color(i)} for i, name in enumerate(_VOC.split())}
        notes: tuple[str, ...] = ("labels: the 21 of Pascal VOC (its palette, and no id above 20)",)
    else:
        if isinstance(entries.get(0), Mapping):
            entries[0] = {**entries[0], "name": "background"}
        elif 0 in entries:
            entries[0] = "background"
        notes = tuple(note for note in found.notes if "255" not in note)
        notes += ("labels: 0 is background, as in Pascal VOC",)
    notes += ("labels: 255 is ignored, as in Pascal VOC",)
    file = label_file({"labels": entries, "ignore": _IGNORED}, where)
    return FoundLabels(file, "Pascal VOC" if proven else "their ids", notes, found.values)


def voc_color(number: int) -> list[int] | Color:
    """Return the colour that VOC's palette gives an id: three bits of it for each bit."""
    color = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            color[channel] |= (number >> channel & 1) << (7 - bit)
        number >>= 3
    return color[0], color[1], color[2]

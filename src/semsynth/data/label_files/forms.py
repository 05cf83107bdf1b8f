"""The forms that label files have, and what each says: ids, names, colours, what is ignored.

The form is found by the content: tools use the same names of files for several forms.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import ImageColor

from semsynth.core.errors import UserError
from semsynth.data.labels import MAX_ID, Color


@dataclass(frozen=True)
class Entry:
    """A label as a file states it; ``color`` None: the file has none."""

    id: int
    name: str
    color: Color | None = None
    thing: bool = False


@dataclass(frozen=True)
class Stated:
    """What a label file says.

    Attributes:
        form: what kind of file it is, in words.
        entries: the labels, in the order of the file.
        ignore: ids whose pixels have no label; they need not be among the entries.
        merge: ids or names that become one label, by its name.
        reduce_zero: whether stored ids are reduced by one, as in mmsegmentation.
        has_ids: whether the file states ids; else they count from 0 in its order.
        name: of the data set.
        licence: of its images.
    """

    form: str
    entries: tuple[Entry, ...]
    ignore: tuple[int, ...] = ()
    merge: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    reduce_zero: bool = False
    has_ids: bool = True
    name: str | None = None
    licence: str | None = None


_OPTIONS = ("name", "licence", "ignore", "merge", "reduce_zero_label")
_OWN_ENTRY = ("id", "name", "color", "thing")
_ID_KEYS = ("id", "png_index", "value", "index", "class_id", "trainId")
_NAME_KEYS = ("name", "class_name", "title", "label", "readable")
# A note of Mapillary's own: what nobody labelled.
_MAPILLARY_VOID = "void--unlabeled"


def stated_labels(value: Any, where: str) -> Stated:
    """Return what the values of a JSON or YAML file say about labels.

    Raises:
        UserError: none of the forms, or something in it is wrong.
    """
    if isinstance(value, Mapping):
        for keys, reader in _READERS:
            if all(key in value for key in keys):
                return reader(value, where)
        if value:
            plain = {key: part for key, part in value.items() if key not in _OPTIONS}
            if not plain or not all(_as_id(key) is not None for key in plain):
                plain, value = dict(value), {}  # names first: one may be called "ignore"
            entries, has_ids = _entries(plain, where, "")
            return _with_options(Stated("ids and names", entries, has_ids=has_ids), value, where)
    if isinstance(value, list) and value:
        form = "a list of labels" if isinstance(value[0], Mapping) else "a list of names"
        entries, has_ids = _entries(value, where, "")
        return Stated(form, entries, has_ids=has_ids)
    raise UserError(
        f"{where}: has no labels; it must have 'labels: {{0: road, 1: sky}}', a list of names, "
        "id2label, names, categories or classes (is there a space after each colon?)"
    )


def _own(value: Mapping[str, Any], where: str) -> Stated:
    stored = value["labels"]
    if isinstance(stored, list) and any(isinstance(e, Mapping) and "readable" in e for e in stored):
        return _mapillary(value, where)
    for key in value:
        if key not in ("labels", *_OPTIONS):
            near = difflib.get_close_matches(str(key), ("labels", *_OPTIONS), n=1, cutoff=0.0)[0]
            raise UserError(f"{where}: unknown key '{key}'; did you mean '{near}'?")
    entries, has_ids = _entries(stored, where, "labels", own=True)
    return _with_options(Stated("labels", entries, has_ids=has_ids), value, where)


def _mapillary(value: Mapping[str, Any], where: str) -> Stated:
    entries, _ = _entries(value["labels"], where, "labels")
    void = tuple(entry.id for entry in entries if entry.name == _MAPILLARY_VOID)
    return Stated("Mapillary's configuration", entries, void)


def _id2label(value: Mapping[str, Any], where: str) -> Stated:
    entries, _ = _entries(value["id2label"], where, "id2label")
    other = value.get("label2id")
    if isinstance(other, Mapping):
        reverse, _ = _entries(other, where, "label2id")
        names = {entry.id: entry.name for entry in entries}
        for entry in reverse:
            if names.get(entry.id) != entry.name:
                raise UserError(
                    f"{where}: label2id says {entry.id} is '{entry.name}', id2label says "
                    f"'{names.get(entry.id)}'; correct one of them"
                )
    return _with_options(Stated("id2label", entries), value, where)


def _label2id(value: Mapping[str, Any], where: str) -> Stated:
    return Stated("label2id", _entries(value["label2id"], where, "label2id")[0])


def _names(value: Mapping[str, Any], where: str) -> Stated:
    entries, _ = _entries(value["names"], where, "names")
    count = value.get("nc")
    if count is not None and count != len(entries):
        raise UserError(f"{where}: nc is {count}, names has {len(entries)}; correct one of them")
    stated = Stated("Ultralytics' data.yaml", entries, (255,))
    options = {key: value[key] for key in ("ignore", "merge", "reduce_zero_label") if key in value}
    return _with_options(stated, options, where)


def _categories(value: Mapping[str, Any], where: str) -> Stated:
    entries, has_ids = _entries(value["categories"], where, "categories")
    # Segments.ai: 0 is what nobody labelled. COCO's 0 is a category where there is one.
    is_segments = "format_version" in value and all(entry.id for entry in entries)
    form = "Segments.ai's categories" if is_segments else "COCO's categories"
    stated = Stated(form, entries, (0,) if is_segments else (), has_ids=has_ids)
    options = {key: value[key] for key in ("ignore", "merge") if key in value}
    return _with_options(stated, options, where)


def _classes(value: Mapping[str, Any], where: str) -> Stated:
    key = "classes" if "classes" in value else "CLASSES"
    stored, palette = value[key], value.get("palette", value.get("PALETTE"))
    if isinstance(stored, list) and stored and isinstance(stored[0], Mapping):
        entries, has_ids = _entries(stored, where, key)
        return Stated("a list of classes", entries, has_ids=has_ids)
    entries, has_ids = _entries(stored, where, key)
    if palette is not None:
        if not isinstance(palette, list) or len(palette) != len(entries):
            raise UserError(f"{where}: palette must have a colour for each of {len(entries)} {key}")
        colors = [color_of(color, where, f"palette.{i}") for i, color in enumerate(palette)]
        entries = tuple(
            replace(entry, color=color) for entry, color in zip(entries, colors, strict=True)
        )
    stated = Stated("mmsegmentation's classes", entries, (255,), has_ids=has_ids)
    options = {key: value[key] for key in ("ignore", "merge", "reduce_zero_label") if key in value}
    if "ignore_index" in value:
        options.setdefault("ignore", value["ignore_index"])
    return _with_options(stated, options, where)


def _inside(key: str) -> Callable[[Mapping[str, Any], str], Stated]:
    return lambda value, where: stated_labels(value[key], f"{where}: {key}")


_READERS: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Any], str], Stated]], ...] = (
    (("labels",), _own),
    (("id2label",), _id2label),
    (("names",), _names),
    (("categories",), _categories),
    (("classes",), _classes),
    (("CLASSES",), _classes),
    (("METAINFO",), _inside("METAINFO")),
    (("metainfo",), _inside("metainfo")),
    (("task_attributes",), _inside("task_attributes")),
    (("label_classes",), _inside("label_classes")),
    (("label2id",), _label2id),
)


def _with_options(stated: Stated, value: Mapping[str, Any], where: str) -> Stated:
    """Add what our own keys beside the labels say."""
    found: dict[str, Any] = {}
    for key in ("name", "licence"):
        if value.get(key) is not None:
            found[key] = text_of(value[key], where, key)
    if value.get("ignore") is not None:
        given = value["ignore"]
        found["ignore"] = tuple(
            dict.fromkeys(
                i
                for part in (given if isinstance(given, list) else [given])
                for i in _ignored(part, stated.entries, where)
            )
        )
    if value.get("reduce_zero_label") is not None:
        if not isinstance(value["reduce_zero_label"], bool):
            raise UserError(f"{where}: reduce_zero_label must be true or false")
        found["reduce_zero"] = value["reduce_zero_label"]
    if value.get("merge") is not None:
        merge = value["merge"]
        if not isinstance(merge, Mapping) or not all(isinstance(m, list) for m in merge.values()):
            raise UserError(f"{where}: merge must be like {{ground: [1, 2]}}: a name, then ids")
        found["merge"] = {text_of(k, where, "merge"): tuple(m) for k, m in merge.items()}
    return replace(stated, **found)


def _ignored(value: Any, entries: Sequence[Entry], where: str) -> list[int]:
    """Return the ids that an entry of ``ignore``, an id or a name, stands for."""
    named = [entry.id for entry in entries if entry.name == value]
    return named or [id_of(value, where, "ignore")]


def _entries(
    stored: Any, where: str, place: str, own: bool = False
) -> tuple[tuple[Entry, ...], bool]:
    """Return labels from a list or a mapping, and whether it states their ids."""
    at = f"'{place}'" if place else "the file"
    if isinstance(stored, Mapping) and stored:
        return _of_mapping(stored, where, place, own)
    if not isinstance(stored, list) or not stored:
        raise UserError(f"{where}: {at} must be a list of names, or ids with names (0: road)")
    if all(isinstance(part, Mapping) for part in stored):
        return _of_mappings(stored, where, place, own)
    names = [text_of(name, where, f"{place or 'line'}.{i}") for i, name in enumerate(stored)]
    return numbered(names, where), False


def numbered(names: Sequence[str], where: str) -> tuple[Entry, ...]:
    """Return the labels of a list of names, which count from 0; UserError for one given twice."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        first, second = [i for i, name in enumerate(names) if name == twice[0]][:2]
        raise UserError(
            f"{where}: '{twice[0]}' is number {first} and number {second} of the list; to make one "
            f"label of several ids write labels: {{{first}: {twice[0]}, {second}: {twice[0]}}}"
        )
    return tuple(Entry(i, name) for i, name in enumerate(names))


def _of_mapping(
    stored: Mapping[Any, Any], where: str, place: str, own: bool
) -> tuple[tuple[Entry, ...], bool]:
    ids = [_as_id(key) for key in stored]
    values = list(stored.values())
    if all(i is not None for i in ids):
        entries = [
            _of_value(id_of(key, where, place or "ids"), value, where, place, own)
            for key, value in stored.items()
        ]
        return tuple(entries), True
    if any(i is not None for i in ids):
        wrong = next(key for key, i in zip(stored, ids, strict=True) if i is None)
        raise UserError(f"{where}: {place or 'labels'} has ids and '{wrong}', which is not an id")
    names = [text_of(key, where, place or "names") for key in stored]
    if all(_as_id(value) is not None for value in values):
        pairs = zip(names, values, strict=True)
        return tuple(Entry(id_of(i, where, name), name) for name, i in pairs), True
    try:
        colors = [color_of(value, where, name) for name, value in zip(names, values, strict=True)]
    except UserError as error:
        raise UserError(
            f"{where}: '{names[0]}' is not an id; labels are ids with names, such as 0: road, or "
            f"names with colours ({str(error).removeprefix(f'{where}: ')})"
        ) from None
    entries = [Entry(i, *pair) for i, pair in enumerate(zip(names, colors, strict=True))]
    return tuple(entries), False


def _of_mappings(
    stored: Sequence[Mapping[str, Any]], where: str, place: str, own: bool
) -> tuple[tuple[Entry, ...], bool]:
    key = next((key for key in _ID_KEYS if key in stored[0]), None)
    entries = []
    for number, value in enumerate(stored):
        if key is not None and key not in value:
            raise UserError(f"{where}: {place or 'labels'}.{number} has no '{key}'")
        i = number if key is None else id_of(value[key], where, f"{place}.{number}.{key}")
        entries.append(_of_value(i, value, where, place, own))
    if key == "png_index" and all(entry.id for entry in entries):
        entries.insert(0, Entry(0, "background"))  # the export's own rule
    return tuple(entries), key is not None


def _of_value(i: int, value: Any, where: str, place: str, own: bool) -> Entry:
    """Return the label of an id from its name, or from a mapping with name and colour."""
    at = f"{place}.{i}" if place else str(i)
    if not isinstance(value, Mapping):
        return Entry(i, text_of(value, where, at))
    if own and (unknown := [key for key in value if key not in _OWN_ENTRY]):
        near = difflib.get_close_matches(str(unknown[0]), _OWN_ENTRY, n=1, cutoff=0.0)[0]
        raise UserError(f"{where}: unknown key '{at}.{unknown[0]}'; did you mean '{near}'?")
    keys = [key for key in _NAME_KEYS if key in value]
    if not keys:
        raise UserError(f"{where}: key '{at}.name' is missing")
    # Mapillary's names are unique, what is readable is not.
    name = text_of(value[keys[0]], where, f"{at}.{keys[0]}")
    thing = value.get("thing", value.get("isthing", value.get("instances", False)))
    if thing not in (True, False):
        raise UserError(f"{where}: '{at}.thing' is {thing!r}: must be true or false")
    color = None
    if "color" in value or "colour" in value:
        color = color_of(value.get("color", value.get("colour")), where, f"{at}.color")
    return Entry(i, name, color, bool(thing))


def _as_id(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value.strip()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def id_of(value: Any, where: str, place: str) -> int:
    """Return an id that is a number, or text of one; UserError for others."""
    i = _as_id(value)
    if i is None:
        raise UserError(f"{where}: '{place}' has {value!r}, which is not the id of a label")
    if not 0 <= i <= MAX_ID:
        hint = " (a mask of 8 bits has 255 for it)" if i == -1 else ""
        raise UserError(f"{where}: id {i} is outside 0..{MAX_ID}{hint}")
    return i


def text_of(value: Any, where: str, place: str) -> str:
    """Return a name in NFC; UserError if it is not text, empty, or has control characters."""
    if not isinstance(value, str) or not value.strip():
        what = "is empty" if value is None or value == "" else f"is {value!r}, which is not text"
        raise UserError(
            f"{where}: '{place}' {what}; write a name (in quotes, if it looks like a "
            "number or true)"
        )
    if any(unicodedata.category(c) == "Cc" for c in value.strip()):
        raise UserError(f"{where}: '{place}' is {value!r}: a name is one line of text")
    return unicodedata.normalize("NFC", value.strip())


def color_of(value: Any, where: str, place: str) -> Color:
    """Return the RGB of a colour, in any notation; UserError if it is not a colour.

    Lists [r, g, b] with or without alpha, ``#rrggbb``, ``rgb(r, g, b)``, ``r,g,b``, names of CSS.
    """
    if isinstance(value, Mapping) and value.keys() >= set("rgb"):
        value = [value[key] for key in "rgb"]
    if isinstance(value, str):
        text = re.sub(r"^0[xX]|^#?(?=[0-9a-fA-F]{6}([0-9a-fA-F]{2})?$)", "#", value.strip())
        parts = re.split(r"\s*[,;\s]\s*", text.strip("()[] "))
        if len(parts) == 3 and all(part.isdecimal() for part in parts):
            value = [int(part) for part in parts]
        else:
            try:
                value = list(ImageColor.getrgb(text))
            except ValueError:
                raise UserError(f"{where}: '{place}' is {value!r}: {_COLORS}") from None
    if not isinstance(value, list | tuple) or len(value) not in (3, 4):
        hint = ", and # begins a comment without the quotes" if value is None else ""
        raise UserError(f"{where}: '{place}' is {value!r}: {_COLORS}{hint}")
    if not all(isinstance(part, int) and not isinstance(part, bool) for part in value):
        raise UserError(f"{where}: '{place}' is {value!r}: colours are whole numbers, 0 to 255")
    red, green, blue = value[:3]
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise UserError(f"{where}: '{place}' is {value!r}: colour is outside 0..255")
    return red, green, blue


_COLORS = "a colour is [128, 64, 128] or '#804080', in quotes"

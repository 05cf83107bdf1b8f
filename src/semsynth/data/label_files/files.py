"""Label files as people have them: what the values in mask files mean, and what becomes of them.

``read_label_file`` reads any of the forms in ``forms`` and ``text``; ``find_label_file`` looks for
one beside the data. A file may say more than names: several ids are ignored, several become one
label, or ids are reduced by one as in mmsegmentation. Then the ids that are stored in the masks are
not those of the prepared data, and ``LabelFile.apply`` turns the ones into the others.

Our own form, ``labels.yaml``::

    name: my streets            # optional, as is all but the labels
    licence: CC BY 4.0
    ignore: [0, 255]            # the ids of pixels without a label
    merge: {ground: [1, 2]}     # ids or names that become one label
    reduce_zero_label: false    # as in mmsegmentation: 0 is ignored, the others are reduced by one
    labels:
      0: unlabelled
      1: road
      2: {name: car, color: '#00008e', thing: true}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from semsynth.core.config import read_yaml
from semsynth.core.errors import UserError
from semsynth.core.files import read_json, read_text
from semsynth.core.logging import logger
from semsynth.data.label_files.forms import Entry, Stated, stated_labels
from semsynth.data.label_files.text import labels_of_csv, labels_of_text
from semsynth.data.labels import Array, Color, LabelSet, hex_color

# In the order in which they are taken; several that agree are fine.
USUAL_NAMES = (
    "labels.yaml", "labels.yml", "labels.json", "labels.txt", "id2label.json", "label2id.json",
    "labelmap.txt", "label_map.txt", "_classes.csv", "class_dict.csv", "classes.csv", "labels.csv",
    "classes.txt", "classes.json", "classes.yaml", "class_names.txt", "names.txt",
    "label_names.txt", "obj.names", "label_classes.json", "label_colors.txt", "data.yaml",
    "data.yml", "dataset.yaml", "metainfo.json", "notes.json", "meta.json", "config_v2.0.json",
    "config.json",
)  # fmt: skip
# Names that other things have, too: one that has no labels is not a label file (the first ones are
# often that, and nothing is said).
_OTHER_THINGS = ("data.yaml", "data.yml", "dataset.yaml", "meta.json", "config.json", "notes.json")
_MAYBE = (
    "labels.json", "labels.txt", "labels.csv", "label_map.txt", "classes.csv", "classes.json",
    "classes.yaml", "names.txt", "label_colors.txt", "metainfo.json", "config_v2.0.json",
)  # fmt: skip
_MOST_BYTES = 1 << 24  # of a file that may be of another kind
_IGNORED = 255  # of mmsegmentation
_UNLABELLED = ("unlabelled", "unlabeled", "void", "ignore", "ignored", "not labelled")
_BEFORE_CLASSES = (*_UNLABELLED, "background", "none")


@dataclass(frozen=True)
class LabelFile:
    """What a label file says.

    Attributes:
        labels: of the prepared data.
        stored: what the values in the mask files mean, one label for each: to read masks by.
        where: the file, for messages.
        stated: what it says.
        remap: stored ids to ids of ``labels``; None: they are the same.
        without_color: stored ids without a colour of their own; coloured masks need one.
        notes: what it does with the ids, in words.
    """

    labels: LabelSet
    stored: LabelSet
    where: str
    stated: Stated
    remap: dict[int, int] | None = None
    without_color: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def form(self) -> str:
        """What kind of file it is, in words."""
        return self.stated.form

    @property
    def name(self) -> str | None:
        """The name of the data set, if the file has one."""
        return self.stated.name

    @property
    def licence(self) -> str | None:
        """The licence of the images, if the file has one."""
        return self.stated.licence

    @property
    def colors_given(self) -> bool:
        """Whether every label has a colour that somebody chose."""
        return not self.without_color

    @cached_property
    def _lut(self) -> Array:
        lut = np.zeros(self.stored.max_id + 1, self.labels.mask_dtype)
        for before, after in (self.remap or {}).items():
            lut[before] = after
        return lut

    def apply(self, ids: Array) -> Array:
        """Return the ids of ``labels`` (H, W) for stored ids (H, W), all of which are known."""
        return ids if self.remap is None else self._lut[ids]

    def require_colors(self, because: str) -> None:
        """Check that masks can be read by colours; UserError names a label and ``because``."""
        if not self.without_color:
            return
        i = self.without_color[0]
        own = {label.id: label.color for label in self.stored.labels}
        color = next((e.color for e in self.stated.entries if e.id == i), None)
        what = f"{i} has none" if color in (None, own[i]) else f"{i} has that of another label"
        raise UserError(
            f"{self.where}: coloured masks need a color for each label, {what} ({because})"
        )

    def to_value(self) -> dict[str, Any]:
        """Return the values of a ``labels.yaml`` that says the same, its labels by their ids."""
        stated = self.stated
        labels: dict[int, dict[str, Any]] = {}
        for entry in sorted(stated.entries, key=lambda entry: entry.id):
            labels[entry.id] = {"name": entry.name}
            labels[entry.id] |= {"color": hex_color(entry.color)} if entry.color else {}
            labels[entry.id] |= {"thing": True} if entry.thing else {}
        value = {
            "name": self.name,
            "licence": self.licence,
            "ignore": list(stated.ignore) if len(stated.ignore) > 1 else (*stated.ignore, None)[0],
            "merge": {name: list(ids) for name, ids in stated.merge.items()} or None,
            "reduce_zero_label": stated.reduce_zero or None,
        }
        return {key: part for key, part in value.items() if part is not None} | {"labels": labels}

    def to_yaml(self) -> str:
        """Return a ``labels.yaml`` that says the same; with the colours that somebody chose."""
        text: str = yaml.safe_dump(
            self.to_value(),
            sort_keys=False,
            allow_unicode=True,
            width=1000,
            default_flow_style=None,
        )
        return text


def read_label_file(path: Path) -> LabelFile:
    """Read a label file of any form: YAML, JSON, CSV or lines of text.

    Raises:
        UserError: no such file, or no labels in it, or something in it is wrong.
    """
    return _built(_stated(path), str(path))


def labels_of_ids(ids: Iterable[int], where: str, ignore: Sequence[int] = ()) -> LabelFile:
    """Return labels that are named by their ids, for masks without names."""
    entries = tuple(Entry(i, str(i)) for i in sorted(ids) if i not in ignore)
    return _built(Stated("ids without names", entries, tuple(ignore)), where)


def label_file(value: Any, where: str) -> LabelFile:
    """Return what values in memory say, in any form of a JSON or YAML file; ``where``: their place.

    Raises:
        UserError: no labels in them, or something in them is wrong.
    """
    return _built(stated_labels(value, where), where)


def find_label_file(folder: Path, *more: Path) -> Path | None:
    """Return the label file that lies in a folder (or in others, looked at in this order).

    Raises:
        UserError: two of them contradict each other: names both, and the flag.
    """
    chosen: tuple[Path, Stated] | None = None
    for path in (place / name for place in (folder, *more) for name in USUAL_NAMES):
        weak = path.name in (*_OTHER_THINGS, *_MAYBE)
        if not path.is_file() or (weak and path.stat().st_size > _MOST_BYTES):
            continue
        try:
            stated = _stated(path)
        except UserError as error:
            if not weak:
                raise
            if path.name in _MAYBE:
                logger.warning(f"not taken for labels: {error}")
            continue
        if chosen is None:
            chosen = path, stated
        elif wrong := _contradiction(chosen[1], stated):
            raise UserError(
                f"{chosen[0]} and {path} contradict each other: {wrong}; choose one with --labels "
                f"{chosen[0]} or --labels {path}"
            )
    return None if chosen is None else chosen[0]


def _stated(path: Path) -> Stated:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return stated_labels(read_json(path), str(path))
    if suffix in (".yaml", ".yml"):
        return stated_labels(read_yaml(path), str(path))
    if suffix not in (".csv", ".txt", ".names", ".ctbl", ".label", ".tsv"):
        raise UserError(
            f"{path}: labels are in .yaml, .json, .csv or .txt files; give one with --labels"
        )
    text = read_text(path)
    return (labels_of_csv if suffix in (".csv", ".tsv") else labels_of_text)(text, str(path))


def _built(stated: Stated, where: str) -> LabelFile:
    """Make the labels of the masks and of the prepared data from what a file says."""
    by_id = _by_id(stated, where)
    stated = _with_reduced(stated, by_id, where)
    final, names = _final_ids(stated, by_id, where)
    # What is stored in the masks, in the ids of the file: these differ where they are reduced.
    shift = int(stated.reduce_zero)
    stored = {i + shift: i for i in final if not (shift and i == _IGNORED)}
    stored |= {0: _IGNORED, _IGNORED: _IGNORED} if shift else {}
    remap = {s: final[i] for s, i in sorted(stored.items())}
    colors, unclear = _colors(stored, by_id, remap)
    target = stated.ignore[0] if stated.ignore else None
    things = {names[final[i]] for i, entry in by_id.items() if entry.thing}
    try:
        labels = in_files = LabelSet.from_names(names, target, _by_final(colors, remap), things)
        if any(s != i for s, i in remap.items()):
            own = {s: by_id[i].name if i in by_id else "ignored" for s, i in stored.items()}
            several = {name for name, count in Counter(own.values()).items() if count > 1}
            own = {s: f"{name} ({s})" if name in several else name for s, name in own.items()}
            ignored = next((s for s, i in remap.items() if i == target), None)
            in_files = LabelSet.from_names(own, ignored, colors)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return LabelFile(
        labels=labels,
        stored=in_files,
        where=where,
        stated=stated,
        remap=None if in_files is labels else remap,
        without_color=tuple(
            s for s, i in remap.items() if s in unclear or (s not in colors and i != target)
        ),
        notes=tuple(_notes(stated, by_id, remap, names)),
    )


def _by_id(stated: Stated, where: str) -> dict[int, Entry]:
    by_id: dict[int, Entry] = {}
    for entry in stated.entries:
        other = by_id.setdefault(entry.id, entry)
        if other is not entry:
            raise UserError(
                f"{where}: id {entry.id} is given twice, for '{other.name}' and '{entry.name}'; "
                "remove one"
            )
    return by_id


def _with_reduced(stated: Stated, by_id: Mapping[int, Entry], where: str) -> Stated:
    """Add what mmsegmentation ignores where it reduces the ids: 0 and 255 of the stored ones."""
    if not stated.reduce_zero:
        return stated
    if by_id and max(by_id) > _IGNORED - 2:
        raise UserError(f"{where}: reduce_zero_label is for ids up to {_IGNORED - 2}")
    if 0 in stated.ignore or (0 in by_id and _plain(by_id[0].name) in _BEFORE_CLASSES):
        raise UserError(
            f"{where}: reduce_zero_label ignores the stored id 0 and counts the labels from the "
            f"stored id 1, which would be '{by_id[0].name if 0 in by_id else 'ignored'}'; remove "
            "that label (or ignore: 0), or reduce_zero_label"
        )
    others = tuple(i for i in stated.ignore if i != _IGNORED)
    return replace(stated, ignore=(_IGNORED, *others))


def _final_ids(
    stated: Stated, by_id: Mapping[int, Entry], where: str
) -> tuple[dict[int, int], dict[int, str]]:
    """Return the final id of each id of the file, and the names of the final ids.

    Labels of one name are one label, with the lowest of their ids.
    """
    group = {i: entry.name for i, entry in by_id.items() if i not in stated.ignore}
    moved: dict[int, str] = {}
    for name, members in stated.merge.items():
        for member in members:
            ids = [i for i, entry in by_id.items() if member in (i, entry.name)]
            if not ids:
                raise UserError(f"{where}: merge.{name} has {member!r}, which is not a label")
            for i in ids:
                if i in stated.ignore:
                    raise UserError(f"{where}: id {i} is both in ignore and in merge.{name}")
                if moved.setdefault(i, name) != name:
                    raise UserError(f"{where}: id {i} is both in merge.{moved[i]} and merge.{name}")
                group[i] = name
    lowest: dict[str, int] = {}
    for i in sorted(group):
        lowest.setdefault(group[i], i)
    final = {i: lowest[name] for i, name in group.items()}
    names = {i: name for name, i in lowest.items()}
    if stated.ignore:
        final |= dict.fromkeys(stated.ignore, stated.ignore[0])
        known = [by_id[i].name for i in stated.ignore if i in by_id]
        names[stated.ignore[0]] = next(iter(known), "ignored")
    return final, names


def _colors(
    stored: Mapping[int, int], by_id: Mapping[int, Entry], remap: Mapping[int, int]
) -> tuple[dict[int, Color], set[int]]:
    """Return the colours of stored ids, and the ids whose colour is another label's, too."""
    colors: dict[int, Color] = {}
    owner: dict[Color, int] = {}
    unclear: set[int] = set()
    for s, i in sorted(stored.items()):
        color = by_id[i].color if i in by_id else None
        if color is None:
            continue
        first = owner.setdefault(color, s)
        if first == s:
            colors[s] = color
        elif remap[first] != remap[s]:
            unclear.add(s)
    return colors, unclear


def _by_final(colors: Mapping[int, Color], remap: Mapping[int, int]) -> dict[int, Color]:
    found: dict[int, Color] = {}
    for s, color in colors.items():
        found.setdefault(remap[s], color)
    return found


def _notes(
    stated: Stated, by_id: Mapping[int, Entry], remap: Mapping[int, int], names: Mapping[int, str]
) -> Iterator[str]:
    if not stated.has_ids:
        yield "ids count from 0 in the order of the file"
    if stated.reduce_zero:
        yield "id 0 is ignored and the others are reduced by one (reduce_zero_label)"
    groups: dict[int, list[int]] = {}
    for s, i in remap.items():
        groups.setdefault(i, []).append(s)
    for i, members in groups.items():
        if len(members) > 1 and not (stated.ignore and i == stated.ignore[0]):
            yield f"ids {', '.join(map(str, members))} are one label: {names[i]} ({i})"
    if stated.ignore:
        ignored = groups[stated.ignore[0]]
        if len(ignored) > 1 or ignored[0] not in by_id:
            yield f"{'ids' if len(ignored) > 1 else 'id'} {', '.join(map(str, ignored))} ignored"
    for i, entry in by_id.items():
        if i not in stated.ignore and _plain(entry.name) in _UNLABELLED:
            yield (
                f"'{entry.name}' ({i}) is a class like the others; if it marks pixels without a "
                f"label, write ignore: {i}"
            )


def _contradiction(first: Stated, second: Stated) -> str:
    """Name an id or a colour on which two files contradict each other; "": they agree."""
    by_color = {entry.color: entry.name for entry in first.entries if entry.color}
    by_id = {entry.id: entry.name for entry in first.entries}
    ordered = (first.has_ids and second.has_ids) or not (
        by_color and any(entry.color for entry in second.entries)
    )
    for entry in second.entries:
        other = by_id.get(entry.id) if ordered else None
        if other is not None and _plain(other) != _plain(entry.name):
            return f"id {entry.id} is '{other}' and '{entry.name}'"
        other = by_color.get(entry.color) if entry.color else None
        if other is not None and _plain(other) != _plain(entry.name):
            return f"colour {entry.color} is '{other}' and '{entry.name}'"
    return ""


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())

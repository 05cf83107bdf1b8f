"""The classes of annotations: their ids, and what the pixels are that no shape covers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.label_files.files import LabelFile, find_label_file, read_label_file
from semsynth.data.labels import MAX_ID, Color, Label, LabelSet, distinct_colors
from semsynth.data.raw.tree import FileTree

# What LabelMe's own export ignores.
_IGNORED = "__ignore__"


@dataclass(frozen=True)
class Category:
    """A class as an annotation file states it; ``id`` None: the tool has names alone."""

    name: str
    id: int | None = None
    color: Color | None = None
    thing: bool = False


@dataclass(frozen=True)
class Classes:
    """The labels, and where the classes of the annotations are among them.

    Attributes:
        labels: of the prepared data.
        ids: label ids by the names of categories; and by their ids, where they have some.
        rest: the label of pixels that no shape covers.
        said: where the names come from.
        notes: what a reader must know.
        file: the user's label file, if there is one.
        where: the annotation, for messages.
    """

    labels: LabelSet
    ids: Mapping[int | str, int]
    rest: int
    said: str
    notes: tuple[str, ...] = ()
    file: LabelFile | None = None
    where: str = ""

    def of(self, key: int | str, where: str) -> int:
        """Return the label of a category by its id or name; UserError if it does not exist."""
        if isinstance(key, int | str) and key in self.ids:
            return self.ids[key]
        kind = "category" if isinstance(key, int) else "label"
        if self.file is not None:
            raise UserError(
                f"{where}: {kind} {key!r} is not in {self.said}; add it there, or list its id in "
                "ignore or merge"
            )
        raise UserError(f"{where}: {kind} {key!r} is not among the categories of {self.where}")


def classes_of(
    categories: Sequence[Category],
    tree: FileTree,
    config: PrepareConfig,
    own: Sequence[str],
    rest_ignored: bool = False,
) -> Classes:
    """Give the classes of annotations their ids.

    Ids of the tool are kept; names without ids are counted from 1. Pixels that no shape covers are
    a class "background" (that of this name, if there is one) or, with ``rest_ignored``, have no
    label. A label file of the user decides names, ids, what is ignored and what becomes one.

    Args:
        categories: all classes, in their order.
        tree: its root may have a label file.
        config: ``labels`` names one.
        own: the files that the categories are from; they are not label files of the user.
        rest_ignored: whether pixels without a shape have no label.

    Raises:
        UserError: no classes, or the label file is wrong.
    """
    where = own[0] if len(own) == 1 else f"{own[0]} and {len(own) - 1} more"
    if not categories:
        raise UserError(f"{where}: has no classes, so there is nothing to learn from its shapes")
    plain = _numbered(categories, where, rest_ignored)
    path = config.labels or find_label_file(tree.root)
    if path is not None and path not in [tree.path(name) for name in own]:
        tree.use(path)
        return _classes_of_file(read_label_file(path), plain, path.name, where)
    ids, names, rest, notes = plain.ids, plain.names, plain.rest, plain.notes
    if rest_ignored:
        notes.append(f"pixels without a segment have no label ({rest} {names[rest]}, ignored)")
    else:
        notes.append(f"pixels without a shape are '{names[rest]}' ({rest}), a class of its own")
    ignore = rest if rest_ignored else ids.get(_IGNORED)
    if ignore is not None and not rest_ignored:
        notes.append(f"pixels of '{_IGNORED}' ({ignore}) are ignored, as in LabelMe")
    labels = _labels(categories, ids, names, ignore, where)
    return Classes(labels, ids, rest, where, tuple(notes), where=where)


def _labels(
    categories: Sequence[Category],
    ids: Mapping[int | str, int],
    names: Mapping[int, str],
    ignore: int | None,
    where: str,
) -> LabelSet:
    """Return the labels with the colours that the categories have, each for one of them."""
    colors: dict[int, Color] = {}
    things: set[str] = set()
    for category in categories:
        i = ids[category.name if category.id is None else category.id]
        if category.color is not None and category.color not in colors.values():
            colors.setdefault(i, category.color)
        things |= {names[i]} if category.thing else set()
    try:
        return LabelSet.from_names(names, ignore, colors, things)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


@dataclass(frozen=True)
class _Numbered:
    """Categories with the ids that they have without a label file; see ``Classes``."""

    ids: dict[int | str, int]
    names: dict[int, str]
    rest: int
    rest_ignored: bool
    notes: list[str]
    given: bool  # whether the ids are the tool's


def _numbered(categories: Sequence[Category], where: str, rest_ignored: bool) -> _Numbered:
    own = [category.id for category in categories if category.id is not None]
    twice = [i for i, count in Counter(own).items() if count > 1]
    if twice:
        raise UserError(f"{where}: category id {twice[0]} is given twice; each needs its own")
    keep = len(own) == len(categories) and all(0 <= i <= MAX_ID for i in own)
    notes = []
    if own and not keep:
        notes.append(f"category ids outside of 0..{MAX_ID}: classes are counted from 1")
    ids: dict[int | str, int] = {}
    names: dict[int, str] = {}
    order = sorted(categories, key=lambda category: category.id) if keep else categories  # type: ignore[arg-type, return-value]
    for number, category in enumerate(order, 1):
        free = category.id if keep and category.id is not None else number
        i = ids.setdefault(category.name, free)
        if i == free:
            names[i] = category.name
        elif category.id is not None:
            notes.append(f"categories {i} and {category.id} are both '{category.name}': one class")
        if category.id is not None:
            ids[category.id] = i
    if not keep:  # without gaps, after names that were given twice
        order_of = {i: n for n, i in enumerate(sorted(names), 1)}
        ids = {key: order_of[i] for key, i in ids.items()}
        names = {order_of[i]: name for i, name in names.items()}
    rest = next((i for i, name in names.items() if _is_rest(name, rest_ignored)), None)
    word = "unlabelled" if rest_ignored else "background"
    if rest is None:
        rest = 0 if 0 not in names else max(names) + 1
        names[rest] = word if word not in names.values() else f"{word} (no shape)"
    return _Numbered(ids, names, rest, rest_ignored, notes, keep)


def _classes_of_file(file: LabelFile, plain: _Numbered, path: str, where: str) -> Classes:
    """Return the classes that a label file of the user makes of categories.

    Names count. What the file has no name for is a new name of the same id, if all others have the
    ids that they have without the file, as in a ``labels.yaml`` that was printed and changed. Ids
    that only we gave say nothing where no name is known.
    """
    stored = {name: i for i, name in file.stored.names.items()}
    by_name = {**{entry.name: entry.id for entry in file.stated.entries}, **stored}
    names_of = {i: name for name, i in by_name.items()}
    remap = file.remap or {i: i for i in file.stored.names}
    same = all(by_name.get(name, i) == i for i, name in plain.names.items())
    shapes = [name for i, name in plain.names.items() if i != plain.rest]
    same = same and (plain.given or len(shapes) == 1 or any(name in by_name for name in shapes))
    found: dict[int, int] = {}
    notes = list(file.notes)
    for i, name in plain.names.items():
        own = by_name.get(name)
        if own is None and name == _IGNORED and file.labels.ignore_id is not None:
            found[i] = file.labels.ignore_id
            continue
        new = names_of.get(i, "")
        if own is None and same and i in remap and new not in plain.names.values():
            own = i
            notes.append(f"'{name}' ({i}) is '{new or 'ignored'}' in {path}")
        if own in remap:
            found[i] = remap[own]
    ids = {key: found[i] for key, i in plain.ids.items() if i in found}
    labels = file.labels
    by_word = next((i for name, i in by_name.items() if _is_rest(name, False)), None)
    rest: int | None = found.get(plain.rest)
    if rest is None:
        rest = labels.ignore_id
        if by_word is not None and not (plain.rest_ignored and rest is not None):
            rest = remap.get(by_word, rest)
    if rest is None:
        rest = 0 if 0 not in labels.by_id else labels.max_id + 1
        (color,) = distinct_colors(1, [label.color for label in labels.labels])
        more = Label(rest, "background", color, labels.num_channels)
        labels = replace(labels, labels=(*labels.labels, more))
    meaning = "ignored" if rest == labels.ignore_id else "a class of its own"
    note = f"pixels without a shape are '{labels.names[rest]}' ({rest}), {meaning}"
    return Classes(labels, ids, rest, path, (*notes, note), file, where)


def _is_rest(name: str, ignored: bool) -> bool:
    plain = name.strip("_ ").casefold()
    return plain in ("unlabelled", "unlabeled", "void") if ignored else plain == "background"

"""Labels of the data and of the model: the same, or matched by their names, never by their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger, progress
from semsynth.data.dataset import PreparedDataset
from semsynth.data.label_match import LabelMapping, match_labels, read_label_map
from semsynth.data.labels import Array, LabelSet

Ids = npt.NDArray[np.uint16]
# Of each label in the masks the model's; None: unlabelled.
Names = Mapping[str, str | None]


@dataclass(frozen=True)
class Translation:
    """Masks of the data for a model that was trained with other labels.

    Attributes:
        names: of each label of the data that its masks have: the model's; None: unlabelled.
        to_model: id of the data -> id of the model.
        kept: id of the data -> the same id, or the ignored one where the model was not told what
            to generate: what samples' masks hold.
    """

    names: Names
    to_model: Ids
    kept: Ids


class Masks:
    """Masks as a model takes them: ids of its labels, with the edges of instances if it has them.

    The masks of a data set whose labels are the model's are read as they are.
    """

    def __init__(self, data: PreparedDataset, to_model: Ids | None, edges: bool) -> None:
        """Take the data; ``to_model``: of a ``Translation``; ``edges``: the model has edges."""
        self._data, self._to_model, self._edges = data, to_model, edges

    def read(self, names: Sequence[tuple[str, str]]) -> tuple[Array, Array | None]:
        """Return ids and edges, (B, H, W) each, of masks by split and stem."""
        ids = np.stack([self._data.read_mask(*name) for name in names])
        if self._to_model is not None:
            ids = self._to_model[ids]
        if not self._edges:
            return ids, None
        return ids, np.stack([self._data.read_edges(*name) for name in names])


def read_given(path: Path | None) -> dict[str, str | None] | None:
    """Read ``--label-map``: ``label of the data: label of the model``, or nothing after the colon.

    Raises:
        UserError: no such file, or several labels for one.
    """
    if path is None:
        return None
    found = read_label_map(path)
    several = next((name for name, theirs in found.items() if len(theirs) > 1), None)
    if several is not None:
        raise UserError(
            f"{path}: '{several}' has several labels, and a pixel of an image has one; give one "
            "(lists are for `semsynth train --label-map`)"
        )
    return {name: theirs[0] if theirs else None for name, theirs in found.items()}


def translate_labels(
    data: PreparedDataset,
    masks: Iterable[tuple[str, str]],
    model: LabelSet,
    label_map: Path | None = None,
) -> Translation | None:
    """Return how masks are read for a model; None: as they are, all labels in them are its own.

    Labels that differ in ids, names or channels are matched by name (``match_labels``), and a table
    says which. Ignored pixels are unlabelled for the model too, unless it has a class of that name.
    All other labels in the masks must have one: by its name, or by ``label_map``, which may also
    say that there is none.

    Args:
        data: the masks' data set.
        masks: split and stem of each that is used.
        model: the labels that the model was trained with.
        label_map: the user's list, see ``read_given``.

    Raises:
        UserError: labels without a counterpart, in one line with the remedy; or pixels without a
            label where the model, or the data, has no id for them.
    """
    given = read_given(label_map)
    ours = data.labels
    if given is None and _key(ours) == _key(model):
        return None
    match = _match(ours, model, given, str(label_map))
    counts = _masks_with(data, masks)
    names, missing = _decide(ours, match, counts)
    if given is None and not missing and _are_the_same(ours, model, names):
        return None
    logger.info("\n".join(_table(data.root, names, missing, counts)))
    if missing:
        known = ", ".join(model.channels)
        none = not any(names.values())
        raise UserError(
            f"{data.root}: {'no label is' if none else 'not all labels are'} the model's: no "
            f"match for {abbreviate([repr(name) for name in missing])}; the model has {known}; "
            "give --label-map FILE with a line `label of the data: label of the model` for each "
            "(nothing after the colon: its pixels become unlabelled)"
        )
    _check_unlabelled(data, model, names, match)
    return Translation(names, model_ids(ours, model, names, model.ignore_id), _kept(ours, names))


def name_labels(
    ours: LabelSet, model: LabelSet, used: Mapping[int, int], label_map: Path | None = None
) -> tuple[Names, list[str]]:
    """Return what labels of the data are for a model, as ``translate_labels`` decides it.

    Args:
        ours: the labels of the data.
        model: the labels that the model was trained with.
        used: of each id, whether (above 0) it is in the masks.
        label_map: the user's list, see ``read_given``.

    Returns:
        Of each label in the masks the model's name (None: unlabelled); and the labels that have no
        counterpart.

    Raises:
        UserError: an unknown name in the user's list.
    """
    match = _match(ours, model, read_given(label_map), str(label_map))
    return _decide(ours, match, used)


def _match(ours: LabelSet, model: LabelSet, given: Names | None, where: str) -> LabelMapping:
    wanted = None
    if given is not None:
        wanted = {name: [] if theirs is None else [theirs] for name, theirs in given.items()}
    # Labels without a channel, the ignored one among them, may have a match like all others.
    named = LabelSet.from_names(ours.names, colors={one.id: one.color for one in ours.labels})
    return match_labels(named, model, wanted, where)


def _key(labels: LabelSet) -> tuple[Any, ...]:
    """Return what decides the condition of a mask; colours do not."""
    entries = {label.id: (label.name, label.channel) for label in labels.labels}
    return labels.ignore_id, entries


def _are_the_same(ours: LabelSet, model: LabelSet, names: Names) -> bool:
    """Whether the labels in the masks have the same ids and names in both."""
    same = {one.id for one in ours.labels if model.names.get(one.id) == one.name}
    used = {one.id: names[one.name] for one in ours.labels if one.name in names}
    ignored = ours.ignore_id if ours.ignore_id == model.ignore_id else None
    return all(i in same and (theirs is not None or i == ignored) for i, theirs in used.items())


def _masks_with(data: PreparedDataset, masks: Iterable[tuple[str, str]]) -> Counter[int]:
    """Return in how many of the masks each id is."""
    counts: Counter[int] = Counter()
    unique = sorted(set(masks))
    for split, stem in progress(unique, "reading masks", len(unique), "mask"):
        ids = data.read_mask(split, stem)
        data.labels.check_ids(ids, str(data.mask_path(split, stem)))
        counts.update(np.unique(ids).tolist())
    return counts


def _decide(
    ours: LabelSet, match: LabelMapping, counts: Mapping[int, int]
) -> tuple[dict[str, str | None], list[str]]:
    """Return what each label in the masks is for the model, and those that are nothing."""
    names: dict[str, str | None] = {}
    missing = []
    for label in ours.labels:
        if not counts.get(label.id):
            continue
        no_class = label.id == ours.ignore_id or label.channel is None
        if label.name in match.names:
            (names[label.name],) = match.names[label.name]
        elif no_class or label.name in match.omitted:
            names[label.name] = None
        else:
            missing.append(label.name)
    return names, missing


def _table(
    where: Path, names: Names, missing: Sequence[str], counts: Mapping[int, int]
) -> list[str]:
    """Return the table of labels, of those in the masks."""
    rows = [(name, "(unlabelled)" if theirs is None else theirs) for name, theirs in names.items()]
    rows += [(name, "(no match)") for name in missing]
    width = max((len(name) for name, _ in rows), default=0)
    head = f"{where}: labels are matched by name, as they are not the model's ({len(counts)} used):"
    return [head, *(f"  {name:<{width}}  ->  {theirs}" for name, theirs in rows)]


def _check_unlabelled(
    data: PreparedDataset, model: LabelSet, names: Names, match: LabelMapping
) -> None:
    without = [name for name, theirs in names.items() if theirs is None]
    if without and model.ignore_id is None:
        raise UserError(
            f"{data.root}: '{without[0]}' would be unlabelled, and the model has no label for "
            "that; give it one of the model's with --label-map"
        )
    omitted = [name for name in without if name in match.omitted]
    if omitted and data.labels.ignore_id is None:
        raise UserError(
            f"{data.root}: '{omitted[0]}' would be unlabelled in the samples, and the data have no "
            "ignored id for that; prepare them with one, or give it a label with --label-map"
        )


def model_ids(ours: LabelSet, model: LabelSet, names: Names, unlabelled: int | None) -> Ids:
    """Return the model's id of each id of the data; 0 for those that are not in ``names``.

    ``unlabelled`` is what labels become that are nothing for the model; None: there are none.
    """
    ids: dict[str | None, int] = {label.name: label.id for label in model.labels}
    if unlabelled is not None:
        ids[None] = unlabelled
    lut = np.zeros(ours.max_id + 1, np.uint16)
    for label in ours.labels:
        if label.name in names:  # it is in the masks
            lut[label.id] = ids[names[label.name]]
    return lut


def _kept(ours: LabelSet, names: Names) -> Ids:
    lut = np.arange(ours.max_id + 1, dtype=np.uint16)
    for label in ours.labels:
        if label.name in names and names[label.name] is None and ours.ignore_id is not None:
            lut[label.id] = ours.ignore_id
    return lut

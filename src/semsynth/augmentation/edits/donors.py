"""Masks of another data set, or of another kind of images, in the labels of the data."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from semsynth.augmentation.edits.config import EditConfig
from semsynth.augmentation.edits.relabel import Foreign
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger, progress
from semsynth.data.dataset import PreparedDataset
from semsynth.data.label_match import match_labels
from semsynth.data.labels import Array, LabelSet
from semsynth.pipelines.generate.labels import read_given


@dataclass(frozen=True)
class Donors:
    """Where foreign masks are from.

    Attributes:
        data: their data set.
        split: their split there.
        stems: which of its masks.
        to_ours: id there -> id of the data.
    """

    data: PreparedDataset
    split: str
    stems: tuple[str, ...]
    to_ours: Array

    def read(self, stem: str) -> Foreign:
        """Read a mask in the labels of the data."""
        ids = self.to_ours[self.data.read_mask(self.split, stem)]
        return Foreign(stem, ids, self.data.find_instances(self.split, stem))


def open_donors(config: EditConfig, data: PreparedDataset, present: Collection[int]) -> Donors:
    """Open the donors and match their labels with those of the data, by name.

    A label whose class the edited pairs do not have (another kind of microscopy, say) is the one of
    theirs that ends with the same word, if there is one. A table says what became of each.

    Args:
        config: the flags.
        data: the pairs.
        present: ids of the classes that they have.

    Raises:
        UserError: no such masks, or labels that have no counterpart: give ``--label-map``.
    """
    where = config.donors or config.data
    donors = PreparedDataset.open(where)
    kinds = {stem: donors.record(config.donor_split, stem).kind for stem in _all(config, donors)}
    stems = list(kinds)
    if config.donor_kind is not None:
        stems = [stem for stem in stems if kinds[stem] == config.donor_kind]
    elif config.donors is None:
        stems = [stem for stem in stems if kinds[stem] != config.to_kind]
    if not stems:
        known = sorted({kind for kind in kinds.values() if kind})
        raise UserError(
            f"{where}: no mask of --donor-kind '{config.donor_kind}'; its kinds are "
            f"{abbreviate(known) if known else 'not recorded'}"
        )
    stems = _without_held_out(config, data, donors, stems)
    used: set[int] = set()
    for stem in progress(stems, "reading donors", len(stems), "mask"):
        ids = donors.read_mask(config.donor_split, stem)
        donors.labels.check_ids(ids, str(donors.mask_path(config.donor_split, stem)))
        used |= set(np.unique(ids).tolist())
    if (donors.height, donors.width) != (data.height, data.width):
        logger.info(
            f"{where}: masks of {donors.width}x{donors.height} are cropped and resized to "
            f"{data.width}x{data.height}"
        )
    names = _translate(config, donors, data.labels, used, present)
    return Donors(donors, config.donor_split, tuple(stems), _lut(donors.labels, data.labels, names))


def _without_held_out(
    config: EditConfig, data: PreparedDataset, donors: PreparedDataset, stems: list[str]
) -> list[str]:
    """Leave out masks that the data hold out: the same file, or that name in the same data set."""
    if config.donors is None:
        return stems
    held, names = set(), set()
    for split in data.splits():
        if split != config.split:
            held |= {x["masks"] for x in data.file_digests(split, ("masks",)).values()}
            names |= set(data.stems(split)) if data.info.name == donors.info.name else set()
    theirs = donors.file_digests(config.donor_split, ("masks",))
    left = [s for s in stems if s not in names and theirs[s]["masks"] not in held]
    if len(left) < len(stems):
        logger.info(
            f"{donors.root}: {len(stems) - len(left)} masks are of held-out pairs of {data.root}: "
            "left out"
        )
    if not left:
        raise UserError(f"{donors.root}: all of its masks are held out in {data.root}")
    return left


def _all(config: EditConfig, donors: PreparedDataset) -> list[str]:
    stems = donors.stems(config.donor_split)
    if not stems:
        raise UserError(f"{donors.root}: split '{config.donor_split}' has no masks to use")
    return stems


def _translate(
    config: EditConfig,
    donors: PreparedDataset,
    ours: LabelSet,
    used: Collection[int],
    present: Collection[int],
) -> dict[str, str | None]:
    """Return for each label that the donors' masks have the one of the data; None: unlabelled."""
    given = read_given(config.label_map)
    wanted = None if given is None else {n: [] if x is None else [x] for n, x in given.items()}
    # Labels without a channel, the ignored one among them, may have a match like all others.
    theirs, own = (LabelSet.from_names(labels.names) for labels in (donors.labels, ours))
    match = match_labels(theirs, own, wanted, str(config.label_map))
    here = {ours.names[i] for i in present}
    names: dict[str, str | None] = {}
    missing = []
    for label in donors.labels.labels:
        if label.id not in used:
            continue
        found = match.names.get(label.name, [None])[0]
        ignored = label.id == donors.labels.ignore_id or label.channel is None
        stated = given is not None and label.name in given
        if not stated and found not in here and not ignored:
            found = _akin(label.name, here) or found
        if found is None and not ignored and not stated:
            missing.append(label.name)
        names[label.name] = found
    _show(donors, names, missing)
    if missing:
        raise UserError(
            f"{donors.root}: no label of the data for {abbreviate([repr(x) for x in missing])}; "
            f"they are {', '.join(own.names.values())}; give --label-map FILE with a line `label "
            "of the donors: label of the data` for each (nothing after the colon: unlabelled)"
        )
    without = [name for name, found in names.items() if found is None]
    if without and ours.ignore_id is None:
        raise UserError(
            f"{donors.root}: '{without[0]}' would be unlabelled, and the data have no id for "
            "that; give it a label with --label-map"
        )
    return names


def _akin(name: str, present: Collection[str]) -> str | None:
    """Return the one class of those that ends with the same word; None: there is none, or two."""

    def last(text: str) -> str:
        return re.split(r"[\W_]+", text.casefold().strip())[-1]

    found = [one for one in present if last(one) == last(name)]
    return found[0] if len(found) == 1 else None


def _show(donors: PreparedDataset, names: Mapping[str, str | None], missing: list[str]) -> None:
    if not missing and all(name == found for name, found in names.items()):
        return
    lines = [f"{donors.root}: labels of foreign masks become those of the data:"]
    width = max(map(len, names), default=0)
    for name, found in names.items():
        text = "(no match)" if name in missing else found or "(unlabelled)"
        lines.append(f"  {name:<{width}}  ->  {text}")
    logger.info("\n".join(lines))


def _lut(theirs: LabelSet, ours: LabelSet, names: Mapping[str, str | None]) -> Array:
    ids: dict[str | None, int] = {name: i for i, name in ours.names.items()}
    if ours.ignore_id is not None:
        ids[None] = ours.ignore_id
    lut = np.zeros(theirs.max_id + 1, np.int64)
    for i, name in theirs.names.items():
        if name in names:
            lut[i] = ids[names[name]]
    return lut

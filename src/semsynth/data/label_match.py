"""Which labels of one data set correspond to which of another, by name (no torch)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from semsynth.core.config import load_yaml
from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet

# Cityscapes' groups, which sidewalk-semantic writes before its names: "flat-road" is "road".
_GROUP = re.compile(r"^(flat|human|vehicle|construction|object|nature|void)[-_ ]+(?=\w)")

LabelMap = Mapping[str, list[str]]


@dataclass(frozen=True)
class LabelMapping:
    """The correspondence of two label sets.

    Attributes:
        channels: for each condition channel of ours the corresponding ones of theirs, possibly
            none.
        names: the same by name, without those that have none.
        unmatched: ours without a counterpart.
        omitted: those of them that the user's list says have none.
        unused: theirs without a counterpart.
    """

    channels: tuple[tuple[int, ...], ...]
    names: dict[str, list[str]]
    unmatched: list[str]
    unused: list[str]
    omitted: list[str] = field(default_factory=list)


def read_label_map(path: Path) -> dict[str, list[str]]:
    """Read ``ours: theirs`` from YAML; theirs is a name, a list of names, or null for none.

    Raises:
        UserError: no such file, or values that are not names.
    """
    found: dict[str, list[str]] = {}
    for ours, value in load_yaml(path).items():
        theirs = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) for name in (ours, *theirs)):
            raise UserError(f"{path}: '{ours}: {value}' must be a name, a list of names, or null")
        found[ours] = theirs
    return found


def match_labels(
    ours: LabelSet, theirs: LabelSet, given: LabelMap | None = None, where: str = "--label-map"
) -> LabelMapping:
    """Find for each label of ours the labels of theirs that mean the same.

    ``given`` has precedence. Other names correspond where they are equal up to case and
    punctuation, else where they are so without their group (``flat-road`` is ``Road``). Unlabelled
    pixels correspond to unlabelled ones where both have a channel for them.

    Args:
        ours: the labels of the data.
        theirs: the labels of the model.
        given: ours to theirs, for names that differ.
        where: begins the message of a wrong name in ``given``.

    Raises:
        UserError: an unknown name in ``given``; the nearest one is named.
    """
    own, other = ours.channels, theirs.channels
    found: dict[int, list[int]] = {}
    for mine, names in (given or {}).items():
        channel = own[_known(mine, own, f"{where}: '{mine}'", "the data")]
        found[channel] = [
            other[_known(name, other, f"{where}: '{name}'", "the model")] for name in names
        ]
    back, mine_of = {c: n for n, c in other.items()}, {c: n for n, c in own.items()}
    omitted = [mine_of[channel] for channel, group in found.items() if not group]
    found |= _by_name(own, other, found)
    if ours.unlabelled_channel >= 0 and theirs.unlabelled_channel >= 0:
        found.setdefault(ours.unlabelled_channel, [theirs.unlabelled_channel])
    channels = tuple(tuple(found.get(channel, ())) for channel in range(ours.num_channels))
    used = {channel for group in channels for channel in group}
    return LabelMapping(
        channels,
        {mine_of[i]: [back[c] for c in group] for i, group in enumerate(channels) if group},
        [mine_of[i] for i, group in enumerate(channels) if not group],
        [name for name, channel in other.items() if channel not in used],
        omitted,
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _without_group(name: str) -> str:
    return _plain(_GROUP.sub("", name.casefold()))


def _by_name(
    own: Mapping[str, int], other: Mapping[str, int], taken: Mapping[int, list[int]]
) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for key in (_plain, _without_group):
        theirs: dict[str, list[int]] = {}
        for name, channel in other.items():
            theirs.setdefault(key(name), []).append(channel)
        for name, channel in own.items():
            same = theirs.get(key(name), [])
            # Two that differ only in their group are ambiguous.
            if channel not in taken and channel not in found and len(same) == 1:
                found[channel] = same
    return found


def _known(name: str, channels: Mapping[str, int], where: str, whose: str) -> str:
    plain = {_plain(known): known for known in channels}
    if name in channels:
        return name
    if _plain(name) in plain:
        return plain[_plain(name)]
    near = difflib.get_close_matches(name, channels, n=1, cutoff=0.0)
    raise UserError(f"{where} is not a label of {whose}; did you mean '{near[0]}'?")

"""Which masks are drawn together when an interval is estimated: those that are not independent.

Neighbouring frames of a film, tiles of one photograph and images of one field are alike. Resampled
one by one they would pretend to be more data than they are, and intervals would be too narrow.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

# With fewer blocks a bootstrap over them says little (t with 5 degrees of freedom: 2.6, not 2).
MIN_BLOCKS = 6
# Ten seconds at 30 frames a second.
FILM_FRAMES = 300
# What several names begin with, and a number: tile1_3, 0006R0_f00930, seq2-frame0030; or frame0030.
_STEM = re.compile(r"(.*)[_\-. ][a-zA-Z]*(\d+)\D*|(\D*)(\d+)\D*")


@dataclass(frozen=True)
class Blocks:
    """The blocks that N masks are drawn in.

    Attributes:
        index: (N,) the number of each mask's block; None: circular blocks of consecutive masks.
        length: masks in a circular block; 1 where ``index`` says the blocks.
        n: number of masks.
        count: number of blocks that a draw takes.
        sentence: what the blocks are, in words.
    """

    index: npt.NDArray[np.int64] | None
    length: int
    n: int
    count: int
    sentence: str

    @property
    def interval_sentence(self) -> str:
        """How intervals are computed from them, in words."""
        return f"95%, 1,000 draws of masks, the same for all scores; {self.sentence}"


def blocks_of(stems: Sequence[str], groups: Sequence[str | None]) -> Blocks:
    """Find the blocks of masks.

    Groups that the data record (fields, sub-folders, what was kept on one side of a split) are
    blocks. Otherwise the stems tell: a part before the last number that several images share is a
    film, a tile or a field. Numbers of frames cut films into blocks of at least 10 seconds, at 30
    frames a second. Otherwise, or with fewer than 6 blocks, blocks are consecutive masks on a
    circle (Politis and Romano 1992), about the cube root of N of them, or a sixth of a short film.

    Args:
        stems: of the masks, in their order.
        groups: the recorded group of each; None where none is known.
    """
    n = len(stems)
    recorded = [group for group in groups if group is not None]
    if len(recorded) == n and 1 < len(set(recorded)) < n:
        return _grouped(recorded, "groups that the data record", n)
    named = _Named.of(stems)
    if named is None:
        return circular(n)
    if named.several:
        films_too = f", films cut into {FILM_FRAMES} frames" if named.films else ""
        return _grouped(named.cut(), f"images whose names begin alike{films_too}", n)
    if len(named.members) == 1 and named.films:
        labels = named.cut()
        if len(set(labels)) >= MIN_BLOCKS:
            return _grouped(labels, f"{FILM_FRAMES} frames of one film (10 s)", n)
        return circular(n, "all are of one short film, and the interval holds for it alone")
    return circular(n)


def group_names(stems: Sequence[str], groups: Sequence[str | None]) -> list[str]:
    """Return a name for what each image is alike of, however few of them there are.

    As ``blocks_of`` finds them: recorded groups; films in pieces of 10 seconds; what several names
    begin with; else each image is one of its own.

    Args:
        stems: of the images.
        groups: the recorded group of each; None where none is known.
    """
    if any(group is not None for group in groups):
        return [group or stem for stem, group in zip(stems, groups, strict=True)]
    named = _Named.of(stems)
    if named is None or not (named.several or named.films):
        return list(stems)
    alone = {name for name in named.members if not named.several and name not in named.films}
    labels = zip(stems, named.names, named.cut(), strict=True)
    return [stem if name in alone else label for stem, name, label in labels]


def sequences_of(stems: Sequence[str], groups: Sequence[str | None]) -> list[str | None]:
    """Return the sequence, tile or field of each image, films in one piece.

    Args:
        stems: of the images.
        groups: the recorded group of each; None where none is known.

    Returns:
        The recorded groups; without them what names that are shared begin with; None otherwise.
    """
    if any(group is not None for group in groups):
        return list(groups)
    named = _Named.of(stems)
    return [*named.names] if named is not None and named.several else [None] * len(stems)


@dataclass(frozen=True)
class _Named:
    """What stems say by the part before their last number, and by that number.

    Attributes:
        names: the part of each stem.
        numbers: the number of each.
        members: the places of the stems of each name.
        several: names are shared: they are films, tiles or fields.
        films: those of the members whose numbers are of frames.
    """

    names: list[str]
    numbers: list[int]
    members: dict[str, list[int]]
    several: bool
    films: dict[str, list[int]]

    @classmethod
    def of(cls, stems: Sequence[str]) -> _Named | None:
        """Return what they say; None where one has no number."""
        end = _common_end(stems)
        parts = [_STEM.fullmatch(stem.removesuffix(end)) for stem in stems]
        if any(part is None for part in parts):
            return None
        names = [part[1] or part[3] or "" for part in parts if part is not None]
        numbers = [int(part[2] or part[4]) for part in parts if part is not None]
        members: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            members.setdefault(name, []).append(i)
        several = 1 < len(members) <= len(stems) / 2
        films = {name: each for name, each in members.items() if _is_film(each, numbers, several)}
        return cls(names, numbers, members, several, films)

    def cut(self) -> list[str]:
        """Return the block of each stem: its name, of films with the first frame of the block."""
        labels = [""] * len(self.names)
        for name, found in self.members.items():
            starts = _starts([self.numbers[i] for i in found]) if name in self.films else [0]
            for i in found:
                start = max((start for start in starts if start <= self.numbers[i]), default=0)
                labels[i] = f"{name} {start}"
        return labels


def _common_end(stems: Sequence[str]) -> str:
    """Return what all stems end with, from its first separator on, such as ``_leftImg8bit``."""
    if len(stems) < 2:
        return ""
    # The first and the last of the reversed names in their order differ the most.
    first, *_, last = sorted(stem[::-1] for stem in stems)
    same = [a == b for a, b in zip(first, last, strict=False)]
    common = first[: same.index(False) if False in same else len(same)][::-1]
    found = re.search(r"[_\-. ].*", common)
    return found[0] if found else ""


def _is_film(members: Sequence[int], numbers: Sequence[int], several: bool) -> bool:
    """Return whether the numbers are those of frames: evenly spaced, or far apart in each name."""
    ordered = sorted(numbers[i] for i in members)
    steps = [later - first for first, later in pairwise(ordered)]
    if len(steps) < 3:
        return False
    step, count = Counter(steps).most_common(1)[0]
    even = step > 1 and count >= 0.8 * len(steps)
    return even or (several and float(np.median(steps)) > 1)


def _starts(frames: Sequence[int]) -> list[int]:
    """Return the first frames of the blocks; a last one that is too short joins the one before."""
    starts: list[int] = []
    for frame in sorted(frames):
        if not starts or frame >= starts[-1] + FILM_FRAMES:
            starts.append(frame)
    if len(starts) > 1 and max(frames) - starts[-1] < 0.9 * FILM_FRAMES:
        starts.pop()
    return starts


def _grouped(labels: Sequence[str], what: str, n: int) -> Blocks:
    numbers: dict[str, int] = {}
    index = np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)
    if len(numbers) >= MIN_BLOCKS:
        return Blocks(index, 1, n, len(numbers), f"{len(numbers)} blocks: {what}")
    return circular(n, f"of {what} there are only {len(numbers)}, too few to be resampled")


def circular(n: int, note: str = "") -> Blocks:
    """Return circular blocks; with a note on what the masks share, as long as they can be."""
    length = max(round(n ** (1 / 3)), -(-n // MIN_BLOCKS) if note else 1)
    text = f"circular blocks of {length} consecutive masks"
    return Blocks(None, length, n, -(-n // length), f"{text}; {note}" if note else text)

"""Which edit is made: all draws of an edit are functions of the seed and its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semsynth.augmentation.edits import kinds as made
from semsynth.augmentation.edits import relabel
from semsynth.augmentation.edits.config import Kind
from semsynth.augmentation.edits.donors import Donors
from semsynth.augmentation.edits.kinds import Edited, Refused
from semsynth.augmentation.edits.pair import Pair, read_pair
from semsynth.augmentation.edits.scene import Floats, Scene
from semsynth.augmentation.edits.survey import Piece
from semsynth.core.errors import UserError
from semsynth.core.rng import derive_seed, numpy_rng
from semsynth.data.dataset import PreparedDataset

# Draws that may be refused until another kind is tried.
_TRIES = 60
# A class that a segmenter knows perfectly is still drawn, with so much of the weight of one that
# it does not know at all.
_KNOWN = 0.05
# An image whose mean colour differs by so much, as a share of the range, is 1/e as likely.
_LIGHT = 0.05
# Draws for another object of the same image.
_TRIES_MORE = 10
# So many images are looked at for the colours of a foreign mask.
_TARGETS = 4
# Fewer pieces that can become another class are drawn again and again.
FEW_SWAPS = 10


@dataclass(frozen=True)
class Drawn:
    """A valid edit.

    Attributes:
        stem: of the new pair.
        source: the stem of the pair that was edited.
        before: that pair.
        edited: what became of it.
        line: what edits.jsonl says, without the files.
    """

    stem: str
    source: str
    before: Pair
    edited: Edited
    line: dict[str, Any]


@dataclass(frozen=True)
class Drawer:
    """Makes the edit of a number, in any process.

    Attributes:
        data: the pairs.
        split: their split.
        stems: those that may be edited.
        scene: what was learned of them.
        kinds: which edits, equally often.
        weights: (K,) how often the objects of each class are drawn; 0: never.
        seed: of all draws.
        swaps: for each class the pieces of others that can become of it.
        donors: where foreign masks are from.
        objects: the most that are transplanted into one image.
    """

    data: PreparedDataset
    split: str
    stems: tuple[str, ...]
    scene: Scene
    kinds: tuple[Kind, ...]
    weights: Floats
    seed: int
    swaps: Mapping[int, Sequence[Piece]] = field(default_factory=dict)
    donors: Donors | None = None
    objects: int = 1

    def draw(self, index: int) -> Drawn:
        """Return the edit of a number.

        Raises:
            UserError: no draw gave a valid one; the most frequent reasons are named.
        """
        rng = numpy_rng(self.seed, "edit", index)
        first = int(rng.integers(len(self.kinds)))
        why: Counter[str] = Counter()
        for kind in (*self.kinds[first:], *self.kinds[:first]):
            for _ in range(_TRIES):
                try:
                    return self._try(kind, index, rng)
                except Refused as refused:
                    why[f"{kind}: {refused}"] += 1
        reasons = "; ".join(f"{reason} ({n} times)" for reason, n in why.most_common(2))
        raise UserError(
            f"{self.data.root}: edit {index}: none of {sum(why.values())} draws is valid: "
            f"{reasons}; choose other --kinds or --classes, or give more images"
        )

    def _try(self, kind: Kind, index: int, rng: np.random.Generator) -> Drawn:
        makers: Mapping[Kind, Callable[[np.random.Generator], tuple[str, str, Pair, Edited]]] = {
            "transplant": self._transplant,
            "move": self._move,
            "remove": self._remove,
            "swap": self._swap,
            "partial": self._partial,
            "foreign": self._foreign,
        }
        source, name, before, edited = makers[kind](rng)
        changed = edited.changed & before.inside
        why = made.problem(before, edited.pair, changed, self.data.labels)
        if why:
            raise Refused(why)
        stem = f"{source}__e{index:05d}"
        line = {
            "stem": stem,
            "source": source,
            "split": self.split,
            "index": index,
            "seed": derive_seed(self.seed, "edit", index),
            "kind": kind,
            "class": name or None,
            "donor": None,
            **edited.metadata,
            "pixels": int(changed.sum()),
            "image": "pasted" if edited.valid else "to be generated",
        }
        return Drawn(stem, source, before, edited, line)

    def _read(self, stem: str) -> Pair:
        return read_pair(self.data, self.split, stem)

    def _object(self, rng: np.random.Generator, weighted: bool = True) -> Piece:
        """Draw a class, then one of its objects; all objects alike where not ``weighted``."""
        pieces = self.scene.pieces
        objects = np.flatnonzero(self.scene.objects & (self.weights > 0)).tolist()
        some = [i for i in objects if pieces.get(i)]
        weights = np.array([self.weights[i] if weighted else len(pieces[i]) for i in some])
        label = some[int(rng.choice(len(some), p=weights / weights.sum()))]
        return pieces[label][int(rng.integers(len(pieces[label])))]

    def _transplant(self, rng: np.random.Generator) -> tuple[str, str, Pair, Edited]:
        piece = self._object(rng)
        kind = self.data.record(self.split, piece.stem).kind
        others = [
            stem
            for stem in self.stems
            if stem != piece.stem and self.data.record(self.split, stem).kind == kind
        ]
        if not others:
            raise Refused("no other image of this kind")
        target = others[int(rng.choice(len(others), p=self._alike(piece.stem, others)))]
        before = self._read(target)
        edited = made.transplant(self.scene, piece, self._read(piece.stem), before, rng)
        for _ in range(int(rng.integers(self.objects))):
            edited = self._one_more(target, kind, edited, rng)
        return target, self._name(piece), before, edited

    def _one_more(
        self, target: str, kind: str | None, edited: Edited, rng: np.random.Generator
    ) -> Edited:
        """Return a pair with one object more of an image of its kind, if a place is found."""
        for _ in range(_TRIES_MORE):
            piece = self._object(rng)
            if piece.stem == target or self.data.record(self.split, piece.stem).kind != kind:
                continue
            colors = np.array(self.scene.colors[piece.stem]), np.array(self.scene.colors[target])
            if rng.random() > np.exp(-np.abs(colors[0] - colors[1]).mean() / _LIGHT):
                continue
            try:
                donor = self._read(piece.stem)
                more = made.transplant(self.scene, piece, donor, edited.pair, rng)
            except Refused:
                continue
            also = [*edited.metadata.get("also", ()), {"class": self._name(piece), **more.metadata}]
            changed = edited.changed | more.changed
            return Edited(more.pair, changed, edited.valid, {**edited.metadata, "also": also})
        return edited

    def _alike(self, stem: str, others: Sequence[str]) -> Floats:
        """Return how likely each of other images is as a target: those of the same light more."""
        colors = self.scene.colors
        mine = np.array(colors[stem])
        far = np.array([np.abs(np.array(colors[other]) - mine).mean() for other in others])
        likely = np.exp(-(far - far.min()) / _LIGHT)
        return np.asarray(likely / likely.sum())

    def _move(self, rng: np.random.Generator) -> tuple[str, str, Pair, Edited]:
        piece = self._object(rng)
        before = self._read(piece.stem)
        return piece.stem, self._name(piece), before, made.move(self.scene, piece, before, rng)

    def _remove(self, rng: np.random.Generator) -> tuple[str, str, Pair, Edited]:
        piece = self._object(rng, weighted=False)
        before = self._read(piece.stem)
        return piece.stem, self._name(piece), before, made.remove(self.scene, piece, before)

    def _swap(self, rng: np.random.Generator) -> tuple[str, str, Pair, Edited]:
        some = list(self.swaps)
        # A class that few pieces can become would be the same edit again and again.
        counts = np.array([min(len(self.swaps[to]), FEW_SWAPS) for to in some])
        weights = (self.weights[some] + 1e-9) * counts
        to = some[int(rng.choice(len(some), p=weights / weights.sum()))]
        piece = self.swaps[to][int(rng.integers(len(self.swaps[to])))]
        before = self._read(piece.stem)
        edited = relabel.swap(piece, to, before)
        edited.metadata["was"] = self._name(piece)
        return piece.stem, self.data.labels.names[to], before, edited

    def _partial(self, rng: np.random.Generator) -> tuple[str, str, Pair, Edited]:
        stem = self.stems[int(rng.integers(len(self.stems)))]
        before = self._read(stem)
        assert self.scene.ignore_id is not None, "the kind is only drawn where there is one"
        edited = relabel.partial(self.scene.ignore_id, before, rng)
        names = [self.data.labels.names[i] for i in edited.metadata["unlabelled"]]
        edited.metadata["unlabelled"] = names
        return stem, "", before, edited

    def _foreign(self, rng: np.random.Generator) -> tuple[str, str, Pair, Edited]:
        assert self.donors is not None, "the kind is only drawn where there are some"
        stems = self.donors.stems
        donor = self.donors.read(stems[int(rng.integers(len(stems)))])
        wanted = set(np.unique(donor.ids).tolist())
        some = [self.stems[i] for i in rng.choice(len(self.stems), _TARGETS).tolist()]
        pairs = [self._read(stem) for stem in some]
        # Of some images that one which has most of the classes: it gives the colours.
        shared = [len(wanted & set(np.unique(pair.mask).tolist())) for pair in pairs]
        best = int(np.argmax(shared))
        return some[best], "", pairs[best], relabel.foreign(self.scene, donor, pairs[best])

    def _name(self, piece: Piece) -> str:
        return self.data.labels.names[piece.label]


def class_weights(
    scene: Scene, names: Mapping[int, str], rare: float, ious: Mapping[str, float] | None
) -> Floats:
    """Return how often pieces of each class (K,) are drawn: more of rare and of hard ones.

    Args:
        scene: which classes come as objects, and how many pixels each has.
        names: of the classes by id.
        rare: the exponent of 1 / frequency.
        ious: IoU, 0 to 1, by name; a class without one counts as the mean of the others.
    """
    shares = scene.pixels / max(int(scene.pixels.sum()), 1)
    weights = np.where(shares > 0, np.maximum(shares, 1e-9) ** -rare, 0.0)
    if ious:
        mean = float(np.mean(list(ious.values())))
        for i, name in names.items():
            weights[i] *= _KNOWN + (1 - _KNOWN) * (1 - ious.get(name, mean))
    return np.asarray(weights / max(weights.sum(), 1e-12), np.float64)

"""``per_mask.npz`` beside a report: the scores of each mask, for paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from semsynth.core.arrays import arrays_of
from semsynth.core.errors import UserError
from semsynth.core.files import atomic_path
from semsynth.data.labels import LabelSet
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.partial_results import PartialResults

Array = npt.NDArray[Any]
PER_MASK, GALLERY = "per_mask.npz", "gallery.json"
REMEDY = "run semsynth evaluate again for this report"
FORMAT = 1
SETS = ("generated", "real", "mean_colours")
# Metrics that are means over the masks, and where their values by mask are (``PartialResults``).
VALUES = {
    "lpips_diversity": "lpips_within",
    "lpips_to_real": "lpips_to_real",
    "stlpips_diversity": "stlpips_within",
    "stlpips_to_real": "stlpips_to_real",
    "pixel_std_within_mask": "pixel_std",
}


class HasLabels(Protocol):
    """What predicted masks."""

    @property
    def labels(self) -> LabelSet:
        """The labels of the masks."""


@dataclass(frozen=True)
class PerMask:
    """The scores of each mask of a report.

    Attributes:
        stems: of the M masks, in the report's order.
        digests: of mask and real image: masks of two reports are the same where these are.
        groups: of what the data say belongs together (sequence, field); empty: not known.
        classes: names of the C classes that the evaluator scores; empty without an evaluator.
        vectors: (M, 3, C) int64 hits, target and predicted pixels of a mask's images, by set:
            ``generated``, ``real`` and ``mean_colours``, as far as they were scored.
        values: (M,) means over a mask's images or pairs of images, NaN where there is none, by the
            metric's name (``lpips_diversity``, ...).
    """

    stems: Sequence[str]
    digests: Sequence[str]
    groups: Sequence[str] = ()
    classes: Sequence[str] = ()
    vectors: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    values: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of_results(
        cls, results: PartialResults, inputs: Inputs, evaluator: HasLabels | None
    ) -> PerMask:
        """Return that of what was measured, if the evaluator (None: there was none) scored it."""
        stems = inputs.masks_order
        masks = {} if inputs.masks is None else inputs.masks.digests()
        real = inputs.real.digests()
        groups = [inputs.real.group(stem) for stem in stems]
        found = {name: results.sets[name].scores for name in SETS if name in results.sets}
        vectors = {k: x.by_mask(len(stems)) for k, x in found.items() if x is not None}
        ids: list[int] = next((x.ids.tolist() for x in found.values() if x is not None), [])
        names = {} if evaluator is None else evaluator.labels.names
        values = {}
        for name, key in VALUES.items():
            if key in results.values:
                values[name] = np.full(len(stems), np.nan)
                for number, (value, *_) in results.values[key].items():
                    values[name][number] = value
        return cls(
            stems,
            [f"{masks.get(stem, '')}{real[stem]}" for stem in stems],
            [] if None in groups else [str(group) for group in groups],
            [names[i] for i in ids],
            vectors,
            values,
        )

    def of(self, rows: Sequence[int]) -> PerMask:
        """Return that of some of the masks."""
        return PerMask(
            [self.stems[i] for i in rows],
            [self.digests[i] for i in rows],
            [self.groups[i] for i in rows] if self.groups else (),
            self.classes,
            {name: values[list(rows)] for name, values in self.vectors.items()},
            {name: values[list(rows)] for name, values in self.values.items()},
        )

    def save(self, folder: Path) -> None:
        """Write ``per_mask.npz`` into the report's folder."""
        arrays: dict[str, Any] = {name: _words(getattr(self, name)) for name in _WORDS}
        arrays |= {f"vectors_{name}": values for name, values in self.vectors.items()}
        arrays |= {f"values_{name}": values for name, values in self.values.items()}
        with atomic_path(folder / PER_MASK) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, format=np.array(FORMAT), **arrays)

    @classmethod
    def load(cls, folder: Path) -> PerMask:
        """Read it from the report's folder.

        Raises:
            UserError: it is missing, damaged, or of another version.
        """
        path = folder / PER_MASK
        if not path.is_file():
            raise UserError(
                f"{path}: no such file, and reports are compared mask by mask; {REMEDY}"
            )
        try:
            arrays = arrays_of(path.read_bytes())
            if int(arrays.pop("format")) != FORMAT:
                raise UserError(f"{path}: is of another version of semsynth; {REMEDY}")
            words = {name: arrays.pop(name).tolist() for name in _WORDS}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: cannot be read ({error}); {REMEDY}") from None
        return cls(**words, vectors=_named(arrays, "vectors_"), values=_named(arrays, "values_"))


_WORDS = ("stems", "digests", "groups", "classes")


def _words(words: Sequence[str]) -> Array:
    return np.array(list(words), dtype=np.str_)


def _named(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }

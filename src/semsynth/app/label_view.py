"""The labels of the data that is open, as those of a model: matched by name, as `generate` does."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError, abbreviate
from semsynth.data.class_checks import pixels_by_split
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import MAX_ID, Array, LabelSet
from semsynth.pipelines.generate.labels import Names, model_ids, name_labels

# Unlabelled pixels of a model without a label for them; see ``unlabelled_id``.
UNLABELLED = 255


def unlabelled_id(model: LabelSet) -> int:
    """Return what unlabelled pixels of a drawn mask are: the ignored id, or one that no label has.

    That is 255, or else the largest that is free.
    """
    if model.ignore_id is not None:
        return model.ignore_id
    known = model.by_id
    free: int = next(i for i in (UNLABELLED, *range(MAX_ID, -1, -1)) if i not in known)
    return free


@dataclass(frozen=True)
class LabelView:
    """The labels of the data as a model's.

    Attributes:
        to_model: id of the data -> id of the model.
        names: of each label of the data: the model's; None: unlabelled.
        unknown: classes with pixels that the model does not know: their pixels are unlabelled.
        line: one line for the page.
    """

    to_model: npt.NDArray[np.uint16]
    names: Names
    unknown: tuple[str, ...]
    line: str

    @classmethod
    def of(cls, data: PreparedDataset, model: LabelSet, label_map: Path | None = None) -> LabelView:
        """Match the labels of the data with those of a model: by name, as `generate` does.

        Args:
            data: the masks.
            model: the labels that the model was trained with.
            label_map: a YAML file with lines ``label of the data: label of the model``.

        Raises:
            UserError: no class of the data is one of the model.
        """
        ours, where = data.labels, data.root
        names, missing = _names(ours, model, label_map)
        used = class_pixels(data)
        classes = [label.name for label in ours.trainable if used.get(label.name)]
        unknown = tuple(name for name in missing if used.get(name))
        if classes and all(names.get(name) is None for name in classes):
            raise UserError(
                f"{where}: no class of its masks ({abbreviate(classes, 5)}) is one of the model "
                f"({abbreviate(list(model.channels), 5)}); open it with a model of these classes"
            )
        names = {**names, **dict.fromkeys(missing)}
        lut = model_ids(ours, model, names, unlabelled_id(model))
        return cls(lut, names, unknown, _line(where.name, classes, names, unknown))

    def apply(self, ids: Array) -> Array:
        """Return ids (H, W) of the data as ids of the model, uint8 where they fit."""
        found = self.to_model[ids]
        return found.astype(np.uint8) if int(self.to_model.max()) <= 255 else found

    def back(self, class_id: int, labels: LabelSet) -> list[int]:
        """Return the ids of the classes of the data that are a class of the model."""
        own = [x for x in labels.trainable if self.names.get(x.name) is not None]
        return [label.id for label in own if self.to_model[label.id] == class_id]


def _names(
    ours: LabelSet, model: LabelSet, label_map: Path | None
) -> tuple[dict[str, str | None], list[str]]:
    """Return what each label of the data is for the model, and those that are nothing."""
    if label_map is None and all(model.names.get(x.id) == x.name for x in ours.trainable):
        same: dict[str, str | None] = {label.name: label.name for label in ours.labels}
        if (
            ours.ignore_id is not None
            and model.names.get(ours.ignore_id) != ours.names[ours.ignore_id]
        ):
            same[ours.names[ours.ignore_id]] = None
        return same, []
    names, missing = name_labels(ours, model, dict.fromkeys(ours.by_id, 1), label_map)
    return dict(names), missing


def class_pixels(data: PreparedDataset) -> Counter[str]:
    """Return the pixels of each label in all splits, as ``dataset.json`` has them."""
    total: Counter[str] = Counter()
    for pixels in pixels_by_split(data).values():
        total.update({data.labels.names[i]: count for i, count in pixels.items()})
    return total


def _line(where: str, classes: list[str], names: Names, unknown: tuple[str, ...]) -> str:
    others = [f"'{name}' is '{names[name]}'" for name in classes if names[name] not in (None, name)]
    text = f"{where}: {len(classes) - len(unknown)} of {len(classes)} classes are the model's"
    if others:
        text += f" ({abbreviate(others, 3)})"
    if unknown:
        listed = abbreviate([repr(name) for name in unknown], 5)
        text += f"; it does not know {listed}: unlabelled in the masks that you open"
    return text

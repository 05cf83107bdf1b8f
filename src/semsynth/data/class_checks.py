"""What is wrong with the classes of a data set, reported before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import warn_once
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet

_NAMED = 5


def class_warnings(labels: LabelSet, pixels: Mapping[str, Mapping[int, int]]) -> list[str]:
    """Return a line for each thing that makes training or scores pointless; empty if all is well.

    Args:
        labels: the classes.
        pixels: pixels by id, for each split.
    """
    names = {label.id: label.name for label in labels.trainable}
    present = {
        split: {i for i, n in counts.items() if n and i in names}
        for split, counts in pixels.items()
    }
    if not any(present.values()):
        return [_all_ignored(labels)]
    lines = []
    if len(names) == 1:
        ignored = "" if labels.ignore_id is None else f" (id {labels.ignore_id} is ignored)"
        lines.append(
            f"there is only one class, {next(iter(names.values()))}{ignored}: a segmenter has "
            "nothing to separate it from; if the rest is a class too, remove 'ignore:' from the "
            "labels "
            "and give it a name"
        )
    absent = [name for i, name in names.items() if not any(i in ids for ids in present.values())]
    if absent:
        lines.append(
            f"{_classes(absent)} no pixel in any mask: what never occurs can be neither learned "
            "nor scored; check the ids in the labels file, or remove what you do not need from it"
        )
    advice = {
        "train": "nothing learns it; add images, or, if the split was drawn, prepare with another "
        "--seed or --group-by",
        "val": "its score there is unknown; move images with it there, or, if the split was drawn, "
        "prepare with another --seed or a larger --val-share",
    }
    for split, todo in advice.items():
        missing = [
            name
            for i, name in names.items()
            if split in present and i not in present[split] and name not in absent
        ]
        if missing:
            lines.append(f"{_classes(missing)} no pixel in {split}: {todo}")
    if "train" not in present:
        lines.append("no images in train: no model can be trained")
    return lines


def warn_about_classes(data: PreparedDataset) -> None:
    """Log what ``class_warnings`` finds in a prepared data set, each line once."""
    for line in class_warnings(data.labels, pixels_by_split(data)):
        warn_once(f"{data.root}: {line}")


def require_classes(data: PreparedDataset, split: str) -> None:
    """Stop where a segmenter could not learn anything: all pixels of a split are ignored.

    Raises:
        UserError: says so.
    """
    if not any(pixels_by_split(data)[split].get(x.id, 0) for x in data.labels.trainable):
        raise UserError(f"{data.root}, {split}: {_all_ignored(data.labels)}")


def pixels_by_split(data: PreparedDataset) -> dict[str, dict[int, int]]:
    """Return the pixels by id of each split, as ``dataset.json`` has them.

    A label that somebody has renamed there has its pixels under its old name: in the same place.
    """
    ids = {name: i for i, name in data.labels.names.items()}
    places = [label.id for label in data.labels.labels]
    return {
        split: {
            ids.get(name, places[min(place, len(places) - 1)]): count
            for place, (name, count) in enumerate(info.class_pixels.items())
        }
        for split, info in data.info.splits.items()
    }


def _classes(names: list[str]) -> str:
    shown = abbreviate(names, _NAMED)
    return f"class {shown} has" if len(names) == 1 else f"{len(names)} classes ({shown}) have"


def _all_ignored(labels: LabelSet) -> str:
    return (
        f"all pixels of all masks have the ignored id {labels.ignore_id}: nothing can be learned; "
        "check the masks, or 'ignore:' in the labels file"
    )

"""Which images are to be painted, and with which seeds (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from semsynth.core.errors import UserError
from semsynth.core.rng import derive_seed
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.pipelines.generate.config import GenerateConfig

T = TypeVar("T")


@dataclass(frozen=True)
class SampleSpec:
    """One image to paint.

    Attributes:
        split: the split of its mask, and its own.
        source: the stem of its mask.
        stem: its own stem.
        seed: decides its noise.
    """

    split: str
    source: str
    stem: str
    seed: int


def list_samples(config: GenerateConfig, data: PreparedDataset) -> list[SampleSpec]:
    """Return the images that ``config`` asks for, those of one mask together.

    A seed depends on ``config.seed``, the mask's stem and the image's number only, so more
    images a mask, or another choice of masks, change no image that there was.

    Raises:
        UserError: the split does not exist or has no masks.
    """
    stems = data.stems(config.split)
    if not stems:
        raise UserError(f"{data.root}: split '{config.split}' has no masks; choose another --split")
    return [
        SampleSpec(config.split, stem, sample_stem(stem, k), derive_seed(config.seed, stem, k))
        for stem in spread(stems, config.limit)
        for k in range(config.per_mask)
    ]


def sample_stem(source: str, k: int) -> str:
    """Return the stem of the k-th image (from 0) of the mask ``source``."""
    return f"{source}__{k:03d}"


def spread(items: Sequence[T], n: int | None) -> list[T]:
    """Return ``n`` of ``items``, evenly spread and in order; all of them if there are fewer."""
    if n is None or n >= len(items):
        return list(items)
    return [items[i * len(items) // n] for i in range(n)]


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut ``items`` into pieces of ``size``; the last may be shorter."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def check_same_labels(model: LabelSet, data: LabelSet, where: str) -> None:
    """Check that a model's conditions mean what the masks of ``where`` say.

    Colours may differ; ids, names, channels and the ignored id may not.

    Raises:
        UserError: names the first difference.
    """
    ours = {label.id: (label.name, label.channel) for label in model.labels}
    theirs = {label.id: (label.name, label.channel) for label in data.labels}
    for i in sorted(ours.keys() | theirs.keys()):
        if ours.get(i) != theirs.get(i):
            raise UserError(
                f"{where}: label {i} is {_describe(theirs.get(i))}, in the model it is "
                f"{_describe(ours.get(i))}; use the data set that the model was trained for"
            )
    if model.ignore_id != data.ignore_id:
        raise UserError(
            f"{where}: ignores id {data.ignore_id}, the model {model.ignore_id}; "
            "use the data set that the model was trained for"
        )


def _describe(label: tuple[str, int | None] | None) -> str:
    if label is None:
        return "missing"
    name, channel = label
    return f"'{name}' ({'no channel' if channel is None else f'channel {channel}'})"

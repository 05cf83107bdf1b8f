"""What is recorded of real images beside their classes: their objects and their kind."""

from __future__ import annotations

from collections.abc import Iterator

from semsynth.core.logging import progress
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import Array
from semsynth.evaluation.inputs.image_set import PreparedImages
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.inputs.mask_set import PreparedMasks
from semsynth.evaluation.inputs.resized import ResizedImages
from semsynth.evaluation.metrics.instances import classes_with_objects

Place = tuple[PreparedDataset, str, str]


def kind_of(inputs: Inputs, stem: str) -> str | None:
    """Return the recorded kind of a mask's real image; None: there is none."""
    kinds = (data.record(split, name).kind for data, split, name in _places(inputs, stem))
    return next((kind for kind in kinds if kind), None)


def read_instances(inputs: Inputs, stem: str) -> Array | None:
    """Return the instance map (H, W) of a mask, 0 where there is no object; None without one."""
    place = next(_with_instances(inputs, stem), None)
    return None if place is None else place[0].read_instances(*place[1:])


def object_classes(inputs: Inputs) -> list[int]:
    """Return the ids of the classes that have objects; empty unless all masks have instance maps.

    As ``classes_with_objects``.
    """
    stems, labels, masks = inputs.masks_order, inputs.labels, inputs.masks
    known = labels is not None and all(any(_with_instances(inputs, s)) for s in stems)
    if labels is None or masks is None or not known:
        return []
    bar = progress(stems, "classes with objects", unit="mask")
    maps = ((masks.read_mask(stem), read_instances(inputs, stem)) for stem in bar)
    return classes_with_objects(labels, ((mask, x) for mask, x in maps if x is not None))


def _with_instances(inputs: Inputs, stem: str) -> Iterator[Place]:
    """Yield the places that have an instance map of a mask, at the mask's size."""
    for data, split, name in _places(inputs, stem):
        fits = inputs.masks is not None and inputs.masks.size(stem) == (data.height, data.width)
        if fits and data.record(split, name).instances:
            yield data, split, name


def _places(inputs: Inputs, stem: str) -> list[Place]:
    """Return where prepared data have a mask and its real image."""
    found: list[Place] = []
    masks, real = inputs.masks, inputs.real
    if isinstance(real, ResizedImages):
        real = real.images
    if isinstance(masks, PreparedMasks):
        found.append((masks.data, masks.split, masks.names[stem]))
    if isinstance(real, PreparedImages):
        found.append((real.data, real.split, stem))
    return found

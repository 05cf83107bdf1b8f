"""What is wrong with the inputs of an evaluation, said before any network runs."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from semsynth.core.errors import UserError
from semsynth.data.resize import Size
from semsynth.evaluation.inputs.image_set import PreparedImages
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.inputs.mask_set import PreparedMasks, check_ids


class _Sized(Protocol):
    @property
    def where(self) -> str: ...

    def size(self, stem: str) -> Size: ...


def check_inputs(inputs: Inputs) -> None:
    """Check counts, sizes, pixels and masks; every image that nobody vouches for is read once.

    Raises:
        UserError: fewer than two images; sizes that differ; an image that cannot be read; ids that
            the labels lack; generated images that are the real ones.
    """
    sets = {"--generated": inputs.generated, "--real": inputs.real, "--train": inputs.training}
    for flag, images in sets.items():
        if images is not None and len(images.stems) < 2:
            raise UserError(
                f"{images.where}: {flag} has {len(images.stems)} image that counts; statistics "
                "need at least 2"
            )
    _check_channels(inputs)
    _check_sizes(inputs)
    for images in sets.values():
        if images is not None:
            images.say_what_is_shown()
            images.check()
    if inputs.masks is not None:
        check_ids(inputs.masks, inputs.masks_order)
    _check_masks_of_samples(inputs)
    _check_copies(inputs)


def made_from_real(inputs: Inputs) -> dict[str, Any] | None:
    """Return what the report says where samples were made from the images they are compared with.

    Returns:
        ``n`` of the ``of`` samples, and ``warning``, a sentence; None: none was.
    """
    n, of = len(inputs.made_from_real), len(inputs.generated.stems)
    if not n:
        return None
    return {
        "n": n,
        "of": of,
        "warning": f"{n} of {of} generated images were made from the real images that they are "
        "compared with (--from-image): distances, LPIPS to real and copies say how much of these "
        "was kept, not how good images from noise are.",
    }


def _check_channels(inputs: Inputs) -> None:
    """Refuse samples that hold other channels than the data."""
    one, two = inputs.generated, inputs.real
    both = isinstance(one, PreparedImages) and isinstance(two, PreparedImages)
    if both and one.data.pixels != two.data.pixels:  # type: ignore[attr-defined]
        raise UserError(
            f"{one.where}: images have {one.data.pixels}, in {two.where} {two.data.pixels}; give "  # type: ignore[attr-defined]
            "the data that the model was trained on"
        )


def _check_sizes(inputs: Inputs) -> None:
    """Check that what is compared pixel by pixel, or as a set, has one size."""
    for sample, mask in inputs.samples_with_masks:
        _same_size(inputs.generated, sample, inputs.real, mask)
        if inputs.masks is not None:
            _same_size(inputs.generated, sample, inputs.masks, mask)
    if inputs.training is None:
        return
    known = {inputs.real.size(stem) for stem in inputs.masks_order}
    if len(known) == 1:
        first = inputs.masks_order[0]
        for stem in inputs.training.stems:
            _same_size(inputs.training, stem, inputs.real, first)


def _same_size(images: _Sized, stem: str, others: _Sized, other: str) -> None:
    one, two = images.size(stem), others.size(other)
    if one != two:
        raise UserError(
            f"{images.where}: '{stem}' is {one[1]}x{one[0]}, '{other}' in {others.where} is "
            f"{two[1]}x{two[0]}; resize them to one size, or give a --protocol with a size"
        )


def _check_masks_of_samples(inputs: Inputs) -> None:
    """Refuse samples that were generated from other masks than those they are scored against."""
    generated, masks = inputs.generated, inputs.masks
    if not isinstance(generated, PreparedImages) or not isinstance(masks, PreparedMasks):
        return
    own = PreparedMasks.of_split(generated.data, generated.split)
    drawn_from, scored = own.digests(), masks.digests()
    for sample, mask in inputs.samples_with_masks:
        same = drawn_from[sample] == scored[mask]
        if not same and not np.array_equal(own.read_mask(sample), masks.read_mask(mask)):
            raise UserError(
                f"{generated.where}: sample '{sample}' was generated from another mask than "
                f"'{mask}' of {masks.where}; give the data that the samples were generated from"
            )


def _check_copies(inputs: Inputs) -> None:
    """Refuse generated images that are the real images, file by file."""
    real = set(inputs.real.digests().values())
    generated = inputs.generated.digests().values()
    if real.issuperset(generated):
        raise UserError(
            f"{inputs.generated.where}: its images are the real images of {inputs.real.where}, "
            "byte for byte; give the generated ones as --generated"
        )

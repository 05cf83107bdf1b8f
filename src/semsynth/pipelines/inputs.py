"""Arguments of a call: masks and instance maps as images, arrays, tensors, paths, or lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from PIL import Image
from torch import Tensor

from semsynth.core.config import plain_value
from semsynth.core.errors import UserError
from semsynth.data.image_files.masks import (
    MasksAs,
    decide_masks,
    mask_ids,
    read_ids,
    stored_numbers,
)
from semsynth.data.image_files.raw_masks import RawMask, open_mask, raw_mask
from semsynth.data.labels import Array, LabelSet
from semsynth.diffusion.sampling import OnStep
from semsynth.pipelines.synthesizer import Interrupted

Callback = Callable[[Any, int, Any, dict[str, Tensor]], Mapping[str, Tensor] | None]
"""(pipeline, step, timestep, {"latents": x}) to those of these that change; as in Diffusers."""
T = TypeVar("T")
Single = Image.Image | Array | Tensor | str | os.PathLike[str]
Mask = Single | Sequence[Single]
"""An image, array or path; an array may hold several masks, and so may a list or tuple."""


def read_counts(
    num_images: Any, num_images_per_prompt: Any, num_inference_steps: Any
) -> tuple[int, int | None]:
    """Return images of each mask (of the first two, whichever is given; else 1) and steps.

    Steps that are not given are None.

    Raises:
        UserError: both of the first two, or one that is not a whole number of at least 1.
    """
    if num_images is not None and num_images_per_prompt is not None:
        raise UserError("num_images= and num_images_per_prompt= are the same: give one of them")
    name = "num_images" if num_images_per_prompt is None else "num_images_per_prompt"
    images = num_images if num_images_per_prompt is None else num_images_per_prompt
    given = {name: 1 if images is None else images}
    if num_inference_steps is not None:
        given["num_inference_steps"] = num_inference_steps
    counts = {name: plain_value(value) for name, value in given.items()}
    for what, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{what} is {value!r}: must be a whole number of at least 1")
    return counts[name], counts.get("num_inference_steps")


def check_callback(callback: Any, inputs: Sequence[str]) -> None:
    """Check a callback and the tensors that it asks for.

    Raises:
        UserError: it cannot be called, or asks for other tensors than ``latents``.
    """
    if callback is not None and not callable(callback):
        raise UserError("callback_on_step_end: must be a function of (pipe, step, t, tensors)")
    names = getattr(callback, "tensor_inputs", inputs)
    if not set(names) <= {"latents"}:
        raise UserError(
            f"callback_on_step_end_tensor_inputs: {sorted(names)}; there are only latents"
        )


def step_hook(pipe: Any, callback: Callback | None, bar: Any) -> OnStep:
    """Return what to call after each step: it advances the bar and calls the callback.

    An interruption of an earlier call is reset. Raises, when called:
        UserError: the callback returns something else than latents of the same shape.
        Interrupted: it has set ``pipe._interrupt``.
    """
    pipe._interrupt = False

    def on_step(index: int, t: Any, latents: Tensor) -> Tensor | None:
        bar.update(1)
        if callback is None:
            return None
        changed = (callback(pipe, index, t, {"latents": latents}) or {}).get("latents")
        if changed is not None and (
            not isinstance(changed, Tensor) or changed.shape != latents.shape
        ):
            raise UserError(
                f"callback_on_step_end: must return latents of shape {tuple(latents.shape)}"
            )
        if pipe._interrupt:
            pipe._interrupt = False  # for this call alone, where threads share the pipeline
            raise Interrupted(latents if changed is None else changed)
        return changed

    return on_step


def read_masks(mask: Mask, labels: LabelSet, masks_as: MasksAs = "auto") -> Array:
    """Return label ids (B, H, W) of one mask or several.

    Args:
        mask: a PIL image of ids (one channel) or in the colours of ``labels``; a NumPy array or
            tensor of ids, (H, W), (B, H, W), (B, 1, H, W) or with a last axis of 1, or of colours,
            (H, W, 3) or (B, H, W, 3), with alpha too; the path of an image; or a list of these.
        labels: whose ids or colours the mask has.
        masks_as: ids, colors, or auto: as the values and palettes of all of them say.

    Raises:
        UserError: another type, shape or dtype, an id or a colour that is not in ``labels``, a
            file that cannot be read, one-hot maps, two readings, or masks of several sizes.
    """
    if masks_as not in get_args(MasksAs):
        raise UserError(f"masks_as is {masks_as!r}: must be one of {', '.join(get_args(MasksAs))}")

    def single(value: Any, where: str) -> list[RawMask]:
        if isinstance(value, Image.Image):
            return [raw_mask(value, where)]
        if isinstance(value, str | os.PathLike):
            return [open_mask(_file(value), os.fspath(value))]
        array = _array(value, where)
        _refuse_one_hot(array, labels, where)
        return [raw_mask(part, where) for part in _single_masks(array, where)]

    parts = [raw for group in _read_each(mask, "mask", single) for raw in group]
    decision = decide_masks(parts, labels, masks_as)
    return _stacked([mask_ids(raw, labels, decision)[0] for raw in parts], "mask")


def read_instances(instances: Mask, shape: tuple[int, ...]) -> Array:
    """Return instance numbers (B, H, W): equal numbers are one object, whatever the numbers are.

    Args:
        instances: as a mask, but always numbers: one channel, 8 or 16 bits or more.
        shape: of the masks that they belong to.

    Raises:
        UserError: another type or shape than that of the masks, or a file that cannot be read.
    """

    def single(value: Any, where: str) -> list[Array]:
        if isinstance(value, Image.Image):
            return [stored_numbers(raw_mask(value, where))]
        if isinstance(value, str | os.PathLike):
            return [read_ids(_file(value), os.fspath(value))]
        return list(_batched(_array(value, where), where))

    groups = _read_each(instances, "instances", single)
    found = _stacked([numbers for group in groups for numbers in group], "instances")
    if found.shape != shape:
        raise UserError(f"instances: are {_shape(found.shape)}, the masks {_shape(shape)}")
    return found


def _read_each(value: Any, what: str, single: Callable[[Any, str], list[T]]) -> list[list[T]]:
    if not isinstance(value, list | tuple):
        return [single(value, what)]
    if not value:
        raise UserError(f"{what}: an empty list; give at least one")
    return [single(part, f"{what} {index}") for index, part in enumerate(value)]


def _stacked(found: Sequence[Array], what: str) -> Array:
    sizes = {part.shape: index for index, part in reversed(list(enumerate(found)))}
    if len(sizes) > 1:
        first, second = sorted(sizes.items(), key=lambda item: item[1])[:2]
        raise UserError(
            f"{what} {first[1]} is {_shape(first[0])}, {what} {second[1]} {_shape(second[0])}: "
            "those of one call must have one size"
        )
    return np.stack(found)


def _file(value: str | os.PathLike[str]) -> Path:
    path = Path(value)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the mask's file, or a list of files")
    if not path.exists():
        raise UserError(
            f"{path}: no such file; a mask is an image, an array, or the path of an image "
            "(there are no text prompts)"
        )
    return path


def _array(value: Any, where: str) -> Array:
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            raise UserError(_not_integer(where, str(value.dtype).removeprefix("torch.")))
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise UserError(
            f"{where}: a {type(value).__name__} is not a mask; give a PIL image, a NumPy array, a "
            "tensor, the path of an image, or a list of these"
        )
    if value.dtype == bool:
        value = value.astype(np.uint8)
    if not np.issubdtype(value.dtype, np.integer):
        raise UserError(_not_integer(where, str(value.dtype)))
    if value.size == 0:
        raise UserError(f"{where}: is empty (shape {value.shape})")
    array: Array = value
    return array


def _not_integer(where: str, dtype: str) -> str:
    return (
        f"{where}: is {dtype}; a mask holds integer label ids (of a segmenter's scores take the "
        "argmax over the classes)"
    )


def _single_masks(array: Array, where: str) -> list[Array]:
    """Split an array into masks: (H, W) of ids, or (H, W, C) of colours or with alpha."""
    channels = array.shape[-1] if array.ndim > 2 else 1
    alpha = channels == 4 or (channels == 2 and bool((array[..., 1] == 255).all()))
    # Wider types hold colours, too, if a mask of that width would make no sense.
    if array.ndim in (3, 4) and (channels == 3 or alpha) and min(array.shape[-3:-1]) > channels:
        return [array] if array.ndim == 3 else list(array)
    if array.ndim == 3 and channels == 3 and array.dtype == np.uint8:
        return [array]
    if array.ndim == 4 and channels == 3 and array.dtype == np.uint8:
        return list(array)
    return list(_batched(array, where))


def _refuse_one_hot(array: Array, labels: LabelSet, where: str) -> None:
    """Refuse maps that have a channel of 0 and 1 for each label: they would be read as masks."""
    if array.ndim not in (3, 4) or array.min() != 0 or array.max() not in (1, 255):
        return
    if not np.isin(array, (0, array.max())).all():
        return
    sizes = {len(labels.labels), labels.num_channels}
    for axis in (array.ndim - 1, array.ndim - 3):
        count, last = array.shape[axis], axis == array.ndim - 1
        total = (array != 0).sum(axis)
        if count < 2 or total.max() != 1:
            continue
        # Masks of a batch may exclude each other by chance: few of them often do.
        whole = total.min() == 1 or (last and 4 * count <= min(array.shape[-3:-1]))
        shapes = count > 2 or len(np.unique(array.take(0, axis))) > 1
        if (whole and (last or shapes or count in sizes)) or (count in sizes and count > 2):
            before = axis - array.ndim if last else axis
            raise UserError(
                f"{where}: has shape {array.shape} and looks like one-hot maps of {count} labels "
                f"(axis {axis}); take argmax({before}) to get ids (masks that are separate can be "
                "given as a list)"
            )


def _batched(array: Array, where: str) -> Array:
    shape = array.shape
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3:
        return array[None, ..., 0] if shape[-1] == 1 else array
    if array.ndim == 4 and 1 in (shape[1], shape[-1]):
        return array[:, 0] if shape[1] == 1 else array[..., 0]
    raise UserError(
        f"{where}: has shape {shape}; ids are (H, W) or (B, H, W), colours (H, W, 3) or "
        "(B, H, W, 3) uint8"
    )


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))

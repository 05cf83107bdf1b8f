"""Weights in fewer bytes: float16, or 8-bit integers with one scale for each output channel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from semsynth.core.errors import UserError, abbreviate
from semsynth.pipelines.convert.config import WeightForm

LEVELS = 127  # symmetric: -127 to 127
# Of what rounding to 8 bits may do to a tensor, as a share of its root mean square: others stay in
# float16. Trained convolutions have 0.3% to 1.2%.
MAX_ERROR = 0.015
# Biases, norms and the like: their bytes do not count, so they stay as they are.
SMALL = 4096
# What the image itself goes through: float16 at least.
ENDS = ("conv_in.", "conv_out.", "head.")
# A scale below that of the largest weight clips a few and rounds all others less.
_CLIPPING = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


@dataclass(frozen=True)
class PackedWeights:
    """Weights as they are in a file.

    Attributes:
        tensors: by name: float32, float16, or int8 with a scale.
        scales: of those in int8: (output channels,) float32; weight = integer * scale.
    """

    tensors: dict[str, Tensor]
    scales: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightError:
    """What rounding did to the weights, as shares of their root mean square.

    Attributes:
        relative: root mean square of the differences of all weights.
        worst: the same of the tensor where it is largest.
        name: that tensor; empty where nothing was rounded.
        kept: names of the tensors that 8 bits would have changed too much: float16.
    """

    relative: float
    worst: float
    name: str
    kept: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it in words."""
        text = f"{self.relative:.2%} of the weights' root mean square"
        if self.name:
            text += f" (at most {self.worst:.2%}, {self.name})"
        if self.kept:
            text += f"; in fp16, as 8 bits change them by more: {abbreviate(self.kept, 3)}"
        return text


def pack_weights(
    weights: Mapping[str, Tensor], form: WeightForm
) -> tuple[PackedWeights, WeightError]:
    """Round weights to a form, and measure what that changes.

    Tensors of fewer than ``SMALL`` values, and those of one axis, stay in float32. With ``int8``
    the others have one scale for each output channel (axis 0), the one of a few that gives the
    least squared error; ``ENDS``, and what changes by more than ``MAX_ERROR``, are in float16.

    Args:
        weights: of a network, in float32.
        form: how they are written.

    Raises:
        UserError: a weight that is not finite.
    """
    tensors: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    kept: list[str] = []
    for name, value in weights.items():
        value = value.detach().cpu()
        tensors[name] = value
        large = value.ndim >= 2 and value.numel() >= SMALL and value.is_floating_point()
        if form == "fp32" or not large:
            continue
        value = value.float()
        if not value.isfinite().all():
            raise UserError(f"{name} has weights that are not finite: they cannot be rounded")
        half = value.half()
        tensors[name] = half if half.isfinite().all() else value
        if form == "int8" and not name.startswith(ENDS):
            integers, scale = quantize(value)
            if relative_error(value, dequantize(integers, scale)) <= MAX_ERROR:
                tensors[name], scales[name] = integers, scale
            else:
                kept.append(name)
    packed = PackedWeights(tensors, scales)
    return packed, _measure(weights, packed, tuple(kept))


def unpack_weights(packed: PackedWeights, where: str) -> dict[str, Tensor]:
    """Return the weights in float32; tensors that are float32 already are not copied.

    Raises:
        UserError: not tensors of these types, or scales that are missing or do not fit.
    """
    weights: dict[str, Tensor] = {}
    for name, value in packed.tensors.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{where}: {name} is not a tensor; copy the file again")
        if value.dtype == torch.int8:
            weights[name] = dequantize(value, _scale_of(name, value, packed.scales, where))
        elif value.dtype == torch.float16:
            weights[name] = value.float()
        else:
            weights[name] = value
    return weights


def quantize(value: Tensor) -> tuple[Tensor, Tensor]:
    """Round to 8 bits: int8 (output channels, ...), and float32 (output channels,) scales."""
    rows = value.flatten(1)
    largest = rows.abs().amax(1)
    best_scale, best_error = largest / LEVELS, torch.full_like(largest, math.inf)
    for share in _CLIPPING:
        scale = largest * (share / LEVELS)
        error = (dequantize(_rounded(rows, scale), scale) - rows).square().sum(1)
        better = error < best_error
        best_scale = torch.where(better, scale, best_scale)
        best_error = torch.where(better, error, best_error)
    return _rounded(rows, best_scale).view(value.shape), best_scale


def dequantize(integers: Tensor, scale: Tensor) -> Tensor:
    """Return the float32 weights of integers (output channels, ...) and their scales."""
    return integers.float() * scale.view(-1, *[1] * (integers.ndim - 1))


def relative_error(value: Tensor, rounded: Tensor) -> float:
    """Return the root mean square of the differences as a share of that of ``value``."""
    size = value.double().square().sum().item()
    changed = (rounded.double() - value.double()).square().sum().item()
    return math.sqrt(changed / size) if size else 0.0


def _rounded(rows: Tensor, scale: Tensor) -> Tensor:
    # A channel of zeros has the scale 0.
    divided = rows / torch.where(scale > 0, scale, torch.ones_like(scale)).unsqueeze(1)
    return divided.round().clamp(-LEVELS, LEVELS).to(torch.int8)


def _measure(
    weights: Mapping[str, Tensor], packed: PackedWeights, kept: tuple[str, ...]
) -> WeightError:
    unpacked = unpack_weights(packed, "")
    size = changed = 0.0
    worst, worst_name = 0.0, ""
    for name, value in weights.items():
        value = value.detach().cpu().double()
        size += value.square().sum().item()
        changed += (unpacked[name].double() - value).square().sum().item()
        error = relative_error(value, unpacked[name])
        if error > worst:
            worst, worst_name = error, name
    relative = math.sqrt(changed / size) if size else 0.0
    return WeightError(relative, worst, worst_name, kept)


def _scale_of(name: str, value: Tensor, scales: Mapping[str, Any], where: str) -> Tensor:
    scale = scales.get(name)
    fits = (
        isinstance(scale, Tensor)
        and scale.dtype == torch.float32
        and value.ndim > 0
        and scale.shape == value.shape[:1]
        and bool(scale.isfinite().all())
    )
    if not fits:
        raise UserError(
            f"{where}: {name} has 8-bit weights whose scales are missing or do not fit; "
            "copy the file again"
        )
    return scale  # type: ignore[return-value]

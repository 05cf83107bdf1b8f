"""What the network needs of a mask, in the forms in which it can be kept.

Gamma and beta of every SPADE norm depend on the label map alone: half of a pass is spent on them,
and they are the same in all steps, for all images of a mask, on both sides of guidance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from semsynth.models.sdm.norms import group_norm, group_norm_with_moments

Modulation = tuple[Tensor, Tensor]
"""1 + gamma and beta of one norm, each (M, C, H, W) for M masks; or, of the null condition, with
sides of 3 at the most: the rim, and one pixel for all within (see ``spread``)."""

NormCondition = Modulation | Tensor
"""A modulation, or what it is computed from when it is used: the label map (M, K, H, W) at the
norm's size."""


@dataclass(frozen=True)
class BatchedConditions:
    """The entries of one norm for several passes that run as one batch.

    Attributes:
        entries: one for each pass; the batch has all images of the first, then of the second, ….
    """

    entries: tuple[NormCondition, ...]


@dataclass(frozen=True)
class Condition:
    """All that the network needs of masks, computed once by ``SemanticUNet.encode``.

    With M masks, a batch of M n images has n of the first mask, then n of the second, ….

    Attributes:
        entries: one for each SPADE norm, in the order of the forward pass.
    """

    entries: tuple[NormCondition, ...]

    @property
    def n_bytes(self) -> int:
        """Return the memory that it takes, in bytes; maps that norms share count once."""
        parts = {
            id(part): part.numel() * part.element_size()
            for entry in self.entries
            for part in ((entry,) if isinstance(entry, Tensor) else entry)
        }
        return sum(parts.values())

    @classmethod
    def stack(cls, parts: list[Condition]) -> Condition:
        """Return the condition of the masks of several conditions of one network, in order.

        ``parts`` is emptied, and each norm's tensors are let go as soon as they are joined: all of
        them twice would be twice the memory.
        """
        if len(parts) == 1:
            return parts.pop()
        left = [list(reversed(part.entries)) for part in parts]
        parts.clear()
        entries: list[NormCondition] = []
        # Norms of one level share their map: it is joined once (and kept, so that its id is its).
        maps: dict[tuple[int, ...], tuple[Tensor, list[NormCondition]]] = {}
        while left[0]:
            row = [of_mask.pop() for of_mask in left]
            if isinstance(row[0], Tensor):
                key = tuple(id(tensor) for tensor in row)
                if key not in maps:
                    maps[key] = torch.cat([t for t in row if isinstance(t, Tensor)]), row
                entries.append(maps[key][0])
            else:
                scales, shifts = zip(*row, strict=True)
                del row
                entries.append((torch.cat(scales), torch.cat(shifts)))
        return cls(tuple(entries))


def modulate(x_BCHW: Tensor, modulation: Modulation) -> Tensor:
    """Return ``x * (1 + gamma) + beta``, for B images of M masks (see ``Condition``)."""
    scale, shift = (spread(part, x_BCHW.shape[2:]) for part in modulation)
    masks = len(scale)
    if masks in (1, len(x_BCHW)):
        return torch.addcmul(shift, x_BCHW, scale)
    grouped = x_BCHW.unflatten(0, (masks, -1))
    return torch.addcmul(shift[:, None], grouped, scale[:, None]).flatten(0, 1)


def modulated_norm(x_BCHW: Tensor, groups: int, *modulations: Modulation) -> Tensor:
    """Return ``GroupNorm(x) * (1 + gamma) + beta``, of several modulations in a batch."""
    if len(modulations) > 1:
        parts = group_norm(x_BCHW, groups).chunk(len(modulations))
        return torch.cat([modulate(*each) for each in zip(parts, modulations, strict=True)])
    (modulation,) = modulations
    sides = modulation[0].shape[2:]
    if sides == (3, 3) != x_BCHW.shape[2:] and not torch.is_grad_enabled():
        return _short_norm(x_BCHW, groups, modulation)
    return modulate(group_norm(x_BCHW, groups), modulation)


def _short_norm(x_BCHW: Tensor, groups: int, modulation: Modulation) -> Tensor:
    """As ``modulated_norm``, of a modulation that is constant within: a plain GroupNorm does it.

    Only the outermost rows and columns are computed again, with their own gammas and betas.
    """
    channels, height, width = x_BCHW.shape[1:]
    scale, shift = (part[0].to(x_BCHW.dtype) for part in modulation)
    within = (scale[:, 1, 1].contiguous(), shift[:, 1, 1].contiguous())
    out, mean, rstd = group_norm_with_moments(x_BCHW, groups, *within)
    mean_BC1, rstd_BC1 = (
        part.repeat_interleave(channels // groups, 1)[..., None].to(out.dtype)
        for part in (mean, rstd)
    )
    for axis, side in ((2, height), (3, width)):
        along = width if axis == 2 else height
        for place in (0, side - 1):
            row = 0 if place == 0 else 2
            scales, shifts = (_line(part.select(axis - 1, row), along) for part in (scale, shift))
            line = (x_BCHW.select(axis, place) - mean_BC1) * rstd_BC1
            out.select(axis, place).copy_(torch.addcmul(shifts, line, scales))
    return out


def _line(ends_C3: Tensor, length: int) -> Tensor:
    """Return (C, length): first, middle …, last."""
    return torch.cat(
        [ends_C3[:, :1], ends_C3[:, 1:2].expand(-1, length - 2), ends_C3[:, 2:]], dim=1
    )


def dense(modulation: Modulation) -> Modulation:
    """Return a modulation to keep: beta is a view of what gamma was a part of, here its own.

    Otherwise the memory of gamma stays with it, and with channels_last it is read in strips.
    """
    scale, shift = modulation
    return scale, torch.empty_like(scale).copy_(shift)


def rim_places(side: int, device: torch.device) -> Tensor:
    """Return where each place of a side is read from: 0, then 1 for all within, then 2."""
    place = torch.arange(side, device=device)
    return 1 - (place == 0).int() + (place == side - 1)


def spread(part_MCHW: Tensor, size: torch.Size) -> Tensor:
    """Return a map at its full size: its rows and columns but the outer ones are repeated.

    Two 3x3 convolutions with zero padding of a map that is zero everywhere (the first gives its
    bias everywhere) differ from a constant in the outermost rows and columns only.
    """
    contiguous = part_MCHW.is_contiguous()
    layout = torch.contiguous_format if contiguous else torch.channels_last
    for axis, side in zip((2, 3), size, strict=True):
        if part_MCHW.shape[axis] != side:
            part_MCHW = part_MCHW.index_select(axis, rim_places(side, part_MCHW.device))
    return part_MCHW.contiguous(memory_format=layout)

"""GroupNorm, gamma and beta, the time's scale-shift and SiLU in one kernel, by ``torch.compile``.

All four read and write whole maps and compute little, so that on a GPU their time is that of
memory. Only they are compiled, for any size: that takes seconds, where compiling the network takes
minutes. On CPUs the compiled kernel is slower than the separate ones (docs/log.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semsynth.core.devices import computed_dtype
from semsynth.core.logging import logger
from semsynth.models.sdm.blocks import (
    EPS,
    GroupNorm,
    Modulation,
    PreparedCondition,
    SpadeInput,
    SpadeNorm,
    border_index,
)
from semsynth.models.sdm.condition import NormCondition


def norm_silu(
    x_BCHW: Tensor,
    groups: int,
    modulation: Modulation,
    time: Modulation | None,
    dtype: torch.dtype,
) -> Tensor:
    """Return ``silu(time of (GroupNorm(x) * scale + shift))`` in ``dtype``; computed in float32.

    In the memory format of ``x``: PyTorch's own GroupNorm returns NCHW on a GPU for any input, and
    each convolution would have to permute it.

    Args:
        x_BCHW: the map.
        groups: of GroupNorm.
        modulation: scale and shift for M masks, as ``blocks.Modulation``, or (1, C, 1, 1).
        time: another scale and shift, (B, C, 1, 1), or None.
        dtype: of the result.
    """
    grouped = x_BCHW.float().unflatten(1, (groups, -1))
    var, mean = torch.var_mean(grouped, (2, 3, 4), correction=0, keepdim=True)
    h = ((grouped - mean) * (var + EPS).rsqrt()).flatten(1, 2)
    scale, shift = (_for_images(part, x_BCHW) for part in modulation)
    h = h * scale + shift
    if time is not None:
        h = h * time[0].float() + time[1].float()
    return F.silu(h).to(dtype)


def _for_images(part_MCHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """Return a scale or shift that broadcasts to ``x``; compiled, it is read where it is used."""
    for axis in (2, 3):
        side = x_BCHW.shape[axis]
        if part_MCHW.shape[axis] not in (1, side):  # see `expand_border`
            part_MCHW = part_MCHW.index_select(axis, border_index(side, x_BCHW.device))
    masks, images = len(part_MCHW), len(x_BCHW)
    if masks not in (1, images):
        part_MCHW = part_MCHW.repeat_interleave(images // masks, 0)
    return part_MCHW.float()


# With and without gradients, time, and a batch of one, there are more variants than the default.
MAX_VARIANTS = 64


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    torch._dynamo.config.recompile_limit = max(MAX_VARIANTS, torch._dynamo.config.recompile_limit)
    return torch.compile(norm_silu, dynamic=True)


def compiled_norm_act(
    norm: nn.Module,
    x_BCHW: Tensor,
    condition: SpadeInput | None,
    time: Modulation | None,
    kernel: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Return SiLU of a norm, as a residual block does before its convolution; ``blocks.NormAct``.

    Args:
        norm: SPADE or plain.
        x_BCHW: the map.
        condition: input of the SPADE norm; None for a plain one.
        time: see ``norm_silu``.
        kernel: in place of the compiled ``norm_silu``.
    """
    if isinstance(condition, NormCondition) and len(condition.sources) > 1:
        parts = [NormCondition((source,)) for source in condition.sources]
        times = [None] * len(parts) if time is None else _split(time, len(parts))
        rows = zip(x_BCHW.chunk(len(parts)), parts, times, strict=True)
        return torch.cat([compiled_norm_act(norm, *row, kernel) for row in rows])
    if condition is None:
        plain = cast(GroupNorm, norm)
        groups = plain.num_groups
        modulation = (plain.weight[None, :, None, None], plain.bias[None, :, None, None])
    else:
        spade = cast(SpadeNorm, norm)
        groups = spade.groups
        source = condition if isinstance(condition, Tensor) else _only_source(condition)
        modulation = spade.modulation(source) if isinstance(source, Tensor) else source
    dtype = computed_dtype(x_BCHW.device, x_BCHW.dtype)
    return (kernel or _compiled())(x_BCHW, groups, modulation, time, dtype)


def _split(time: Modulation, count: int) -> list[Modulation]:
    scales, shifts = (part.chunk(count) for part in time)
    return list(zip(scales, shifts, strict=True))


def _only_source(condition: PreparedCondition) -> Modulation | Tensor:
    (source,) = cast(NormCondition, condition).sources
    return source


@functools.cache
def can_compile(device: torch.device) -> bool:
    """Return whether the kernel can be compiled for a device; a warning says why not.

    It is compiled and run for a small map: that fails where there is no compiler or no Triton.
    """
    x = torch.ones(1, 4, 8, 8, device=device)
    one = torch.ones(1, 4, 1, 1, device=device)
    try:
        with torch.no_grad():
            _compiled()(x, 2, (one, one), None, x.dtype)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the compiler raises, the separate operations work
        reason = str(error).strip().splitlines() or [type(error).__name__]
        logger.warning(f"torch.compile does not work here ({reason[0]}): running without it")
        return False
    return True

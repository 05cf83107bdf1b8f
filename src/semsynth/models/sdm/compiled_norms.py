"""GroupNorm, gamma and beta, the time's scale-shift and SiLU in one kernel, by ``torch.compile``.

All four read and write whole maps and compute next to nothing, so that on a GPU they take as long
as their trips through memory. Only they are compiled, with sizes left open: that takes seconds,
where compiling the network takes minutes. On CPUs the compiled kernel is slower than the separate
ones (docs/log.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semsynth.core.logging import logger
from semsynth.core.precision import computed_dtype
from semsynth.models.sdm.blocks import ResBlock, SpadeNorm
from semsynth.models.sdm.condition import BatchedConditions, Modulation, NormCondition, rim_places
from semsynth.models.sdm.norms import EPS, GroupNorm
from semsynth.models.sdm.unet import SemanticUNet

Compile = Literal["auto", "on", "off"]
"""``auto``: on GPUs; ``on``: also on a CPU; ``off``: never."""


def norm_silu(
    x_BCHW: Tensor,
    groups: int,
    modulation: Modulation,
    time: Modulation | None,
    dtype: torch.dtype,
) -> Tensor:
    """Return ``silu(time of (GroupNorm(x) * scale + shift))`` in ``dtype``; float32 within.

    In the memory format of ``x``: PyTorch's own GroupNorm gives NCHW on a GPU whatever it gets, and
    each convolution would turn its input round.

    Args:
        x_BCHW: the map.
        groups: of GroupNorm.
        modulation: scale and shift for M masks, as ``condition.Modulation``, or (1, C, 1, 1).
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
        if part_MCHW.shape[axis] not in (1, side):  # the rim and one pixel, see `spread`
            part_MCHW = part_MCHW.index_select(axis, rim_places(side, x_BCHW.device))
    masks, images = len(part_MCHW), len(x_BCHW)
    if masks not in (1, images):
        part_MCHW = part_MCHW.repeat_interleave(images // masks, 0)
    return part_MCHW.float()


VARIANTS = 64


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    # With and without gradients, time, and a batch of one, there are more forms than are allowed.
    torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
    return torch.compile(norm_silu, dynamic=True)


def activate(
    norm: nn.Module,
    x_BCHW: Tensor,
    entry: NormCondition | BatchedConditions | None,
    time: Modulation | None,
    kernel: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Return what a residual block makes of ``x`` before its convolution, by the compiled kernel.

    Args:
        norm: SPADE or plain.
        x_BCHW: the map.
        entry: of the SPADE norm, see ``condition``.
        time: see ``norm_silu``.
        kernel: in place of the compiled ``norm_silu``.
    """
    if isinstance(entry, BatchedConditions):
        count = len(entry.entries)
        times = (
            [None] * count if time is None else zip(*(t.chunk(count) for t in time), strict=True)
        )
        rows = zip(x_BCHW.chunk(count), entry.entries, times, strict=True)
        return torch.cat([activate(norm, x, each, t, kernel) for x, each, t in rows])
    if entry is None:
        plain = cast(GroupNorm, norm)
        groups = plain.num_groups
        modulation = (plain.weight[None, :, None, None], plain.bias[None, :, None, None])
    else:
        spade = cast(SpadeNorm, norm)
        groups = spade.groups
        modulation = spade.modulation(entry) if isinstance(entry, Tensor) else entry
    dtype = computed_dtype(x_BCHW.device, x_BCHW.dtype)
    return (kernel or _compiled())(x_BCHW, groups, modulation, time, dtype)


def enable_compiled_norms(unet: SemanticUNet, wanted: Compile, device: torch.device) -> bool:
    """Let the network's blocks use the compiled kernel, or not; return whether they do.

    A kernel for a small map is compiled and run first: where that fails (no compiler, no Triton),
    one warning says so, and the network goes on without.
    """
    use = wanted == "on" or (wanted == "auto" and device.type == "cuda")
    use = use and _works(device)
    for module in unet.modules():
        if isinstance(module, ResBlock):
            module.fused = activate if use else None
    return use


@functools.cache
def _works(device: torch.device) -> bool:
    x = torch.ones(1, 4, 8, 8, device=device)
    one = torch.ones(1, 4, 1, 1, device=device)
    try:
        with torch.no_grad():
            _compiled()(x, 2, (one, one), None, x.dtype)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the compiler raises, the way without it is the same
        reason = str(error).strip().splitlines() or [type(error).__name__]
        logger.warning(f"torch.compile does not work here ({reason[0]}): running without it")
        return False
    return True

"""The blocks of the U-Net: residual blocks with plain or spatially-adaptive normalization.

Shape suffixes: B batch, C channels, H height, W width, E width of the time embedding,
K channels of the condition (one per class), M masks (one for each image, or one for all).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semsynth.core.rng import derive_seed

Modulation = tuple[Tensor, Tensor]
"""1 + gamma and beta of one norm, each (M, C, H, W)."""


class PreparedCondition(Protocol):
    """What one SPADE norm needs of masks, prepared for sampling: ``condition.NormCondition``."""

    def normalize(self, norm: SpadeNorm, x_BCHW: Tensor) -> Tensor:
        """Return ``GroupNorm(x) * (1 + gamma) + beta`` with the gammas and betas of ``norm``."""
        ...


SpadeInput = Tensor | PreparedCondition
"""What a SPADE norm gets: the label map (M, K, H, W) at its size, or what was prepared of it."""

NormAct = Callable[[nn.Module, Tensor, SpadeInput | None, Modulation | None], Tensor]
"""(norm, x_BCHW, input of a SPADE norm, scale and shift by the time) to the activated map; see
``compiled_norms``."""

EPS = 1e-5

# PyTorch's CPU kernel for channels_last is fast for maps of so many pixels, or groups of so many
# channels. Otherwise it walks group by group in strips of channels; a strip that is shorter than a
# vector register takes up to 30 times as long as the contiguous kernel (PyTorch 2.11;
# `python benchmarks/norm_kernels.py`).
_FAST_PIXELS, _FAST_CHANNELS = 1024, 16
_WHOLE_SCORES = 512  # positions; the scores of more take too much memory at once


def norm_groups(channels: int) -> int:
    """Return the number of groups: 32 as in the paper, or the largest divisor of ``channels``."""
    return math.gcd(32, channels)


def group_norm(
    x_BCHW: Tensor, groups: int, weight_C: Tensor | None = None, bias_C: Tensor | None = None
) -> Tensor:
    """Return GroupNorm of ``x``, in its memory format; as ``torch.nn.functional.group_norm``."""
    channels_last = x_BCHW.is_contiguous(memory_format=torch.channels_last)
    if not channels_last or x_BCHW.is_contiguous() or _has_kernel(x_BCHW, groups):
        return F.group_norm(x_BCHW, groups, weight_C, bias_C, EPS)
    out = F.group_norm(x_BCHW.contiguous(), groups, weight_C, bias_C, EPS)
    return out.contiguous(memory_format=torch.channels_last)


def _has_kernel(x_BCHW: Tensor, groups: int) -> bool:
    """Return whether PyTorch has a fast kernel for this map in channels_last: on CPUs alone."""
    _, channels, height, width = x_BCHW.shape
    is_fast = height * width >= _FAST_PIXELS or channels // groups >= _FAST_CHANNELS
    return x_BCHW.device.type == "cpu" and is_fast


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` (SDM's encoder and last layer) by ``group_norm``."""

    def __init__(self, groups: int, channels: int) -> None:
        """Build the norm with its weight and bias."""
        super().__init__(groups, channels, EPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the normalised (B, C, H, W)."""
        return group_norm(x_BCHW, self.num_groups, self.weight, self.bias)


class SpadeNorm(nn.Module):
    """Spatially-adaptive group normalization (SDM, section 3.2; SPADE, arXiv 1903.07291).

    ``GroupNorm(x) * (1 + gamma) + beta`` where gamma and beta are two layers of convolutions of
    the label map. They do not depend on the noise level, so that sampling computes them once per
    mask (``condition.py``).
    """

    def __init__(self, channels: int, condition_channels: int, hidden: int) -> None:
        """Build the two layers: ``condition_channels`` to ``hidden`` to gamma and beta."""
        super().__init__()
        self.channels = channels
        self.groups = norm_groups(channels)
        self.shared = nn.Conv2d(condition_channels, hidden, 3, padding=1)
        # One convolution gives gamma (first half) and beta (second half): the same numbers as
        # the two of the official code in one pass over the hidden map.
        self.gamma_beta = nn.Conv2d(hidden, 2 * channels, 3, padding=1)

    def modulation(self, map_MKHW: Tensor) -> Modulation:
        """Return 1 + gamma and beta, (M, C, H, W) each, for label maps at this norm's size."""
        gamma, beta = self.gamma_beta(F.relu(self.shared(map_MKHW))).chunk(2, dim=1)
        return 1 + gamma, beta

    def forward(self, x_BCHW: Tensor, condition: SpadeInput) -> Tensor:
        """Normalize ``x_BCHW`` and apply gamma and beta."""
        if not isinstance(condition, Tensor):
            return condition.normalize(self, x_BCHW)
        modulation = self.modulation(condition)
        normalized = group_norm(x_BCHW, self.groups)
        scale, shift = (contiguous(part) for part in modulation)
        return torch.addcmul(shift, normalized, scale)


def contiguous(map_BCHW: Tensor) -> Tensor:
    """Return a map without gaps in memory: beta is half of the channels of a convolution."""
    return map_BCHW.contiguous(memory_format=layout_of(map_BCHW))


def layout_of(map_BCHW: Tensor) -> torch.memory_format:
    """Return the memory layout of a map: NCHW, or channels_last."""
    return torch.contiguous_format if map_BCHW.is_contiguous() else torch.channels_last


def modulate(x_BCHW: Tensor, modulation: Modulation) -> Tensor:
    """Return ``x * (1 + gamma) + beta``, for B images of M masks (``condition.Condition``)."""
    scale, shift = (expand_border(part, x_BCHW.shape[2:]) for part in modulation)
    masks = len(scale)
    if masks in (1, len(x_BCHW)):
        return torch.addcmul(shift, x_BCHW, scale)
    grouped = x_BCHW.unflatten(0, (masks, -1))
    return torch.addcmul(shift[:, None], grouped, scale[:, None]).flatten(0, 1)


def modulated_norm(x_BCHW: Tensor, groups: int, *modulations: Modulation) -> Tensor:
    """Return ``GroupNorm(x) * (1 + gamma) + beta``; the batch has a part for each modulation."""
    if len(modulations) > 1:
        parts = group_norm(x_BCHW, groups).chunk(len(modulations))
        return torch.cat([modulate(*each) for each in zip(parts, modulations, strict=True)])
    (modulation,) = modulations
    sides = modulation[0].shape[2:]
    if sides == (3, 3) != x_BCHW.shape[2:] and not torch.is_grad_enabled():
        return constant_modulated_norm(x_BCHW, groups, modulation)
    return modulate(group_norm(x_BCHW, groups), modulation)


def constant_modulated_norm(x_BCHW: Tensor, groups: int, modulation: Modulation) -> Tensor:
    """Return ``modulated_norm`` of a null modulation by a plain GroupNorm, without gradients.

    Inside the border gamma and beta are constant: they are its weight and bias. Only the outermost
    rows and columns are computed again, with gammas and betas of their own.
    """
    channels, height, width = x_BCHW.shape[1:]
    scale, shift = (part[0].to(x_BCHW.dtype) for part in modulation)
    inner = (scale[:, 1, 1].contiguous(), shift[:, 1, 1].contiguous())
    out, mean, rstd = group_norm_with_moments(x_BCHW, groups, *inner)
    mean_BC1, rstd_BC1 = (
        part.repeat_interleave(channels // groups, 1)[..., None].to(out.dtype)
        for part in (mean, rstd)
    )
    for axis, side in ((2, height), (3, width)):
        along = width if axis == 2 else height
        for index in (0, side - 1):
            row = 0 if index == 0 else 2
            scales, shifts = (_line(part.select(axis - 1, row), along) for part in (scale, shift))
            line = (x_BCHW.select(axis, index) - mean_BC1) * rstd_BC1
            out.select(axis, index).copy_(torch.addcmul(shifts, line, scales))
    return out


def _line(ends_C3: Tensor, length: int) -> Tensor:
    """Return (C, length): the first, the middle repeated, the last."""
    return torch.cat(
        [ends_C3[:, :1], ends_C3[:, 1:2].expand(-1, length - 2), ends_C3[:, 2:]], dim=1
    )


def group_norm_with_moments(
    x_BCHW: Tensor, groups: int, weight_C: Tensor, bias_C: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``group_norm``, and mean and 1 / deviation of the groups, (B, groups) each."""
    batch, channels, height, width = x_BCHW.shape
    if x_BCHW.device.type == "cpu":
        area = height * width
        return torch.native_group_norm(x_BCHW, weight_C, bias_C, batch, channels, area, groups, EPS)
    # Elsewhere that function refuses channels_last.
    out = group_norm(x_BCHW, groups, weight_C, bias_C)
    grouped = x_BCHW.float().unflatten(1, (groups, -1))
    var, mean = torch.var_mean(grouped, (2, 3, 4), correction=0)
    return out, mean, (var + EPS).rsqrt()


def border_index(side: int, device: torch.device) -> Tensor:
    """Return where each position along a side is read from: 0, then 1 for all inside, then 2."""
    position = torch.arange(side, device=device)
    return 1 - (position == 0).int() + (position == side - 1)


def expand_border(part_MCHW: Tensor, size: torch.Size) -> Tensor:
    """Return a map at its full size: its rows and columns inside the border are repeated.

    Two 3x3 convolutions with zero padding of a map that is zero everywhere (the first gives its
    bias everywhere) differ from a constant in the outermost rows and columns only.
    """
    layout = layout_of(part_MCHW)
    for axis, side in zip((2, 3), size, strict=True):
        if part_MCHW.shape[axis] != side:
            part_MCHW = part_MCHW.index_select(axis, border_index(side, part_MCHW.device))
    return part_MCHW.contiguous(memory_format=layout)


class SampleDropout(nn.Dropout):
    """Dropout with a seed per sample: the same draws however a batch is split or recomputed.

    Attributes:
        layer: its place in the network, so that two layers of one sample draw differently.
        seeds: one for each sample of the next batch; None draws from the global generator, as
            ``nn.Dropout`` does.
    """

    layer: int = 0
    seeds: Sequence[int] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, ...) with the share ``p`` set to zero and the rest scaled to the same mean."""
        if not self.training or not self.p or self.seeds is None:
            return super().forward(input)
        if len(self.seeds) != len(input):
            raise ValueError(f"{len(self.seeds)} seeds for {len(input)} samples")
        mask = torch.empty(input.shape, dtype=input.dtype, device=input.device)
        for sample, seed in zip(mask, self.seeds, strict=True):
            generator = torch.Generator(input.device).manual_seed(derive_seed(seed, self.layer))
            sample.bernoulli_(1 - self.p, generator=generator)
        return input * mask / (1 - self.p)


def seed_dropout(network: nn.Module, seeds: Sequence[int] | None) -> None:
    """Give ``network`` the seeds of the samples that it sees next; None: the global generator."""
    layers = [module for module in network.modules() if isinstance(module, SampleDropout)]
    for layer, module in enumerate(layers):
        module.layer, module.seeds = layer, seeds


def _resample(x_BCHW: Tensor, how: Literal["down", "up"] | None) -> Tensor:
    if how == "down":
        return F.avg_pool2d(x_BCHW, 2)
    if how == "up":
        return F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")
    return x_BCHW


class ResBlock(nn.Module):
    """A residual block with time scale-shift; its two norms are SPADE in the decoder.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        embedding: width of the time embedding.
        dropout: share dropped before the second convolution.
        spade: ``(condition_channels, hidden)`` for SPADE norms, None for plain ones (encoder).
        resample: halve (average) or double (nearest) the size inside the block.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        dropout: float = 0.0,
        spade: tuple[int, int] | None = None,
        resample: Literal["down", "up"] | None = None,
    ) -> None:
        """Build the block; see the class for the arguments."""
        super().__init__()
        self.resample: Literal["down", "up"] | None = resample
        self.is_spade = spade is not None
        self.norm_act: NormAct | None = None

        def norm(channels: int) -> nn.Module:
            if spade is None:
                return GroupNorm(norm_groups(channels), channels)
            return SpadeNorm(channels, *spade)

        self.norm1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(embedding, 2 * out_channels)
        self.norm2 = norm(out_channels)
        self.dropout = SampleDropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def spade_norms(self) -> tuple[SpadeNorm, ...]:
        """Return the SPADE norms in the order in which ``forward`` uses them (none if plain)."""
        return tuple(n for n in (self.norm1, self.norm2) if isinstance(n, SpadeNorm))

    def forward(
        self,
        x_BCHW: Tensor,
        embedding_BE: Tensor,
        conditions: tuple[SpadeInput, ...] = (),
    ) -> Tensor:
        """Return (B, out_channels, H', W'); ``conditions`` are those of ``spade_norms``."""
        first, second = conditions if self.is_spade else (None, None)
        h = _resample(self._activated(self.norm1, x_BCHW, first), self.resample)
        h = self.conv1(h)
        scale, shift = self.time(F.silu(embedding_BE))[..., None, None].chunk(2, dim=1)
        h = self._activated(self.norm2, h, second, (1 + scale, shift))
        h = self.conv2(self.dropout(h))
        return h + self.skip(_resample(x_BCHW, self.resample))  # type: ignore[no-any-return]

    def _activated(
        self,
        norm: nn.Module,
        x_BCHW: Tensor,
        condition: SpadeInput | None,
        time: Modulation | None = None,
    ) -> Tensor:
        """Return SiLU of the norm, with the time's scale and shift in between where given."""
        if self.norm_act is not None:
            return self.norm_act(norm, x_BCHW, condition, time)
        h = norm(x_BCHW) if condition is None else norm(x_BCHW, condition)
        return F.silu(h if time is None else torch.addcmul(time[1], h, time[0]))


def attend(q_BHNC: Tensor, k_BHNC: Tensor, v_BHNC: Tensor) -> Tensor:
    """Return ``softmax(q k' / sqrt(C)) v``, (B, H, N, C), for H heads of C channels.

    On a CPU, PyTorch's kernel takes 1.4 to 4 times as long in bfloat16, forward and backward, as
    products of whole matrices, which are as exact: scores are float32 in both.
    """
    is_small = q_BHNC.shape[2] <= _WHOLE_SCORES and q_BHNC.requires_grad
    if not is_small or q_BHNC.device.type != "cpu" or q_BHNC.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q_BHNC, k_BHNC, v_BHNC)
    q, k, v = (part.flatten(0, 1) for part in (q_BHNC, k_BHNC, v_BHNC))
    with torch.autocast("cpu", enabled=False):
        scores = torch.bmm(q.float() * q.shape[-1] ** -0.5, k.float().transpose(1, 2))
        return torch.bmm(scores.softmax(-1).to(v.dtype), v).view(q_BHNC.shape)


class Attention(nn.Module):
    """Self-attention over all positions, heads of ``head_channels`` (guided-diffusion's layout).

    The rows of ``qkv`` are ordered head by head, and q, k, v within a head ("legacy" order).
    """

    def __init__(self, channels: int, head_channels: int) -> None:
        """Build the projections for ``channels // head_channels`` heads."""
        super().__init__()
        self.heads = channels // head_channels
        self.norm = GroupNorm(norm_groups(channels), channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return ``x`` plus the projected values of attention, (B, C, H, W)."""
        batch, channels, height, width = x_BCHW.shape
        tokens = self.norm(x_BCHW).flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).view(batch, height * width, self.heads, 3, -1)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        attended = attend(q, k, v).transpose(1, 2).flatten(2)
        out = self.out(attended).transpose(1, 2).reshape(batch, channels, height, width)
        return x_BCHW + out  # type: ignore[no-any-return]


class UNetStage(nn.Module):
    """A residual block, attention after it where the level has it, and upsampling at its end."""

    def __init__(
        self, block: ResBlock, attention: Attention | None = None, up: ResBlock | None = None
    ) -> None:
        """Keep the parts; see the class."""
        super().__init__()
        self.block = block
        self.attention = attention
        self.up = up

    def spade_norms(self) -> tuple[SpadeNorm, ...]:
        """Return the stage's SPADE norms in the order of use."""
        return self.block.spade_norms() + (self.up.spade_norms() if self.up else ())

    def forward(
        self,
        x_BCHW: Tensor,
        embedding_BE: Tensor,
        conditions: tuple[SpadeInput, ...] = (),
    ) -> Tensor:
        """Run the stage; ``conditions`` are those of ``spade_norms``."""
        h: Tensor = self.block(x_BCHW, embedding_BE, conditions[:2])
        if self.attention is not None:
            h = self.attention(h)
        if self.up is not None:
            h = self.up(h, embedding_BE, conditions[2:])
        return h

"""From label ids to the network's condition: the label map, and what is kept of it in sampling.

Gamma and beta of every SPADE norm depend on the label map alone: half of a pass is spent on them,
and they are the same in all steps, for all images of a mask. So in sampling they are computed once;
training uses ``label_input`` alone.

Shape suffixes: B batch, K condition channels (one per class), H height, W width, M masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import torch
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from semsynth.core.devices import computed_dtype, free_bytes
from semsynth.core.errors import UserError
from semsynth.core.logging import warn_once
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.blocks import Modulation, SpadeNorm, expand_border, modulated_norm

if TYPE_CHECKING:
    from semsynth.models.sdm.unet import SemanticUNet

Function = TypeVar("Function", bound=Callable[..., Any])
Cache = Literal["auto", "full", "off"]
"""Gammas and betas of masks: ``auto`` caches what fits into half of the free memory, ``full`` all
of them, ``off`` none (each pass computes its own)."""

AUTO_SHARE = 0.5
# What `full` may take of the free memory: the pass itself needs some.
FULL_SHARE = 0.8
# Modulations of the null condition up to this size are stored whole: below it, computing the border
# of a plain GroupNorm again takes longer than reading a map (`python benchmarks/norm_kernels.py`).
MAX_DENSE_NULL_NUMEL = 2**19
# Both sides of guidance go through maps of at most so many numbers (of all sides) as one batch.
MAX_JOINT_NUMEL = 2**19
# Diffusers moves an offloaded network to its device when `forward` is called, or one so marked.
_called_like_forward: Callable[[Function], Function] = apply_forward_hook


def label_input(
    unet: SemanticUNet,
    model: ModelConfig,
    channels_BHW: Tensor,
    edges_BHW: Tensor | None = None,
) -> Tensor:
    """Return the label map that the network takes, (B, K, h, w) in its dtype.

    With ``model.labels: patch`` it has the size of the image (h = H, w = W); with ``nearest`` each
    latent pixel gets the label of its top left image pixel (h = H / downscale).

    Args:
        unet: for the number of classes and the dtype.
        model: for how labels are given to a latent that is smaller than the image.
        channels_BHW: condition channels of image pixels, integers on any device; those outside the
            classes (unlabelled: -1 or 255) become all zeros.
        edges_BHW: 1 at the borders of instances, for a model with ``instance_edges`` (None: no
            borders).
    """
    if model.labels == "nearest" and model.downscale > 1:
        step = model.downscale
        channels_BHW = channels_BHW[:, ::step, ::step]
        edges_BHW = None if edges_BHW is None else edges_BHW[:, ::step, ::step]
    return one_hot(unet, channels_BHW, edges_BHW)


def one_hot(unet: SemanticUNet, channels_BHW: Tensor, edges_BHW: Tensor | None = None) -> Tensor:
    """Return a channel per class, and the edges as the last one; the official code's ``y``.

    Arguments and result are those of ``label_input``, at the size that the network takes.
    """
    classes = torch.arange(unet.label_channels - unet.instance_edges, device=channels_BHW.device)
    # Not F.one_hot, which takes eight bytes per number.
    hot = (channels_BHW[..., None] == classes).permute(0, 3, 1, 2).to(unet.dtype)
    if not unet.instance_edges:
        return hot
    edges = torch.zeros_like(hot[:, :1]) if edges_BHW is None else edges_BHW[:, None].to(hot)
    return torch.cat([hot, edges], dim=1)


@dataclass(frozen=True)
class NormCondition:
    """What one SPADE norm needs of M masks; ``blocks.PreparedCondition``.

    Attributes:
        sources: one for each pass of a batch (the batch has all images of the first, then of the
            second, ...), mostly one. Each is a modulation, computed once, or the label map
            (M, K, H, W) at the norm's size, from which each pass computes it. A modulation of the
            null condition may have sides of at most 3: the border, and one pixel for all inside
            it (see ``expand_border``).
    """

    sources: tuple[Modulation | Tensor, ...]

    def modulations(self, norm: SpadeNorm) -> tuple[Modulation, ...]:
        """Return the modulations of the passes that run as one batch."""
        return tuple(
            norm.modulation(source) if isinstance(source, Tensor) else source
            for source in self.sources
        )

    def normalize(self, norm: SpadeNorm, x_BCHW: Tensor) -> Tensor:
        """Return what ``norm`` makes of ``x_BCHW``."""
        return modulated_norm(x_BCHW, norm.groups, *self.modulations(norm))


@dataclass(frozen=True)
class Condition:
    """All that the network needs of masks, computed once by ``encode_condition``.

    With M masks, a batch of M n images has n of the first mask, then n of the second, ....

    Attributes:
        norms: one for each SPADE norm, in the order of the forward pass.
        labels: what the head at the resolution of pixels sees, (M, C, H, W); None of no mask at
            all, or without such a head.
    """

    norms: tuple[NormCondition, ...]
    labels: Tensor | None = None

    @property
    def n_bytes(self) -> int:
        """Return the memory that it takes, in bytes; maps that norms share count once."""
        parts = {
            id(part): part.numel() * part.element_size()
            for norm in self.norms
            for source in norm.sources
            for part in ((source,) if isinstance(source, Tensor) else source)
        }
        if self.labels is not None:
            parts[id(self.labels)] = self.labels.numel() * self.labels.element_size()
        return sum(parts.values())

    @classmethod
    def stack(cls, parts: list[Condition]) -> Condition:
        """Return the condition of the masks of several conditions of one network, in order.

        ``parts`` is emptied, and each norm's tensors are freed as soon as they are joined: all of
        them twice would be twice the memory.
        """
        if len(parts) == 1:
            return parts.pop()
        remaining = [[norm.sources[0] for norm in reversed(part.norms)] for part in parts]
        seen = [part.labels for part in parts if part.labels is not None]
        parts.clear()
        norms: list[NormCondition] = []
        # Norms of one level share their map: joined once (a stored row keeps its ids valid).
        maps: dict[tuple[int, ...], tuple[Tensor, list[Modulation | Tensor]]] = {}
        while remaining[0]:
            row = [of_mask.pop() for of_mask in remaining]
            if isinstance(row[0], Tensor):
                key = tuple(id(tensor) for tensor in row)
                if key not in maps:
                    maps[key] = torch.cat([t for t in row if isinstance(t, Tensor)]), row
                norms.append(NormCondition((maps[key][0],)))
            else:
                scales, shifts = zip(*row, strict=True)
                del row
                norms.append(NormCondition(((torch.cat(scales), torch.cat(shifts)),)))
        return cls(tuple(norms), torch.cat(seen) if seen else None)


@_called_like_forward
def encode_condition(
    unet: SemanticUNet, map_MKHW: Tensor, cache_bytes: int | None = None
) -> Condition:
    """Compute what depends on masks alone.

    Args:
        unet: the network.
        map_MKHW: of ``label_input``; all zeros is the null condition.
        cache_bytes: maximum bytes of gammas and betas to keep; those that do not fit are computed
            in each pass, wide norms first (they save the least time per byte). None keeps all.

    Raises:
        UserError: a map of another number of channels, or sides that cannot be halved.
    """
    pyramid = unet.label_pyramid(map_MKHW)
    height, width = pyramid[0].shape[2:]
    cached = cached_norms(unet, len(map_MKHW), (height, width), cache_bytes)
    norms = []
    for index, (norm, level) in enumerate(unet.spade_norms()):
        at_level = pyramid[level]
        source = own_memory(norm.modulation(at_level)) if index in cached else at_level
        norms.append(NormCondition((source,)))
    return Condition(tuple(norms), unet.head_labels(map_MKHW))


def encode_masks(
    unet: SemanticUNet,
    model: ModelConfig,
    channels_MHW: Tensor,
    edges_MHW: Tensor | None = None,
    cache_bytes: int | None = None,
) -> Condition:
    """Return the condition of masks, encoded one by one, so that each has the same bits in any set.

    (Kernels round differently for other batch sizes.) A mask equal to the one before it is not
    encoded again. Arguments as of ``label_input`` and ``encode_condition``; ``cache_bytes`` is for
    all masks together.
    """
    count = len(channels_MHW)
    each = None if cache_bytes is None else cache_bytes // count
    parts: list[Condition] = []
    for i in range(count):
        edges = None if edges_MHW is None else edges_MHW[i : i + 1]
        given = (channels_MHW, edges_MHW)
        if i and all(part is None or torch.equal(part[i], part[i - 1]) for part in given):
            parts.append(parts[-1])
        else:
            label_map = label_input(unet, model, channels_MHW[i : i + 1], edges)
            parts.append(encode_condition(unet, label_map, each))
    return Condition.stack(parts)


@_called_like_forward
def encode_null(unet: SemanticUNet, height: int, width: int) -> Condition:
    """Return the condition of no mask for latents of this size; it takes little memory.

    The same numbers as ``encode_condition`` of all zeros: constant but for the border that zero
    padding makes (``expand_border``).
    """
    unet.check_size(height, width)
    norms = []
    for norm, level in unet.spade_norms():
        size = [min(3, side >> level) for side in (height, width)]
        weight = norm.shared.weight
        parts = norm.modulation(weight.new_zeros(1, weight.shape[1], *size))
        whole = torch.Size((height >> level, width >> level))
        if norm.channels * whole.numel() <= MAX_DENSE_NULL_NUMEL:
            parts = (expand_border(parts[0], whole), expand_border(parts[1], whole))
        norms.append(NormCondition((own_memory(parts),)))
    return Condition(tuple(norms))


def cache_budget(cache: Cache, device: torch.device, needed: int) -> int:
    """Return how many bytes of conditions to cache, of ``needed`` for all of them.

    ``full`` falls back to the rule of ``auto``, with a warning, where all of them are more than
    ``FULL_SHARE`` of the free memory; nothing has been allocated yet.

    Raises:
        UserError: ``cache`` is not one of ``Cache``.
    """
    if cache not in get_args(Cache):
        raise UserError(f"cache is {cache!r}: must be one of {', '.join(get_args(Cache))}")
    if cache == "off":
        return 0
    free = free_bytes(device)
    if cache == "full" and needed <= FULL_SHARE * free:
        return needed
    if cache == "full":
        warn_once(
            f"cache full: gammas and betas take {needed / 1e9:.1f} GB, more than {FULL_SHARE:.0%} "
            f"of the {free / 1e9:.1f} GB that are free: keeping what fits into half, as auto does"
        )
    return int(AUTO_SHARE * free)


def condition_bytes(unet: SemanticUNet, masks: int, height: int, width: int) -> list[int]:
    """Return the bytes of gamma and beta of each SPADE norm for latents of this size."""
    each = 2 * masks * computed_dtype(unet.device, unet.dtype).itemsize
    return [
        each * norm.channels * (height >> level) * (width >> level)
        for norm, level in unet.spade_norms()
    ]


def cached_norms(
    unet: SemanticUNet, masks: int, size: tuple[int, int], cache_bytes: int | None
) -> set[int]:
    """Return the indices of the SPADE norms whose gammas and betas fit into ``cache_bytes``."""
    sizes = condition_bytes(unet, masks, *size)
    if cache_bytes is None:
        return set(range(len(sizes)))
    norms = unet.spade_norms()
    cached = set()
    # Computing takes hidden x (K + 2 C) products per pixel, keeping 2 C numbers: narrow first.
    for index in sorted(range(len(sizes)), key=lambda i: (norms[i][0].channels, i)):
        if sizes[index] > cache_bytes:
            break
        cache_bytes -= sizes[index]
        cached.add(index)
    return cached


def decode_sides(
    unet: SemanticUNet,
    x_BCHW: Tensor,
    h: Tensor,
    skips: Sequence[Tensor],
    embedding: Tensor,
    conditions: Sequence[Condition],
) -> list[Tensor]:
    """Return the output for each condition; small maps of all of them are one batch.

    Args:
        unet: the network.
        x_BCHW: the noisy latent.
        h: the encoder's last map.
        skips: the encoder's maps, the last one first.
        embedding: of the timesteps.
        conditions: one for each side of guidance.
    """
    count = len(conditions)
    parts: Sequence[Tensor] = (h,) * count
    n_joint = 0
    if _joining_pays(h):
        fitting = sum(count * skip.numel() <= MAX_JOINT_NUMEL for skip in skips)
        n_joint = 1 + fitting if fitting else 0
    if n_joint:
        rows = zip(*(condition.norms for condition in conditions), strict=True)
        joint = [NormCondition(tuple(norm.sources[0] for norm in row)) for row in rows]
        wide = [torch.cat([skip] * count) for skip in skips[: n_joint - 1]]
        h, time = torch.cat([h] * count), torch.cat([embedding] * count)
        parts = unet.run_decoder(h, time, wide, joint, stop=n_joint).chunk(count)
    ends = [
        unet.run_decoder(part, embedding, skips, condition.norms, start=n_joint)
        for part, condition in zip(parts, conditions, strict=True)
    ]
    return [
        unet.project_out(end, embedding, x_BCHW, condition.labels)
        for end, condition in zip(ends, conditions, strict=True)
    ]


def _joining_pays(h: Tensor) -> bool:
    # Not in float32 on a CPU: there arithmetic takes nearly all of the time.
    return h.device.type != "cpu" or h.dtype != torch.float32


def own_memory(modulation: Modulation) -> Modulation:
    """Return a modulation whose beta is a copy, not a view of the convolution's output.

    A view would keep the memory of gamma too, and with channels_last it is read in strips.
    """
    scale, shift = modulation
    return scale, torch.empty_like(scale).copy_(shift)

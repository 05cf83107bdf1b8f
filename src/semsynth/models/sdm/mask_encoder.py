"""From masks to what the network keeps of them: the part of the network that sees the label map."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from semsynth.core.errors import UserError
from semsynth.core.precision import computed_dtype
from semsynth.models.sdm.blocks import ResBlock, SpadeNorm, Stage
from semsynth.models.sdm.condition import Condition, NormCondition, dense, spread
from semsynth.models.sdm.label_input import one_hot

Method = TypeVar("Method", bound=Callable[..., Any])
# The null condition's maps up to this size are kept whole: below it, mending the rim of a plain
# GroupNorm takes longer than a map that is read (`python benchmarks/kernels.py`).
MAX_DENSE_NULL_NUMEL = 2**19
# Diffusers moves an offloaded network to its device when `forward` is called, or what is so marked.
_called_like_forward: Callable[[Method], Method] = apply_forward_hook


class MaskEncoder:
    """The methods of ``SemanticUNet`` that see masks."""

    if TYPE_CHECKING:
        dtype: torch.dtype
        device: torch.device
        decoder_levels: tuple[int, ...]
        decoder_stages: Callable[[], list[Stage]]
        check_size: Callable[[int, int], None]

    label_channels: int
    instance_edges: bool
    label_patch: int
    label_conv: nn.Module
    widths: list[int]
    middle1: ResBlock
    middle2: ResBlock

    @_called_like_forward
    def encode(
        self, label_map: Tensor, edges_BHW: Tensor | None = None, keep: int | None = None
    ) -> Condition:
        """Compute what depends on the mask alone.

        Args:
            label_map: condition channels (B, H, W) as integers, or the map itself (B, K, H, W) as
                floats; H and W are ``label_patch`` times the size of ``x``. All zeros is the
                null condition.
            edges_BHW: see ``label_input``; only with integers.
            keep: the most bytes of gammas and betas to keep; those that do not fit are computed
                in each pass, wide norms first (they save the least time a byte). None keeps all.

        Raises:
            UserError: a map of another number of channels, or sides that cannot be halved.
        """
        map_BKHW = label_map if label_map.dim() == 4 else one_hot(self, label_map, edges_BHW)  # type: ignore[arg-type]
        if map_BKHW.shape[1] != self.label_channels:
            raise UserError(
                f"the label map has {map_BKHW.shape[1]} channels, the network "
                f"{self.label_channels} (one for each class"
                f"{', the last for instance edges' if self.instance_edges else ''})"
            )
        if self.label_patch > 1:
            map_BKHW = F.pixel_unshuffle(map_BKHW, self.label_patch)
        height, width = map_BKHW.shape[2:]
        self.check_size(height, width)
        map_BKHW = self.label_conv(map_BKHW)
        pyramid = []
        for level in range(len(self.widths)):
            size = (height >> level, width >> level)
            pyramid.append(self._shrink(map_BKHW, size).contiguous())
        kept = self.kept(len(map_BKHW), (height, width), keep)
        entries: list[NormCondition] = []
        for index, (norm, level) in enumerate(self._spade_norms()):
            at_level = pyramid[level]
            entries.append(dense(norm.modulation(at_level)) if index in kept else at_level)
        return Condition(tuple(entries))

    @_called_like_forward
    def encode_null(self, height: int, width: int) -> Condition:
        """Return the condition of no mask for latents of this size; it takes next to no memory.

        The same numbers as ``encode`` gives for all zeros: constant but for the rim that zero
        padding makes (``condition.spread``).
        """
        self.check_size(height, width)
        entries: list[NormCondition] = []
        for norm, level in self._spade_norms():
            size = [min(3, side >> level) for side in (height, width)]
            weight = norm.shared.weight
            parts = norm.modulation(weight.new_zeros(1, weight.shape[1], *size))
            whole = torch.Size((height >> level, width >> level))
            if norm.channels * whole.numel() <= MAX_DENSE_NULL_NUMEL:
                parts = (spread(parts[0], whole), spread(parts[1], whole))
            entries.append(dense(parts))
        return Condition(tuple(entries))

    def condition_bytes(self, masks: int, height: int, width: int) -> list[int]:
        """Return the bytes of gamma and beta of each SPADE norm for latents of this size."""
        each = 2 * masks * computed_dtype(self.device, self.dtype).itemsize
        return [
            each * norm.channels * (height >> level) * (width >> level)
            for norm, level in self._spade_norms()
        ]

    def kept(self, masks: int, size: tuple[int, int], keep: int | None) -> set[int]:
        """Return the indices of the SPADE norms whose gammas and betas fit into ``keep`` bytes."""
        sizes = self.condition_bytes(masks, *size)
        if keep is None:
            return set(range(len(sizes)))
        norms = self._spade_norms()
        kept = set()
        # Computing takes hidden x (K + 2 C) products a pixel, keeping 2 C numbers: narrow first.
        for index in sorted(range(len(sizes)), key=lambda i: (norms[i][0].channels, i)):
            if sizes[index] > keep:
                break
            keep -= sizes[index]
            kept.add(index)
        return kept

    def _shrink(self, map_BKHW: Tensor, size: tuple[int, int]) -> Tensor:
        # The paper picks one pixel (nearest); with label patches the shares of the classes go on.
        mode = "nearest" if self.label_patch == 1 else "area"
        return map_BKHW if map_BKHW.shape[2:] == size else F.interpolate(map_BKHW, size, mode=mode)

    def _spade_norms(self) -> list[tuple[SpadeNorm, int]]:
        last = len(self.widths) - 1
        found = [(norm, last) for b in (self.middle1, self.middle2) for norm in b.spade_norms()]
        for stage, level in zip(self.decoder_stages(), self.decoder_levels, strict=True):
            found += [(norm, level) for norm in stage.block.spade_norms()]
            if stage.up is not None:
                # The first norm of a doubling block stands before the doubling.
                first, second = stage.up.spade_norms()
                found += [(first, level), (second, level - 1)]
        return found

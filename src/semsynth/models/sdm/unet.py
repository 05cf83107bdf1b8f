"""The denoising U-Net of SDM: a plain encoder, SPADE in the middle and the decoder.

Architecture: SDM (arXiv 2207.00050, section 3.2) on guided-diffusion's U-Net (arXiv 2105.05233).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from semsynth.core.errors import UserError
from semsynth.models.sdm.blocks import (
    Attention,
    ResBlock,
    Stage,
    norm_groups,
    timestep_embedding,
)
from semsynth.models.sdm.condition import BatchedConditions, Condition, NormCondition
from semsynth.models.sdm.mask_encoder import MaskEncoder
from semsynth.models.sdm.norms import GroupNorm

# Passes of guidance go through maps of at most so many numbers (of all passes) as one batch.
MAX_JOINT_NUMEL = 2**19


@dataclass
class UNetOutput(BaseOutput):
    """What a pass predicts, (B, out_channels, H, W) each.

    Channels beyond ``in_channels`` are the learned variance.

    Attributes:
        sample: the prediction for the condition.
        null_sample: that for the null condition, None where none was given.
    """

    sample: Tensor
    null_sample: Tensor | None = None


class SemanticUNet(MaskEncoder, ModelMixin, ConfigMixin):
    """The semantic diffusion network, with its condition in two steps.

    ``condition = unet.encode(label_map)`` holds all that depends on the mask alone;
    ``unet(x, t, condition).sample`` is one pass, ``unet(x, t, condition, null)`` gives both sides
    of classifier-free guidance, as ``.sample`` and ``.null_sample``.

    Args:
        in_channels: channels of the (codec's) image.
        out_channels: the same, or twice as many where the variance is learned.
        label_channels: condition channels: classes, plus one for an instance edge map.
        base_channels: width of the first level.
        channel_mult: width of each level as a multiple of ``base_channels``.
        blocks_per_level: residual blocks of a level in the encoder (one more in the decoder).
        attention_factors: the down-sampling factors that have attention.
        head_channels: width of an attention head.
        spade_hidden: width of the hidden layer of SPADE.
        dropout: share of activations dropped in residual blocks.
        label_patch: label map pixels per latent pixel, along one side. Each patch's labels stand
            side by side as condition channels (space to depth), so that classes thinner than a
            latent pixel still count. 1 is the paper's network.
        label_features: channels of a learned convolution of the (patched) label map, which all
            SPADE norms then share as their input; 0 gives them the map itself, as the paper.
        instance_edges: the last of ``label_channels`` is the map of the edges of instances.
        augment_channels: numbers that say how a training image was augmented (0: not an input).

    Attributes:
        checkpoint_levels: with ``enable_gradient_checkpointing``, of how many levels, the largest
            first, activations are recomputed; all by default.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 6,
        label_channels: int = 151,
        base_channels: int = 256,
        channel_mult: Sequence[float] = (1, 1, 2, 2, 4, 4),
        blocks_per_level: int = 2,
        attention_factors: Sequence[int] = (8, 16, 32),
        head_channels: int = 64,
        spade_hidden: int = 128,
        dropout: float = 0.0,
        label_patch: int = 1,
        label_features: int = 0,
        instance_edges: bool = False,
        augment_channels: int = 0,
    ) -> None:
        """Build the network; see the class for the arguments."""
        super().__init__()
        self.gradient_checkpointing, self.checkpoint_levels = False, len(channel_mult)
        self.channels = in_channels
        self.label_channels = label_channels
        self.instance_edges = instance_edges
        self.label_patch = label_patch
        self.factor = 2 ** (len(channel_mult) - 1)
        widths = [int(mult * base_channels) for mult in channel_mult]
        self.widths = widths
        embedding = 4 * base_channels
        self.base_channels = base_channels
        self.time_in = nn.Linear(base_channels, embedding)
        self.time_out = nn.Linear(embedding, embedding)
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)

        def attention(width: int, factor: int) -> Attention | None:
            return Attention(width, head_channels) if factor in attention_factors else None

        map_channels = label_channels * label_patch**2
        self.label_conv: nn.Module = nn.Identity()
        if label_features:
            # No bias: the null condition stays all zeros.
            self.label_conv = nn.Conv2d(map_channels, label_features, 3, padding=1, bias=False)
        spade = (label_features or map_channels, spade_hidden)
        skips = self._build_encoder(blocks_per_level, embedding, dropout, attention)
        self.middle1 = ResBlock(widths[-1], widths[-1], embedding, dropout, spade)
        self.middle_attention = Attention(widths[-1], head_channels)
        self.middle2 = ResBlock(widths[-1], widths[-1], embedding, dropout, spade)
        self._build_decoder(skips, blocks_per_level, (embedding, dropout, spade), attention)
        self._build_end(out_channels, embedding, augment_channels)

    def _build_end(self, out_channels: int, embedding: int, augment_channels: int) -> None:
        self.norm_out = GroupNorm(norm_groups(self.widths[0]), self.widths[0])
        self.conv_out = nn.Conv2d(self.widths[0], out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]
        if augment_channels:
            # No bias: all zeros, as in sampling, have no effect, so that they need not be given.
            self.augment_in = nn.Linear(augment_channels, embedding, bias=False)
            nn.init.zeros_(self.augment_in.weight)

    def _build_encoder(
        self, blocks: int, embedding: int, dropout: float, attention: Any
    ) -> list[int]:
        stages: list[Stage] = []
        levels: list[int] = []
        width = self.widths[0]
        skips = [width]
        for level, level_width in enumerate(self.widths):
            for _ in range(blocks):
                block = ResBlock(width, level_width, embedding, dropout)
                width = level_width
                stages.append(Stage(block, attention(width, 2**level)))
                skips.append(width)
            if level < len(self.widths) - 1:
                stages.append(Stage(ResBlock(width, width, embedding, dropout, resample="down")))
                skips.append(width)
            levels += [level] * (len(stages) - len(levels))
        self.encoder = nn.ModuleList(stages)
        self.encoder_levels = tuple(levels)
        return skips

    def _build_decoder(
        self,
        skips: list[int],
        blocks: int,
        block_args: tuple[int, float, tuple[int, int]],
        attention: Any,
    ) -> None:
        stages: list[Stage] = []
        levels: list[int] = []
        width = self.widths[-1]
        for level in reversed(range(len(self.widths))):
            for index in range(blocks + 1):
                block = ResBlock(width + skips.pop(), self.widths[level], *block_args)
                width = self.widths[level]
                up = None
                if level > 0 and index == blocks:
                    up = ResBlock(width, width, *block_args, resample="up")
                stages.append(Stage(block, attention(width, 2**level), up))
                levels.append(level)
        self.decoder = nn.ModuleList(stages)
        self.decoder_levels = tuple(levels)

    def encoder_stages(self) -> list[Stage]:
        """Return the encoder's stages in order."""
        return [stage for stage in self.encoder if isinstance(stage, Stage)]

    def decoder_stages(self) -> list[Stage]:
        """Return the decoder's stages in order."""
        return [stage for stage in self.decoder if isinstance(stage, Stage)]

    def check_size(self, height: int, width: int) -> None:
        """Check that every level can halve a latent of this size.

        Raises:
            UserError: a side is not a multiple of ``factor``.
        """
        if height % self.factor or width % self.factor or min(height, width) < self.factor:
            raise UserError(
                f"size {height}x{width} (of the network's input) cannot be halved "
                f"{self.factor.bit_length() - 1} times; use multiples of {self.factor}"
            )

    def forward(
        self,
        x_BCHW: Tensor,
        t_B: Tensor | float,
        condition: Condition | Tensor,
        null: Condition | Tensor | None = None,
        augment_params_BA: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNetOutput | tuple[Tensor, ...]:
        """Predict the target for noisy ``x`` at timesteps ``t``.

        With ``null`` both sides of classifier-free guidance are predicted; how they are combined
        is for the caller (``diffusion.guidance``). The encoder never sees the mask, so that both
        share its pass.

        Args:
            x_BCHW: the noisy (codec's) image.
            t_B: timesteps, 0..T-1 (whole or not); a single one holds for all.
            condition: of ``encode``, or a label map for it.
            null: the same of no mask at all (all zeros).
            augment_params_BA: in training, how the images were augmented,
                (B, ``augment_channels``); None (or zeros) for images as they are.
            return_dict: False for a tuple without names.
        """
        features = self._encode_image(x_BCHW, t_B, augment_params_BA)
        sides = [self._encoded(side) for side in (condition, null) if side is not None]
        output = UNetOutput(*self._decode(*features, *sides))
        return output if return_dict else output.to_tuple()

    def _encoded(self, condition: Condition | Tensor) -> Condition:
        if isinstance(condition, Tensor):
            # For one pass only: each norm computes its own when it comes to it.
            return self.encode(condition, keep=0)
        return condition

    def _run(self, level: int, module: nn.Module, *args: Any) -> Tensor:
        recompute = self.gradient_checkpointing and level < self.checkpoint_levels
        if recompute and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(module, *args)  # type: ignore[no-any-return]
        return module(*args)  # type: ignore[no-any-return]

    def _encode_image(
        self, x_BCHW: Tensor, t_B: Tensor | float, augment_params_BA: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        self.check_size(*x_BCHW.shape[2:])
        t_B = torch.as_tensor(t_B, device=x_BCHW.device).expand(len(x_BCHW))
        embedding = timestep_embedding(t_B, self.base_channels).to(x_BCHW.dtype)
        embedding = self.time_in(embedding)
        if augment_params_BA is not None:
            embedding = embedding + self.augment_in(augment_params_BA.to(embedding.dtype))
        embedding = self.time_out(F.silu(embedding))
        h = self.conv_in(x_BCHW)
        skips = [h]
        for level, stage in zip(self.encoder_levels, self.encoder_stages(), strict=True):
            h = self._run(level, stage, h, embedding)
            skips.append(h)
        return h, tuple(skips), embedding

    def _decode(
        self, h: Tensor, skips: tuple[Tensor, ...], embedding: Tensor, *conditions: Condition
    ) -> tuple[Tensor, ...]:
        """Return the output of each condition's pass; small maps of all passes are one batch."""
        count, skips = len(conditions), skips[::-1]
        parts: tuple[Tensor, ...] = (h,) * count
        together = 0
        if count > 1 and _joining_pays(h):
            fitting = sum(count * skip.numel() <= MAX_JOINT_NUMEL for skip in skips)
            together = 1 + fitting if fitting else 0
        if together:
            rows = zip(*(condition.entries for condition in conditions), strict=True)
            groups = self._groups([BatchedConditions(row) for row in rows])
            wide = [torch.cat([skip] * count) for skip in skips[: together - 1]]
            h, time = torch.cat(parts), torch.cat([embedding] * count)
            parts = self._climb(h, time, groups[:together], wide).chunk(count)
        outputs = []
        for part, condition in zip(parts, conditions, strict=True):
            groups = self._groups(condition.entries)
            last = self._climb(part, embedding, groups, skips, start=together)
            outputs.append(self.conv_out(F.silu(self.norm_out(last))))
        return tuple(outputs)

    def _groups(
        self, entries: Sequence[NormCondition | BatchedConditions]
    ) -> list[tuple[NormCondition | BatchedConditions, ...]]:
        """Return the entries of the middle and of each stage of the decoder."""
        rest = iter(entries)
        sizes = [4, *(len(stage.spade_norms()) for stage in self.decoder_stages())]
        return [tuple(islice(rest, size)) for size in sizes]

    def _climb(
        self,
        h: Tensor,
        embedding: Tensor,
        groups: Sequence[tuple[NormCondition | BatchedConditions, ...]],
        skips: Sequence[Tensor],
        start: int = 0,
    ) -> Tensor:
        """Run the middle (group 0) and then the decoder's stages, as far as there are groups."""
        if start == 0:
            last = len(self.widths) - 1
            h = self._run(last, self.middle1, h, embedding, groups[0][:2])
            h = self.middle_attention(h)
            h = self._run(last, self.middle2, h, embedding, groups[0][2:])
        stages = self.decoder_stages()
        for index in range(max(start, 1), len(groups)):
            joined = torch.cat([h, skips[index - 1]], dim=1)
            level = self.decoder_levels[index - 1]
            h = self._run(level, stages[index - 1], joined, embedding, groups[index])
        return h


def _joining_pays(h: Tensor) -> bool:
    # Not in float32 on a CPU: there arithmetic takes nearly all of the time.
    return h.device.type != "cpu" or h.dtype != torch.float32

"""The denoising U-Net of SDM: a plain encoder, SPADE in the middle and the decoder.

Architecture: SDM (arXiv 2207.00050, section 3.2) on guided-diffusion's U-Net (arXiv 2105.05233).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from semsynth.core.errors import UserError
from semsynth.models.config import Compile
from semsynth.models.sdm.blocks import (
    Attention,
    GroupNorm,
    ResBlock,
    SpadeInput,
    SpadeNorm,
    UNetStage,
    norm_groups,
)
from semsynth.models.sdm.compiled_norms import can_compile, compiled_norm_act
from semsynth.models.sdm.condition import Condition, decode_sides, encode_condition
from semsynth.models.sdm.pixel_head import PixelHead


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


class SemanticUNet(ModelMixin, ConfigMixin):
    """The semantic diffusion network.

    ``unet(x, t, label_map).sample`` is one pass, as in training. For sampling, all that depends on
    the mask alone is computed once by ``condition.encode_condition(unet, label_map)``, which takes
    the place of the map; ``unet(x, t, condition, null)`` gives both sides of classifier-free
    guidance, as ``.sample`` and ``.null_sample``.

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
        label_patch: label map pixels per latent pixel, along one side. The labels of a patch become
            condition channels (space to depth), so that classes thinner than a latent pixel still
            count. 1 is the paper's network.
        label_features: channels of a learned convolution of the (patched) label map, which all
            SPADE norms then share as their input; 0 gives them the map itself, as in the paper.
        instance_edges: the last of ``label_channels`` is the map of the edges of instances.
        augment_channels: numbers that say how a training image was augmented (0: not an input).
        pixel_head: width of a ``PixelHead`` (0: none).
        pixel_side: its image pixels per latent pixel, along one side.
        global_noise: width of two layers from the mean of the noisy image to the embedding (0:
            none).

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
        pixel_head: int = 0,
        pixel_side: int = 1,
        global_noise: int = 0,
    ) -> None:
        """Build the network; see the class for the arguments."""
        super().__init__()
        self.gradient_checkpointing, self.checkpoint_levels = False, len(channel_mult)
        self.channels, self.label_channels = in_channels, label_channels
        self.instance_edges, self.label_patch = instance_edges, label_patch
        self.factor = 2 ** (len(channel_mult) - 1)
        widths = self.widths = [int(mult * base_channels) for mult in channel_mult]
        embedding = 4 * base_channels
        self.base_channels = base_channels
        self.time_in = nn.Linear(base_channels, embedding)
        self.time_out = nn.Linear(embedding, embedding)
        self.global_in = _global_in(in_channels, global_noise, embedding)
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
        self._build_end(out_channels, embedding, augment_channels, (pixel_side, pixel_head))

    def _build_end(
        self, out_channels: int, embedding: int, augment_channels: int, head: tuple[int, int]
    ) -> None:
        side, width = head
        self.head: PixelHead | None = None
        if width:
            sizes = (self.widths[0], self.channels, side, width, self.label_channels)
            self.head = PixelHead(*sizes, embedding)
            out_channels //= side**2  # the means of the head's blocks
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
        stages: list[UNetStage] = []
        levels: list[int] = []
        width = self.widths[0]
        skips = [width]
        for level, level_width in enumerate(self.widths):
            for _ in range(blocks):
                block = ResBlock(width, level_width, embedding, dropout)
                width = level_width
                stages.append(UNetStage(block, attention(width, 2**level)))
                skips.append(width)
            if level < len(self.widths) - 1:
                down = ResBlock(width, width, embedding, dropout, resample="down")
                stages.append(UNetStage(down))
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
        stages: list[UNetStage] = []
        levels: list[int] = []
        width = self.widths[-1]
        for level in reversed(range(len(self.widths))):
            for index in range(blocks + 1):
                block = ResBlock(width + skips.pop(), self.widths[level], *block_args)
                width = self.widths[level]
                up = None
                if level > 0 and index == blocks:
                    up = ResBlock(width, width, *block_args, resample="up")
                stages.append(UNetStage(block, attention(width, 2**level), up))
                levels.append(level)
        self.decoder = nn.ModuleList(stages)
        self.decoder_levels = tuple(levels)

    def encoder_stages(self) -> list[UNetStage]:
        """Return the encoder's stages in order."""
        return [stage for stage in self.encoder if isinstance(stage, UNetStage)]

    def decoder_stages(self) -> list[UNetStage]:
        """Return the decoder's stages in order."""
        return [stage for stage in self.decoder if isinstance(stage, UNetStage)]

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
            condition: a label map, (B, K, H', W') (``label_input``), or what was prepared of it.
            null: the same of no mask at all (all zeros).
            augment_params_BA: in training, how the images were augmented,
                (B, ``augment_channels``); None (or zeros) for images as they are.
            return_dict: False for a tuple without names.
        """
        h, skips, embedding = self._encode_image(x_BCHW, t_B, augment_params_BA)
        if null is None:
            conditions, labels = self._norm_inputs(condition)
            h = self.run_decoder(h, embedding, skips, conditions)
            outputs = [self.project_out(h, embedding, x_BCHW, labels)]
        else:
            sides = [
                encode_condition(self, side, cache_bytes=0) if isinstance(side, Tensor) else side
                for side in (condition, null)
            ]
            outputs = decode_sides(self, x_BCHW, h, skips, embedding, sides)
        output = UNetOutput(*outputs)
        return output if return_dict else output.to_tuple()

    def compile_norms(self, wanted: Compile, device: torch.device) -> bool:
        """Run norms with what follows them as one compiled kernel, or not; return whether.

        ``on`` and ``auto`` (on GPUs) fall back to the separate operations, with a warning, where
        ``torch.compile`` does not work.
        """
        use = wanted == "on" or (wanted == "auto" and device.type == "cuda")
        use = use and can_compile(device)
        for module in self.modules():
            if isinstance(module, ResBlock):
                module.norm_act = compiled_norm_act if use else None
        return use

    def label_pyramid(self, map_MKHW: Tensor) -> list[Tensor]:
        """Return the (patched, convolved) label maps at the size of each level, largest first.

        Raises:
            UserError: a map of another number of channels, or sides that cannot be halved.
        """
        if map_MKHW.dim() != 4 or map_MKHW.shape[1] != self.label_channels:
            raise UserError(
                f"the label map is {tuple(map_MKHW.shape)}, it must be (masks, channels, height, "
                "width) with the channels of the network, "
                f"{self.label_channels} (one for each class"
                f"{', the last for instance edges' if self.instance_edges else ''})"
            )
        if self.label_patch > 1:
            map_MKHW = F.pixel_unshuffle(map_MKHW, self.label_patch)
        height, width = map_MKHW.shape[2:]
        self.check_size(height, width)
        map_MKHW = self.label_conv(map_MKHW)
        # The paper picks one pixel (nearest); with label patches, maps have shares of classes.
        mode = "nearest" if self.label_patch == 1 else "area"
        pyramid = [map_MKHW.contiguous()]
        for level in range(1, len(self.widths)):
            size = (height >> level, width >> level)
            pyramid.append(F.interpolate(map_MKHW, size, mode=mode).contiguous())
        return pyramid

    def spade_norms(self) -> list[tuple[SpadeNorm, int]]:
        """Return the SPADE norms in the order of use, each with its level (0: the largest)."""
        last = len(self.widths) - 1
        norms = [(norm, last) for b in (self.middle1, self.middle2) for norm in b.spade_norms()]
        for stage, level in zip(self.decoder_stages(), self.decoder_levels, strict=True):
            norms += [(norm, level) for norm in stage.block.spade_norms()]
            if stage.up is not None:
                # The first norm of an upsampling block comes before the upsampling.
                first, second = stage.up.spade_norms()
                norms += [(first, level), (second, level - 1)]
        return norms

    def head_labels(self, map_MKHW: Tensor) -> Tensor | None:
        """Return what the head sees of label maps (``label_input``); None without a head."""
        return None if self.head is None else self.head.labels(map_MKHW)

    def _norm_inputs(
        self, condition: Condition | Tensor
    ) -> tuple[Sequence[SpadeInput], Tensor | None]:
        """Return the inputs of ``spade_norms``, and the head's."""
        if not isinstance(condition, Tensor):
            return condition.norms, condition.labels
        pyramid = self.label_pyramid(condition)
        return [pyramid[level] for _, level in self.spade_norms()], self.head_labels(condition)

    def _run(self, level: int, module: nn.Module, *args: Any) -> Tensor:
        recompute = self.gradient_checkpointing and level < self.checkpoint_levels
        if recompute and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(module, *args)  # type: ignore[no-any-return]
        return module(*args)  # type: ignore[no-any-return]

    def _encode_image(
        self, x_BCHW: Tensor, t_B: Tensor | float, augment_params_BA: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the encoder's last map, all of its maps (the last one first), the embedding."""
        self.check_size(*x_BCHW.shape[2:])
        t_B = torch.as_tensor(t_B, device=x_BCHW.device).expand(len(x_BCHW))
        embedding = _timestep_embedding(t_B, self.base_channels).to(x_BCHW.dtype)
        embedding = self.time_in(embedding)
        if augment_params_BA is not None:
            embedding = embedding + self.augment_in(augment_params_BA.to(embedding.dtype))
        if self.global_in is not None:
            embedding = embedding + self.global_in(whole_noise(x_BCHW).to(embedding.dtype))
        embedding = self.time_out(F.silu(embedding))
        h = self.conv_in(x_BCHW)
        skips = [h]
        for level, stage in zip(self.encoder_levels, self.encoder_stages(), strict=True):
            h = self._run(level, stage, h, embedding)
            skips.append(h)
        return h, skips[::-1], embedding

    def run_decoder(
        self,
        h: Tensor,
        embedding: Tensor,
        skips: Sequence[Tensor],
        conditions: Sequence[SpadeInput],
        start: int = 0,
        stop: int | None = None,
    ) -> Tensor:
        """Run the middle (step 0) and the decoder's stages (steps 1, 2, ...).

        Args:
            h: the encoder's last map, or what the steps before ``start`` returned.
            embedding: of the timesteps.
            skips: the encoder's maps, the last one first.
            conditions: the inputs of ``spade_norms``, all of them.
            start: the first step.
            stop: the first step that is not run; None: run all.
        """
        by_step = self._split_by_stage(conditions)
        if start == 0:
            last = len(self.widths) - 1
            h = self._run(last, self.middle1, h, embedding, by_step[0][:2])
            h = self.middle_attention(h)
            h = self._run(last, self.middle2, h, embedding, by_step[0][2:])
        stages = self.decoder_stages()
        for step in range(max(start, 1), len(by_step) if stop is None else stop):
            joined = torch.cat([h, skips[step - 1]], dim=1)
            level = self.decoder_levels[step - 1]
            h = self._run(level, stages[step - 1], joined, embedding, by_step[step])
        return h

    def project_out(
        self, h: Tensor, embedding: Tensor, x_BCHW: Tensor, labels_MCHW: Tensor | None
    ) -> Tensor:
        """Return the prediction, (B, out_channels, H, W), of the decoder's last map ``h``.

        ``labels_MCHW`` are those of ``head_labels``; None of no mask at all, or without a head.
        """
        h = F.silu(self.norm_out(h))
        out: Tensor = self.conv_out(h)
        return out if self.head is None else self.head(h, out, embedding, x_BCHW, labels_MCHW)

    def _split_by_stage(self, conditions: Sequence[SpadeInput]) -> list[tuple[SpadeInput, ...]]:
        """Return the conditions of the middle and of each stage of the decoder."""
        counts = [4, *(len(stage.spade_norms()) for stage in self.decoder_stages())]
        ends = list(accumulate(counts))
        return [tuple(conditions[end - n : end]) for end, n in zip(ends, counts, strict=True)]


def reference_forward(
    unet: SemanticUNet, x_BCHW: Tensor, t_B: Tensor, label_map_MKHW: Tensor, with_null: bool
) -> tuple[Tensor, Tensor | None]:
    """Return both samples of ``unet(x, t, condition, null)``, as the official code computes them.

    Two whole passes, in which each image computes all gammas and betas: slow on purpose. The fast
    path must equal it; ``semsynth generate --reference plain`` uses it, and ``benchmarks/speed.py``
    compares with it.

    Args:
        unet: the network, in float32 and contiguous.
        x_BCHW: noisy latents.
        t_B: timesteps.
        label_map_MKHW: the map of ``label_input``; B is a multiple of M, n images of each mask.
        with_null: also pass the null condition; otherwise the second result is None.
    """
    label_map = label_map_MKHW.repeat_interleave(len(x_BCHW) // len(label_map_MKHW), 0)
    sample: Tensor = unet(x_BCHW, t_B, label_map).sample
    null = unet(x_BCHW, t_B, torch.zeros_like(label_map)).sample if with_null else None
    return sample, null


def _global_in(channels: int, width: int, embedding: int) -> nn.Module | None:
    if not width:
        return None
    out = nn.Linear(width, embedding, bias=False)
    return nn.Sequential(nn.Linear(channels, width), nn.SiLU(), out)


def whole_noise(x_BCHW: Tensor) -> Tensor:
    """Return what the noisy image is as a whole, (B, C), within -1 and 1.

    Of noise alone the mean of each channel times the root of the number of pixels is again normal
    noise of variance 1, whatever the size: the image's own, that convolutions hardly see. Where
    there is an image, it is the sign of its mean.
    """
    pixels = x_BCHW.shape[2] * x_BCHW.shape[3]
    return torch.tanh(x_BCHW.float().mean((2, 3)) * math.sqrt(pixels))


def _timestep_embedding(t_B: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Return (B, width): cosines, then sines, of ``t`` at geometric frequencies."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=t_B.device)
    angles = t_B.float()[:, None] * torch.exp(-math.log(max_period) * steps / half)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(embedding, (0, width % 2))

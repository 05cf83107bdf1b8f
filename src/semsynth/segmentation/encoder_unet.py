"""A U-Net on any encoder with feature maps at halved resolutions, and the one on Lite2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semsynth.core.errors import Unavailable, UserError
from semsynth.models.lite2 import MEAN, STD, EfficientNetLite2
from semsynth.segmentation.small_unet import Block, Perturb, normalization

FeatureMaps = Callable[[nn.Module, Tensor], dict[int, Tensor]]
"""Gives an encoder's feature map by its stride, for images (B, 3, H, W)."""
# The decoder's channels at 1/2, 1/4, ... of the resolution.
_WIDTHS = (32, 48, 64, 96, 128)
# Side of the image of zeros that shows at which strides an encoder has feature maps.
_PROBE_SIDE = 64


@dataclass(frozen=True)
class EncoderOptions:
    """How an encoder is used.

    Attributes:
        name: of the encoder, for messages.
        fixed_norms: keep the statistics of its normalization during training.
        enlarge: the encoder sees images that are so many times as large, 1 or 2. Its strides are
            those of the images themselves, and the decoder is the same.
        lateral_norms: normalize what the decoder gets of its maps.
    """

    name: str
    fixed_norms: bool = False
    enlarge: int = 1
    lateral_norms: bool = False


class EncoderUNet(nn.Module):
    """A U-Net whose encoder is any network with feature maps at several resolutions."""

    def __init__(
        self,
        model: nn.Module,
        feature_maps: FeatureMaps,
        num_classes: int,
        options: EncoderOptions,
    ) -> None:
        """Add an untrained decoder to an encoder.

        Args:
            model: the encoder.
            feature_maps: its maps by stride; strides are powers of two, 2 may be missing.
            num_classes: channels of the logits.
            options: how it is used.

        Raises:
            UserError: it has no feature maps at halved resolutions.
        """
        super().__init__()
        self.model = model.eval()
        self._all_maps, self._options = feature_maps, options
        with torch.no_grad():
            maps = self._feature_maps(torch.zeros(1, 3, _PROBE_SIDE, _PROBE_SIDE))
        depth = max(maps, default=1).bit_length() - 1
        if depth < 2 or depth > len(_WIDTHS) or any(s & (s - 1) for s in maps):
            raise UserError(
                f"init_from: {options.name} has no feature maps at halved resolutions; "
                "use a hierarchical model (MobileNet, ResNet, SegFormer, ConvNeXt, Swin, ...)"
            )
        self.multiple = 2**depth
        widths = _WIDTHS[:depth]
        self.stem = nn.Sequential(
            nn.Conv2d(12, widths[0], 3, padding=1, bias=False), normalization(widths[0]), nn.ReLU()
        )
        self.lateral = nn.ModuleDict(
            {
                str(stride): self._lateral(x.shape[1], widths[stride.bit_length() - 2])
                for stride, x in maps.items()
            }
        )
        pairs = list(pairwise(widths))
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(Block(fine) for fine, _ in pairs)
        self.head = nn.Conv2d(widths[0], 4 * num_classes, 1)

    def _feature_maps(self, x: Tensor) -> dict[int, Tensor]:
        """Return the encoder's maps by their stride over ``x``, from 2 on."""
        factor = self._options.enlarge
        if factor == 1:
            return self._all_maps(self.model, x)
        maps = self._all_maps(self.model, F.interpolate(x, scale_factor=factor, mode="bilinear"))
        return {stride // factor: h for stride, h in maps.items() if stride > factor}

    def _lateral(self, channels: int, width: int) -> nn.Module:
        convolution = nn.Conv2d(channels, width, 1)
        if not self._options.lateral_norms:
            return convolution
        return nn.Sequential(convolution, normalization(width))

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that come from the pretrained model."""
        return list(self.model.parameters())

    def train(self, mode: bool = True) -> EncoderUNet:
        """Set the mode; an encoder with fixed norms stays in evaluation mode."""
        super().train(mode)
        if self._options.fixed_norms:
            self.model.eval()
        return self

    def forward(self, x_BCHW: Tensor, perturb: Perturb | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes, H, W) and features (B, D).

        The features are the means over the image of the encoder's coarsest map and of the last
        level before the logits. ``perturb`` changes what the decoder gets of the encoder.
        """
        height, width = x_BCHW.shape[-2:]
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        x = F.pad(x_BCHW, pad, mode="replicate") if any(pad) else x_BCHW
        maps, stem = self._feature_maps(x), self.stem(F.pixel_unshuffle(x, 2))
        if perturb is not None:
            maps, stem = {stride: perturb(h) for stride, h in maps.items()}, perturb(stem)
        levels = {stride: self.lateral[str(stride)](h) for stride, h in maps.items()}
        levels[2] = stem + levels.get(2, 0)
        hidden = levels[self.multiple]
        for i in reversed(range(len(self.decoder))):
            hidden = F.interpolate(self.up[i](hidden), scale_factor=2.0, mode="bilinear")
            hidden = self.decoder[i](hidden + levels.get(2 ** (i + 1), 0))
        logits = F.pixel_shuffle(self.head(hidden), 2)[..., :height, :width]
        coarsest = maps[self.multiple]
        return logits, torch.cat([coarsest.mean((2, 3)), hidden.mean((2, 3))], 1)


def lite2_arch(enlarge: int = 1) -> dict[str, Any]:
    """Return the ``arch`` of a U-Net on EfficientNet-Lite2.

    Its maps are large (a standard deviation of 4 behind the lateral convolutions), and the one of
    stride 2 drowns the pixels of the stem: they are normalized, and that one is left out. In a file
    without these entries neither is so.
    """
    arch = {"kind": "lite2", "mean": [MEAN / 255] * 3, "std": [STD / 255] * 3}
    return {**arch, "lateral_norms": True, "finest": 4, "enlarge": enlarge}


def lite2_unet(num_classes: int, arch: Mapping[str, Any], pretrained: bool = False) -> EncoderUNet:
    """Return a U-Net on EfficientNet-Lite2, whose batch norms are trained as well.

    Args:
        num_classes: channels of the logits.
        arch: of ``lite2_arch``, or of a file.
        pretrained: give the encoder ImageNet's weights, which come with a package.

    Raises:
        UserError: the package is not installed, or its file is damaged.
    """
    try:
        encoder = EfficientNetLite2.from_package() if pretrained else EfficientNetLite2()
    except Unavailable as error:
        raise UserError(f"--arch lite2 {error}") from None
    options = EncoderOptions(
        "lite2",
        enlarge=int(arch.get("enlarge", 1)),
        lateral_norms=bool(arch.get("lateral_norms", False)),
    )
    maps = partial(_lite2_maps, finest=int(arch.get("finest", 2)))
    return EncoderUNet(encoder.without_head(), maps, num_classes, options)


def _lite2_maps(model: nn.Module, x: Tensor, finest: int) -> dict[int, Tensor]:
    """Return the maps by stride, from ``finest`` on."""
    maps = {2 ** (i + 1): h for i, h in enumerate(model.pyramid(x, 5))}  # type: ignore[operator]
    return {stride: h for stride, h in maps.items() if stride >= finest}

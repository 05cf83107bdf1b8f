"""A U-Net on any encoder with feature maps at halved resolutions, and the one on Lite2."""

from __future__ import annotations

from collections.abc import Callable
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


class EncoderUNet(nn.Module):
    """A U-Net whose encoder is any network with feature maps at several resolutions."""

    def __init__(
        self,
        model: nn.Module,
        feature_maps: FeatureMaps,
        num_classes: int,
        fixed_norms: bool,
        name: str,
    ) -> None:
        """Add an untrained decoder to an encoder.

        Args:
            model: the encoder.
            feature_maps: its maps by stride; strides are powers of two, 2 may be missing.
            num_classes: channels of the logits.
            fixed_norms: keep the statistics of its normalization during training.
            name: of the encoder, for messages.

        Raises:
            UserError: it has no feature maps at halved resolutions.
        """
        super().__init__()
        self.model = model.eval()
        self._feature_maps, self._fixed_norms = feature_maps, fixed_norms
        with torch.no_grad():
            maps = feature_maps(model, torch.zeros(1, 3, _PROBE_SIDE, _PROBE_SIDE))
        depth = max(maps, default=1).bit_length() - 1
        if depth < 2 or depth > len(_WIDTHS) or any(s & (s - 1) for s in maps):
            raise UserError(
                f"init_from: {name} has no feature maps at halved resolutions; "
                "use a hierarchical model (MobileNet, ResNet, SegFormer, ConvNeXt, Swin, ...)"
            )
        self.multiple = 2**depth
        widths = _WIDTHS[:depth]
        self.stem = nn.Sequential(
            nn.Conv2d(12, widths[0], 3, padding=1, bias=False), normalization(widths[0]), nn.ReLU()
        )
        self.lateral = nn.ModuleDict(
            {
                str(stride): nn.Conv2d(x.shape[1], widths[stride.bit_length() - 2], 1)
                for stride, x in maps.items()
            }
        )
        pairs = list(pairwise(widths))
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(Block(fine) for fine, _ in pairs)
        self.head = nn.Conv2d(widths[0], 4 * num_classes, 1)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that come from the pretrained model."""
        return list(self.model.parameters())

    def train(self, mode: bool = True) -> EncoderUNet:
        """Set the mode; an encoder with ``fixed_norms`` stays in evaluation mode."""
        super().train(mode)
        if self._fixed_norms:
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
        maps, stem = self._feature_maps(self.model, x), self.stem(F.pixel_unshuffle(x, 2))
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


def lite2_arch() -> dict[str, Any]:
    """Return the ``arch`` of a U-Net on EfficientNet-Lite2."""
    return {"kind": "lite2", "mean": [MEAN / 255] * 3, "std": [STD / 255] * 3}


def lite2_unet(num_classes: int, pretrained: bool = False) -> EncoderUNet:
    """Return a U-Net on EfficientNet-Lite2, whose batch norms are trained as well.

    Args:
        num_classes: channels of the logits.
        pretrained: give the encoder ImageNet's weights, which come with a package.

    Raises:
        UserError: the package is not installed, or its file is damaged.
    """
    try:
        encoder = EfficientNetLite2.from_package() if pretrained else EfficientNetLite2()
    except Unavailable as error:
        raise UserError(f"--arch lite2 {error}") from None
    return EncoderUNet(encoder.without_head(), _lite2_maps, num_classes, False, "lite2")


def _lite2_maps(model: nn.Module, x: Tensor) -> dict[int, Tensor]:
    maps = model.pyramid(x, 5)  # type: ignore[operator]
    return {2 ** (i + 1): h for i, h in enumerate(maps)}

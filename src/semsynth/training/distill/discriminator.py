"""The discriminator: each pixel says its class, or that it is generated.

It sees frozen features of ImageNet at four scales (projected GANs, arXiv 2111.01007; ADD, arXiv
2311.17042) and has a head at each, as OASIS (arXiv 2012.04781) has one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from semsynth.core.errors import Unavailable, UserError
from semsynth.core.rng import derive_seed
from semsynth.core.safe_load import weights_in_package
from semsynth.models.lite2 import FILE, PACKAGE, PYRAMID, EfficientNetLite2
from semsynth.training.recipe import Recipe

_SLOPE = 0.2


def _normed(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Module:
    padding = (kernel - 1) // 2
    module: nn.Module = spectral_norm(nn.Conv2d(channels, out, kernel, stride, padding))
    return module


def fine_contrast(image_BCHW: Tensor) -> Tensor:
    """Return how each pixel differs from its surroundings, over how much they differ, (B, C, H, W).

    Faint patterns on smooth ground are as large in it as the texture of trees.
    """
    x = image_BCHW.float()
    detail = x - F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    variance = F.avg_pool2d(detail.square(), 5, 1, 2, count_include_pad=False)
    return detail / (variance + 0.02**2).sqrt()


class Discriminator(nn.Module):
    """From an image and its features to logits of C classes and "generated" (the last), by pixel.

    Coarse features are added to finer ones on the way. A small branch sees the pixels themselves,
    beside the finest features: what features of ImageNet do not tell is the finest texture.
    """

    def __init__(self, classes: int, width: int, upsampling: int) -> None:
        """Build it with fresh weights.

        Args:
            classes: C.
            width: channels of all its maps.
            upsampling: of the images whose features it sees, 1 or 2.
        """
        super().__init__()
        self.lateral = nn.ModuleList(_normed(n, width, 1) for n in PYRAMID)
        self.mix = nn.ModuleList(_normed(width, width, 3) for _ in PYRAMID)
        self.head = nn.ModuleList(nn.Conv2d(width, classes + 1, 1) for _ in PYRAMID)
        self.pixels = nn.Sequential(
            _normed(6, width, 3),
            nn.LeakyReLU(_SLOPE),
            _normed(width, width, 3, stride=2 // upsampling),  # to the size of the finest features
            nn.LeakyReLU(_SLOPE),
        )
        self.eval()

    @torch.no_grad()
    def update_norms(self) -> None:
        """Take one step towards each weight's largest singular value.

        Once in an optimizer step: in evaluation mode, as this is else, forward passes leave them
        alone, so that their number does not matter.
        """
        self.train()
        self._weights()
        self.eval()

    def _weights(self) -> None:
        for module in self.modules():
            if parametrize.is_parametrized(module):
                _ = module.weight

    def forward(self, image_B3HW: Tensor, features: list[Tensor]) -> list[Tensor]:
        """Return logits (B, C + 1, h, w), float32, of strides 16 to 2 of the features' image.

        Args:
            image_B3HW: in [-1, 1].
            features: of ``FrozenFeatures``.
        """
        with parametrize.cached():
            with torch.autocast(image_B3HW.device.type, enabled=False):
                self._weights()  # they are divided by their norms in float32
            return self._logits(image_B3HW, features)

    def _logits(self, image: Tensor, features: list[Tensor]) -> list[Tensor]:
        logits: list[Tensor] = []
        above: Tensor | None = None
        for scale in reversed(range(len(features))):
            x = self.lateral[scale](features[scale])
            if above is not None:
                x = x + F.interpolate(above, x.shape[-2:], mode="bilinear", align_corners=False)
            if scale == 0:
                seen = torch.cat([image, fine_contrast(image)], 1)
                # In the layout of the features: maps of two layouts are slow to add.
                x = x + self.pixels(seen.contiguous(memory_format=torch.channels_last))
            above = F.leaky_relu(self.mix[scale](x), _SLOPE)
            logits.append(self.head[scale](above).float())
        return logits


class FrozenFeatures:
    """Features of EfficientNet-Lite2 at four scales; nothing of them is trained."""

    def __init__(self, network: EfficientNetLite2, upsampling: int, device: torch.device) -> None:
        """Take the network; images are enlarged ``upsampling`` times before."""
        self.network = network.fused().to(device).eval().requires_grad_(False)
        self._upsampling = upsampling

    def __call__(self, image_B3HW: Tensor) -> list[Tensor]:
        """Return features of strides 2 to 16 of the enlarged image; images in [-1, 1]."""
        x = image_B3HW
        if self._upsampling > 1:
            scale = float(self._upsampling)
            x = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
        return self.network.pyramid(x.contiguous(memory_format=torch.channels_last))


def require_features() -> None:
    """Check that the weights of the features are there; UserError says what to install."""
    try:
        weights_in_package(PACKAGE, FILE)
    except Unavailable as error:
        raise UserError(f"the phase distill {error}, or --set distill.steps=0") from None


def fresh_discriminator(recipe: Recipe, classes: int) -> Discriminator:
    """Return a discriminator whose weights depend on the seed alone; random states stay."""
    section = recipe.distill
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(recipe.seed, "discriminator"))
        return Discriminator(classes, section.discriminator_width, section.feature_upsampling)

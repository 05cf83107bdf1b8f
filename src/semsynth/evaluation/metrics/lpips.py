"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), version 0.1 with AlexNet."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semsynth.core.errors import UserError
from semsynth.core.safe_load import load_state_dict

# AlexNet's pooling reduces smaller images to nothing.
MIN_SIDE = 31
_CHANNELS = (64, 192, 384, 256, 256)
_CONVOLUTIONS = (0, 3, 6, 8, 10)
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Perceptual distance of two images: 0 for equal ones, about 0.7 for unrelated ones."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        """Take AlexNet's weights (``features.N.weight``) and the heads (``linN.model.1.weight``).

        Raises:
            UserError: they are of another network.
        """
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(3, 64, 11, stride=4, padding=2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
            ]
        )
        self.heads = nn.ParameterList([nn.Parameter(torch.zeros(1, c, 1, 1)) for c in _CHANNELS])
        state = {}
        for i, number in enumerate(_CONVOLUTIONS):
            state[f"layers.{i}.weight"] = backbone.get(f"features.{number}.weight")
            state[f"layers.{i}.bias"] = backbone.get(f"features.{number}.bias")
            state[f"heads.{i}"] = heads.get(f"lin{i}.model.1.weight")
        try:
            self.load_state_dict({k: v for k, v in state.items() if v is not None})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"LPIPS: not the weights of AlexNet and its heads ({reason}); give "
                "--lpips-backbone and --lpips-heads the published files"
            ) from None
        for name, values in (("shift", _SHIFT), ("scale", _SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.eval()

    @classmethod
    def from_files(cls, backbone: Path, heads: Path) -> Lpips:
        """Load torchvision's AlexNet and the published heads; UserError as the constructor."""
        remedy = "give the published file"
        return cls(load_state_dict(backbone, remedy), load_state_dict(heads, remedy))

    def embed(self, images_BCHW: Tensor) -> list[Tensor]:
        """Return five layers' features of RGB images in 0..1, of unit length at each pixel."""
        x = (2 * images_BCHW - 1 - self.shift) / self.scale
        levels = []
        for i, layer in enumerate(self.layers):
            if i in (1, 2):
                x = F.max_pool2d(x, 3, stride=2)
            x = F.relu(layer(x))
            levels.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return levels

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Return the distances (B,) of images given by ``embed``."""
        levels = zip(first, second, self.heads, strict=True)
        parts = [((a - b).square() * head).sum(1).mean((1, 2)) for a, b, head in levels]
        return torch.stack(parts).sum(0)

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        """Return the distances (B,) of RGB images in 0..1."""
        return self.distance(self.embed(first_BCHW), self.embed(second_BCHW))

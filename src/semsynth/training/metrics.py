"""The numbers of a run: ``metrics.jsonl`` and trackers, speed and MFU."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from semsynth.core.devices import Precision
from semsynth.core.files import read_bytes, write_text
from semsynth.core.logging import logger
from semsynth.models.flops import training_flops
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.model_file import fresh_network
from semsynth.training.recipe import Recipe, latent_size

if TYPE_CHECKING:
    from semsynth.training.trackers import Trackers


class Metrics:
    """Appends to ``metrics.jsonl``; a resumed run first drops what lies after its checkpoint."""

    def __init__(self, run: Path, start_step: int, trackers: Trackers | None = None) -> None:
        """Open the log of ``run`` for steps after ``start_step``; trackers get its numbers, too."""
        self.path = run / "metrics.jsonl"
        lines, damaged = _read(self.path)
        if damaged:
            logger.warning(f"{self.path}: {damaged} damaged lines are dropped")
        kept = [json.dumps(line) for line in lines if line["step"] <= start_step]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self._file = self.path.open("ab", buffering=0)
        self._waiting = b""  # what a full disk did not take
        self.trackers = trackers

    def write(self, step: int, **values: float | int | str) -> None:
        """Add a line; where the disk is full it waits until there is room, and stops nothing."""
        self._waiting += (json.dumps({"step": step, **values}) + "\n").encode()
        with suppress(OSError):
            self._waiting = self._waiting[self._file.write(self._waiting) :]
        if self.trackers is not None:
            numbers = {name: v for name, v in values.items() if not isinstance(v, str)}
            self.trackers.log(step, numbers)

    def close(self) -> None:
        """Close the files."""
        with suppress(OSError):
            self._file.write(self._waiting)
            self._file.close()
        if self.trackers is not None:
            self.trackers.close()


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the lines that can be read, and how many cannot.

    What follows the last newline was cut off by a crash; after one of a whole machine there may be
    zero bytes in between.
    """
    if not path.exists():
        return [], 0
    known: list[dict[str, Any]] = []
    lines = read_bytes(path).decode(errors="replace").split("\n")[:-1]
    for line in lines:
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and isinstance(found.get("step"), int):
                known.append(found)
    return known, len(lines) - len(known)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's ``metrics.jsonl``, but for damaged ones."""
    return _read(run / "metrics.jsonl")[0]


def meta_unet(recipe: Recipe, label_channels: int) -> SemanticUNet:
    """Return the recipe's network without storage, for ``label_channels`` classes."""
    with torch.device("meta"):
        unet = fresh_network(recipe.model, recipe.diffusion_config, label_channels)
    unet.checkpoint_levels = recipe.train.checkpoint_levels or unet.checkpoint_levels
    return unet


def step_flops(recipe: Recipe, label_channels: int) -> int:
    """Return the FLOPs of an optimizer step over all processes, as MFU counts them.

    Forward and backward pass of ``train.batch_size`` images. What gradient checkpointing computes
    again does not count (PaLM, arXiv 2204.02311, appendix B); nor do the optimizer and the average.

    Args:
        recipe: the recipe.
        label_channels: classes with a condition channel (``labels.num_channels``), without the one
            of instance edges.
    """
    unet = meta_unet(recipe, label_channels)
    return recipe.train.batch_size * training_flops(unet, latent_size(recipe))


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Return the peak of ``device`` in that precision, in FLOP/s.

    None for CPUs and for GPUs that are not in ``PEAKS``: then there is no MFU to print.
    """
    if device.type != "cuda":
        return None
    peak = find_peak(torch.cuda.get_device_name(device))
    return None if peak is None else peak.flops(precision)


class Throughput:
    """Images a second, and where the device's peak is known the share of it that they use (MFU)."""

    def __init__(
        self, recipe: Recipe, label_channels: int, devices: list[torch.device], precision: Precision
    ) -> None:
        """Count the FLOPs of an image where they can be used (seconds)."""
        peak = peak_flops(devices[0], precision)
        self._peak_speed: float | None = None  # images a second
        if peak is not None:
            image = step_flops(recipe, label_channels) / recipe.train.batch_size
            self._peak_speed = len(devices) * peak / image

    def values(self, images: int, seconds: float) -> dict[str, float]:
        """Return what to log of ``images`` of all processes in ``seconds``."""
        speed = images / seconds
        values = {"images_per_second": round(speed, 2)}
        return (
            values
            if self._peak_speed is None
            else {**values, "mfu": round(speed / self._peak_speed, 4)}
        )


def in_words(values: dict[str, float]) -> str:
    """Return the values of ``Throughput``, for a line on the terminal."""
    text = f"{values['images_per_second']:.1f} images/s"
    return f"{text}, MFU {values['mfu']:.1%}" if "mfu" in values else text


class LogWindow:
    """The steps between two lines of the log: their numbers, their speed, and the time left.

    Attributes:
        values: the numbers of each step of this process (``step_names``), on the device.
        seconds: of the last window, with validation, previews and checkpoints.
        seconds_left: until the last step, at the speed so far; None before the first line.
    """

    def __init__(self, throughput: Throughput, recipe: Recipe) -> None:
        """Begin before the first step."""
        self._throughput, self._recipe = throughput, recipe
        self.seconds, self.seconds_left = 0.0, 0.0
        self._first_log: tuple[float, int] | None = None  # when the first line came, at which step
        self.restart()

    def begin_phase(self) -> None:
        """Forget the speed so far: steps take another time from now on."""
        self._first_log = None

    def restart(self) -> None:
        """Forget the steps of the last window; the next one begins now."""
        self.values: list[Tensor] = []
        self._start, self._non_step_seconds = time.perf_counter(), 0.0

    def exclude(self, seconds: float) -> None:
        """Do not count so many seconds of this window as steps: they were validation, say."""
        self._non_step_seconds += seconds

    def measure(self, step: int) -> dict[str, float]:
        """Return the speed of the window that ends now, after ``step`` steps of the run."""
        now, batch = time.perf_counter(), self._recipe.train.batch_size
        self.seconds = now - self._start
        # From the first line on, validation included; before it there is only this window.
        then, first = self._first_log or (self._start, step - len(self.values))
        self.seconds_left = (self._recipe.total_steps - step) * (now - then) / (step - first)
        self._first_log = self._first_log or (now, step)
        images = batch * len(self.values)
        return self._throughput.values(images, self.step_seconds)

    @property
    def step_seconds(self) -> float:
        """Return the seconds of the last window without validation, previews and checkpoints."""
        return self.seconds - self._non_step_seconds


@dataclass(frozen=True)
class Peak:
    """The dense peak rates of a GPU: not those of sparse matrices.

    Attributes:
        name: the usual one.
        bf16_tflops: tensor cores on bfloat16, summed in float32, in 1e12 FLOP/s; None where the
            card has no bfloat16.
        fp32_tflops: float32 as PyTorch convolves by default: on TF32 tensor cores where it has
            some.
    """

    name: str
    bf16_tflops: float | None
    fp32_tflops: float

    def flops(self, precision: Literal["no", "bf16"]) -> float | None:
        """Return the peak in FLOP/s; None for ``bf16`` on a card without it."""
        tflops = self.fp32_tflops if precision == "no" else self.bf16_tflops
        return None if tflops is None else tflops * 1e12


# The makers' data sheets. Gaming cards sum in float32 at half of the rate that is advertised
# for float16 sums. A name with more words stands before the one that it contains.
PEAKS = (
    Peak("B200", 2250.0, 1100.0),
    Peak("H200", 989.4, 494.7),
    Peak("H100 PCIe", 756.0, 378.0),
    Peak("H100 NVL", 835.0, 417.5),
    Peak("H100", 989.4, 494.7),
    Peak("A100 40GB", 312.0, 156.0),
    Peak("A100", 312.0, 156.0),
    Peak("A40", 149.7, 74.8),
    Peak("A10G", 70.0, 35.0),
    Peak("A10", 125.0, 62.5),
    Peak("RTX A6000", 154.8, 77.4),
    Peak("RTX 6000 Ada", 364.2, 182.1),
    Peak("L40S", 362.0, 183.0),
    Peak("L40", 181.0, 90.5),
    Peak("L4", 121.0, 60.0),
    Peak("RTX 5090", 209.5, 104.8),
    Peak("RTX 4090", 165.2, 82.6),
    Peak("RTX 3090", 71.2, 35.6),
    Peak("V100 32GB", None, 15.7),
    Peak("V100", None, 15.7),
    Peak("T4", None, 8.1),
)


def find_peak(device_name: str) -> Peak | None:
    """Return the peak rates of a device by the name that its driver gives it.

    None for what is not in the table: MFU is then not known.
    """
    words = _words(device_name)
    for peak in PEAKS:
        if _words(peak.name) <= words:
            return peak
    return None


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))

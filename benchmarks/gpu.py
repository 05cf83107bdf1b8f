"""Everything that needs a GPU (docs/log.md, Left for a GPU), in pieces of under ten minutes.

    make gpu ARGS="--camvid CAMVID"         # all unfinished pieces, one after the other
    make gpu ARGS="--camvid CAMVID --only camvid-train"

A piece that runs out of time is stopped as a batch system would stop it. The next call resumes with
the interrupted command: training, generating and the table of speeds continue where they stopped;
the other commands take minutes and start again. So the work may be spread over any number of short
sessions on a GPU.

Exit status 1: a piece failed. 75: none failed, but one is unfinished; run it again. (`make` itself
exits with 2 then, and prints the status.)
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import REQUEUE_STATUS, UserError
from semsynth.core.files import write_json, write_text
from semsynth.core.logging import logger

GRACE = 60.0  # seconds that a stopped command has for its checkpoint
DONE, FAILED, LATE = "done", "failed", "out of time; run it again to resume"
NEEDS = {"camvid-score": "camvid-train"}


@dataclass(frozen=True)
class GpuConfig:
    """Run everything that needs a GPU, piece by piece."""

    camvid: Path | None = None
    """CamVid as `semsynth prepare --source camvid` reads it; without it its pieces are omitted."""
    mobilenet: str = "google/mobilenet_v2_1.0_224"
    """MobileNetV2 of Transformers, for the segmenter and a Fréchet distance: Hub id or folder."""
    only: tuple[str, ...] = ()
    """Pieces to run, even if they are finished; by default all unfinished ones."""
    minutes: float = 9.0
    """Time limit of a piece in each call."""
    device: str = "cuda"
    """cuda, or cpu to test the commands."""
    output: Path = Path("gpu_results")
    """Folder of all results; NAME.done lists the finished commands of a piece."""


def pieces(config: GpuConfig) -> dict[str, list[list[str]]]:
    """Return the commands of each piece, in order."""
    out, device = config.output, ["--device", config.device]
    python, semsynth = sys.executable, [sys.executable, "-m", "semsynth"]
    names = ("camvid_480", "camvid_run", "segmenter")
    camvid, run, segmenter = (str(out / name) for name in names)
    streets, samples = str(out / "streets_1024"), str(out / "camvid_samples")
    made: dict[str, list[list[str]]] = {}
    if config.camvid is not None:
        made["camvid-train"] = [
            [*semsynth, "prepare", "--source", "camvid", "--data", str(config.camvid),
             "--height", "352", "--width", "480", "--output", camvid],
            [*semsynth, "train", "--recipe", "camvid_480", "--data", camvid, "--output", run,
             *device],
        ]  # fmt: skip
        made["camvid-score"] = [
            [*semsynth, "segment", "train", "--data", camvid, "--output", segmenter,
             "--init-from", config.mobilenet, "--steps", "2000", *device],
            [*semsynth, "generate", "--model", f"{run}/final_model.pth", "--data", camvid,
             "--output", samples, "--per-mask", "2", *device],
            [*semsynth, "evaluate", "--samples", samples, "--data", camvid, "--segmenter",
             segmenter, "--features", config.mobilenet, "--output", str(out / "camvid_report"),
             *device],
        ]  # fmt: skip
    made["speed"] = [[python, "benchmarks/speed.py", "--output", str(out / "speed.json"), *device]]
    made["tests"] = [[python, "-m", "pytest", "-q", "-k", "cuda or accelerator or offload"]]
    made["sidewalk-steps"] = [
        [*semsynth, "prepare", "--source", "streets", "--height", "1024", "--width", "1024",
         "--train-count", "64", "--val-count", "8", "--output", streets],
        [*semsynth, "train", "--recipe", "sidewalk_1024", "--data", streets, "--output",
         str(out / "sidewalk_steps"), "--set", "train.steps=40", "train.batch_size=4",
         "train.warmup_steps=10", "train.log_every=10", "train.validate_every=20",
         "train.preview_every=0", "finetune.steps=0", *device],
    ]  # fmt: skip
    return made


def main(argv: list[str]) -> int:
    """Run the unfinished pieces and report the state of each."""
    config, as_json = parse(GpuConfig, argv, "gpu")
    made = pieces(config)
    for name in config.only:
        if name not in made:
            raise UserError(f"--only {name}: the pieces are {', '.join(made)}")
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("no CUDA device on this machine; --device cpu tests the commands")
    config.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, str] = {}
    for name in config.only or made:
        results[name] = _result(name, made, config)
        write_json(config.output / "pieces.json", results)
    finish(results, as_json)
    failed = [name for name, result in results.items() if result.startswith(FAILED)]
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    return 0 if all(result.startswith(DONE) for result in results.values()) else REQUEUE_STATUS


def _result(name: str, made: dict[str, list[list[str]]], config: GpuConfig) -> str:
    def marks(name: str) -> Path:
        return config.output / f"{name}.done"

    need = NEEDS.get(name)
    if need is not None and not config.only and left(made[need], marks(need)):
        return f"waits for {need}"
    if not left(made[name], marks(name)):
        if not config.only:
            return f"{DONE} before"
        marks(name).unlink()
    return run_piece(name, made[name], config.minutes * 60, marks(name))


def left(commands: list[list[str]], marks: Path) -> list[list[str]]:
    """Return the commands that ``marks``, the list of finished ones, does not contain."""
    done = marks.read_text().splitlines() if marks.exists() else []
    return [command for command in commands if shlex.join(command) not in done]


def run_piece(name: str, commands: list[list[str]], seconds: float, marks: Path) -> str:
    """Run the unfinished commands of a piece within its time limit; return its state."""
    end = time.monotonic() + seconds
    for command in left(commands, marks):
        logger.info(f"{name}: {' '.join(command[1:])}")
        with subprocess.Popen(command) as process:
            try:
                process.wait(max(1.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                return LATE
        if process.returncode == REQUEUE_STATUS:
            return LATE
        if process.returncode:
            return f"{FAILED} with status {process.returncode}: {' '.join(command[1:4])}"
        before = marks.read_text() if marks.exists() else ""
        write_text(marks, f"{before}{shlex.join(command)}\n")
    return DONE


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

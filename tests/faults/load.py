"""Many images, many classes, large masks, many jobs: what grows, and what is refused.

python tests/faults/load.py                       # 10,000 and 100,000 images, 2,000 generated
python tests/faults/load.py --images 5000 --really 100    # 500 and 5,000

Prints a table, and ends with 1 where a promise of docs/reliability.md is not kept.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import large_raw
from commands import RECIPE

MOST_GROWTH = 1.2  # of the memory of a process, for ten times as many images
MOST_START_SECONDS = 10.0
MOST_BYTES = 4e9  # of a process that refuses an image of 30,000 x 30,000
FEW = 16  # images that are generated or scored where a plan alone is measured
JOBS = 8
PREPARE = "prepare raw --output prepared --height 64 --width 64"


@dataclass
class Run:
    """How a command ended: exit status, seconds, bytes of memory of its largest process."""

    status: int
    seconds: float
    memory: int
    output: str
    first_step: float | None = None


@dataclass
class Table:
    """The lines of the table, and whether all promises were kept."""

    kept: bool = True
    lines: list[str] = field(default_factory=list)

    def add(self, what: str, found: str, promise: str = "", kept: bool = True) -> None:
        """Add a line, and print it."""
        self.kept &= kept
        mark = "" if not promise else "kept" if kept else "NOT KEPT"
        self.lines.append(f"{what:44}{found:>34}  {promise:26}{mark}")
        print(self.lines[-1], flush=True)


def start(words: list[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a command of semsynth."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "SEMSYNTH_PROGRESS": "0",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "semsynth", *words], cwd=folder, env=environment,
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def finish(process: subprocess.Popen[bytes], begun: float, log: Path, first: Path | None) -> Run:
    """Wait for a command; ``first``: the file that its first step writes."""
    first_step = None
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if first is not None and first_step is None and first.exists() and first.stat().st_size:
            first_step = time.monotonic() - begun
        if ended:
            break
        time.sleep(0.02)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text(errors="replace")
    return Run(process.returncode, seconds, usage.ru_maxrss * 1024, text, first_step)


class Load:
    """Runs commands in a folder, each from its beginning to its end."""

    def __init__(self, root: Path, table: Table) -> None:
        """Take a folder that may be written."""
        self.root, self.table = root, table
        root.mkdir(parents=True, exist_ok=True)

    def run(self, folder: Path, words: str, first: str = "") -> Run:
        """Run a command, which must succeed."""
        log = self.root / "log.txt"
        begun = time.monotonic()
        process = start(words.split(), folder, log)
        try:
            found = finish(process, begun, log, folder / first if first else None)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        if found.status != 0:
            raise SystemExit(f"semsynth {words}: status {found.status}\n{found.output[-3000:]}")
        # What took hours is not lost with what comes after it.
        shown = f"{found.seconds:.0f} s, {found.memory / 1e6:.0f} MB"
        print(f"    {folder.name}: {words.split(' --')[0]}: {shown}", flush=True)
        return found

    def stages(self, images: int, held_out: int) -> tuple[Path, dict[str, Run]]:
        """Take ``images`` images through all stages; only a few are generated and scored."""
        folder = self.root / f"{images}"
        folder.mkdir()
        (folder / "tiny.yaml").write_text(_recipe())
        large_raw.write(folder / "raw", images - held_out, held_out)
        found = {}
        prepare = PREPARE
        found["prepare"] = self.run(folder, prepare)
        found["index (prepare again)"] = self.run(folder, prepare)
        train = "train --recipe tiny.yaml --data prepared --output run --device cpu"
        found["train, 1 step"] = self.run(folder, train, "run/metrics.jsonl")
        self.run(
            folder,
            "segment train --data prepared --output segmenter --width 4 --steps 1 --batch-size 2 "
            "--device cpu",
        )
        parts = max(1, (images - held_out) // FEW)
        found["generate, a part"] = self.run(
            folder,
            "generate --model run/final_model.pth --data prepared --split train --output part "
            f"--per-mask 1 --steps 1 --shard 1/{parts} --device cpu",
        )
        found["evaluate, of some"] = self.run(
            folder,
            "evaluate --generated raw/images/train --real prepared --masks prepared --split train "
            f"--segmenter segmenter --allow-seen --max {FEW} --no-download --output report "
            "--device cpu",
        )
        return folder, found

    def really(self, folder: Path, count: int) -> None:
        """Generate images of the held-out masks, and score them."""
        made = self.run(
            folder,
            "generate --model run/final_model.pth --data prepared --output samples --per-mask 1 "
            f"--steps 1 --limit {count} --device cpu",
        )
        scored = self.run(
            folder,
            "evaluate --samples samples --data prepared --segmenter segmenter --no-download "
            "--output scores --device cpu",
        )
        for name, run in ((f"generate {count}", made), (f"evaluate {count}", scored)):
            self.table.add(name, f"{run.seconds:.0f} s, {run.memory / 1e6:.0f} MB")

    def classes(self, count: int) -> None:
        """Take a data set of many classes through all stages."""
        folder = self.root / "classes"
        folder.mkdir()
        (folder / "tiny.yaml").write_text(_recipe())
        large_raw.write(folder / "raw", 4 * count, FEW, classes=count)
        begun = time.monotonic()
        for words in (
            PREPARE,
            "train --recipe tiny.yaml --data prepared --output run --device cpu",
            "segment train --data prepared --output segmenter --width 4 --steps 1 --batch-size 2 "
            "--device cpu",
            "generate --model run/final_model.pth --data prepared --output samples --per-mask 1 "
            "--steps 1 --device cpu",
            "evaluate --samples samples --data prepared --segmenter segmenter --no-download "
            "--output scores --device cpu",
        ):
            self.run(folder, words)
        self.table.add(
            f"{count} classes, all stages", f"{time.monotonic() - begun:.0f} s", "ends well"
        )

    def large_mask(self, side: int) -> None:
        """Prepare an image and a mask of ``side`` x ``side`` pixels: refused with a number."""
        folder, log = self.root / "large", self.root / "log.txt"
        for kind in ("images", "masks"):
            (folder / "raw" / kind / "train").mkdir(parents=True)
            large_raw.write_black(folder / "raw" / kind / "train" / "a.png", side)
        (folder / "raw" / "labels.yaml").write_text("labels: [void, sky]\nignore: void\n")
        begun = time.monotonic()
        process = start(PREPARE.split(), folder, log)
        found = finish(process, begun, log, None)
        lines = [line for line in found.output.splitlines() if line.startswith("error: ")]
        line = lines[0] if lines else found.output.strip().splitlines()[-1][:200]
        # How many pixels are too many.
        refused = found.status == 2 and len(lines) == 1 and re.search(r"[\d,]{9,} pixels", line)
        self.table.add(
            f"a mask of {side} x {side}",
            f"status {found.status}, {found.seconds:.0f} s, {found.memory / 1e6:.0f} MB",
            f"a number, below {MOST_BYTES / 1e9:.0f} GB",
            bool(refused or found.status == 0) and found.memory < MOST_BYTES,
        )
        print(f"    {line}", flush=True)

    def jobs(self, words: str, makes: str) -> None:
        """Start several jobs in one second on one folder: at least one ends well, others say it."""
        folder = self.root / "jobs"
        if not folder.exists():
            folder.mkdir()
            (folder / "tiny.yaml").write_text(_recipe())
            large_raw.write(folder / "raw", 64, FEW)
        verb, begun = words.split()[0], time.monotonic()
        logs = [self.root / f"log-{number}.txt" for number in range(JOBS)]
        processes = [start(words.split(), folder, log) for log in logs]
        apart = time.monotonic() - begun
        found = [finish(p, begun, log, None) for p, log in zip(processes, logs, strict=True)]
        statuses = sorted(run.status for run in found)
        wrong = [run.output for run in found if not _said(run)]
        there = (folder / makes).is_file()
        again = self.run(folder, words)
        self.table.add(
            f"{JOBS} x {verb}, begun in {apart:.1f} s",
            f"statuses {' '.join(map(str, statuses))}",
            "0, or 2 in one line",
            there and 0 in statuses and not wrong and again.status == 0 and apart < 1,
        )
        for output in wrong:
            print(f"    {output[-1000:]}", flush=True)


def _said(run: Run) -> bool:
    lines = [line for line in run.output.splitlines() if line.startswith("error: ")]
    return run.status == 0 or (run.status == 2 and len(lines) == 1)


def _recipe() -> str:
    text = RECIPE.replace("height: 32", "height: 64").replace("width: 32", "width: 64")
    text = text.replace("steps: 4", "steps: 1").replace("finetune: {steps: 2, ", "finetune: {")
    text = text.replace("haar_levels: 1", "haar_levels: 2").split("finetune:")[0]
    return text.replace("validate_every: 2", "validate_every: 0")


def compare(table: Table, few: dict[str, Run], many: dict[str, Run], counts: list[int]) -> None:
    """Add a line for each stage: its memory for many images and for few."""
    for name, run in many.items():
        before = few[name].memory
        growth = run.memory / before
        each = (run.memory - before) / (counts[1] - counts[0])
        table.add(
            f"{name}: {counts[1]:,} images",
            f"{run.seconds:.0f} s, {run.memory / 1e6:.0f} MB ({each:.0f} B each)",
            f"{growth:.2f} of {counts[0]:,}, <= {MOST_GROWTH}",
            growth <= MOST_GROWTH,
        )
    begun = many["train, 1 step"].first_step
    table.add(
        f"start of training: {counts[1]:,} images",
        "no step"
        if begun is None
        else f"{begun:.1f} s (few: {few['train, 1 step'].first_step:.1f})",
        f"<= {MOST_START_SECONDS:.0f} s",
        begun is not None and begun <= MOST_START_SECONDS,
    )


def main() -> int:
    """Run all; 0: all promises were kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--really", type=int, default=2000, help="images generated and scored")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--side", type=int, default=30_000, help="of the large mask")
    parser.add_argument("--only", default="stages,really,classes,mask,jobs")
    parser.add_argument("--place", type=Path, default=None, help="an empty folder that is kept")
    options = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory(prefix="semsynth-load-") as temporary:
        load = Load(options.place or Path(temporary), table)
        if "stages" in options.only:
            counts = [options.images // 10, options.images]
            held_out = [min(options.really, count // 5) for count in counts]
            few = load.stages(counts[0], held_out[0])[1]
            folder, many = load.stages(counts[1], held_out[1])
            compare(table, few, many, counts)
            if "really" in options.only:
                load.really(folder, held_out[1])
        if "classes" in options.only:
            load.classes(options.classes)
        if "mask" in options.only:
            load.large_mask(options.side)
        if "jobs" in options.only:
            load.jobs(PREPARE, "prepared/dataset.json")
            load.jobs(
                "train --recipe tiny.yaml --data prepared --output run --device cpu",
                "run/final_model.pth",
            )
    return int(not table.kept)


if __name__ == "__main__":
    sys.exit(main())

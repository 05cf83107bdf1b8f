"""`semsynth plan` against what is then measured: memory and time of real training on this CPU.

Memory, each case in a process of its own: the tensors of the plan against PyTorch's own record of
its allocations, and the plan's total against the largest resident set of the process. Time: real
steps as the plan times them, and `semsynth train` on a data set, in turns.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import UserError

WIDE = (
    "height=256", "width=256", "train.crop=1", "train.batch_size=2", "train.validate_every=0",
)  # fmt: skip
SHORT = ("train.precision=bf16", "train.channels_last=true")
LONG = ("train.precision=no", "train.channels_last=false")
CASES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "streets_demo, bf16": ("streets_demo", 12, SHORT),
    "camvid, bf16": ("camvid", 11, SHORT),
    "camvid, fp32": ("camvid", 11, LONG),
    "128 wide at 256x256, bf16": (
        "sidewalk_1024", 34, (*WIDE, "train.gradient_checkpointing=false"),
    ),
    "the same, checkpointing": (
        "sidewalk_1024", 34, (*WIDE, "train.gradient_checkpointing=true"),
    ),
    "the same, fp32": (
        "sidewalk_1024", 34,
        (*WIDE, *LONG, "train.gradient_checkpointing=false"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class BenchConfig:
    """Compare the plan with the real thing."""

    case: str = ""
    """Only this case of memory, in this process (all of them, each in its own, by default)."""
    data: Path | None = None
    """Prepared data set for times; without it only memory is compared."""
    recipe: str = "camvid"
    """Recipe for times."""
    set: tuple[str, ...] = ()
    """Changes of it."""
    steps: int = 30
    """Real training steps a round."""
    rounds: int = 3
    """Rounds of times; the median ratio counts."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.case and self.case not in CASES:
            raise UserError(f"--case {self.case}: known: {'; '.join(CASES)}")
        if self.steps < 1 or self.rounds < 1:
            raise UserError("--steps and --rounds must be at least 1")


def main(argv: list[str]) -> int:
    """Run the benchmark and print its rows."""
    config, as_json = parse(BenchConfig, argv, "bench")
    if config.case:
        return finish(memory(config.case), as_json)
    rows = []
    if config.data is None:
        for name in CASES:
            command = [sys.executable, __file__, "--case", name, "--json"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        return finish({"memory": rows}, as_json)
    return finish(times(config, config.data), as_json)


def memory(name: str) -> dict[str, Any]:
    """Take real steps and compare; GB."""
    import torch

    from semsynth.planning.memory import PROCESS, Hardware, memory_model, resolve_auto
    from semsynth.planning.trial import trial_run
    from semsynth.training.recipe import load_recipe

    recipe_name, classes, changes = CASES[name]
    recipe = load_recipe(recipe_name, (*changes, "train.validate_every=0", "train.preview_every=0"))
    section = recipe.train
    with memory_model(recipe, classes, Hardware(False, 1, math.inf)) as model:
        batch_size = section.batch_size // section.accumulation
        planned = model.peak(batch_size, section.accumulation, section.gradient_checkpointing)
    with trial_run(resolve_auto(recipe, cuda=False), classes, torch.device("cpu")) as trial:
        batch = trial.batch(section.batch_size)
        trial.step(batch, section.accumulation)  # now the optimizer has its moments
        step = _allocated(lambda: trial.step(batch, section.accumulation))
    allocated = planned.state + step
    resident = _largest_resident_set()
    return {
        "case": name,
        "planned tensors": round(planned.total / 1e9, 3),
        "allocated": round(allocated / 1e9, 3),
        "ratio": round(planned.total / allocated, 3),
        "planned total": round((planned.total + PROCESS) / 1e9, 3),
        "resident": round(resident / 1e9, 3),
        "ratio of totals": round((planned.total + PROCESS) / resident, 3),
    }


def _allocated(step: Any) -> int:
    """Return the most bytes that PyTorch held during a step beyond what it held before."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def _largest_resident_set() -> int:
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def times(config: BenchConfig, data: Path) -> dict[str, Any]:
    """Plan and train in turns; images a second of both, and the median of their ratios."""
    import torch

    from semsynth.data.dataset import PreparedDataset
    from semsynth.planning.memory import resolve_auto
    from semsynth.planning.timing import measure
    from semsynth.training.loop import train
    from semsynth.training.recipe import TrainConfig, load_recipe

    short = (f"train.steps={config.steps}", f"train.log_every={config.steps}", "finetune.steps=0")
    quiet = ("train.validate_every=0", "train.preview_every=0", "train.warmup_steps=1")
    changes = (*config.set, *short, *quiet)
    recipe = load_recipe(config.recipe, changes)
    channels = PreparedDataset.open(data).labels.num_channels
    batch = recipe.train.batch_size
    rows = []
    for _ in range(config.rounds):
        timing = measure(
            resolve_auto(recipe, cuda=False), channels, batch, torch.device("cpu"), generation=False
        )
        assert timing.step is not None
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            start = time.perf_counter()
            train(TrainConfig(config.recipe, data, run, set=changes, device="cpu"))
            whole = time.perf_counter() - start
            line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        rows.append(
            {
                "planned": round(batch / timing.step, 2),
                "trained": line["images_per_second"],
                "with start and checkpoint": round(config.steps * batch / whole, 2),
            }
        )
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    ratio = median(row["planned"] / row["trained"] for row in rows)
    return {"images_per_second": rows, "ratio": round(ratio, 3)}


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

"""What OpenMP's threads do while they wait: a training step on idle and on busy cores.

`python benchmarks/threads.py`: each way of waiting has a process of its own, which takes a step
when asked, in turns; then once more beside as many busy processes as there are cores. On a machine
that other work shares, give it priority for the idle half (`nice -n -15` as root).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from semsynth.cli.common import finish, guard, parse
from semsynth.core.logging import progress

# The environment of each way; the first is what PyTorch does by itself.
WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "KMP_BLOCKTIME=0": {"KMP_BLOCKTIME": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from speed import CASES, TRAINING, inputs, network
from semsynth.core.devices import seconds
case, device = CASES[TRAINING], torch.device("cpu")
unet = network(case, device).train()
x, t, mask = inputs(case, unet)
from semsynth.models.sdm.condition import one_hot
hot = one_hot(unet, mask)
def step():
    unet(x, t, hot).sample.square().mean().backward()
print("ready", flush=True)
for line in sys.stdin:
    print(seconds(step, device), flush=True)
"""
BUSY = "while True: pass"


@dataclass(frozen=True)
class ThreadsConfig:
    """Time a training step on idle and on busy cores, by what waiting threads do."""

    rounds: int = 9
    """Timed rounds of each half; medians count."""


def start(way: dict[str, str]) -> subprocess.Popen[str]:
    """Start the process of a way, and wait until it is ready."""
    set_here = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in set_here}
    words = [sys.executable, "-c", CHILD, str(Path(__file__).parent)]
    pipe = subprocess.PIPE
    child = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment | way)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def ask(child: subprocess.Popen[str]) -> float:
    """Let it take a step; return the seconds."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def measure(
    children: dict[str, subprocess.Popen[str]], rounds: int, what: str
) -> dict[str, tuple[float, float]]:
    """Return median and longest of each way, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in children}
    for _ in progress(range(rounds), what):
        for name, child in children.items():
            times[name].append(ask(child))
    return {name: (median(values), max(values)) for name, values in times.items()}


def main(argv: list[str]) -> int:
    """Run the benchmark and print its table."""
    config, as_json = parse(ThreadsConfig, argv, "bench threads")
    children = {name: start(way) for name, way in WAYS.items()}
    busy: list[subprocess.Popen[bytes]] = []
    try:
        measure(children, 2, "warm-up")
        idle = measure(children, config.rounds, "idle")
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
        contended = measure(children, config.rounds, "busy")
    finally:
        for child in children.values():
            child.kill()
        for process in busy:
            process.kill()
    halves = {"idle": idle, "busy": contended}
    if as_json:
        return finish(halves, True)
    rows = {
        name: "; ".join(_words(half, found, name) for half, found in halves.items())
        for name in WAYS
    }
    return finish(rows, False)


def _words(half: str, found: dict[str, tuple[float, float]], name: str) -> str:
    middle, longest = found[name]
    ratio = middle / found["default"][0]
    return f"{half} {middle:.2f} s (x {ratio:.2f}), longest {longest:.2f} s"


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

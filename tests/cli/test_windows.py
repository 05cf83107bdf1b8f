"""What Windows lacks, taken away here: `train` and `demo` start all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LACKS = """
import os, signal, sys
import psutil
import semsynth.training.loop  # all that it imports of others, which have wheels for Windows
for name in [name for name in sys.modules if name.startswith("semsynth")]:
    del sys.modules[name]
for name in ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGQUIT", "SIGCHLD"):
    delattr(signal, name)
for name in ("fork", "sched_getaffinity", "geteuid", "getuid", "uname", "killpg", "fchmod"):
    delattr(os, name)
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
from semsynth.cli import main
"""
PEAK = """
class Info: peak_wset = 2_000_000_000
psutil.Process.memory_info = lambda self: Info
import semsynth.cli.demo.stages as demo
import semsynth.cli.cluster.slurm
assert demo.peak_memory_gb() == 2.0
"""


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LACKS + code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_training_from_start_to_end(tiny_prepared: Path, tmp_path: Path) -> None:
    changes = (
        "train.steps=2", "finetune.steps=0", "train.batch_size=2", "train.checkpoint_every=1",
        "train.validate_every=0", "train.preview_every=0",
    )  # fmt: skip
    words = ("train", "--recipe", "streets_demo", "--data", str(tiny_prepared))
    output = ("--output", str(tmp_path / "run"), "--device", "cpu")
    done = run("sys.exit(main(sys.argv[1:]))", *words, *output, "--set", *changes)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "final_model.pth").exists()


def test_the_demo_and_the_cluster_commands_are_imported() -> None:
    done = run(PEAK + "sys.exit(main(['demo', '--help']))")
    assert done.returncode == 0, done.stderr
    assert "usage: semsynth demo" in done.stdout

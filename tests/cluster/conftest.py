"""A real SLURM, started for the tests of this folder and ended after them."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from local_slurm import CONF, PROGRAMS, SEARCH, Slurm, start_all, wait_until_idle

from semsynth.cli.cluster.slurm import reserve_port
from semsynth.data.config import PrepareConfig
from semsynth.data.prepare.run import prepare

SIDE, STEPS = 16, 80
RECIPE = {
    "name": "tiny",
    "height": SIDE,
    "width": SIDE,
    "model": {
        "codec": "haar", "haar_levels": 1, "base_channels": 16, "channel_mult": [1, 2],
        "blocks_per_level": 1, "attention_factors": [2], "head_channels": 16, "spade_hidden": 8,
    },
    "diffusion": {},
    "train": {"steps": STEPS, "batch_size": 4, "log_every": 10, "checkpoint_every": 10},
    "finetune": {"steps": 0},
}  # fmt: skip


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A cluster of two nodes with four CPUs each; skips where SLURM is not installed."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]
    if missing:
        pytest.skip(f"needs SLURM and munge, {missing[0]} is missing: apt-get install slurm-wlm")
    # Not pytest's folder: the path of a socket has 108 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{SEARCH}",
        "SLURM_CONF": str(folder / "slurm.conf"),
        "OMP_NUM_THREADS": "1",
        "SEMSYNTH_PROGRESS": "",  # the logs are looked at
        "MASTER_ADDR": "127.0.0.1",  # the nodes' names have no addresses
    }
    folder.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    # Two things a node that SLURM counts as GPUs: torch does not see them, and computes on the CPU.
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
    for number in (0, 1):
        (folder / f"gpu{number}").touch()
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    held = ExitStack()
    ports = [held.enter_context(reserve_port()) for _ in range(3)]
    conf = CONF.format(folder=folder, host=host, user=user, ports=ports)
    (folder / "slurm.conf").write_text(conf)
    daemons = start_all(folder, env)
    cluster = Slurm(folder, env)
    try:
        wait_until_idle(cluster)
        yield cluster
        subprocess.run(["scancel", "--full", "--user", user], env=env, timeout=30)
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        held.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A recipe and prepared streets, as flags of the training."""
    folder = tmp_path_factory.mktemp("cluster")
    prepare(
        PrepareConfig(
            source="streets", output=folder / "data", height=SIDE, width=SIDE, train_count=8,
            val_count=2, workers=1,
        )
    )  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    return ["--recipe", f"{folder}/tiny.yaml", "--data", f"{folder}/data", "--device", "cpu"]


@pytest.fixture(scope="session")
def straight(flags: list[str], root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupts: two processes by torchrun, without SLURM."""
    run = tmp_path_factory.mktemp("straight") / "run"
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = [root / "scripts/train_multi_gpu.sh", "--nproc", "2", *flags, "--output", run]
    done = subprocess.run(script, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return run

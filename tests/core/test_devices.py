"""Free memory: a job's limit counts, and files that nobody needs do not; devices by name."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from semsynth.core.devices import free_bytes, job_free_bytes, pick_device
from semsynth.core.errors import UserError


def group(folder: Path, limit: str, used: int, files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {files}\n")


def test_the_tightest_limit_counts(tmp_path: Path) -> None:
    mine = tmp_path / "cgroup"
    mine.write_text("0::/slurm/job_7/step_0\n")
    root = tmp_path / "fs"
    group(root / "slurm/job_7/step_0", "max", 500, 0)
    group(root / "slurm/job_7", "1000", 700, 100)
    group(root / "slurm", "9000", 8000, 0)
    assert job_free_bytes(mine, root) == 400
    group(root / "slurm", "9000", 8900, 0)
    assert job_free_bytes(mine, root) == 100
    group(root / "slurm", "9000", 9100, 0)
    assert job_free_bytes(mine, root) == 0


def test_no_limits(tmp_path: Path) -> None:
    assert job_free_bytes(tmp_path / "none", tmp_path) == 2**62
    (tmp_path / "cgroup").write_text("0::/\n")
    assert job_free_bytes(tmp_path / "cgroup", tmp_path / "fs") == 2**62


def test_this_machine() -> None:
    assert 0 < free_bytes(torch.device("cpu")) <= psutil.virtual_memory().total


def test_a_device_without_numbers_is_refused() -> None:
    with pytest.raises(UserError, match=r"--device meta: networks run on cpu, cuda, mps, xpu"):
        pick_device("meta")

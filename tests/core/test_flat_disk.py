"""The tests of all that writes, once more on a file system that has files and little else."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Each room's writers: files, folders, the first of several, run lock, checkpoints, samples, models.
WRITERS = (
    "core/test_files.py", "core/test_shards.py", "data/test_dataset.py",
    "augmentation/test_subset.py", "training/test_checkpoints.py", "training/test_status.py",
    "pipelines/test_folder.py", "evaluation/test_partial_results.py",
)  # fmt: skip
# It copies a folder with its modes itself.
OTHERS = "not from_the_hub"


@pytest.mark.slow
def test_all_that_writes(tmp_path: Path, root: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler, and Linux")
    flat = tmp_path / "flat.so"
    source = Path(__file__).with_name("flat.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", flat, source], check=True)
    words = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "-m", "not slow"]
    # Other numbers: test_files.py.
    flags = {"LD_PRELOAD": str(flat), "FLAT_ERRNO": str(errno.EOPNOTSUPP)}
    files = [str(root / "tests" / name) for name in WRITERS]
    done = subprocess.run(
        [*words, "-k", OTHERS, *files],
        cwd=root,
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]

"""The files of `slurm/`, edited as a user would, on a real SLURM."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from local_slurm import Slurm

from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate

# One worker: a second one would start a SLURM, and train the undisturbed run, of its own.
pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.xdist_group("slurm")]


def edited(root: Path, folder: Path, name: str, **values: object) -> Path:
    """A copy of the repository's scripts with other values at the top of `slurm/<name>`."""
    for part in ("scripts", "slurm"):
        shutil.copytree(root / part, folder / part, dirs_exist_ok=True)
    file = folder / "slurm" / name
    text = file.read_text()
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^{key}=\S*", f"{key}={value}", text)
        assert count == 1, key
    file.write_text(text)
    return file


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def submit(slurm: Slurm, file: Path, *words: str, cwd: Path) -> str:
    """Run a template and return the number of its job."""
    printed = slurm.run("bash", file, *words, cwd=cwd)
    return re.fullmatch(r"Submitted batch job (\d+)\n", printed)[1]  # type: ignore[index]


def test_an_array_generates_what_one_process_generates(
    slurm: Slurm, root: Path, straight: Path, flags: list[str], tmp_path: Path
) -> None:
    model, data = straight / "final_model.pth", Path(flags[3])
    words = ["--model", str(model), "--data", str(data), "--per-mask", "3", "--steps", "2"]
    words += ["--batch-size", "2", "--device", "cpu", "--precision", "no"]
    file = edited(
        root, tmp_path, "generate.sh", TASKS=2, GPUS=0, CPUS=1, MEMORY=0, TIME=10, PARTITION="main"
    )  # fmt: skip
    array = submit(slurm, file, *words, "--output", "samples", cwd=tmp_path)
    for task in (0, 1):
        slurm.wait_for(f"{array}_{task}", "COMPLETED")
    logs = [path.read_text() for path in sorted(tmp_path.glob(f"generate_{array}_*.log"))]
    assert len(logs) == 2, logs
    config = GenerateConfig(
        model, data, tmp_path / "one", per_mask=3, steps=2, batch_size=2, precision="no",
        device="cpu",
    )  # fmt: skip
    assert generate(config)["n_new"] == 6
    assert contents(tmp_path / "samples") == contents(tmp_path / "one")


def test_the_training_template_asks_for_what_is_set_at_its_top(
    slurm: Slurm, root: Path, tmp_path: Path
) -> None:
    values = {"NODES": 2, "GPUS": 1, "CPUS": 2, "MEMORY": "500M", "TIME": 5, "PARTITION": "urgent"}
    file = edited(root, tmp_path, "train.sh", **values)
    job = submit(slurm, file, "--recipe", "no_such", cwd=tmp_path)
    slurm.wait_for(job, "FAILED")  # the recipe is a user's error: not requeued
    facts = slurm.facts(job)
    assert (facts["NumNodes"], facts["NumTasks"], facts["NumCPUs"]) == ("2", "2", "4")
    assert (facts["Partition"], facts["MinMemoryNode"]) == ("urgent", "500M")
    assert (facts["TimeLimit"], facts["Restarts"]) == ("00:05:00", "0")
    assert "no_such" in (tmp_path / f"train_{job}.log").read_text()


@pytest.mark.parametrize("words", [["salloc"], ["srun"], ["srun", "--ntasks-per-node=2"]], ids=str)
def test_the_script_finds_itself_in_an_allocation_or_in_a_task(
    words: list[str], slurm: Slurm, root: Path
) -> None:
    """`salloc SCRIPT` starts tasks, `srun SCRIPT` is in one; each task prints its error."""
    tasks = 4 if len(words) > 1 else 2
    line = [*words, "--nodes=2", "--gpus-per-node=2", "--mem=0", "scripts/train_multi_gpu.sh"]
    nproc = ["--nproc=1"] if words == ["salloc"] else []
    done = subprocess.run(
        [*line, *nproc, "--recipe", "no_such"], capture_output=True, text=True, cwd=root,
        env=slurm.env,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert re.search(rf"launch: {tasks} processes meet at 127\.0\.0\.1:\d+\n", done.stderr)
    assert ("on node[1-2]: 2 processes" in done.stderr) == (words == ["salloc"])
    assert len(re.findall(r"(?m)^error: .*no_such", done.stderr)) == tasks, done.stderr

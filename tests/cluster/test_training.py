"""`sbatch scripts/train_multi_gpu.sh` on a real SLURM: cut short, and the same weights."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from local_slurm import Slurm

from semsynth.core.distributed.run_status import read_status

# One worker: a second one would start a SLURM, and train the undisturbed run, of its own.
pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.xdist_group("slurm")]

TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1")


class Job:
    """One training in the queue."""

    def __init__(
        self, slurm: Slurm, root: Path, folder: Path, flags: list[str], *options: str
    ) -> None:
        self.slurm, self.root, self.run, self.log = slurm, root, folder / "run", folder / "log"
        self.words = ["scripts/train_multi_gpu.sh", *flags, "--output", str(self.run)]
        self.options = [*TWO_NODES, "--mem=0", "--time=10", f"--output={self.log}", *options]
        self.submit()

    def submit(self) -> None:
        self.number = self.slurm.sbatch(*self.options, *self.words, cwd=self.root)

    def wait_for_checkpoint(self) -> None:
        end = time.monotonic() + 400
        while not (self.run / "latest").exists():
            over = self.slurm.facts(self.number)["JobState"] == "FAILED"
            assert not over and time.monotonic() < end, self.text()
            time.sleep(0.2)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else "no log yet"

    def ends(self, *states: str, restarts: int = 0) -> None:
        try:
            self.slurm.wait_for(self.number, *states, restarts=restarts)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from None


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(run / "final_model.pth", weights_only=True)["weights"])


def assert_same(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]


@pytest.fixture
def job(slurm: Slurm, root: Path, tmp_path: Path, flags: list[str]) -> Job:
    return Job(slurm, root, tmp_path, flags)


def test_a_signal_before_the_end_requeues_it(job: Job, straight: Path) -> None:
    """What `--signal=B:USR1@120` does, at a moment that nobody chose."""
    job.wait_for_checkpoint()
    job.slurm.run("scancel", "--batch", "--signal=USR1", job.number)
    sent = time.monotonic()
    job.ends("RUNNING", "COMPLETED", restarts=1)
    print(f"signal to running again: {time.monotonic() - sent:.1f} s")
    job.ends("COMPLETED", restarts=1)
    stopped = re.search(r"stopped at step (\d+) of \d+, with a checkpoint \(SIGUSR1\)", job.text())
    assert stopped, job.text()
    assert f"resuming at step {stopped[1]} of" in job.text()
    assert job.text().count("requeueing job") == 1
    words = [sys.executable, "-m", "semsynth", "status", job.run, "--json"]
    status = json.loads(job.slurm.run(*words))
    assert (status["state"], status["restarts"]) == ("finished", 1)
    assert (status["world"], status["job"]) == (2, job.number)
    assert status["step"] == status["total_steps"]
    assert_same(job.run, straight)


def test_a_more_urgent_job_takes_the_nodes_for_a_while(job: Job, straight: Path) -> None:
    """SLURM's own preemption: SIGTERM to all tasks, a time of grace, requeued behind the other."""
    job.wait_for_checkpoint()
    urgent = ("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null")
    other = job.slurm.sbatch(*urgent, "--wrap", "sleep 1", cwd=job.root)
    job.slurm.wait_for(other, "COMPLETED")
    job.ends("COMPLETED", restarts=1)
    assert "with a checkpoint (SIGTERM)" in job.text(), job.text()
    assert_same(job.run, straight)


def test_a_task_killed_by_the_machine_ends_the_job(job: Job, straight: Path) -> None:
    """SIGKILL of one of two: the job fails, a line names it; submitted again, it goes on."""
    job.wait_for_checkpoint()
    words = ["pgrep", "-f", f"train_semantic_diffusion.py .*--output {job.run}$"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    tasks = {environ(pid).get("RANK"): int(pid) for pid in found}
    os.kill(tasks["1"], signal.SIGKILL)
    killed = time.monotonic()
    job.ends("FAILED")
    print(f"SIGKILL to the end of the job: {time.monotonic() - killed:.1f} s")
    assert "srun: error: node2: task 1: Killed" in job.text()
    assert re.search(r"(?m)^error: rank 1 on .* died", job.text()), job.text()
    job.submit()
    job.ends("COMPLETED")
    assert_same(job.run, straight)


def test_a_time_limit_is_kept_without_a_signal(
    slurm: Slurm, root: Path, tmp_path: Path, flags: list[str]
) -> None:
    """`squeue` is asked for it by the training itself; a minute is SLURM's least."""
    words = [*flags, "--set", "train.steps=1000000"]
    # SIGURG instead of the script's USR1: nobody hears it.
    job = Job(slurm, root, tmp_path, words, "--time=1", "--signal=B:URG@1")
    job.ends("PENDING", "RUNNING", restarts=1)
    slurm.run("scancel", job.number)
    told = r"stopped at step \d+ of 1000000, with a checkpoint \(the job's time limit is near\)"
    assert re.search(told, job.text()), job.text()
    assert "requeueing job" in job.text() and "TIME LIMIT" not in job.text()


def test_scancel_is_the_end(job: Job) -> None:
    """Who cancels a job does not want it back."""
    job.wait_for_checkpoint()
    job.slurm.run("scancel", job.number)
    job.ends("CANCELLED")
    assert job.slurm.facts(job.number)["Restarts"] == "0"
    assert "requeueing" not in job.text()


def environ(pid: str) -> dict[str, str]:
    """The environment of a process (Linux, as SLURM)."""
    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_submit_writes_a_script_that_slurm_runs_on_two_nodes(
    slurm: Slurm, flags: list[str], straight: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "semsynth", "submit", *flags[:4], "--output", "a run", "--json"]
    size = ["--nodes", "2", "--gpus", "1", "--cpus", "1", "--time", "10", "--partition", "main"]
    result = json.loads(slurm.run(*words, *size, cwd=tmp_path))
    slurm.wait_for(result["job"], "COMPLETED")
    assert Path(result["log"]) == tmp_path / f"a run_{result['job']}.log"
    assert "on node[1-2]: 2 processes" in Path(result["log"]).read_text()
    assert_same(tmp_path / "a run", straight)
    # One that is in the queue, or runs: the tiny run may be over before another can be submitted.
    waiting = slurm.sbatch("--hold", "--output=/dev/null", "--wrap", "true", cwd=tmp_path)
    told = read_status(tmp_path / "a run")
    assert told is not None and told.job == result["job"]
    told.job = waiting
    told.write(tmp_path / "a run")
    with pytest.raises(AssertionError, match=f"job {waiting} is PENDING and trains in this"):
        slurm.run(*words, *size, cwd=tmp_path)
    slurm.run("scancel", waiting)

"""What SLURM says about a job, and what is made of it: ranks, the line for `srun`, requeueing."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal

from semsynth.cli.cluster.ports import reserve_port
from semsynth.core.errors import REQUEUE_STATUS, UserError

# Seconds that the other tasks have after the first one ended. Not `--kill-on-bad-exit`: that would
# kill rank 0 in the middle of the checkpoint for which the others have already left. Twice what the
# watch takes to find a process of another node missing (train.watch.FAR_SECONDS): it has the word.
WAIT = 180
# The shell that `salloc` opens on a node is a step of this number (SLURM_INTERACTIVE_STEP).
_INTERACTIVE_STEP = "4294967290"
# Statuses with which a training leaves that is not done: it wrote a checkpoint, or the signal came
# before it could listen.
_UNFINISHED = (REQUEUE_STATUS, 128 + signal.SIGUSR1, 128 + signal.SIGTERM)
_LAUNCH = "semsynth.cli.cluster.launch"

Place = Literal["task", "job", "alone"]


def place(env: Mapping[str, str]) -> Place:
    """Return where a process with this environment runs.

    Returns:
        `task`, one of several of a step of `srun`; `job`, the script of `sbatch` or an allocation
        of `salloc`, from which `srun` starts tasks; `alone`, anything else.
    """
    step = env.get("SLURM_STEP_ID", _INTERACTIVE_STEP)
    if step != _INTERACTIVE_STEP:
        return "task" if int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1 else "alone"
    return "job" if "SLURM_JOB_ID" in env else "alone"


def task_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of torch.distributed for one task of a step: RANK and the like.

    `MASTER_ADDR` and `MASTER_PORT` stay where the user set them.

    Raises:
        UserError: more tasks than GPUs on a node, or the first node's name has no address here.
    """
    local = int(env["SLURM_LOCALID"])
    tasks = int(env.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0].partition(",")[0])
    gpus = visible_gpus(env)
    if gpus == 1 and _gpus_on_node(env) > 1:
        local = 0  # bound by --gpus-per-task: each task sees its own, which is number 0
    elif 0 < gpus <= local:
        raise UserError(
            f"task {env['SLURM_PROCID']} is number {local} on its node, which has {gpus} GPUs for "
            "this job; ask for as many GPUs as tasks a node (--gpus-per-node, --ntasks-per-node)"
        )
    port = _ports(int(env["SLURM_JOB_ID"]) * 7 + int(env["SLURM_STEP_ID"]))[0]
    several = int(env.get("SLURM_STEP_NUM_NODES", "1")) > 1
    found = {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(tasks),
        "MASTER_ADDR": first_host(env["SLURM_STEP_NODELIST"]) if several else "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": env.get("SLURM_CPUS_PER_TASK", "1"),
    }
    for name in ("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"):
        found[name] = env.get(name, found[name])
    _check_address(found["MASTER_ADDR"])
    return found


def _ports(number: int) -> list[int]:
    # Ports below 30000 are seldom handed out by the system; jobs on one node try different ones.
    return [10_000 + (number + 101 * i) % 20_000 for i in range(100)]


def meeting_port(env: Mapping[str, str]) -> AbstractContextManager[int]:
    """Give a port for MASTER_PORT that is free here, and keep it from others meanwhile.

    Here is the job's first node, in a batch script; the tasks would agree on a port by themselves,
    but something else on that node may have it, or take it before rank 0 listens there, and a
    rank that meets a stranger there waits for ever.
    """
    return reserve_port([*_ports(int(env["SLURM_JOB_ID"]) * 7), 0])


def srun(env: Mapping[str, str], nproc: int | None, words: Sequence[str]) -> list[str]:
    """Return the line that runs the launcher as one task a process on all nodes of the job.

    Args:
        env: of the batch script, or of the shell of `salloc`.
        nproc: processes on each node; by default its GPUs, or, without GPUs, its tasks.
        words: what the launcher gets.

    Raises:
        UserError: `srun` is missing, or nodes with different numbers of GPUs.
    """
    if shutil.which("srun") is None:
        raise UserError("srun: not found on this node, though this is a SLURM job; mend the PATH")
    nodes = int(env.get("SLURM_JOB_NUM_NODES", "1"))
    gpus = _gpus_on_node(env) or visible_gpus(env)
    if gpus and _number_of_gpus(env.get("SLURM_GPUS", str(gpus * nodes))) != gpus * nodes:
        raise UserError(
            f"the job has {env['SLURM_GPUS']} GPUs on {nodes} nodes, {gpus} of them here: each "
            "node needs as many; ask for them with --gpus-per-node"
        )
    each = nproc or gpus or max(1, int(env.get("SLURM_NTASKS", "1")) // nodes)
    if 0 < gpus < each:
        raise UserError(f"--nproc {each}: the job has {gpus} GPUs a node; one process needs one")
    cpus = min(map(int, re.findall(r"\d+(?=,|\(|$)", env.get("SLURM_JOB_CPUS_PER_NODE", "1"))))
    share = ["--cpus-per-task", str(cpus // each)] if cpus >= each else ["--overcommit"]
    return [
        "srun", "--nodes", str(nodes), "--ntasks", str(nodes * each),
        "--ntasks-per-node", str(each), *share, "--wait", str(WAIT), "--export", "ALL",
        sys.executable, "-m", _LAUNCH, "--nproc", str(each), *words,
    ]  # fmt: skip


def supervise(line: Sequence[str], job: str) -> int:
    """Run `srun`, tell it of a coming end, and have the job requeued where its work is not done.

    The batch script becomes this process, so `--signal=B:USR1@120` comes here; srun passes USR1 on
    to all tasks; a preemption's SIGTERM goes to the tasks themselves. A job is requeued when the
    training asks for it (`REQUEUE_STATUS`), or when it ended badly after a signal (it had no time
    for a checkpoint: it goes on from the last one).

    Args:
        line: the command.
        job: SLURM's number of the job.

    Returns:
        The command's exit status; 128 + N where it died of signal N.
    """
    told: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: object) -> None:
        told.append(number)
        _say(f"got {signal.Signals(number).name}: telling the training to stop with a checkpoint")
        if process is not None:
            process.send_signal(signal.SIGUSR1)

    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, forward)
    process = subprocess.Popen(line)
    if told:
        process.send_signal(signal.SIGUSR1)
    status = process.wait()
    status = status if status >= 0 else 128 - status
    if status in _UNFINISHED or (status and told):
        requeue(job)
    return status


def requeue(job: str) -> None:
    """Ask SLURM to start the job again, where it is for us to ask; say so in a line."""
    known = subprocess.run(
        ["scontrol", "show", "job", "-o", job], capture_output=True, text=True, check=False
    )
    facts = dict(re.findall(r"(\w+)=(\S*)", known.stdout))
    if facts.get("BatchFlag") != "1":
        _say("stopped; run the same command again to go on")
    elif facts.get("JobState") != "RUNNING":
        # scancel, or SLURM's own requeueing: both end the job without us.
        _say(f"stopped; SLURM is ending job {job} itself")
    elif facts.get("Requeue") != "1":
        _say(f"stopped; job {job} must not be requeued (--no-requeue): submit it again to go on")
    else:
        count = int(facts.get("Restarts", "0")) + 1
        _say(f"stopped; requeueing job {job}, restart {count}")
        done = subprocess.run(["scontrol", "requeue", job], check=False)
        if done.returncode:
            _say(f"scontrol could not requeue job {job}: submit it again to go on")


def first_host(nodes: str) -> str:
    """Return the first name of SLURM's list: `gpu003` of `gpu[003-007,9],login1`."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def visible_gpus(env: Mapping[str, str]) -> int:
    """Return how many GPUs CUDA_VISIBLE_DEVICES names (SLURM sets it), 0 where it is not set."""
    return len([name for name in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()])


def _gpus_on_node(env: Mapping[str, str]) -> int:
    return int(env.get("SLURM_GPUS_ON_NODE", "0"))


def _number_of_gpus(wanted: str) -> int:
    """Return how many `--gpus` asks for: `8`, `a100:8`, `a100:4,v100:4`; a type alone is one."""
    last = [part.rpartition(":")[2] for part in wanted.split(",")]
    return sum(int(number) if number.isdecimal() else 1 for number in last)


def _check_address(host: str) -> None:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        raise UserError(
            f"{host}: the name of the job's first node has no address here; set MASTER_ADDR to "
            "its address and submit again"
        ) from None


def _say(text: str) -> None:
    print(f"launch: {text}", file=sys.stderr, flush=True)

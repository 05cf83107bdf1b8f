"""SLURM jobs: ranks from its variables, a port to meet at, the line for `srun`, requeueing."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

from semsynth.core.distributed.preemption import SIGNALS
from semsynth.core.errors import REQUEUE_STATUS, UserError

# Seconds that the other tasks have after the first one ended. Not `--kill-on-bad-exit`: that would
# kill rank 0 in the middle of the checkpoint, which the other ranks do not wait for. Twice as long
# as the training takes to find a process of another node missing (core.distributed.watchdog): its
# error says more.
WAIT = 180
# The shell that `salloc` opens on a node is a step of this number (SLURM_INTERACTIVE_STEP).
_INTERACTIVE_STEP = "4294967290"
# Exit statuses of an unfinished training: it wrote a checkpoint, or the signal came before it could
# be handled.
_UNFINISHED = (REQUEUE_STATUS, *(128 + number for number in SIGNALS))
# The image in which the tasks run, if any; what it sees of the disks: APPTAINER_BIND.
CONTAINER = "SEMSYNTH_CONTAINER"
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
    """Reserve a free port of this node for MASTER_PORT, until rank 0 listens on it.

    A batch script runs on the job's first node, as rank 0 does. Without a reservation another
    program could take the port before rank 0 does, and the other ranks, connected to that program,
    would wait for ever.
    """
    return reserve_port([*_ports(int(env["SLURM_JOB_ID"]) * 7), 0])


@contextmanager
def reserve_port(wanted: Sequence[int] = (0,), host: str = "") -> Iterator[int]:
    """Hold a free port of this machine without listening on it.

    Only a socket that sets SO_REUSEADDR, as servers do (torch's store among them), can be bound to
    it meanwhile; the system gives it to no connection, and a second call here does not get it.

    Args:
        wanted: ports to try in their order; 0 is one that the system chooses.
        host: the address; by default all of this machine's.

    Yields:
        The first of them that is free.

    Raises:
        OSError: none is.
    """
    with socket.socket() as held:
        for port in wanted:
            try:
                held.bind((host, port))
                break
            except OSError:
                if port == wanted[-1]:
                    raise
        # Not before: two sockets that both allow it could be bound to the same port.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield held.getsockname()[1]


def srun(env: Mapping[str, str], nproc: int | None, words: Sequence[str]) -> list[str]:
    """Return the line that runs the launcher as one task a process on all nodes of the job.

    Args:
        env: of the batch script, or of the shell of `salloc`.
        nproc: processes on each node; by default its GPUs, or, without GPUs, its tasks.
        words: what the launcher gets.

    Raises:
        UserError: `srun` is missing, nodes with different numbers of GPUs, or a container and
            nothing that runs it.
    """
    if shutil.which("srun") is None:
        raise UserError("srun: not found on this node, though this is a SLURM job; fix the PATH")
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
        *_python(env), "-m", _LAUNCH, "--nproc", str(each), *words,
    ]  # fmt: skip


def _python(env: Mapping[str, str]) -> list[str]:
    """Return the Python that runs a task: this one, or that of the job's container.

    The launcher itself stays outside: it needs SLURM's programs.
    """
    image = env.get(CONTAINER)
    if not image:
        return [sys.executable]
    found = shutil.which("apptainer") or shutil.which("singularity")
    if found is None:
        raise UserError(f"{image}: neither apptainer nor singularity is on this node; load it")
    return [found, "exec", "--nv", image, "python3"]


def supervise(line: Sequence[str], job: str) -> int:
    """Run `srun`, pass signals on to it, and requeue the job if the training is unfinished.

    The batch script becomes this process, so it gets the signal of `--signal=B:USR1@120`; srun
    passes USR1 on to all tasks; SLURM itself sends a preemption's SIGTERM to the tasks. A job is
    requeued when the training asks for it (`REQUEUE_STATUS`), or when it failed after a signal (it
    had no time for a checkpoint, and will resume from the last one).

    Args:
        line: the command.
        job: SLURM's number of the job.

    Returns:
        The command's exit status; 128 + N where it died of signal N.
    """
    signals: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: object) -> None:
        signals.append(number)
        announce(
            f"got {signal.Signals(number).name}: the training is to write a checkpoint and stop"
        )
        if process is not None:
            process.send_signal(signal.SIGUSR1)

    for number in SIGNALS:
        signal.signal(number, forward)
    process = subprocess.Popen(line)
    if signals:
        process.send_signal(signal.SIGUSR1)
    status = process.wait()
    status = status if status >= 0 else 128 - status
    if status in _UNFINISHED or (status and signals):
        requeue(job)
    return status


def requeue(job: str) -> None:
    """Ask SLURM to start the job again, if it will not do so by itself; announce it."""
    known = subprocess.run(
        ["scontrol", "show", "job", "-o", job], capture_output=True, text=True, check=False
    )
    job_info = dict(re.findall(r"(\w+)=(\S*)", known.stdout))
    if job_info.get("BatchFlag") != "1":
        announce("stopped; run the same command again to resume")
    elif job_info.get("JobState") != "RUNNING":
        # scancel, or SLURM's own requeueing: both end the job without us.
        announce(f"stopped; SLURM is ending job {job} itself")
    elif job_info.get("Requeue") != "1":
        announce(
            f"stopped; job {job} must not be requeued (--no-requeue): submit it again to resume"
        )
    else:
        count = int(job_info.get("Restarts", "0")) + 1
        announce(f"stopped; requeueing job {job}, restart {count}")
        done = subprocess.run(["scontrol", "requeue", job], check=False)
        if done.returncode:
            announce(f"scontrol could not requeue job {job}: submit it again to resume")


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


def announce(text: str) -> None:
    """Print a line of the launcher on stderr, at once."""
    print(f"launch: {text}", file=sys.stderr, flush=True)

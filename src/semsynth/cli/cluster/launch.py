"""`python -m semsynth.cli.cluster.launch [--nproc N] SCRIPT ...`: start a training here.

Three cases, distinguished by SLURM's variables (docs/how-to/cluster.md, Start):

- alone: torchrun with one process a GPU; plain Python for one process;
- a SLURM job or allocation: `srun` with one task a process on all nodes. Not torchrun on each
  node: it would hide the training's exit status from SLURM (it exits with 1) and end on SIGUSR1;
- one task of that `srun`: RANK and the like from SLURM's variables, then it becomes the training.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from semsynth.cli.cluster import slurm
from semsynth.cli.common import guard
from semsynth.core.errors import UserError

DEFAULT_GPUS = 8

# What torch reads (ProcessGroupNCCL.hpp and FlightRecorder.hpp of torch/csrc/distributed/c10d, in
# the names of 2.13, which warns about the older TORCH_NCCL_TRACE_BUFFER_SIZE). What the user set
# stays. NCCL_SOCKET_IFNAME is not set: a wrong guess is worse than none.
NCCL = {
    # A collective that failed or timed out ends its process (3), instead of continuing with numbers
    # that may be wrong (0). 3 is torch's default; set here because we rely on it.
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
    # 1 would block the CPU in each collective: slower, and the watchdog detects the same failures.
    "TORCH_NCCL_BLOCKING_WAIT": "0",
    # The flight recorder: the last collectives of each rank, written down when one timed out.
    "TORCH_FR_BUFFER_SIZE": "2000",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    # NCCL's own lines about what went wrong.
    "NCCL_DEBUG": "WARN",
}
# torchrun: USR1 reaches the training too, and a checkpoint may take its time.
TORCHRUN = {
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "120",
}


def command(words: list[str], gpus: int) -> list[str]:
    """Return the command that runs a script on this machine's GPUs.

    Args:
        words: the script, or `-m` and a module, then its own flags; `--nproc N` among them is
            taken out.
        gpus: how many GPUs this machine has.

    Returns:
        torchrun with N processes (by default one a GPU, at most 8); with one process, plain
        Python, whose errors stay one line.

    Raises:
        UserError: no script, or N is not a positive number or is more than the GPUs.
    """
    nproc, words = _take_nproc(words)
    processes = nproc or max(1, min(gpus, DEFAULT_GPUS))
    if 0 < gpus < processes:
        raise UserError(f"--nproc {processes}: this machine has {gpus} GPUs; one process needs one")
    if processes == 1:
        return [sys.executable, *words]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc_per_node", str(processes), *words]


def main(argv: list[str]) -> int:
    """Say how the training runs, and become that process; in a SLURM job, stay and supervise it."""
    for name, value in nccl(os.environ).items():
        os.environ.setdefault(name, value)
    where = slurm.place(os.environ)
    if where == "task":
        _, words = _take_nproc(argv)
        os.environ.update(slurm.task_environment(os.environ))
        if os.environ["RANK"] == "0":
            address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            slurm.announce(f"{os.environ['WORLD_SIZE']} processes meet at {address}")
        os.execv(sys.executable, [sys.executable, *words])
    if where == "job":
        line = slurm.srun(os.environ, *_take_nproc(argv))
        tasks = line[line.index("--ntasks") + 1]
        job, nodes = os.environ["SLURM_JOB_ID"], os.environ["SLURM_JOB_NODELIST"]
        slurm.announce(f"job {job} on {nodes}: {tasks} processes")
        with slurm.meeting_port(os.environ) as port:
            os.environ.setdefault("MASTER_PORT", str(port))
            return slurm.supervise(line, job)
    import torch

    gpus = torch.cuda.device_count()
    line = command(argv, gpus)
    processes = line[line.index("--nproc_per_node") + 1] if "--nproc_per_node" in line else "1"
    found = f"{gpus} GPUs found" if gpus else "no GPU found: on the CPU, which is slow"
    print(f"{found}; processes: {processes}", file=sys.stderr, flush=True)
    for name, value in TORCHRUN.items():
        os.environ.setdefault(name, value)
    os.execv(line[0], line)


def nccl(env: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of NCCL and of torch's watchdog, and the place of the flight recorder."""
    # Beside the job's log: /tmp, torch's default, is gone with the node.
    prefix = f"nccl_{env.get('SLURM_JOB_ID', 'trace')}_rank_"
    folder = env.get("SLURM_SUBMIT_DIR", os.getcwd())
    return {**NCCL, "TORCH_FR_DUMP_TEMP_FILE": os.path.join(folder, prefix)}


def _take_nproc(words: list[str]) -> tuple[int | None, list[str]]:
    """Return the value of `--nproc` (None without one), and the words without it."""
    words = [part for word in words for part in _split_nproc(word)]
    nproc = None
    if "--nproc" in words:
        at = words.index("--nproc")
        value = words[at + 1] if at + 1 < len(words) else ""
        if not value.isdecimal() or int(value) < 1:
            raise UserError(f"--nproc needs a number of processes, 1 or more, not `{value}`")
        nproc, words = int(value), words[:at] + words[at + 2 :]
    if not words:
        raise UserError("no script to launch; give its path first")
    return nproc, words


def _split_nproc(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--nproc=") else [word]


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

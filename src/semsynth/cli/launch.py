"""`python -m semsynth.cli.launch SCRIPT [--nproc N] ...`: one process a GPU, by torchrun."""

from __future__ import annotations

import os
import sys

from semsynth.cli.common import guard
from semsynth.runtime.errors import UserError

DEFAULT_GPUS = 8


def command(words: list[str], gpus: int) -> list[str]:
    """Return the command that runs a script on this machine's GPUs.

    Args:
        words: the script, then its own flags; `--nproc N` among them is taken out.
        gpus: how many GPUs this machine has.

    Returns:
        torchrun with N processes (by default one a GPU, 8 at the most); with one process, plain
        Python, whose errors stay one line.

    Raises:
        UserError: no script, or an N that is no positive number or is more than the GPUs.
    """
    words = [part for word in words for part in _split_nproc(word)]
    processes = max(1, min(gpus, DEFAULT_GPUS))
    if "--nproc" in words:
        at = words.index("--nproc")
        value = words[at + 1] if at + 1 < len(words) else ""
        if not value.isdecimal() or int(value) < 1:
            raise UserError(f"--nproc needs a number of processes, 1 or more, not `{value}`")
        processes = int(value)
        words = words[:at] + words[at + 2 :]
    if 0 < gpus < processes:
        raise UserError(f"--nproc {processes}: this machine has {gpus} GPUs; one process needs one")
    if not words:
        raise UserError("no script to launch; give its path first")
    if processes == 1:
        return [sys.executable, *words]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc_per_node", str(processes), *words]


def main(argv: list[str]) -> int:
    """Say how the training runs, and become that process."""
    import torch

    gpus = torch.cuda.device_count()
    line = command(argv, gpus)
    processes = line[line.index("--nproc_per_node") + 1] if "--nproc_per_node" in line else "1"
    where = f"{gpus} GPUs found" if gpus else "no GPU found: on the CPU, which is slow"
    print(f"{where}; processes: {processes}", file=sys.stderr, flush=True)
    os.execv(line[0], line)


def _split_nproc(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--nproc=") else [word]


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

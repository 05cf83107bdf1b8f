"""`semsynth submit`: write, show and submit the batch script of a training."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro.conf

from semsynth.cli.cluster.slurm import CONTAINER
from semsynth.cli.cluster.status import ask_slurm
from semsynth.cli.common import finish, parse
from semsynth.core.distributed.run_status import read_status
from semsynth.core.errors import UserError
from semsynth.core.files import require_writable, write_text
from semsynth.training.recipe import Recipe, TrainConfig, chosen_recipe, run_folder

_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d\d?(:\d\d){0,2}")
_BREAKS = ("Cc", "Zl", "Zp", "Cs")
_MEMORY = re.compile(r"\d+[KMGT]?")

SCRIPT = """\
#!/usr/bin/env bash
# Written by `semsynth submit`. `sbatch` it again if it ended early: it resumes.
{options}
# Requeued after a preemption or a lost node. Two minutes before its time is up it gets a signal,
# writes a checkpoint and is requeued. This process becomes the launcher, which gets the signal.
#SBATCH --requeue --open-mode=append --signal=B:USR1@120
cd {folder}
{container}exec {python} -m semsynth.cli.cluster.launch --nproc {processes} \\
  -m semsynth train {flags}
"""


@dataclass(frozen=True)
class SubmitConfig:
    """Submit a training to SLURM, after checking all that can be checked before it is queued.

    Raises:
        UserError: a value outside its range.
    """

    recipe: str = "sidewalk_1024"
    """Name of a recipe or a YAML file."""
    data: Path = Path("data/sidewalk_processed")
    """Folder of `semsynth prepare`, on a disk that the nodes see."""
    output: Path | None = None
    """Folder of the run, on such a disk too; by default checkpoints/ and the name that the recipe
    gives. The script and the job's log lie beside it."""
    from_checkpoint: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Start from the weights of another model; as in `semsynth train`."""
    fork: Path | None = None
    """Start a new run from the newest checkpoint of another one; as in `semsynth train`."""
    label_map: Path | None = None
    """For --from, where names of labels differ; as in `semsynth train`."""
    data_changed: Literal["ask", "continue"] = "ask"
    """If training images changed since the run began; as in `semsynth train`."""
    mask_dropout: Literal["whole", "region"] = "whole"
    """What mask dropout drops in fine-tuning; as in `semsynth train`."""
    set: tuple[str, ...] = ()
    """Changes of the recipe, as section.key=value; lr and bs are train.learning_rate and
    train.batch_size."""
    track: tuple[str, ...] = ()
    """Trackers; as in `semsynth train`."""
    nodes: int = 1
    """Machines."""
    gpus: int = 8
    """GPUs of each machine, with a process each; 0: none, and one process a machine."""
    cpus: int = 8
    """CPU cores of each process; train.workers of the recipe read images on them."""
    memory: str = "0"
    """Memory of each machine, such as 200G; 0: all of it."""
    time: str = "48:00:00"
    """Time limit, as sbatch takes it; an unfinished training is requeued when it is up."""
    partition: str = ""
    """SLURM's partition; by default the cluster's."""
    account: str = ""
    """The account that pays; by default yours."""
    mail: str = ""
    """Address for mails about begin, end, failure and requeueing."""
    container: str = ""
    """Apptainer image (a .sif file on a disk that the nodes see, or docker://...) in which the
    training runs; by default the environment of this command."""
    dry_run: bool = False
    """Print the script, write and submit nothing."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} is {getattr(self, name)}: must be at least {least}")
        if not _TIME.fullmatch(self.time):
            raise UserError(
                f"--time {self.time}: must look like 30 (minutes), 48:00:00 or 2-12:00:00"
            )
        if self.container and "://" not in self.container and not Path(self.container).exists():
            raise UserError(
                f"--container {self.container}: no such file, and no address such as docker://..."
            )
        if not _MEMORY.fullmatch(self.memory):
            raise UserError(f"--memory {self.memory}: must look like 200G, or be 0 for all of it")

    @property
    def training(self) -> TrainConfig:
        """The flags of the training."""
        return TrainConfig(
            self.recipe,
            self.data,
            self.output,
            from_checkpoint=self.from_checkpoint,
            fork=self.fork,
            label_map=self.label_map,
            data_changed=self.data_changed,
            mask_dropout=self.mask_dropout,
            set=self.set,
            track=self.track,
        )


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(SubmitConfig, argv, "submit")
    if shutil.which("sbatch") is None and not config.dry_run:
        raise UserError("sbatch: not found; run this on a machine of the cluster, or --dry-run")
    recipe = chosen_recipe(config.training)
    run = run_folder(config.training, recipe)
    _check(config, recipe, run)
    text = script(config, run)
    if config.dry_run:
        print(text, end="")
        return 0
    file = run.with_name(f"{run.name}.sbatch")
    write_text(file, text)
    print(text, file=sys.stderr)
    done = subprocess.run(["sbatch", "--parsable", file], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"sbatch refused {file}: {' '.join(done.stderr.split())}")
    job = done.stdout.strip().partition(";")[0]
    log = str(_log(run, job))
    return finish({"job": job, "script": str(file), "log": log, "run": str(run)}, as_json)


def script(config: SubmitConfig, run: Path) -> str:
    """Return the batch script of a training into the folder ``run``."""
    processes = config.gpus or 1
    values = {
        "job-name": run.name,
        "nodes": config.nodes,
        "ntasks-per-node": processes,
        "gpus-per-node": config.gpus or None,
        "cpus-per-task": config.cpus,
        "mem": config.memory,
        "time": config.time,
        "partition": config.partition,
        "account": config.account,
        "mail-user": config.mail,
        "mail-type": config.mail and "BEGIN,END,FAIL,REQUEUE",
        # SLURM replaces what follows a %, in this path alone.
        "output": _log(Path(str(run).replace("%", "%%")), "%j"),
    }
    options = [
        f"#SBATCH --{name}={_quoted(str(value), name)}"
        for name, value in values.items()
        if value not in ("", None)
    ]
    flags = ["--recipe", config.recipe, "--data", str(config.data), "--output", str(run)]
    places = (("from", config.from_checkpoint), ("fork", config.fork))
    for name, path in (*places, ("label-map", config.label_map)):
        flags += [f"--{name}", str(path)] if path is not None else []
    if config.data_changed != "ask":
        flags += ["--data-changed", config.data_changed]
    if config.mask_dropout != "whole":
        flags += ["--mask-dropout", config.mask_dropout]
    if config.track:
        flags += ["--track", *config.track]
    flags += ["--set", *config.set] if config.set else []
    image = config.container
    if image and "://" not in image:
        image = str(Path(image).absolute())
    return SCRIPT.format(
        container=f"export {CONTAINER}={shlex.quote(image)}\n" if image else "",
        options="\n".join(options),
        folder=shlex.quote(str(Path.cwd())),
        python=shlex.quote(sys.executable),
        processes=processes,
        flags=shlex.join(flags),
    )


def _quoted(value: str, name: str) -> str:
    """Return a value as sbatch reads it: in double quotes, where a backslash protects.

    Raises:
        UserError: a line break in it would make the rest of it a command of the script.
    """
    if not value.isprintable() and any(unicodedata.category(c) in _BREAKS for c in value):
        raise UserError(
            f"{value!r}: has a line break or another control character, which the --{name} of a "
            "batch script cannot hold; rename it"
        )
    if re.fullmatch(r"[\w@%+=:,./-]*", value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _log(run: Path, job: str) -> Path:
    return run.with_name(f"{run.name}_{job}.log").absolute()


def _check(config: SubmitConfig, recipe: Recipe, run: Path) -> None:
    """Check what the job itself would check, and that no other job trains in its folder."""
    from semsynth.data.dataset import PreparedDataset
    from semsynth.training.build import (
        check_batch,
        check_fit,
        check_start,
        with_codec_hash,
        with_images_of,
    )
    from semsynth.training.init.fork import check_fork
    from semsynth.training.init.from_model import starting_point
    from semsynth.training.run_output import RunOutput

    check_start(config.training, recipe)
    check_batch(recipe, config.nodes * (config.gpus or 1))
    data = PreparedDataset.open(config.data)
    recipe = with_images_of(recipe, data)
    check_fit(recipe, data)
    for folder in (run, run.parent):
        require_writable(folder)
    recipe = with_codec_hash(recipe)
    check_fork(config.training, run, recipe, data)
    start = starting_point(config.training, run, recipe, data)
    RunOutput(run, recipe, data, start).check(config.training.data_changed)
    _check_no_other_job(run)


def _check_no_other_job(run: Path) -> None:
    status = None
    with suppress(UserError):  # a damaged file does not stop a training either
        status = read_status(run)
    state = ask_slurm(status.job) if status is not None else None
    if status is not None and state and not state.startswith("COMPLET"):
        raise UserError(
            f"{run}: job {status.job} is {state} and trains in this folder: wait for it, or "
            f"`scancel {status.job}`, or give another --output"
        )

"""`semsynth doctor`: what this machine can do, or what is in a folder and whether it is whole."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from semsynth.cli.common import finish, parse
from semsynth.core.errors import UserError
from semsynth.core.files import names_in, read_bytes, read_json
from semsynth.core.outputs import INPUTS, MARKER, read_result

# With a digest in them, or beside them; and what is beside a report.
_JSON = (
    *("report.json", "augmentation.json", "filter.json", "segmenter.json", "status.json", INPUTS),
    *("from.json", "frozen.json", "speeds.json", "plan.json"),
)
_BESIDE = ("per_mask.npz", "gallery.json")
_PACKAGES = ("torch", "diffusers", "accelerate", "transformers", "datasets", "numpy")


@dataclass(frozen=True)
class DoctorConfig:
    """Show versions, devices, threads, disk and clock of this machine, or check a folder.

    With a folder: what it is, whether its files are what was written, from which step a training
    would go on, who works in it, and what to do. Nothing is changed.
    """

    path: Positional[Path | None] = None
    """A folder of semsynth (prepared data, samples, a run, a segmenter, a model, a report)."""
    folder: Path = Path(".")
    """Folder whose disk is examined."""


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(DoctorConfig, argv, "doctor")
    if config.path is not None:
        report = examine_folder(config.path)
        return finish(report, as_json) or (1 if report["damaged"] else 0)
    found = examine(config)
    if not as_json:
        found = {**found, **found.pop("packages"), "devices": "; ".join(found["devices"])}
    return finish(found, as_json)


def examine(config: DoctorConfig) -> dict[str, Any]:
    """Return versions, devices (the first is what `auto` takes), threads and free disk."""
    compiled = _compiled_files()  # before the import, which may make them
    import torch

    from semsynth.core.version import __version__

    # The nearest folder that exists: the given one may not have been made yet.
    folder = config.folder.resolve()
    while not folder.is_dir():
        folder = folder.parent
    return {
        "semsynth": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": _devices(),
        "compiled_files": compiled,
        **_speed(),
        "torch_threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count() or 1,
        "nccl": _nccl(),
        "clock": _clock(folder),
        "disk": str(folder),
        "disk_free_gb": round(shutil.disk_usage(folder).free / 1e9, 1),
    }


def examine_folder(folder: Path) -> dict[str, Any]:
    """Return what a folder is and whether it is whole; nothing in it is changed.

    Returns:
        JSON values: folder, kind, files (how many were compared with their digests), damaged (a
        line for each that is not whole), goes_on_from (a training), held_by, advice.

    Raises:
        UserError: no such folder, or semsynth did not make it.
    """
    from semsynth.core.distributed.run_lock import holder

    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    marker = folder / MARKER
    kind = read_json(marker).get("kind") if marker.is_file() else None
    checks: list[Callable[[Path, list[str]], tuple[int, dict[str, Any]]]] = []
    if (folder / "dataset.json").is_file():
        checks.append(_check_data)
    if names_in(folder) and (kind == "run" or any(_is_step(x) for x in names_in(folder))):
        checks.append(_check_run)
    checks.append(_check_models)
    damaged: list[str] = []
    more: dict[str, Any] = {}
    files = 0
    for check in checks:
        count, found = check(folder, damaged)
        files, more = files + count, more | found
    if kind is None and not files and not damaged:
        raise UserError(f"{folder}: was not made by semsynth; give a folder that it wrote")
    held = holder(folder)
    advice = "nothing to do"
    if damaged:
        advice = "copy what is damaged from a backup, or run the command that makes it again"
    elif held:
        advice = "wait for the process that works here, or end it"
    elif kind == "run" and not (folder / "final_model.pth").exists():
        advice = "run the same `semsynth train` again: it goes on"
    return {
        "folder": str(folder),
        "kind": kind or "model",
        "files": files,
        **more,
        "held_by": held or "nobody",
        "damaged": "; ".join(damaged),
        "advice": advice,
    }


def _is_step(name: str) -> bool:
    return name.startswith("step_")


def _check_data(folder: Path, damaged: list[str]) -> tuple[int, dict[str, Any]]:
    """Compare all files of a data set with their digests."""
    from semsynth.data.content import ALL_KINDS, digest_bytes
    from semsynth.data.dataset import PreparedDataset
    from semsynth.data.manifest import read_manifest

    count = 0
    try:
        data = PreparedDataset.open(folder)
        read_manifest(folder)
    except UserError as error:
        damaged.append(str(error))
        return 1, {}
    for split in data.splits():
        for stem in data.stems(split):
            recorded = data.record(split, stem).digests
            for kind in (kind for kind in ALL_KINDS if kind in recorded):
                path, count = data.path(kind, split, stem), count + 1
                try:
                    if digest_bytes(read_bytes(path)) != recorded[kind]:
                        damaged.append(f"{path}: is not the file that was written")
                except UserError as error:
                    damaged.append(str(error))
    images = sum(len(data.stems(split)) for split in data.splits())
    return count + 1, {"images": images, "size": f"{data.width}x{data.height}"}


def _check_run(folder: Path, damaged: list[str]) -> tuple[int, dict[str, Any]]:
    """Check the checkpoints of a training."""
    from semsynth.training.checkpoints.store import complete_checkpoints, damage

    whole, count = None, 0
    for checkpoint in complete_checkpoints(folder):
        count += 1
        try:
            why = damage(checkpoint)
        except UserError as error:
            why = str(error)
        if why:
            damaged.append(f"{checkpoint}: {why}")
        else:
            whole = checkpoint.name
    return count, {"goes_on_from": whole or "the beginning"}


def _check_models(folder: Path, damaged: list[str]) -> tuple[int, dict[str, Any]]:
    """Check files of weights, a Diffusers folder and a report against what they say of themselves.

    The files are not loaded.
    """
    from semsynth.core.safe_load import check_digest
    from semsynth.pipelines.formats.diffusers_folder import MODEL_INDEX, check_folder

    def look(name: str, check: Callable[[], object]) -> int:
        if not (folder / name).is_file():
            return 0
        try:
            check()
        except UserError as error:
            damaged.append(str(error))
        return 1

    count = look(MODEL_INDEX, lambda: check_folder(str(folder)))
    for name in ("final_model.pth", "segmenter.pth"):
        count += look(name, partial(check_digest, folder / name))
    for name in _JSON:
        beside = _BESIDE if name == "report.json" else ()
        count += look(name, partial(read_result, folder / name, beside))
    return count, {}


def _compiled_files() -> str:
    """Return whether PyTorch's modules are compiled, or else each process compiles them."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return "PyTorch is missing"
    if Path(importlib.util.cache_from_source(found.origin)).exists():
        return "yes"
    folder = Path(found.origin).parent
    if not sys.dont_write_bytecode and os.access(folder, os.W_OK):
        return "made at the first import"
    why = "PYTHONDONTWRITEBYTECODE is set" if sys.dont_write_bytecode else "not writable"
    return (
        f"no ({why}): each process compiles PyTorch again, 22 s of CPU time; "
        f"once and for all: python -m compileall -q {folder.parent}"
    )


def _speed() -> dict[str, Any]:
    """Return what makes the device that `auto` takes fast, and whether it is used."""
    import torch

    from semsynth.core.devices import (
        BFLOAT16_INSTRUCTIONS,
        cpu_bfloat16,
        free_bytes,
        pick_device,
        resolve_precision,
    )

    device = pick_device("auto")
    short = resolve_precision("auto", device) == "bf16"
    why = ""
    if device.type == "cpu":
        native = cpu_bfloat16()
        why = f" (this CPU has {native or 'neither ' + ' nor '.join(BFLOAT16_INSTRUCTIONS)})"
    found = {
        "precision": f"{'bfloat16' if short else 'float32'} by --precision auto{why}",
        "memory_layout": "channels_last" if short else "contiguous",
        "condition_cache": f"up to {free_bytes(device) / 2e9:.1f} GB by --cache auto",
        "compiled_norms": _compiles(device.type),
    }
    if device.type == "cpu":
        found["cpu_instructions"] = torch.backends.cpu.get_cpu_capability()
    return found


def _nccl() -> str:
    import torch

    if not torch.cuda.is_available():
        return "not needed without CUDA"
    return ".".join(map(str, torch.cuda.nccl.version()))


def _clock(folder: Path) -> str:
    """Say how this machine's clock differs from that of the disk; no decision depends on it."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
            file.flush()
            ahead = time.time() - os.fstat(file.fileno()).st_mtime
    except OSError as error:
        return f"not compared: {folder} cannot be written ({error.strerror})"
    if abs(ahead) < 2:
        return "as that of the disk"
    return f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of the disk"


def _compiles(kind: str) -> str:
    if kind == "cuda":
        found = importlib.util.find_spec("triton") is not None
        return "yes, by --compile auto" if found else "no: Triton is missing"
    if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
        return "no: slower on a CPU (--compile on forces them)"
    return "no: no C++ compiler (and slower on a CPU)"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _devices() -> list[str]:
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} {card.name}, {card.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]

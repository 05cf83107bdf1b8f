"""`semsynth doctor`: what this machine can do."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from semsynth.cli.common import finish, parse

_PACKAGES = ("torch", "diffusers", "accelerate", "transformers", "datasets", "numpy")


@dataclass(frozen=True)
class DoctorConfig:
    """Show versions, devices, threads and disk of this machine."""

    folder: Path = Path(".")
    """Folder whose disk is examined."""


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(DoctorConfig, argv, "doctor")
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
        "disk": str(folder),
        "disk_free_gb": round(shutil.disk_usage(folder).free / 1e9, 1),
    }


def _compiled_files() -> str:
    """Return whether PyTorch's modules are compiled, or else are so by each process anew."""
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
        f"no ({why}): each process compiles PyTorch anew, 22 s of CPU time; "
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

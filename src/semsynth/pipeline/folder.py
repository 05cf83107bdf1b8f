"""What a checkpoint on disk is, a Diffusers folder or ``final_model.pth``, and is it whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from semsynth.runtime.artifacts import read_json, sha256_file
from semsynth.runtime.errors import UserError

MODEL_INDEX = "model_index.json"
FINAL = "final_model.pth"


def checkpoint_sha256(path: str | Path) -> str:
    """Return what a checkpoint is known by: the hash of all that decides its pictures.

    Of a file, its own. Of a Diffusers folder, that of the names and contents of
    ``model_index.json`` and of the network's weights and configuration; the scheduler is not
    among them, since samplers are chosen by name.

    Raises:
        UserError: there is no checkpoint.
    """
    path = Path(path)
    if not (path / MODEL_INDEX).is_file():
        file = path / FINAL if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"{file}: no such checkpoint; train one with 'semsynth train'")
        return sha256_file(file)
    files = [path / MODEL_INDEX, *sorted((path / "unet").glob("*"))]
    lines = [f"{sha256_file(file)} {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_folder(name: str, class_name: str) -> None:
    """Check that ``name`` is a Diffusers folder of ours, if it is on this disk at all.

    Raises:
        UserError: a file, a folder of something else, or a path to nothing.
    """
    has_index = os.path.isfile(os.path.join(name, MODEL_INDEX))
    if not has_index and (os.path.isfile(name) or os.path.isfile(os.path.join(name, FINAL))):
        raise UserError(f"{name}: is no Diffusers folder; load it with from_checkpoint")
    if not os.path.isdir(name):
        if os.path.exists(name) or name.count("/") != 1 or name.startswith(("/", ".", "~")):
            raise UserError(f"{name}: no such folder (a repository of the Hub is OWNER/NAME)")
        return
    if not has_index:
        raise UserError(f"{name}: is no Diffusers folder (it has no {MODEL_INDEX})")
    found = read_json(os.path.join(name, MODEL_INDEX))
    kind = found.get("_class_name") if isinstance(found, dict) else None
    if kind != class_name:
        raise UserError(f"{name}: holds a {kind}, not a {class_name}; load it with its own class")


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what Diffusers raises on a damaged folder into one line.

    Raises:
        UserError: says what was wrong.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{name}: cannot be loaded: {reason}") from error

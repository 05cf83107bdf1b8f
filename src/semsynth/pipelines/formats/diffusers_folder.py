"""Diffusers folders: their identity, what is wrong with one, and errors of Diffusers in one line.

Nothing here needs torch: `semsynth generate` finds out what is left to do before it loads a model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from semsynth.core.errors import UserError
from semsynth.core.files import allow_reading, read_json, sha256_file, write_json
from semsynth.core.paths import path_name

PIPELINE = "SemanticDiffusionPipeline"
# Where folders say that the network's class is: a place that does not move with our modules.
NETWORK_CLASS = ("semsynth", "SemanticUNet")
MODEL_INDEX = "model_index.json"
FINAL = "final_model.pth"
VAE = "vae"
NETWORK = "unet/config.json"
_DECIDES = ("labels", "model", "diffusion", "height", "width")


def checkpoint_sha256(path: str | Path) -> str:
    """Return what identifies a checkpoint: the hash of all that decides its images.

    Of a file, its own. Of a Diffusers folder, that of weights and configurations; metadata and
    scheduler are not among them, since samplers are chosen by name.

    Raises:
        UserError: there is no checkpoint.
    """
    path = Path(path)
    if not (path / MODEL_INDEX).is_file():
        file = path / FINAL if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"{file}: no such checkpoint; train one with 'semsynth train'")
        return sha256_file(file)
    index, network = read_json(path / MODEL_INDEX), read_json(path / NETWORK)
    decides = {name: index.get(name) for name in _DECIDES}
    decides |= {"unet": {k: v for k, v in network.items() if not k.startswith("_")}}
    weights = [file for file in sorted((path / "unet").glob("*")) if file.suffix != ".json"]
    decides |= {"weights": {file.name: sha256_file(file) for file in weights}}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def check_folder(name: str) -> None:
    """Check that ``name`` is a Diffusers folder of ours, if it is on this disk at all.

    Raises:
        UserError: a file, a folder of something else, or a path to nothing.
    """
    has_index = os.path.isfile(os.path.join(name, MODEL_INDEX))
    if not has_index and (os.path.isfile(name) or os.path.isfile(os.path.join(name, FINAL))):
        raise UserError(f"{name}: is not a Diffusers folder; load it with from_checkpoint")
    if not os.path.isdir(name):
        if os.path.exists(name) or name.count("/") != 1 or name.startswith(("/", ".", "~")):
            raise UserError(f"{name}: no such folder (a repository of the Hub is OWNER/NAME)")
        return
    if not has_index:
        raise UserError(f"{name}: is not a Diffusers folder (it has no {MODEL_INDEX})")
    found = read_json(os.path.join(name, MODEL_INDEX))
    kind = found.get("_class_name") if isinstance(found, dict) else None
    if kind != PIPELINE:
        raise UserError(f"{name}: holds a {kind}, not a {PIPELINE}; load it with its own class")
    _check_names(Path(name), found)


def _check_names(folder: Path, index: dict[str, Any]) -> None:
    """Check that what the folder names, as the place of a part or of weights, is in the folder."""
    for part, value in index.items():
        if isinstance(value, list):
            path_name(part, str(folder / MODEL_INDEX))
    for file in folder.glob("*/*.index.json"):
        shards = read_json(file)
        weights = shards.get("weight_map") if isinstance(shards, dict) else None
        for shard in set(weights.values()) if isinstance(weights, dict) else ():
            path_name(shard, str(file))


@contextmanager
def translate_load_errors(name: str) -> Iterator[None]:
    """Turn the errors of Diffusers on a damaged folder into one line.

    Raises:
        UserError: says what was wrong.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{name}: cannot be loaded: {reason}") from error


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Load without Diffusers' bar, which counts two components."""
    from diffusers.utils import logging  # imports torch

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


@contextmanager
def translate_save_errors(name: str) -> Iterator[None]:
    """Turn the errors of Diffusers and safetensors when they cannot write into one line.

    Raises:
        UserError: says what was wrong.
    """
    try:
        yield
    except (SafetensorError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{name}: could not be written ({reason}); is the disk full?") from error


def strip_local_paths(folder: Path) -> None:
    """Remove this machine's paths from what Diffusers wrote, and let other users read it.

    Also names the network's class by ``NETWORK_CLASS`` rather than by the module it is in.
    """
    for file in (folder / MODEL_INDEX, folder / NETWORK, folder / VAE / "config.json"):
        value = read_json(file) if file.is_file() else {}
        changed = value.pop("_name_or_path", None) is not None
        if file.name == MODEL_INDEX:
            recipe = value.get("facts", {}).get("recipe", {})
            changed |= any([_name_own_vae(part) for part in (value, recipe)])
            value["unet"], changed = list(NETWORK_CLASS), True
        if changed:
            write_json(file, value)
    for name in ("unet", VAE):
        for file in (folder / name).glob("*"):
            allow_reading(file)  # safetensors lets only the owner read them


def _name_own_vae(value: Any) -> bool:
    """Name the autoencoder in the folder as the model's; return whether it has one."""
    vae = (value.get("model") or {}).get("vae")
    if vae is None:
        return False
    vae["source"] = VAE
    return True

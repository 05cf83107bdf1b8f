"""Diffusers folders: their identity, what is wrong with one, and errors of Diffusers in one line.

Nothing here needs torch: `semsynth generate` finds out what is left to do before it loads a model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from semsynth.core.errors import UserError
from semsynth.core.files import (
    allow_reading,
    names_in,
    read_json,
    read_text,
    sha256_file,
    write_json,
    write_text,
)
from semsynth.core.paths import inside, may_be_hub_id, path_name
from semsynth.pipelines.formats.pretrained import find_model

PIPELINE = "SemanticDiffusionPipeline"
# Where folders say that the network's class is: a place that does not move with our modules.
NETWORK_CLASS = ("semsynth", "SemanticUNet")
MODEL_INDEX = "model_index.json"
# What the model is: Diffusers takes a file of this name along, and its index stays short.
CONFIG = "config.json"
_IN_CONFIG = ("labels", "model", "diffusion", "facts")
# With this and `trust_remote_code=True`, plain `DiffusionPipeline.from_pretrained` reads a folder.
PIPELINE_FILE = "pipeline.py"
_CODE = f"from semsynth import {PIPELINE}  # noqa: F401\n"
FINAL = "final_model.pth"
VAE = "vae"
NETWORK = "unet/config.json"
_DECIDES = ("labels", "model", "diffusion", "height", "width")
# In the index: the digests of the weights, by file. Diffusers passes over names that begin so.
_WRITTEN = "_sha256"


def checkpoint_sha256(path: str | Path) -> str:
    """Return what identifies a checkpoint: the hash of all that decides its images.

    Of a file, or of a model of the package by its name, that of the file. Of a Diffusers folder,
    that of weights and configurations; metadata and scheduler are not among them, since samplers
    are chosen by name.

    Raises:
        UserError: the checkpoint is missing.
    """
    path = find_model(path)
    if not (path / MODEL_INDEX).is_file():
        file = path / FINAL if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"{file}: no such checkpoint; train one with 'semsynth train'")
        return sha256_file(file)
    index, network = read_index(path), _mapping(path / NETWORK)
    decides = {name: index.get(name) for name in _DECIDES}
    decides |= {"unet": {k: v for k, v in network.items() if not k.startswith("_")}}
    weights = [
        file
        for file in (path / "unet" / name for name in names_in(path / "unet"))
        if file.suffix != ".json"
    ]
    decides |= {"weights": {file.name: sha256_file(file) for file in weights}}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def read_index(folder: str | Path) -> dict[str, Any]:
    """Return a folder's ``model_index.json`` with what is in the file ``CONFIG`` beside it.

    Folders of earlier versions have all of it in the first.

    Raises:
        UserError: one of them is missing or not valid JSON.
    """
    return read_config(folder) | _mapping(Path(folder) / MODEL_INDEX)


def _mapping(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: must be a mapping of keys to values; export the folder again")
    return found


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return labels, model, diffusion and metadata (``facts``); empty where there is no file."""
    path = Path(folder) / CONFIG
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise UserError(f"{path}: must be a mapping of keys to values")
    return {key: value for key, value in found.items() if key in _IN_CONFIG}


def check_folder(name: str) -> None:
    """Check that ``name`` is a Diffusers folder of ours, if it is on this disk at all.

    Raises:
        UserError: a file, a folder of something else, or a path to nothing.
    """
    has_index = os.path.isfile(os.path.join(name, MODEL_INDEX))
    if not has_index and (os.path.isfile(name) or os.path.isfile(os.path.join(name, FINAL))):
        raise UserError(f"{name}: is not a Diffusers folder; load it with from_checkpoint")
    if not os.path.isdir(name):
        if not may_be_hub_id(name):
            raise UserError(f"{name}: no such folder (a repository of the Hub is OWNER/NAME)")
        return
    if not has_index:
        raise UserError(f"{name}: is not a Diffusers folder (it has no {MODEL_INDEX})")
    found = read_json(os.path.join(name, MODEL_INDEX))
    kind = found.get("_class_name") if isinstance(found, dict) else None
    kind = kind[-1] if isinstance(kind, list) and kind else kind  # [file, class] of our own code
    if kind != PIPELINE:
        raise UserError(f"{name}: holds a {kind}, not a {PIPELINE}; load it with its own class")
    _check_names(Path(name), found)
    _check_written(Path(name))


def _check_names(folder: Path, index: dict[str, Any]) -> None:
    """Check that what the folder names, as the place of a part or of weights, is in the folder."""
    for part, value in index.items():
        if isinstance(value, list):
            path_name(part, str(folder / MODEL_INDEX))
    parts = [folder / part for part in names_in(folder) if (folder / part).is_dir()]
    files = [part / name for part in parts for name in names_in(part)]
    for file in (file for file in files if file.name.endswith(".index.json")):
        shards = read_json(file)
        weights = shards.get("weight_map") if isinstance(shards, dict) else None
        for shard in set(weights.values()) if isinstance(weights, dict) else ():
            path_name(shard, str(file))


def _check_written(folder: Path) -> None:
    """Check the weights against their digests; folders of earlier versions have none.

    What else is there is text, which may be edited.
    """
    path = folder / MODEL_INDEX
    written = read_json(path).get(_WRITTEN)
    if not isinstance(written, dict):
        return
    for name, digest in written.items():
        file = inside(folder, name, str(path))
        if file.exists() and sha256_file(file) != digest:
            raise UserError(
                f"{file}: cannot be loaded: damaged, not the file that was written; copy or export "
                f"the folder again (other weights on purpose: remove {_WRITTEN} from {path.name})"
            )


def _written(folder: Path) -> dict[str, str]:
    """Return the digests of the weights."""
    files = [f"{part}/{name}" for part in ("unet", VAE) for name in names_in(folder / part)]
    weights = [file for file in files if not file.endswith(".json")]
    return {file: sha256_file(folder / file) for file in weights}


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


def finish_folder(folder: Path) -> None:
    """Make of what Diffusers wrote a folder that other people and machines can use.

    This machine's paths are removed, what the model is goes into ``CONFIG``, the network's class
    is named by ``NETWORK_CLASS`` rather than by the module it is in, and files can be read by all.
    """
    index = read_json(folder / MODEL_INDEX)
    index = {k: v for k, v in index.items() if k not in ("_name_or_path", _WRITTEN)}
    for part in (index, index.get("facts", {}).get("recipe", {})):
        _name_own_vae(part)
    config = {key: index.pop(key) for key in _IN_CONFIG if key in index}
    module = PIPELINE_FILE.removesuffix(".py")
    index |= {"unet": list(NETWORK_CLASS), "_class_name": [module, PIPELINE]}
    write_json(folder / CONFIG, config)
    write_text(folder / PIPELINE_FILE, _CODE)
    write_json(folder / MODEL_INDEX, index)
    for file in (folder / NETWORK, folder / VAE / "config.json"):
        value = read_json(file) if file.is_file() else {}
        if value.pop("_name_or_path", None) is not None:
            write_json(file, value)
    _shorten(folder / "scheduler" / "scheduler_config.json")
    for name in ("unet", VAE):
        for found in names_in(folder / name):
            allow_reading(folder / name / found)  # safetensors lets only the owner read them
    write_json(folder / MODEL_INDEX, {**index, _WRITTEN: _written(folder)})


def _shorten(file: Path) -> None:
    """Write lists of numbers, the scheduler's 1,000 betas, on one line each."""
    if file.is_file():
        text = read_text(file)
        joined = re.sub(r"\[[-\d.e,\s]*\]", lambda found: " ".join(found[0].split()), text)
        write_text(file, joined)


def _name_own_vae(value: Any) -> None:
    """Name the autoencoder in the folder as the model's, if it has one."""
    vae = (value.get("model") or {}).get("vae")
    if vae is not None:
        vae["source"] = VAE

"""The models that come with the package: where they are, and what a name means (no torch).

``pretrained/NAME/`` of the package has four files: the model (8-bit weights), its card, the recipe
that trained it, and what `semsynth models` lists.
"""

from __future__ import annotations

import difflib
import functools
import os
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import read_json, sha256_file
from semsynth.core.logging import logger

MODEL, CARD, RECIPE, FACTS = "model.pth", "README.md", "recipe.yaml", "model.json"
FOLDER = Path(__file__).resolve().parents[2] / "pretrained"

_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors")
# A folder with one of them is a Diffusers folder, a run, or one that is not finished yet.
_OF_MODELS = ("model_index.json", "final_model.pth", "latest")


def pretrained_names() -> list[str]:
    """Return the names of the models that came with the package, sorted."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{MODEL}"))


def find_model(path: str | Path) -> Path:
    """Return the path of a model that a user gives as a path, or as the name of one of ours.

    What exists in the working directory and is a model, or a run, is taken before one of the
    package; a log line says which of the two it is. So is what has folders in its path.

    Raises:
        UserError: one word that is neither; or the package's file is not as it was published.
    """
    found = Path(path)
    if len(found.parts) != 1 or found.is_file() or is_model(found):
        if str(found) in pretrained_names():
            _say(
                f"{found}: the model in {found.resolve()}; that of the package is "
                f"{FOLDER / found / MODEL}"
            )
        return found
    if str(found) in pretrained_names():
        also = f" (the folder {found} here is not a model)" if found.exists() else ""
        _say(f"{found}: the model that comes with semsynth{also}")
        return _published(FOLDER / found)
    if found.exists() or found.suffix in _WEIGHTS:
        return found  # whoever opens it says what is wrong with it
    raise _unknown(str(found))


def is_model(path: Path) -> bool:
    """Whether a path is a file of weights, the folder of a run, or a Diffusers folder."""
    weights = path.is_file() and path.suffix in _WEIGHTS
    return weights or any(os.path.lexists(path / name) for name in _OF_MODELS)


def is_of_package(path: Path) -> bool:
    """Whether a path that ``find_model`` returned is that of a model of the package."""
    return path.parent.parent == FOLDER


def pretrained_facts(name: str) -> dict[str, Any]:
    """Return what `semsynth models` lists of a model of the package.

    Raises:
        UserError: there is none of this name.
    """
    if name not in pretrained_names():
        raise _unknown(name)
    found = read_json(FOLDER / name / FACTS)
    if not isinstance(found, dict):
        raise UserError(f"{FOLDER / name / FACTS}: must be a mapping; {_AGAIN}")
    return {"name": name, **found}


_AGAIN = "install semsynth again: pip install --force-reinstall --no-deps semsynth"


@functools.cache
def _published(folder: Path) -> Path:
    """Return the file of a model, which is as it was published."""
    file, facts = folder / MODEL, folder / FACTS
    wanted = read_json(facts).get("sha256") if facts.is_file() else None
    if sha256_file(file) != wanted:
        raise UserError(f"{file}: is damaged (its SHA-256 is not that of {FACTS}); {_AGAIN}")
    return file


@functools.cache
def _say(message: str) -> None:
    logger.info(message)


def _unknown(name: str) -> UserError:
    names = pretrained_names()
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = f"those are {', '.join(names)}" if names else "this installation has none"
    return UserError(f"{name}: no such file or folder, and no model of the package ({known}){hint}")

"""Where the recipes are: `recipes/*.yaml` of the repository, `semsynth/recipes` in a wheel."""

from __future__ import annotations

import difflib
from pathlib import Path

from semsynth.core.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]


def recipes_folder() -> Path:
    """Return the folder of the recipes that came with the package."""
    installed = _PACKAGE / "recipes"
    # A checkout (editable install) keeps them two folders up: <root>/src/semsynth, <root>/recipes.
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the recipes that came with the package, sorted."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def recipe_path(name_or_path: str | Path) -> Path:
    """Return the file of a recipe.

    Args:
        name_or_path: a known name (`streets_demo`), or a path to a YAML file of the user's own.

    Raises:
        UserError: there is no such recipe; the message names the nearest known one.
    """
    text = str(name_or_path)
    names = recipe_names()
    if text in names:
        return recipes_folder() / f"{text}.yaml"
    path = Path(text)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise UserError(f"recipe file {path} does not exist; known recipes: {', '.join(names)}")
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise UserError(f"unknown recipe `{text}`: {hint}known recipes: {', '.join(names)}")

"""`semsynth recipes [NAME]`: the recipes, and the keys of one with values and meanings."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional

from semsynth.cli.common import finish, parse
from semsynth.cli.describe import Entry, sections
from semsynth.core.config import Config, load_yaml
from semsynth.training.phases import SHORT
from semsynth.training.recipe import Recipe, load_recipe, recipe_names, recipe_path


@dataclass(frozen=True)
class RecipesConfig:
    """List the recipes, or show the keys of one with their values and meanings."""

    name: Positional[str | None] = None
    """Name of a recipe, or a YAML file."""


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(RecipesConfig, argv, "recipes")
    if config.name is None:
        listed = {recipe["name"]: recipe for recipe in recipe_table()}
        if as_json:
            return finish(listed, as_json)
        print("\n\n".join(_in_words(recipe) for recipe in listed.values()))
        print(f"\n{_fill('`semsynth recipes NAME` shows the keys of one.', 0)}")
        return 0
    recipe = load_recipe(config.name)
    if as_json:
        return finish(recipe.model_dump(mode="json"), as_json)
    print("\n".join(_keys(recipe, str(recipe_path(config.name)))))
    return 0


def recipe_table() -> Iterator[dict[str, Any]]:
    """Yield name, height, width and purpose (`about`) of each recipe of the package."""
    for name in recipe_names():
        recipe = load_yaml(recipe_path(name))
        about = " ".join(str(recipe.get("about", "")).split())
        yield {
            "name": name,
            "height": recipe["height"],
            "width": recipe["width"],
            "about": about,
        }


def recipe_sections() -> Iterator[tuple[str, type, list[Entry]]]:
    """Yield each section of a recipe: its dotted name ("" at the top), class and keys."""
    yield from sections("", Recipe)


def recipe_keys(name: str) -> list[str]:
    """Return the dotted keys that end in a name; a short name such as `lr` is itself one."""
    if name in SHORT:
        return [name]
    keys = [entry.name for _, _, entries in recipe_sections() for entry in entries]
    return [key for key in keys if key == name or key.rpartition(".")[2] == name]


def _in_words(recipe: dict[str, Any]) -> str:
    title = f"{recipe['name']}  {recipe['height']}x{recipe['width']} (height x width)"
    return f"{title}\n{_fill(recipe['about'])}"


def _keys(recipe: Recipe, path: str) -> Iterator[str]:
    yield f"# {path}"
    for name, _, entries in recipe_sections():
        section = _at(recipe, name)
        if section is None:
            continue
        yield f"\n[{name or 'recipe'}]"
        for entry in entries:
            value = _at(recipe, entry.name)
            yield f"{entry.name} = {json.dumps(value, ensure_ascii=False)}"
            meaning = entry.meaning.replace("``", "`").rstrip(".")
            default = "" if entry.default == "required" else f"; default {entry.default}"
            yield _fill(f"{meaning} ({entry.kind}{default})")


def _at(recipe: Recipe, name: str) -> Any:
    """Return what is at a dotted name, one that files omit too; None: a section above is null."""
    value: Any = recipe
    for part in name.split(".") if name else ():
        value = None if value is None else getattr(value, part)
    return value.model_dump(mode="json") if isinstance(value, Config) else value


def _fill(text: str, indent: int = 4) -> str:
    blanks = " " * indent
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(text, width, initial_indent=blanks, subsequent_indent=blanks)

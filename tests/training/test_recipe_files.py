"""Recipes are found by name or by path, and a wrong name points to the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from semsynth.core.errors import UserError
from semsynth.training import recipe as recipes
from semsynth.training.recipe import (
    recipe_names,
    recipe_path,
    recipes_folder,
)


def test_a_checkout_uses_the_folder_at_its_root(root: Path) -> None:
    assert recipes_folder() == root / "recipes"
    assert recipe_names() == sorted(path.stem for path in (root / "recipes").glob("*.yaml"))


def test_an_installed_package_uses_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").touch()
    monkeypatch.setattr(recipes, "_PACKAGE", tmp_path)
    assert recipe_names() == ["mine"]


@pytest.mark.parametrize("name", recipe_names())
def test_a_name_is_found(name: str) -> None:
    assert recipe_path(name) == recipes_folder() / f"{name}.yaml"


def test_a_file_is_found(tmp_path: Path) -> None:
    for file in (tmp_path / "own.yaml", tmp_path / "own"):
        file.touch()
        assert recipe_path(file) == file


def test_a_name_wins_over_a_folder_of_that_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "streets_demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert recipe_path("streets_demo").suffix == ".yaml"


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("streets_dmo", "did you mean `streets_demo`?"),
        ("zzz", "known recipes: aerial, camvid"),
        ("zzz.yaml", "recipe file zzz.yaml does not exist"),
        ("a/b", "recipe file a/b does not exist"),
    ],
)
def test_what_does_not_exist_is_named(wanted: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe_path(wanted)
    assert part in str(caught.value)

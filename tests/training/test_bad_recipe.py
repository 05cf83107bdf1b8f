"""Recipes and data that do not fit: one line, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from semsynth.core.errors import UserError
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig, load_recipe

Configure = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("train.learning_rat=1",), r"learning_rat'.*did you mean 'learning_rate'"),
        (("trian.steps=1",), r"unknown key 'trian'.*did you mean 'train'"),
        (("model.base_chanels=32",), r"base_chanels'.*did you mean 'base_channels'"),
        (("train.steps=many",), r"'train.steps' is 'many'"),
        (("train.steps=1.5",), r"'train.steps' is 1.5"),
        (("train.batch_size=-1",), r"'train.batch_size' is -1"),
        (("train.flip=1",), r"'train.flip' is 1"),
        (("train.betas=[0.9]",), r"train.betas"),
        (("model.codec=jpeg",), r"'model.codec' is 'jpeg'"),
        (("height=18",), r"18x16 .*cannot be halved.*multiples of 4; the nearest size is 16x16"),
        (("width=30", "height=32"), r"32x30 .*multiples of 4; the nearest size is 32x32"),
        (("model.head_channels=24",), r"head_channels 24 does not divide"),
        (("loss.learn_sigma=true",), r"learn_sigma needs prediction: epsilon"),
        (
            ("loss.prediction=epsilon", "loss.learn_sigma=true", "model.codec=haar"),
            r"learn_sigma needs model.codec: pixel",
        ),
        (("diffusion.schedule=linear", "diffusion.shift=2.0"), r"shift needs schedule: cosine"),
        (("diffusion.schedule=flow",), r"schedule: flow need each other"),
        (("loss.prediction=flow_prediction",), r"schedule: flow need each other"),
        (("loss.weighting=min-snr",), r"'loss.weighting' is 'min-snr'"),
        (("train.band_weights=[1, 2]",), r"'train.band_weights' is now loss.band_weights"),
        (("train.judge=segmenter",), r"'train.judge' is now train.evaluator"),
        (("diffusion.times=uniform",), r"'diffusion.times' is now loss.timesteps"),
        (("diffusion.min_snr_gamma=5",), r"is now loss.min_snr_gamma, with loss.weighting"),
        (("diffusion.zero_terminal_snr=true",), r"zero_terminal_snr' was removed; delete it"),
        (("train.crop_size=[10, 16]",), r"crop_size: 10 is not a multiple of 4"),
        (("height=18", "train.crop_size=[18, 16]"), r"crop_size: 18 is not a multiple of 4"),
        (("train.crop_size=[20, 16]",), r"20 at scale 1 is 20 pixels.*height 16.*1.25"),
        (("train.crop_size=[8, 12]", "train.scale=[0.5, 1]"), r"width 16; the least scale is 0.75"),
        (("train.scale=[0.5, 1]",), r"scale needs train.crop_size"),
        (("train.scale=[1, 0.5]",), r"train.scale is \[1.0, 0.5\]"),
        (("train.crop_size=[8, 8]", "train.crop=0.5"), r"exclude each other"),
        (
            ("train.rotate=true", "height=24"),
            r"rotate turns samples by 90 degrees, and they are 16x24",
        ),
        (
            ("train.rotate=true", "model.augment_condition=true"),
            r"train.rotate and model.augment_condition exclude each other",
        ),
        (("train.color=0.1",), r"train.color would be in the generated images too"),
        (("train.steps",), r"section.key=value"),
        (("name.steps=3",), r"'name' is not a section"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_a_wrong_value_is_named(
    changes: tuple[str, ...], message: str, configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as error:
        train(configure("run", *changes))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_moved_key_is_named_with_its_new_place(tmp_path: Path, recipe_file: Path) -> None:
    old = tmp_path / "old.yaml"
    text = recipe_file.read_text()
    old.write_text(text.replace("diffusion: {}", "diffusion: {prediction: epsilon}"))
    with pytest.raises(UserError, match=r"old.yaml: 'diffusion.prediction' is now loss.prediction"):
        load_recipe(str(old))


def test_a_change_may_be_any_yaml_that_fits(recipe_file: Path) -> None:
    changes = ("train.learning_rate=1e-4", "train.steps=7", "train.betas=[0.5, 0.9]")
    recipe = load_recipe(str(recipe_file), changes)
    assert recipe.train.learning_rate == 1e-4
    assert recipe.total_steps == 11
    assert recipe.train.betas == (0.5, 0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("height=32", "width=64"), r"images are 16x16, recipe 'tiny' wants 32x64"),
        (("train.accumulation=3",), r"batch_size 4 must be a multiple"),
        (("model.instance_edges=true",), r"have no instance map, which recipe 'tiny' wants"),
    ],
    ids=["size", "accumulation", "instances"],
)
def test_a_misfit_is_refused_before_anything_is_written(
    changes: tuple[str, ...], message: str, configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as error:
        train(configure("run", *changes))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_missing_data(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        train(configure("run", data=tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()


def test_a_folder_of_other_files_is_not_touched(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not made by semsynth"):
        train(configure("run"))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]

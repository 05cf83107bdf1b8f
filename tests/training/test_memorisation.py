"""The clock of copies: it grows with the images, is said, and can end a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.training import build
from semsynth.training.build import memorised_from, memorised_step, stopped_in_time
from semsynth.training.loop import train
from semsynth.training.recipe import load_recipe


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set how often an image is seen until it is memorised."""
    return lambda times: monkeypatch.setattr(build, "SEEN_UNTIL_MEMORISED", times)


def test_the_step_grows_with_the_images(clock: Callable[[float], None]) -> None:
    recipe = load_recipe("camvid", ("train.steps=3000", "finetune.steps=200", "bs=16"))
    clock(200.0)
    few, many = (memorised_from(recipe, images) for images in (40, 400))
    assert [memorised_step(recipe, images) for images in (40, 400)] == [500, 5000]
    assert "40 training images begin to be memorised at about step 500" in few
    assert "the recipe has 3,200 steps; fewer steps (--set train.stop_memorised=true), or" in few
    assert "at about step 5,000, when" in many and many.endswith("the recipe has 3,200 steps")
    assert memorised_from(recipe, 0) == ""
    # Nothing is known of how often the phase distill alone may see an image.
    alone = load_recipe("camvid", ("train.steps=0", "finetune.steps=0", "distill.steps=100"))
    assert memorised_from(alone, 40) == ""


def test_a_training_can_end_before_images_are_memorised(
    clock: Callable[[float], None],
) -> None:
    steps = ("train.steps=3000", "finetune.steps=200", "bs=16")
    recipe = load_recipe("camvid", (*steps, "train.stop_memorised=true"))
    clock(200.0)
    short = stopped_in_time(recipe, 40)
    assert (short.train.steps, short.finetune.steps) == (300, 200)
    assert stopped_in_time(recipe, 400) == recipe
    plain = load_recipe("camvid", steps)
    assert stopped_in_time(plain, 40) == plain
    assert "stop_memorised" not in plain.model_dump()["train"]  # keys of runs are what they were
    with pytest.raises(UserError, match=r"step 125, before the 200 steps of finetune"):
        stopped_in_time(recipe, 10)


def test_train_and_plan_say_the_step(
    configure: Callable[..., object],
    images: Path,
    recipe_file: Path,
    clock: Callable[[float], None],
    logged: Callable[[], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock(1.0)
    line = "6 training images begin to be memorised at about step 2, when each was seen 1 times"
    words = ["--recipe", str(recipe_file), "--data", str(images), "--gpus", "1", "--memory", "0.02"]
    assert main(["plan", *words]) == 0
    assert f"{line}; the recipe has 10 steps; fewer" in " ".join(capsys.readouterr().out.split())
    stopped = configure("stopped", "finetune.steps=0", "train.stop_memorised=true")
    assert train(stopped)["steps"] == 2  # type: ignore[arg-type]
    assert f"  copies    {line}; the recipe has 2 steps" in logged()

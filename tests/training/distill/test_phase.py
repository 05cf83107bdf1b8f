"""The phase in whole runs: resumed, forked, cut among processes, stopped early."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from jobs import Jobs, stop_at, until
from PIL import Image

from semsynth.core.errors import REQUEUE_STATUS, UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.prepare.run import prepare
from semsynth.models.lite2 import PACKAGE
from semsynth.pipelines.formats.model_file import load_model_file
from semsynth.training.checkpoints.store import load_state
from semsynth.training.distill import check
from semsynth.training.loop import train
from semsynth.training.metrics import read_metrics
from semsynth.training.recipe import TrainConfig, chosen_recipe
from semsynth.training.scoring import BestCheckpoint

pytestmark = pytest.mark.usefixtures("features_extra")

Configure = Callable[..., TrainConfig]
Same = Callable[[Path, Path], None]
SMALL = ("distill.discriminator_width=8", "distill.feature_upsampling=1")
RUN = (
    *("train.steps=2", "finetune.steps=2", "distill.steps=6", "distill.check_every=2"),
    *("train.validate_every=2", "train.preview_every=5", "distill.stop_patience=9", *SMALL),
)
ONLY = ("train.steps=0", "finetune.steps=0", "distill.steps=3", "train.log_every=1", *SMALL)


def numbers(run: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name != "images_per_second"}
        for line in read_metrics(run)
    ]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, images: Path, recipe_file: Path) -> Path:
    """A run of three phases that nobody interrupts."""
    if find_spec(PACKAGE) is None:
        pytest.skip("needs semsynth[features]")
    output = tmp_path_factory.mktemp("straight") / "run"
    train(TrainConfig(str(recipe_file), images, output, set=RUN, device="cpu"))
    return output


def test_what_a_run_writes(straight: Path) -> None:
    lines = numbers(straight)
    assert [line["step"] for line in lines if "generator_loss" in line] == [6, 8, 10]
    assert [line["step"] for line in lines if "mse" in line] == [2, 4]
    assert [line["step"] for line in lines if "held_out_real_accuracy" in line] == [6, 8, 10]
    # The loss of a denoiser says nothing of a generator.
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4]
    last = [line for line in lines if "generator_loss" in line][-1]
    weights = {
        "generator": 1,
        "reconstruction": 1,
        "perceptual": 1,
        "diversity": 10,
        "grid": 3,
        "diffusion": 1,
    }
    total = sum(weight * last[f"{name}_loss"] for name, weight in weights.items())
    assert last["loss"] == pytest.approx(total, rel=1e-3)
    assert all(0 <= last[name] <= 1 for name in ("real_accuracy", "generated_accuracy"))
    model = load_model_file(straight)
    assert model.diffusion.evaluations == 1 and model.metadata["recipe"]["distill"]["steps"] == 6
    before = load_state(straight / "step_0000008")["adversary"]
    assert before["good_step"] in (6, 8) and not before["stopped"]
    assert (straight / "previews/step_0000010.png").is_file()


@pytest.mark.parametrize("step", [4, 6, 8], ids=lambda s: f"after_{s}")
def test_stopped_and_resumed_is_uninterrupted(
    step: int, configure: Configure, straight: Path, tmp_path: Path, assert_same_weights: Same
) -> None:
    config = configure("run", *RUN)
    stop_at(config, step)
    train(config)
    assert_same_weights(tmp_path / "run", straight)
    assert numbers(tmp_path / "run") == numbers(straight)


def test_a_model_of_a_step_says_what_it_is(configure: Configure, tmp_path: Path) -> None:
    found: dict[int, int] = {}
    changes = ("train.steps=2", "finetune.steps=0", "distill.steps=2", "distill.evaluations=2")
    train(
        configure("run", *changes, *SMALL),
        lambda step, pipe: found.update({step: pipe.synthesizer.schedule.config.evaluations}),
    )
    assert found == {2: 0, 4: 2}
    assert load_model_file(tmp_path / "run").diffusion.evaluations == 2


def test_it_begins_with_the_averaged_weights_of_another_model(
    configure: Configure, straight: Path, tmp_path: Path, logged: Callable[[], str]
) -> None:
    slow = ("distill.learning_rate=1e-12", "distill.ema_decay=0")
    train(configure("run", *ONLY, *slow, from_checkpoint=straight))
    ours, theirs = load_model_file(tmp_path / "run"), load_model_file(straight)
    assert all(
        torch.allclose(ours.weights[name], value, atol=1e-6)
        for name, value in theirs.weights.items()
    )
    assert ours.metadata["from"]["dataset"] == "streets"
    text = logged()
    assert "from scratch" not in text and "undo" not in text


@pytest.mark.parametrize("start", ["from_checkpoint", "fork"])
def test_other_phases_undo_a_distilled_model_and_the_run_says_so(
    configure: Configure, straight: Path, logged: Callable[[], str], start: str
) -> None:
    one = ("train.steps=1", "finetune.steps=0", "distill.steps=0")
    train(configure("run", *one, **{start: straight}))
    text = logged()
    assert "is a distilled model, which the phases train and finetune (steps: 1) undo" in text
    assert "--set train.steps=0 finetune.steps=0" in text


def test_a_fork_starts_another_adversary(
    configure: Configure, straight: Path, tmp_path: Path, logged: Callable[[], str]
) -> None:
    train(configure("fork", *ONLY, fork=straight))
    assert load_model_file(tmp_path / "fork").metadata["step"] == 3
    assert "from scratch" not in logged()


def test_from_scratch_it_says_so(configure: Configure, logged: Callable[[], str]) -> None:
    train(configure("run", *ONLY))
    assert "adversarial training from scratch" in logged()


def test_accumulation_changes_rounding_alone(configure: Configure, tmp_path: Path) -> None:
    for name, parts in (("one", 1), ("two", 2)):
        train(configure(name, *ONLY, f"train.accumulation={parts}"))
    for mine, theirs in zip(numbers(tmp_path / "two"), numbers(tmp_path / "one"), strict=True):
        for name, value in theirs.items():
            # Accuracies count pixels: one may be on the edge.
            least = 3e-3 if name.endswith("accuracy") else 1e-5
            assert mine[name] == pytest.approx(value, rel=1e-3, abs=least), name


def test_two_processes_are_one_and_stop_and_resume(
    jobs: Jobs, words: Any, tmp_path: Path, assert_same_weights: Same
) -> None:
    changes = ("train.steps=0", "finetune.steps=0", "distill.steps=12", *SMALL)
    changes = (*changes, "distill.check_every=3", "train.checkpoint_every=3", "train.log_every=1")
    changes = (*changes, "distill.noised_pairs=true", "distill.color_weight=4")
    for world in (1, 2):
        job = jobs.start(world, *words(f"on{world}", *changes))
        assert job.wait() == [0] * world, job.outputs()
    one = numbers(tmp_path / "on1")
    assert len(one) == 12 + 4
    for mine, theirs in zip(numbers(tmp_path / "on2")[:6], one, strict=False):
        assert mine == pytest.approx(theirs, rel=2e-3, abs=2e-4)
    job = jobs.start(2, *words("stopped", *changes))
    until(lambda: (tmp_path / "stopped/latest").exists())
    job.signal(signal.SIGTERM)
    assert job.wait() in ([REQUEUE_STATUS] * 2, [0, 0]), job.outputs()
    assert jobs.start(2, *words("stopped", *changes)).wait() == [0, 0]
    assert_same_weights(tmp_path / "stopped", tmp_path / "on2")
    assert numbers(tmp_path / "stopped") == numbers(tmp_path / "on2")


@pytest.fixture
def knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out images are taken for real less and less, from the fourth check on too little."""

    def taken(state: Any, context: Any, data: Any) -> tuple[float, float, float]:
        checks = (state.step - context.recipe.diffusion_steps) // 2
        return 0.9, 0.9 - 0.1 * checks, 0.5

    monkeypatch.setattr(check, "taken_for_real", taken)


STOPS = ("train.steps=2", "finetune.steps=0", "distill.steps=40", "distill.check_every=2", *SMALL)


@pytest.mark.usefixtures("knows_them")
def test_it_stops_when_the_discriminator_knows_its_images(
    configure: Configure, tmp_path: Path, logged: Callable[[], str], assert_same_weights: Same,
) -> None:  # fmt: skip
    config = configure("run", *STOPS, "train.keep_checkpoints=20")
    result = train(config)
    assert result["steps"] == 14  # 4, 6, 8 are good, 10, 12, 14 are not
    assert "the phase stops, the model is the average of step 8" in logged()
    model = load_model_file(tmp_path / "run")
    good = load_state(tmp_path / "run/step_0000008")["ema"]
    assert model.metadata["step"] == 8 and model.diffusion.evaluations == 1
    assert all(torch.equal(model.weights[name], value) for name, value in good.items())
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "finished"
    written = (tmp_path / "run/final_model.pth").stat().st_mtime_ns
    assert train(config)["steps"] == 14  # nothing more is done
    assert (tmp_path / "run/final_model.pth").stat().st_mtime_ns == written
    # Killed between the last checkpoint and the model, and within the bad checks.
    for name, step in (("end", 14), ("middle", 12)):
        again = configure(name, *STOPS)
        stop_at(again, step)
        train(again)
        assert_same_weights(tmp_path / name, tmp_path / "run")


def test_without_held_out_images_it_goes_on(
    configure: Configure, tmp_path: Path, logged: Callable[[], str]
) -> None:
    data = tmp_path / "data"
    size = {"height": 16, "width": 16, "workers": 1}
    prepare(PrepareConfig(source="streets", output=data, train_count=3, val_count=0, **size))
    train(configure("run", *ONLY, "distill.check_every=1", data=data))
    assert "does not stop early" in logged()
    assert not any("held_out_real_accuracy" in line for line in numbers(tmp_path / "run"))


@pytest.fixture
def padded(tmp_path: Path) -> Path:
    """Images of one class, partly unlabelled, with instances, padded to a square."""
    raw = tmp_path / "raw"
    for folder in ("images", "masks", "instances"):
        (raw / folder).mkdir(parents=True)
    for i in range(6):
        rng = np.random.default_rng(i)
        mask = np.full((12, 20), 255, np.uint8)
        mask[:, : 10 + i] = 0
        Image.fromarray(rng.integers(0, 255, (12, 20, 3), np.uint8)).save(raw / f"images/a{i}.png")
        Image.fromarray(mask).save(raw / f"masks/a{i}.png")
        objects = (np.arange(20)[None] // 4 + 1).repeat(12, 0).astype(np.uint16)
        Image.fromarray(objects).save(raw / f"instances/a{i}.png")
    (raw / "labels.yaml").write_text("ignore: 255\nlabels: {0: cell}\n")
    output = tmp_path / "padded"
    size = {"height": 16, "width": 16, "workers": 1}
    prepare(PrepareConfig(path=raw, output=output, val_share=0.3, resize="pad", **size))
    return output


def test_one_class_padding_instances_and_partial_masks(
    configure: Configure, padded: Path, tmp_path: Path
) -> None:
    changes = ("model.instance_edges=true", "distill.region_dropout=0.5", "distill.check_every=1")
    changes = (*changes, "distill.diff_augment=[color, translation, cutout]")
    train(configure("run", *ONLY, *changes, data=padded))
    lines = numbers(tmp_path / "run")
    assert len(lines) == 6 and all(np.isfinite(list(line.values())).all() for line in lines)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (("loss.prediction=v_prediction",), "set loss.prediction to sample"),
        (("model.codec=vae", "model.vae=some/where"), "set model.codec to haar or pixel"),
        (("train.sharding=full",), "set train.sharding to none"),
        (("distill.evaluations=3",), "must be 1, 2 or 4"),
    ],
)
def test_what_cannot_be_distilled(
    changes: tuple[str, ...], line: str, configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=line) as found:
        train(configure("run", "distill.steps=2", *changes))
    assert "\n" not in str(found.value) and not (tmp_path / "run").exists()


class _Blocker:
    """A finder that refuses a package, as environments that forbid one do."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == PACKAGE:
            raise ModuleNotFoundError(name)


@pytest.mark.parametrize("is_blocked", [False, True])
def test_features_that_are_not_installed(
    is_blocked: bool, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_blocked:
        monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
        monkeypatch.setattr(sys, "meta_path", [_Blocker, *sys.meta_path])
    else:
        monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(UserError, match=r"pip install 'semsynth\[features\]'") as found:
        train(configure("run", *ONLY))
    assert "\n" not in str(found.value) and not (tmp_path / "run").exists()


def test_other_images_than_rgb(configure: Configure, tmp_path: Path) -> None:
    data, raw = tmp_path / "deep", tmp_path / "raw"
    for folder in ("images", "masks"):
        (raw / folder).mkdir(parents=True)
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 4096, (16, 16, 5)).astype(np.uint16)
        name = raw / f"images/a{i}.tif"
        tifffile.imwrite(name, pixels, photometric="minisblack", planarconfig="contig")
        Image.fromarray(np.full((16, 16), i % 2, np.uint8)).save(raw / f"masks/a{i}.png")
    (raw / "labels.yaml").write_text("labels: {0: a, 1: b}\n")
    size = {"height": 16, "width": 16, "workers": 1}
    prepare(PrepareConfig(path=raw, output=data, val_share=0.3, **size))
    with pytest.raises(UserError, match="sees RGB of 8 bits alone") as found:
        train(configure("run", *ONLY, data=data))
    assert "\n" not in str(found.value) and not (tmp_path / "run").exists()


def test_regions_are_dropped_in_both_last_phases(configure: Configure) -> None:
    recipe = chosen_recipe(configure("a", "distill.steps=2", mask_dropout="region"))
    assert recipe.finetune.region_dropout == recipe.distill.region_dropout == 0.5


def test_scores_of_the_phase_are_compared_among_themselves() -> None:
    best = BestCheckpoint.__new__(BestCheckpoint)
    best._found = {"miou": 0.9}
    assert not best._is_better({"miou": 0.5})
    assert best._is_better({"miou": 0.5, "evaluations": 1})  # the first of the phase
    best._found = {"miou": 0.5, "evaluations": 1}
    assert not best._is_better({"miou": 0.4, "evaluations": 1})

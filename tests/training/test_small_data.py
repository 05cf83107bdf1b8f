"""Small data sets: crops of large images, the augmentation condition, the validation record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.loader import Batch
from semsynth.data.prepare.run import prepare
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.schedule import Schedule
from semsynth.models.official.names import from_official, to_official
from semsynth.models.sdm.condition import one_hot
from semsynth.pipelines.formats.model_file import (
    build_network,
    load_model_file,
    load_network,
    meta_network,
)
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.training import loop
from semsynth.training import step as step_module
from semsynth.training.loop import read_metrics, train
from semsynth.training.recipe import TrainConfig, load_recipe
from semsynth.training.step import TrainContext
from semsynth.training.validation import validation_loss, validation_record

Configure = Callable[..., TrainConfig]
AUGMENTED = (
    "model.augment_condition=true",
    "train.color=0.2",
    "train.crop=0.7",
    "model.dropout=0.0",
)
SHORT = ("train.steps=3", "finetune.steps=0")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streets of 32x48, larger than what the tiny recipe trains on."""
    output = tmp_path_factory.mktemp("wide") / "prepared"
    prepare(
        PrepareConfig(
            source="streets", output=output, height=32, width=48, train_count=4, val_count=2,
            workers=1,
        )
    )  # fmt: skip
    return output


CROPS = ("height=32", "width=48", "train.crop_size=[16, 24]", "train.scale=[0.5, 1.25]")


def test_steps_see_crops_and_the_model_generates_whole_images(
    configure: Configure, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    step = loop.train_step

    def seen(state: Any, context: Any, batch: Batch) -> Any:
        assert batch.noise is not None
        shapes.append((tuple(batch.channels.shape[1:]), tuple(batch.noise.shape[1:])))
        return step(state, context, batch)

    monkeypatch.setattr(loop, "train_step", seen)
    often = ("train.validate_every=3", "train.preview_every=3")
    train(configure("run", *SHORT, *CROPS, *often, data=wide))
    assert shapes == [((16, 24), (12, 8, 12))] * 3
    bundle = load_model_file(tmp_path / "run")
    assert (bundle.height, bundle.width) == (32, 48)
    pipe = SemanticDiffusionPipeline.from_checkpoint(tmp_path / "run", "cpu")
    data = PreparedDataset.open(wide)
    mask = data.read_mask("val", data.stems("val")[0])
    assert pipe(mask, num_inference_steps=2, output_type="np").images.shape == (1, 32, 48, 3)
    assert [line["step"] for line in read_metrics(tmp_path / "run") if "best_step" in line] == [3]


def test_validation_takes_the_centers(configure: Configure, wide: Path, tmp_path: Path) -> None:
    """The loss is that of a data set that has nothing but the middles."""
    config = configure("run", *CROPS, data=wide)
    recipe = load_recipe(config.recipe, config.set)
    data = PreparedDataset.open(wide)

    class Middles:
        labels, info, height, width = data.labels, data.info, 16, 24
        stems = staticmethod(data.stems)

        @staticmethod
        def read_image(split: str, stem: str) -> Any:
            return data.read_image(split, stem)[8:24, 12:36]

        @staticmethod
        def read_mask(split: str, stem: str) -> Any:
            return data.read_mask(split, stem)[8:24, 12:36]

    unet, codec = build_network(recipe.model, recipe.diffusion_config, data.labels.num_channels)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1)
    unet.eval()
    small = recipe.model_copy(
        update={
            "height": 16,
            "width": 24,
            "train": recipe.train.model_copy(update={"crop_size": None}),
        }
    )
    loss = DiffusionLoss(Schedule(recipe.diffusion_config))
    no_accelerator: Any = None
    found = validation_loss(unet, TrainContext(recipe, no_accelerator, codec, loss), data)
    middles: Any = Middles
    context = TrainContext(small, no_accelerator, codec, loss)
    assert found == validation_loss(unet, context, middles)


def test_steps_pass_the_augmentation_condition_where_the_model_has_one(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions: list[Any] = []
    predict = step_module.predict

    def seen(state: Any, inputs: Any, part: Any, x: Any, t: Any) -> Any:
        conditions.append(None if inputs.augmentation is None else inputs.augmentation[part])
        return predict(state, inputs, part, x, t)

    monkeypatch.setattr(step_module, "predict", seen)
    train(configure("run", *SHORT, *AUGMENTED))
    assert [c.shape for c in conditions] == [(4, 7)] * 3
    assert all(bool(c.any()) for c in conditions)
    weights = load_model_file(tmp_path / "run").weights["augment_in.weight"]
    assert weights.shape[1] == 7 and bool(weights.any())
    conditions.clear()
    train(configure("plain", *SHORT))
    assert conditions == [None] * 3


@torch.no_grad()
def test_without_augmentation_the_condition_is_zeros(configure: Configure) -> None:
    config = configure("run", *AUGMENTED)
    recipe = load_recipe(config.recipe, config.set)
    unet, _ = build_network(recipe.model, recipe.diffusion_config, 5)
    torch.manual_seed(0)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(2, 12, 8, 8), torch.tensor([3, 500])
    label_map = one_hot(unet, torch.randint(5, (2, 16, 16)))
    plain = unet(x, t, label_map).sample
    assert torch.equal(unet(x, t, label_map, augment_params_BA=torch.zeros(2, 7)).sample, plain)
    mirrored = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0], [0] * 7])
    conditioned = unet(x, t, label_map, augment_params_BA=mirrored).sample
    assert not torch.allclose(conditioned[0], plain[0], atol=1e-3)
    torch.testing.assert_close(conditioned[1], plain[1], rtol=1e-5, atol=1e-6)


def test_a_killed_run_resumes_with_the_same_validation_record(
    configure: Configure, tmp_path: Path, assert_same_weights: Callable[[Path, Path], None]
) -> None:
    changes = (*AUGMENTED, "train.augment=0.5", "train.validate_every=1")

    class Stopped(Exception):
        pass

    def stop(step: int, _: Any) -> None:
        if step == 4:
            raise Stopped

    train(configure("straight", *changes))
    with pytest.raises(Stopped):
        train(configure("killed", *changes), stop)
    train(configure("killed", *changes))
    assert_same_weights(tmp_path / "straight", tmp_path / "killed")
    logs = [
        [line for line in read_metrics(tmp_path / run) if "best_step" in line]
        for run in ("straight", "killed")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 10
    for i, line in enumerate(logs[0]):
        losses = [earlier["validation_loss"] for earlier in logs[0][: i + 1]]
        assert line["best_validation_loss"] == min(losses)
        assert line["best_step"] == 1 + int(np.argmin(losses))


def test_a_rising_validation_loss_is_a_warning(logged: Callable[[], str]) -> None:
    lines: list[dict[str, Any]] = []
    warned = []
    for step, loss in enumerate([5, 3, 4, 3.5, 4, 4, 4, 4, 2, 3, 3, 3, 3, 3], 1):
        lines.append({"step": step, **validation_record(lines, step, loss)})
        if "the network overfits" in logged():
            warned.append(step)
    assert warned == [7, 14]
    assert [line["best_step"] for line in lines] == [1] + [2] * 7 + [9] * 6
    assert lines[-1] == {
        "step": 14, "validation_loss": 3, "best_validation_loss": 2, "best_step": 9,
    }  # fmt: skip


def test_from_small_images_to_crops_of_large_ones(
    configure: Configure, wide: Path, tmp_path: Path,
    assert_same_weights: Callable[[Path, Path], None],
) -> None:  # fmt: skip
    train(configure("small", *SHORT))
    start = tmp_path / "small"
    none = ("train.steps=0", "finetune.steps=0")
    train(configure("large", *none, *CROPS, data=wide, from_checkpoint=start))
    assert_same_weights(start, tmp_path / "large")
    bundle = load_model_file(tmp_path / "large")
    assert (bundle.height, bundle.width) == (32, 48)
    assert (bundle.metadata["from"]["height"], bundle.metadata["from"]["width"]) == (16, 16)


def test_official_files_have_no_augmentation_condition(
    configure: Configure, tmp_path: Path
) -> None:
    """In sampling the condition is zeros."""
    paper = (
        "model.codec=pixel", "model.labels=nearest", "model.spade_hidden=128",
        "model.base_channels=32", "model.head_channels=32", "loss.prediction=epsilon",
        "loss.learn_sigma=true", "diffusion.schedule=linear",
    )  # fmt: skip
    train(configure("run", *SHORT, *AUGMENTED, *paper))
    bundle = load_model_file(tmp_path / "run")
    assert "augment_in.weight" in bundle.weights
    state = to_official(meta_network(bundle), bundle.weights)
    plain = replace(bundle, model=bundle.model.model_copy(update={"augment_condition": False}))
    back = from_official(meta_network(plain), state)
    assert back.keys() == bundle.weights.keys() - {"augment_in.weight"}
    x, t, network = torch.randn(1, 3, 16, 16), torch.tensor([300]), load_network(bundle)
    label_map = one_hot(network, torch.ones(1, 16, 16))
    with torch.no_grad():
        expected = network(x, t, label_map).sample
        found = load_network(replace(plain, weights=back))(x, t, label_map).sample
    assert torch.equal(found, expected)

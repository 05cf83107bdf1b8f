"""The validation loss, of content alone and in little memory; previews."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from semsynth.core.rng import derive_seed
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.loader import Batch
from semsynth.data.prepare.run import prepare
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter
from semsynth.diffusion.config import SamplerSettings
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.schedule import Schedule
from semsynth.models.codecs.codec import HaarCodec
from semsynth.models.flops import network_flops
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.model_file import build_network
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.training import validation
from semsynth.training.inputs.latent_cache import LatentSet, cache_latents
from semsynth.training.loop import train
from semsynth.training.metrics import meta_unet, read_metrics
from semsynth.training.recipe import Recipe, TrainConfig, latent_size, load_recipe
from semsynth.training.step import TrainContext
from semsynth.training.validation import (
    PREVIEW_STEPS,
    preview,
    validation_batch_size,
    validation_loss,
)

Configure = Callable[..., TrainConfig]


def network(recipe: Recipe, data: PreparedDataset) -> tuple[SemanticUNet, TrainContext]:
    torch.manual_seed(0)
    labels = data.labels.num_channels
    unet, codec = build_network(recipe.model, recipe.diffusion_config, labels)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1)
    loss = DiffusionLoss(Schedule(recipe.diffusion_config), recipe.loss)
    no_accelerator: Any = None
    return unet.eval(), TrainContext(recipe, no_accelerator, codec, loss)


def test_images_are_encoded_where_the_network_is(recipe_file: Path, images: Path) -> None:
    """An autoencoder goes where its images are: on a CPU it would take an hour."""
    seen = []

    class Reached(Exception):
        pass

    class Codec(HaarCodec):
        def encode(self, image_B3HW: torch.Tensor) -> torch.Tensor:
            seen.append(image_B3HW.device)
            raise Reached

    recipe, data = load_recipe(str(recipe_file)), PreparedDataset.open(images)
    unet, context = network(recipe, data)
    with pytest.raises(Reached):
        validation_loss(unet.to("meta"), replace(context, codec=Codec(1)), data)
    assert [device.type for device in seen] == ["meta"]


def test_latents_on_the_disk_give_the_same_loss(
    recipe_file: Path, images: Path, tmp_path: Path
) -> None:
    recipe, data = load_recipe(str(recipe_file)), PreparedDataset.open(images)
    unet, context = network(recipe, data)
    latents = LatentSet(data, context.codec, dtype="float32")
    cache = cache_latents(latents, "val", folder=tmp_path / "c")
    found = validation_loss(unet, context, data, cache.read)
    assert found == pytest.approx(validation_loss(unet, context, data), rel=1e-6)


def padded(folder: Path, outside: int, rest: int = 0) -> PreparedDataset:
    """Four images whose content are the middle ten of 16 rows; ``outside`` is the padding."""
    labels = LabelSet.from_names({0: "void", 1: "road", 2: "sky"}, ignore_id=0)
    writer = PreparedWriter(folder, PreparedFormat(labels, 16, 16, resize="pad"), "prepared", {})
    rng = np.random.default_rng(0)
    mask = np.zeros((16, 16), np.uint8)
    mask[3 : 13 - rest] = 1
    for i in range(4):
        image = np.full((16, 16, 3), outside, np.uint8)
        image[3 : 13 - rest] = rng.integers(0, 256, (10 - rest, 16, 3))
        for split in ("train", "val"):
            writer.write_pair(split, f"p{i}", image, mask, (10, 16), (3, 0, 10 - rest, 16))
    return writer.finish("padded", "here", "none")


@pytest.mark.parametrize("crop", [(), ("train.crop_size=[12, 8]",)], ids=["whole", "middle"])
def test_padding_is_not_validated(
    crop: tuple[str, ...], recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []

    call = DiffusionLoss.__call__

    def loss(this: DiffusionLoss, *arguments: Any) -> Any:
        weights.append(arguments[4])
        return call(this, *arguments)

    monkeypatch.setattr(DiffusionLoss, "__call__", loss)
    recipe = load_recipe(str(recipe_file), crop)
    black, white = (padded(tmp_path / str(n), n) for n in (0, 255))
    unet, context = network(recipe, black)
    # A fresh network predicts zeros: its errors are the images themselves.
    torch.nn.init.zeros_(unet.conv_out.weight)
    found = [validation_loss(unet, context, data) for data in (black, white)]
    assert found[0] == found[1] > 0
    # Rows 3..12 are content, from row 2 on in the middle; a latent pixel covers two rows.
    expected = torch.tensor([0, 0, 1, 1, 1, 1, 0, 0] if not crop else [0, 1, 1, 1, 1, 0]).float()
    assert all(torch.equal(w, expected[None, None, :, None].expand_as(w)) for w in weights)


def test_batches_are_no_larger_than_in_training(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    compute = validation.batch_loss

    def counted(unet: Any, context: Any, batch: Batch, t: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch.channels))
        return compute(unet, context, batch, t)

    monkeypatch.setattr(validation, "batch_loss", counted)
    short = ("train.steps=1", "finetune.steps=0", "train.validate_every=1")
    losses = []
    for name, more in (("two", ()), ("one", ("train.accumulation=4",))):
        train(configure(name, *short, *more))
        losses += [
            line["validation_loss"]
            for line in read_metrics(configure(name).output)
            if "validation_loss" in line
        ]
    assert sizes == [2, 1, 1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_loss_does_not_depend_on_the_batch_size(recipe_file: Path, tmp_path: Path) -> None:
    recipe, data = load_recipe(str(recipe_file)), padded(tmp_path / "data", 0)
    unet, context = network(recipe, data)
    found = [validation_loss(unet, context, data, None, size) for size in (1, 2, 3, 4)]
    assert found == pytest.approx([found[-1]] * 4, rel=1e-5)
    assert [validation_batch_size(recipe, world) for world in (1, 2, 4)] == [4, 2, 1]
    large = recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_size": 64})})
    assert validation_batch_size(large, 2) == 4


def test_previews_are_generated_one_mask_at_a_time(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(configure("run", "train.steps=2", "finetune.steps=0"))
    synthesizer = Synthesizer.load(tmp_path / "run", "cpu")
    data = PreparedDataset.open(configure("run").data)
    stems = data.stems("val")
    masks = np.stack([data.read_mask("val", stem) for stem in stems])
    settings = SamplerSettings(steps=PREVIEW_STEPS, guidance_scale=synthesizer.default_guidance)
    at_once = synthesizer.generate(masks, [derive_seed(0, "preview", s) for s in stems], settings)
    counts = []
    generate = type(synthesizer).generate

    def counted(self: Any, masks: Any, *rest: Any) -> Any:
        counts.append(len(masks))
        return generate(self, masks, *rest)

    monkeypatch.setattr(type(synthesizer), "generate", counted)
    path = preview(synthesizer, data, tmp_path / "run", 2)
    assert counts == [1, 1]
    enlarged = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    times = enlarged.shape[0] // 48
    shown = enlarged[::times, ::times][32:]
    difference = np.abs(shown.astype(int) - np.concatenate(list(at_once), axis=1))
    assert difference.max() <= 1


def test_crops_of_images_of_any_size(configure: Configure, tmp_path: Path) -> None:
    """Only the crops go through the network; sampling pads the whole image and crops the result."""
    prepare(
        PrepareConfig(
            source="streets", output=tmp_path / "odd", height=30, width=45, train_count=4,
            val_count=2, workers=1,
        )
    )  # fmt: skip
    crops = ("height=30", "width=45", "train.crop_size=[16, 24]")
    often = ("train.steps=2", "finetune.steps=0", "train.validate_every=2", "train.preview_every=2")
    config = configure("run", *crops, *often, data=tmp_path / "odd")
    train(config)
    lines = read_metrics(config.output)
    assert [line["step"] for line in lines if "validation_loss" in line] == [2]
    assert (config.output / "previews/step_0000002.png").exists()
    synthesizer = Synthesizer.load(config.output, "cpu")
    data = PreparedDataset.open(config.data)
    mask = data.read_mask("val", data.stems("val")[0])
    assert synthesizer.generate(mask[None], [0], SamplerSettings(steps=2)).shape == (1, 30, 45, 3)
    recipe = load_recipe(config.recipe, config.set)
    assert latent_size(recipe) == (8, 12)
    assert latent_size(recipe, sampling=True) == (16, 24)
    sizes = (latent_size(recipe), latent_size(recipe, sampling=True))
    flops = network_flops(meta_unet(recipe, 12), *sizes)
    assert flops.guided > flops.single

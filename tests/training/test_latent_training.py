"""Runs behind an autoencoder, from latents that were computed once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.loader import Batch
from semsynth.models.codecs.vae import VaeCodec, load_vae
from semsynth.pipelines.formats.model_file import load_model_file
from semsynth.training import loop
from semsynth.training.inputs.latent_cache import LatentSet
from semsynth.training.loop import read_metrics, train
from semsynth.training.recipe import TrainConfig, load_recipe

Configure = Callable[..., TrainConfig]
SHORT = ("train.steps=4", "finetune.steps=0")


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    """A small AutoencoderKL as Diffusers saves it: 4 channels, half the side."""
    torch.manual_seed(0)
    network = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4,
        scaling_factor=0.5,
    )  # fmt: skip
    network.save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


@pytest.fixture
def own_data(images: Path, tmp_path: Path) -> Path:
    """A copy: the cache lies beside the data."""
    shutil.copytree(images, tmp_path / "prepared")
    return tmp_path / "prepared"


def behind(vae: Path, cache: bool = True) -> tuple[str, ...]:
    model = f"{{source: {vae}, channels: 4, downscale: 2}}"
    kept = f"train.cache_latents={str(cache).lower()}"
    return ("model.codec=vae", f"model.vae={model}", kept)


def run_batches(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    found: list[Batch] = []
    take = loop.train_step

    def seen(state: Any, context: Any, batch: Batch) -> Any:
        found.append(batch)
        return take(state, context, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", seen)
        train(config)
    return found


def test_steps_get_the_latents_of_their_images(
    configure: Configure, vae: Path, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = run_batches(configure("kept", *SHORT, *behind(vae), data=own_data), monkeypatch)
    made = run_batches(configure("made", *SHORT, *behind(vae, False), data=own_data), monkeypatch)
    codec, mirrored = load_vae(str(vae)), 0.0
    for a, b in zip(kept, made, strict=True):
        assert a.latents is not None and b.latents is None
        assert a.images.shape == (4, 0, 16, 16)
        assert torch.equal(a.channels, b.channels)
        expected = codec.encode(b.images.float() / 127.5 - 1)
        torch.testing.assert_close(a.latents, expected, rtol=2e-3, atol=2e-3)
        assert a.augment_params is not None
        mirrored += float(a.augment_params[:, 0].sum())
    assert 0 < mirrored < 16


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the autoencoder has encoded."""
    counts: list[int] = []
    encode = VaeCodec.encode

    def counted(self: VaeCodec, image: torch.Tensor) -> torch.Tensor:
        counts.append(len(image))
        return encode(self, image)

    monkeypatch.setattr(VaeCodec, "encode", counted)
    return counts


def test_latents_are_computed_once(
    configure: Configure, vae: Path, own_data: Path, encoded: list[int],
    assert_same_weights: Callable[[Path, Path], None], tmp_path: Path,
) -> None:  # fmt: skip
    train(configure("one", *SHORT, *behind(vae), data=own_data))
    assert sum(encoded) == 2 * len(PreparedDataset.open(own_data).stems("train"))
    train(configure("two", *SHORT, *behind(vae), data=own_data))
    assert sum(encoded) == 2 * len(PreparedDataset.open(own_data).stems("train"))
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_validation_has_its_latents_too(
    configure: Configure, vae: Path, own_data: Path, encoded: list[int]
) -> None:
    often = (*SHORT, "train.validate_every=1")
    kept, made = configure("kept", *often, *behind(vae), data=own_data), configure(
        "made", *often, *behind(vae, False), data=own_data
    )  # fmt: skip
    train(kept)
    assert sum(encoded) == 2 * (6 + 2)
    train(made)
    losses = [
        [line["validation_loss"] for line in read_metrics(c.output) if "validation_loss" in line]
        for c in (kept, made)
    ]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # float16 on the disk


def test_a_run_knows_its_autoencoder(
    configure: Configure, vae: Path, own_data: Path, tmp_path: Path
) -> None:
    train(configure("run", *SHORT, *behind(vae), data=own_data))
    model = load_model_file(tmp_path / "run").model
    assert model.vae is not None
    assert model.vae.sha256 == load_vae(str(vae)).sha256
    other = AutoencoderKL.from_pretrained(vae)
    other.decoder.conv_out.bias.data += 1
    shutil.rmtree(vae)
    other.save_pretrained(vae)
    load_vae.__globals__["_load"].cache_clear()
    with pytest.raises(UserError, match=r"recipe\.model\.vae\.sha256"):
        train(configure("run", *SHORT, *behind(vae), data=own_data))


def test_latents_of_another_kind_are_refused(
    configure: Configure, vae: Path, own_data: Path, tmp_path: Path
) -> None:
    config = configure("run", *SHORT, *behind(vae), data=own_data)
    folder = LatentSet(PreparedDataset.open(own_data), load_vae(str(vae))).folder
    train(config)
    marker = folder / ".semsynth.json"
    marker.write_text(marker.read_text().replace('"mirrored": true', '"mirrored": false'))
    with pytest.raises(UserError, match="mirrored=False, now True") as error:
        train(configure("again", *SHORT, *behind(vae), data=own_data))
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("train.crop=0.8",), r"train.crop is 0.8, and augmented images have no latents"),
        (("train.crop_size=[8, 8]",), r"train.crop_size is \(8, 8\)"),
        (("train.color=0.2", "model.augment_condition=true"), r"train.color is 0.2"),
    ],
)
def test_augmented_images_have_no_latents(
    changes: tuple[str, ...], message: str, recipe_file: Path, vae: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(str(recipe_file), (*behind(vae), *changes))


def test_other_codecs_need_none(recipe_file: Path) -> None:
    with pytest.raises(UserError, match="'haar' is computed faster than it is read"):
        load_recipe(str(recipe_file), ("train.cache_latents=true",))


def test_the_augmentation_condition_has_flips_alone(
    configure: Configure, vae: Path, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (*SHORT, *behind(vae), "model.augment_condition=true")
    for batch in run_batches(configure("run", *changes, data=own_data), monkeypatch):
        assert batch.augment_params is not None
        assert not batch.augment_params[:, 1:].any()
        assert set(np.unique(batch.augment_params[:, 0])) <= {0.0, 1.0}

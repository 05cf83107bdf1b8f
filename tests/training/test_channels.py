"""Images of five channels and 12 bits: prepared, trained on, generated, kept in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.exports import export_dataset
from semsynth.data.image_files.channels import PixelForm
from semsynth.data.prepare.run import prepare
from semsynth.models.codecs.codec import denormalize_images, make_codec, normalize_images
from semsynth.models.config import ModelConfig
from semsynth.pipelines.convert.export import check_official
from semsynth.pipelines.formats.model_file import load_model_file
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

SIDE = 16


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of 6 images of 5 channels, values 0 to 4095."""
    raw = tmp_path_factory.mktemp("cells") / "raw"
    for folder in ("images", "masks"):
        (raw / folder).mkdir(parents=True)
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 4096, (SIDE, SIDE, 5)).astype(np.uint16)
        pixels[0, 0, 0] = 4095
        name = raw / "images" / f"a{i}.tif"
        tifffile.imwrite(name, pixels, photometric="minisblack", planarconfig="contig")
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:, i + 4 :] = 1
        Image.fromarray(mask).save(raw / "masks" / f"a{i}.png")
    (raw / "labels.yaml").write_text("labels: {0: background, 1: cell}\n")
    output = raw.with_name("prepared")
    size = {"height": SIDE, "width": SIDE, "workers": 1}
    prepare(PrepareConfig(path=raw, output=output, val_share=0.3, **size))
    return output


@pytest.fixture(scope="module")
def run(cells: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of two steps on these, with colour augmentation, validation and a preview."""
    output = tmp_path_factory.mktemp("run") / "run"
    changes = (
        *("train.steps=2", "finetune.steps=0", "train.batch_size=2", "train.color=0.1"),
        *(
            "train.crop=0.5",
            "model.augment_condition=true",
            "train.validate_every=1",
            "train.preview_every=2",
        ),
    )
    train(
        TrainConfig(recipe=str(recipe_file), output=output, data=cells, device="cpu", set=changes)
    )
    return output


def test_a_model_is_that_of_its_images(run: Path) -> None:
    model = load_model_file(run / "final_model.pth").model
    assert (model.image_channels, model.image_bits) == (5, 12)
    assert model.latent_channels == 5 * 4
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["image_channels"] == 5
    with Image.open(run / "previews" / "step_0000002.png") as preview:
        assert preview.mode == "RGB"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
    assert any("validation_loss" in line for line in lines)


def test_samples_have_the_channels_and_bits_of_the_images(
    run: Path, cells: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = GenerateConfig(
        model=run, data=cells, output=tmp_path / "samples", split="train", steps=2, per_mask=1,
        device="cpu",
    )  # fmt: skip
    summary = generate(config)
    assert summary["finished"] and summary["n_new"] == summary["n_generated"]
    samples = PreparedDataset.open(tmp_path / "samples")
    assert samples.pixels == PixelForm(5, 12)
    stem = samples.stems("train")[0]
    path = samples.image_path("train", stem)
    assert path.suffix == ".tif"
    stored = tifffile.imread(path)
    assert stored.shape == (SIDE, SIDE, 5) and stored.dtype == np.uint16 and stored.max() <= 4095
    assert len(np.unique(stored % 16)) == 16  # all 12 bits are used
    assert (samples.read_image("train", stem) == stored).all()
    again = generate(config)
    assert again["n_new"] == 0 and again["finished"]
    made = [json.loads(line) for line in (tmp_path / "samples/manifest.jsonl").open()]
    first = next(line for line in made if line["stem"] == stem)
    assert first["codec_block"] == SemanticDiffusionPipeline.from_checkpoint(run).codec.downscale
    pipe = SemanticDiffusionPipeline.from_checkpoint(run)
    mask = samples.read_mask("train", stem)
    settings: dict[str, Any] = {"seeds": [first["seed"]], "num_inference_steps": 2}
    with pytest.raises(UserError, match=r"PIL has no images of 5 channels of 12 bits; use 'np'"):
        pipe(mask, **settings)
    found = pipe(mask, output_type="np", **settings).images
    assert found.shape == (1, SIDE, SIDE, 5)


def test_a_folder_of_diffusers_keeps_the_channels(run: Path, tmp_path: Path) -> None:
    pipe = SemanticDiffusionPipeline.from_checkpoint(run)
    pipe.save_pretrained(tmp_path / "folder")
    again = SemanticDiffusionPipeline.from_pretrained(tmp_path / "folder")
    assert again.codec.image_channels == 5 and again.codec.image_bits == 12


def test_what_is_for_rgb_alone_is_refused(
    run: Path, cells: Path, recipe_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="it takes RGB of 8 bits, not 5 channels of 12"):
        check_official(load_model_file(run / "final_model.pth"), "run")
    changes = ("model.codec=vae", "model.vae=nowhere", "train.cache_latents=false")
    config = TrainConfig(
        recipe=str(recipe_file), output=tmp_path / "vae", data=cells, device="cpu", set=changes
    )
    with pytest.raises(UserError, match=r"images have 5 channels of 12 bits; an autoencoder"):
        train(config)
    with pytest.raises(UserError, match=r"exports are of RGB of 8 bits"):
        export_dataset([cells], "hf", tmp_path / "hf", None, None)
    other = TrainConfig(
        recipe=str(recipe_file), output=tmp_path / "b", data=cells, device="cpu",
        set=("model.image_channels=4",),
    )  # fmt: skip
    with pytest.raises(
        UserError, match="images have 5 channels of 12 bits, recipe 'tiny' is for 4"
    ):
        train(other)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_value_survives_the_scale(bits: int) -> None:
    values = torch.arange(1 << bits, dtype=torch.int32)
    scaled = normalize_images(values, bits)
    assert scaled[0] == -1 and scaled[-1] == 1
    assert torch.equal(denormalize_images(scaled, bits).int(), values)


@pytest.mark.parametrize("name", ["pixel", "haar"])
@pytest.mark.parametrize("channels", [1, 2, 5, 8])
def test_codecs_of_any_channels_are_exact(name: str, channels: int) -> None:
    codec = make_codec(name, 2, channels, 16)
    values = torch.randint(0, 1 << 16, (2, channels, 8, 12))
    latent = codec.encode(normalize_images(values, 16))
    assert latent.shape[1] == codec.channels == len(codec.band_C)
    assert torch.equal(denormalize_images(codec.decode(latent), 16).long(), values)


def test_files_of_rgb_models_stay_as_they_were() -> None:
    assert not {"image_channels", "image_bits"} & ModelConfig().model_dump().keys()
    assert ModelConfig(image_channels=5).model_dump()["image_channels"] == 5
    assert make_codec("haar").key == {"codec": "haar", "levels": 2}

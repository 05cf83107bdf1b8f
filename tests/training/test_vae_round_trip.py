"""A model behind an autoencoder: trained, sampled from, exported, loaded, moved away."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, ModelMixin

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256
from semsynth.pipelines.formats.model_file import load_model_file
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

Pipe = SemanticDiffusionPipeline


def make_kl() -> ModelMixin:
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4,
        scaling_factor=0.5,
    )  # fmt: skip


def make_tiny() -> ModelMixin:
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    )  # fmt: skip


@pytest.fixture(params=[make_kl, make_tiny], ids=["kl", "tiny"])
def run(request: Any, configure: Callable[..., TrainConfig], tmp_path: Path) -> Path:
    """A run of two steps behind an autoencoder in the folder ``first``."""
    torch.manual_seed(0)
    request.param().save_pretrained(tmp_path / "first")
    model = f"{{source: {tmp_path / 'first'}, channels: 4, downscale: 2}}"
    changes = ("model.codec=vae", f"model.vae={model}", "train.steps=2", "finetune.steps=0")
    train(configure("run", *changes))
    return tmp_path / "run"


def sample(model: Path, data: Path, output: Path) -> list[np.ndarray]:
    words = ["generate", "--model", model, "--data", data, "--output", output, "--steps", "2"]
    words += ["--per-mask", "1", "--device", "cpu", "--precision", "no"]
    assert main([str(word) for word in words]) == 0
    samples = PreparedDataset.open(output)
    return [samples.read_image("val", stem) for stem in samples.stems("val")]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_train_generate_export_load(run: Path, images: Path, tmp_path: Path) -> None:
    expected = sample(run, images, tmp_path / "samples")
    folder = tmp_path / "exported"
    words = ["export", str(run), "--to", "diffusers", "--output", str(folder)]
    assert main(words) == 0
    # From here on there is no other autoencoder than the folder's own.
    shutil.rmtree(tmp_path / "first")
    index = json.loads((folder / "model_index.json").read_text())
    assert index["vae"][0] == "diffusers"
    assert str(tmp_path) not in json.dumps(index)
    config = json.loads((folder / "config.json").read_text())
    assert str(tmp_path) not in json.dumps(config)
    assert config["model"]["vae"]["source"] == "vae"
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    assert same(expected, sample(moved, images, tmp_path / "again"))
    pipe = Pipe.from_pretrained(moved)
    assert isinstance(pipe.vae, ModelMixin) and pipe.codec.vae is pipe.vae
    plain = DiffusionPipeline.from_pretrained(moved, trust_remote_code=True)
    assert isinstance(plain, Pipe) and plain.codec.vae is plain.vae
    pipe.set_progress_bar_config(disable=True)
    data = PreparedDataset.open(images)
    mask = data.read_mask("val", data.stems("val")[0])
    assert len(pipe(mask, num_inference_steps=2).images) == 1
    back = tmp_path / "back/final_model.pth"
    assert main(["export", str(moved), "--to", "pth", "--output", str(back)]) == 0
    assert (tmp_path / "back/vae/config.json").is_file()
    assert same(expected, sample(back, images, tmp_path / "last"))


def test_half_precision_keeps_the_autoencoder_in_float32(run: Path, tmp_path: Path) -> None:
    pipe = Pipe.from_checkpoint(run, "cpu")
    known = pipe.model_file.model.vae.sha256
    pipe.save_pretrained(tmp_path / "whole")
    assert checkpoint_sha256(tmp_path / "whole") == checkpoint_sha256(tmp_path / "whole")
    for number, half in enumerate(
        (
            Pipe.from_pretrained(tmp_path / "whole", torch_dtype=torch.bfloat16),
            Pipe.from_pretrained(tmp_path / "whole").to(torch.bfloat16),
        )
    ):
        assert half.unet.dtype == torch.bfloat16 and half.vae.dtype == torch.float32
        half.save_pretrained(tmp_path / f"half{number}")
        again = Pipe.from_pretrained(tmp_path / f"half{number}", torch_dtype=torch.bfloat16)
        assert again.codec.key["sha256"] == known
        mask = np.ones((16, 16), np.uint8)
        again.set_progress_bar_config(disable=True)
        image = again(mask, num_inference_steps=2, output_type="np").images
        assert np.isfinite(image).all()


def test_another_autoencoder_is_refused(run: Path, tmp_path: Path) -> None:
    pipe = Pipe.from_checkpoint(run, "cpu")
    pipe.save_pretrained(tmp_path / "folder")
    kind = type(pipe.vae)
    with torch.no_grad():
        next(pipe.vae.parameters()).add_(1)
    other = kind.from_config(pipe.vae.config)
    pipe.vae = other
    with pytest.raises(UserError, match="is not the autoencoder that the model was trained with"):
        _ = pipe.codec
    shutil.rmtree(tmp_path / "folder/vae")
    other.save_pretrained(tmp_path / "folder/vae")
    with pytest.raises(UserError, match="not the file that was written"):
        Pipe.from_pretrained(tmp_path / "folder")
    index = tmp_path / "folder/model_index.json"
    listed = json.loads(index.read_text())
    del listed["_sha256"]  # on purpose, as the message says
    index.write_text(json.dumps(listed))
    with pytest.raises(UserError, match="is not the autoencoder"):
        Pipe.from_pretrained(tmp_path / "folder")
    shutil.rmtree(tmp_path / "folder/vae")
    with pytest.raises(UserError, match="folder"):
        Pipe.from_pretrained(tmp_path / "folder")
    wider = AutoencoderKL(latent_channels=8, norm_num_groups=4, block_out_channels=(8,))
    bundle = load_model_file(run)
    with pytest.raises(UserError, match=r"8 channels and cover 1 pixels per side.*needs 4 and 2"):
        Pipe.wrap(bundle, pipe.unet, vae=wider)

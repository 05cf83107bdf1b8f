"""The error of a codec alone: none for haar, large for an untrained autoencoder."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from semsynth.cli import main
from semsynth.data.dataset import PreparedDataset
from semsynth.diffusion.config import DiffusionConfig
from semsynth.evaluation.codec_run import CodecRoundTrip, ReconstructionError, _worst_window
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.run import evaluate
from semsynth.models.codecs.codec import HaarCodec
from semsynth.models.config import ModelConfig
from semsynth.pipelines.formats.model_file import ModelFile, build_network, save_model_file


@pytest.fixture
def config(data: PreparedDataset, segmenter: Path, tmp_path: Path) -> EvaluateConfig:
    return EvaluateConfig(
        data=data.root,
        segmenter=segmenter,
        output=tmp_path / "report",
        device="cpu",
        rows=3,
        codec_only=True,
    )


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    """An autoencoder with random weights: its reconstructions are noise."""
    torch.manual_seed(0)
    network = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3, decoder_block_out_channels=(8,) * 3,
        num_encoder_blocks=(1,) * 3, num_decoder_blocks=(1,) * 3,
    )  # fmt: skip
    network.save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def test_haar_reconstructs_exactly(config: EvaluateConfig) -> None:
    report = evaluate(config)
    assert json.loads((config.output / "report.json").read_text()) == report
    consistency = report["metrics"]["semantic_consistency"]
    assert consistency["miou"] == consistency["miou_real"] > 0.8
    assert consistency["miou_cost"] == 0
    assert all(entry["iou"] == entry["iou_real"] for entry in consistency["per_class"].values())
    reconstruction = report["metrics"]["reconstruction"]
    assert reconstruction == {"mse": 0, "largest_error": 0, "n_unchanged": 6}
    assert report["missing"] == {"psnr": "infinite: all images are reconstructed exactly"}
    assert report["metrics"]["frechet"]["fd_segmenter"]["value"] == pytest.approx(0, abs=1e-6)
    assert report["codec"]["latent"] == [48, 6, 8]
    assert report["codec"]["values_per_latent_value"] == 1
    assert "reconstructed exactly" in (config.output / "report.html").read_text()


def test_classes_are_sorted_by_their_loss_of_iou(config: EvaluateConfig, vae: Path) -> None:
    report = evaluate(replace(config, vae=str(vae)))
    consistency = report["metrics"]["semantic_consistency"]
    assert consistency["miou"] < consistency["miou_real"] / 2
    costs = [entry["cost"] for entry in consistency["per_class"].values()]
    assert costs == sorted(costs, reverse=True) and costs[0] > 0.3
    reconstruction = report["metrics"]["reconstruction"]
    assert reconstruction["psnr_worst"]["value"] <= reconstruction["psnr"] < 20
    assert report["codec"]["source"] == str(vae) and len(report["codec"]["sha256"]) == 64
    assert report["checkpoint"] is None and report["n_generated"] == 0
    page = (config.output / "report.html").read_text()
    assert f"{consistency['miou']:.3f}" in page and f"{consistency['miou_real']:.3f}" in page
    assert page.count("<img") == 3 * 4
    assert "<script" not in page and "url(" not in page
    assert max(page.index(f"></span>{name}</th>") for name in consistency["per_class"]) == (
        page.index(f"></span>{list(consistency['per_class'])[-1]}</th>")
    )


@pytest.mark.parametrize("codec", ["haar", "vae"])
def test_the_codec_of_a_model(config: EvaluateConfig, vae: Path, codec: str, data) -> None:
    values = {"codec": "haar", "haar_levels": 1}
    if codec == "vae":
        values = {"codec": "vae", "vae": {"source": str(vae), "downscale": 4}}
    model = ModelConfig.model_validate(
        {**values, "base_channels": 8, "channel_mult": [1], "blocks_per_level": 1,
         "attention_factors": [], "head_channels": 8, "spade_hidden": 4}
    )  # fmt: skip
    diffusion = DiffusionConfig.model_validate({})
    unet, _ = build_network(model, diffusion, data.labels.num_channels)
    path = config.output.with_name("final_model.pth")
    save_model_file(path, ModelFile(model, diffusion, data.labels, 24, 32, unet.state_dict()))
    report = evaluate(replace(config, model=path))
    assert report["codec"]["codec"] == codec
    assert report["codec"]["downscale"] == (2 if codec == "haar" else 4)


def test_psnr_in_closed_form() -> None:
    error = ReconstructionError()
    real = np.full((8, 8, 3), 100, np.uint8)
    rebuilt = real.copy()
    rebuilt[:4] += 2
    rebuilt[7] = 0  # padding
    error.update("a", real, rebuilt, (0, 0, 7, 8))
    error.update("b", real, real, (0, 0, 8, 8))
    missing: dict[str, str] = {}
    found = error.summary(missing)
    assert missing == {} and found["n_unchanged"] == 1 and found["largest_error"] == 2
    mse = 4 * 4 / 7
    assert found["psnr"] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-4)
    assert found["mse"] == pytest.approx(mse * 7 / 15, abs=1e-6)


def test_the_window_has_the_largest_error() -> None:
    difference = np.zeros((300, 600, 3), np.uint8)
    difference[290, 500] = 9
    rows, columns = _worst_window(difference)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (256, 256)
    assert 0 <= rows.start <= 290 < rows.stop <= 300
    assert columns.start <= 500 < columns.stop
    assert _worst_window(difference[:20, :30]) == (slice(0, 20), slice(0, 30))


def test_contradictory_flags_and_missing_files(
    config: EvaluateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [f"--data={config.data}", f"--segmenter={config.segmenter}", "--device=cpu"]
    base += [f"--output={config.output}"]
    only = [*base, "--codec-only"]
    cases = {
        "--vae: needs --codec-only": [*base, "--vae=owner/name"],
        "--codec and --vae are both given": [*only, "--codec=pixel", "--vae=owner/name"],
        "nothing: no such folder": [*only, "--vae=nothing"],
        r"nothing\.pth: no such checkpoint": [*only, f"--model={tmp_path / 'nothing.pth'}"],
        "has no split 'nowhere'": [*only, "--split=nowhere"],
    }
    for message, words in cases.items():
        assert main(["evaluate", *words]) == 2, message
        error = capsys.readouterr().err.strip()
        assert re.fullmatch(rf"error: [^\n]*{message}[^\n]*", error), error
        assert not config.output.exists()
    assert main(["evaluate", *only]) == 0
    assert "psnr is missing" in capsys.readouterr().out


def test_sizes_that_are_not_multiples_are_padded_and_cropped(
    config: EvaluateConfig, tmp_path: Path
) -> None:
    network = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 5, decoder_block_out_channels=(8,) * 5,
        num_encoder_blocks=(1,) * 5, num_decoder_blocks=(1,) * 5,
    )  # fmt: skip
    network.save_pretrained(tmp_path / "coarse")
    report = evaluate(replace(config, vae=str(tmp_path / "coarse")))
    assert report["image_size"] == [24, 32]
    assert report["codec"]["encoded_size"] == [32, 32]
    assert report["codec"]["latent"] == [4, 2, 2]
    assert report["codec"]["values_per_latent_value"] == 3 * 24 * 32 / 16


@pytest.mark.parametrize("size", [(67, 121), (3, 5), (64, 64)])
def test_padding_repeats_the_border_and_is_cropped(size: tuple[int, int], data: Any) -> None:
    class RecordingCodec(HaarCodec):
        def encode(self, image_B3HW: torch.Tensor) -> torch.Tensor:
            self.encoded = image_B3HW
            return super().encode(image_B3HW)

    codec = RecordingCodec(2)
    round_trip = CodecRoundTrip(data, "val", codec, torch.device("cpu"))
    real = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert np.array_equal(round_trip.reconstruct(real), real)
    height, width = (side + -side % 4 for side in size)
    assert codec.encoded.shape == (1, 3, height, width)
    # The last row and column are repeated: there is no edge that the codec would have to encode.
    last = codec.encoded[:, :, size[0] - 1 :, size[1] - 1 :]
    assert torch.equal(last, last[..., :1, :1].expand_as(last))

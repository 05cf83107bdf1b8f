"""Weights in fewer bytes: how far rounding may go, what files say, and what damaged ones do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.core.files import sha256_file
from semsynth.core.version import is_newer
from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256
from semsynth.pipelines.formats.model_file import (
    ModelFile,
    load_model_file,
    read_diffusion,
    save_model_file,
)
from semsynth.pipelines.formats.weights import (
    MAX_ERROR,
    SMALL,
    PackedWeights,
    dequantize,
    pack_weights,
    quantize,
    unpack_weights,
)
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline


@pytest.fixture
def file(new_pipe: Callable[..., Any]) -> ModelFile:
    return new_pipe().model_file


def test_8_bits_are_within_half_a_step_of_their_channel() -> None:
    torch.manual_seed(0)
    value = torch.randn(16, 32, 3, 3) * torch.logspace(-3, 3, 16).view(-1, 1, 1, 1)
    integers, scale = quantize(value)
    assert integers.dtype == torch.int8 and scale.shape == (16,)
    error = (dequantize(integers, scale) - value).abs().flatten(1)
    inside = value.abs().flatten(1) <= 127 * scale.unsqueeze(1)  # the few others are clipped
    assert (error[inside] <= (scale.unsqueeze(1) * 0.5001).expand_as(error)[inside]).all()
    assert inside.double().mean() > 0.99
    # Each channel by its own scale: the smallest loses no more than the largest.
    relative = error.square().mean(1).sqrt() / value.flatten(1).square().mean(1).sqrt()
    assert relative.max() < 0.01


def test_what_8_bits_hold_exactly_stays_exact() -> None:
    integers = torch.randint(-127, 128, (8, 64), generator=torch.Generator().manual_seed(0))
    integers[:, 0] = 127
    value = integers * torch.tensor([2.0**k for k in range(-4, 4)]).view(-1, 1)
    value[3] = 0  # a channel of zeros
    found, scale = quantize(value)
    assert torch.equal(dequantize(found, scale), value) and scale[3] == 0


def test_each_tensor_has_the_form_that_suits_it() -> None:
    torch.manual_seed(0)
    uneven = 0.01 * torch.randn(64, 64)
    uneven[:, 0] = 1.0  # one weight of each channel dwarfs the others
    weights = {
        "conv_in.weight": torch.randn(64, 64),
        "normal": torch.randn(64, 64),
        "uneven": uneven,
        "bias": torch.randn(SMALL),
        "little": torch.randn(8, 8),
        "huge": torch.full((64, 64), 1e30),
    }
    packed, error = pack_weights(weights, "int8")
    types = {name: value.dtype for name, value in packed.tensors.items()}
    assert types["normal"] == types["huge"] == torch.int8
    assert types["bias"] == types["little"] == torch.float32
    assert types["conv_in.weight"] == types["uneven"] == torch.float16
    assert packed.scales.keys() == {"normal", "huge"} and error.kept == ("uneven",)
    assert error.worst <= MAX_ERROR and error.relative <= error.worst
    back = unpack_weights(packed, "f")
    assert {value.dtype for value in back.values()} == {torch.float32}
    assert torch.equal(back["bias"], weights["bias"])
    # Beyond float16's range: it stays as it is.
    assert pack_weights({"huge": weights["huge"]}, "fp16")[0].tensors["huge"].dtype == torch.float32
    with pytest.raises(UserError, match="normal has weights that are not finite"):
        pack_weights({"normal": torch.full((64, 64), torch.nan)}, "int8")


@pytest.mark.parametrize(("form", "bound", "share"), [("fp16", 5e-4, 0.6), ("int8", 0.015, 0.45)])
def test_a_model_is_the_same_but_for_rounding(
    form: Any, bound: float, share: float, file: ModelFile, tmp_path: Path
) -> None:
    plain, path = tmp_path / "plain.pth", tmp_path / "model.pth"
    assert save_model_file(plain, file) is None
    error = save_model_file(path, file, form)
    assert error is not None and 0 < error.relative <= bound
    found = load_model_file(path)
    assert found.metadata["rounded"]["weights"] == form
    assert found.metadata["rounded"]["relative_error"] == pytest.approx(error.relative, abs=1e-6)
    assert replace(found, weights={}, metadata={}) == replace(file, weights={}, metadata={})
    assert path.stat().st_size < (share + 0.25) * plain.stat().st_size
    for name, value in file.weights.items():
        assert found.weights[name].dtype == torch.float32
        assert (found.weights[name] - value).abs().max() <= 0.02 * value.abs().max() + 1e-9, name
    # A file in float32 is what it was before there were others.
    assert set(torch.load(plain, weights_only=True)) == {
        *("format", "model", "diffusion", "labels", "height", "width", "weights", "facts"),
    }
    assert torch.load(plain, weights_only=True)["format"] == 1


def test_rounding_again_changes_nothing_more(file: ModelFile, tmp_path: Path) -> None:
    save_model_file(tmp_path / "a.pth", file, "int8")
    once = load_model_file(tmp_path / "a.pth")
    again = save_model_file(tmp_path / "b.pth", once, "int8")
    twice = load_model_file(tmp_path / "b.pth")
    assert again is not None and again.relative < 1e-6
    assert twice.metadata["rounded"]["relative_error"] == pytest.approx(
        once.metadata["rounded"]["relative_error"], abs=1e-6
    )


def test_every_reader_takes_it(
    file: ModelFile, tmp_path: Path, new_masks: Callable[..., np.ndarray]
) -> None:
    path = tmp_path / "model.pth"
    save_model_file(path, file, "int8")
    pipe = SemanticDiffusionPipeline.from_checkpoint(path, "cpu")
    assert pipe.checkpoint_sha256 == checkpoint_sha256(path) == sha256_file(path)
    pipe.save_pretrained(tmp_path / "folder")
    folder = SemanticDiffusionPipeline.from_pretrained(tmp_path / "folder")
    theirs = folder.unet.state_dict()
    for name, value in pipe.unet.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    assert pipe(new_masks(1)[0], seeds=[0], num_inference_steps=1).images[0].size == (24, 16)
    assert folder.metadata["rounded"]["weights"] == "int8"
    assert "rounded to 8 bits" in (tmp_path / "folder" / "README.md").read_text()


def test_the_command_prints_what_rounding_changes(
    file: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str], logged: Callable[[], str]
) -> None:
    save_model_file(tmp_path / "final_model.pth", file)
    words = ["export", str(tmp_path), "--to", "pth", "--weights", "int8"]
    assert main([*words, "--output", str(tmp_path / "small.pth"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["weights"] == "int8" and 0 < result["weights_error"] < 0.015
    assert result["megabytes"] == pytest.approx((tmp_path / "small.pth").stat().st_size / 1e6)
    words[3] = "diffusers"
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    assert "--weights int8 is for --to pth" in capsys.readouterr().err


def test_files_of_newer_versions_say_so(file: ModelFile, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    save_model_file(path, file, "int8")
    value = torch.load(path, weights_only=True)
    torch.save({**value, "format": 3}, path)
    with pytest.raises(UserError, match=r"newer version of semsynth \(format 3.*pip install"):
        load_model_file(path)
    new = {**value["diffusion"], "dreams": 1}
    torch.save({**value, "diffusion": new, "facts": {"semsynth": "999.1.0"}}, path)
    for read in (load_model_file, read_diffusion):  # `generate` reads the latter alone at first
        with pytest.raises(UserError, match=r"dreams.*is of semsynth 999.1.0, this is .*upgrade"):
            read(path)
    torch.save({**value, "diffusion": new, "facts": {"semsynth": "0.0.1"}}, path)
    with pytest.raises(UserError) as raised:
        load_model_file(path)
    assert "upgrade" not in str(raised.value) and "\n" not in str(raised.value)
    assert not is_newer("0.0.9") and is_newer("999.0.0") and not is_newer("main")


@pytest.mark.parametrize("damage", ["no scales", "short", "nan", "type", "no tensor"])
def test_damaged_scales_are_one_line(damage: str, file: ModelFile, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    save_model_file(path, file, "int8")
    value = torch.load(path, weights_only=True)
    name, scale = next(iter(value["scales"].items()))
    if damage == "no tensor":
        value["weights"][name] = "weights"
    elif damage == "no scales":
        del value["scales"][name]
    else:
        value["scales"][name] = {
            "short": scale[:-1], "nan": scale * torch.nan, "type": scale.double(),
        }[damage]  # fmt: skip
    torch.save(value, path)
    with pytest.raises(UserError, match=rf"model.pth: {name} .*copy the file again"):
        load_model_file(path)


def test_unpacking_float32_copies_nothing() -> None:
    value = torch.ones(3)
    assert unpack_weights(PackedWeights({"a": value}), "f")["a"] is value

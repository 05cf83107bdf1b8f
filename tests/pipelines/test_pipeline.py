"""Intact, broken and hostile checkpoints, and the images of intact ones."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import LABELS, tiny_file

from semsynth.core.errors import UserError
from semsynth.core.files import sha256_file
from semsynth.diffusion.config import SamplerName, SamplerSettings
from semsynth.pipelines.formats.model_file import (
    ModelFile,
    load_model_file,
    save_model_file,
)
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline


def make_file(codec: str = "haar", **diffusion: Any) -> ModelFile:
    metadata = {"licence": "CC0", "recipe": {"name": "tiny"}}
    return tiny_file(metadata, model={"codec": codec}, **diffusion)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "final_model.pth"
    save_model_file(path, make_file())
    return path


def masks(count: int, height: int = 16, width: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.choice(np.array([0, 1, 2, 9], np.uint8), (count, height, width))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        SemanticDiffusionPipeline.from_checkpoint(path, "cpu")
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_saving_and_loading(checkpoint: Path) -> None:
    saved, loaded = make_file(), load_model_file(checkpoint)
    assert replace(loaded, weights={}) == replace(saved, weights={})
    assert loaded.weights.keys() == saved.weights.keys()
    assert all(torch.equal(loaded.weights[name], saved.weights[name]) for name in saved.weights)


def test_attributes_of_a_loaded_pipeline(checkpoint: Path) -> None:
    for path in (checkpoint, checkpoint.parent, str(checkpoint)):
        pipe = SemanticDiffusionPipeline.from_checkpoint(path, "cpu")
        assert (pipe.height, pipe.width, pipe.labels) == (16, 24, LABELS)
        assert (pipe.licence, pipe.metadata["recipe"]["name"]) == ("CC0", "tiny")
        assert pipe.checkpoint_sha256 == sha256_file(checkpoint)


def test_missing(tmp_path: Path) -> None:
    assert "no such checkpoint" in refused(tmp_path / "nothing.pth")
    with pytest.raises(UserError, match=r"final_model\.pth: no such checkpoint"):
        load_model_file(tmp_path)


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.1, 0.5, 0.9, 0.9999])
def test_cut_short(share: float, checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(len(content) * share)])
    refused(checkpoint)


@pytest.mark.parametrize("content", [b"a text\n", b"{}", b"\x89PNG\r\n\x1a\n" + bytes(99), b"PK"])
def test_something_else(content: bytes, checkpoint: Path) -> None:
    checkpoint.write_bytes(content)
    refused(checkpoint)


class Hostile:
    """Makes a folder where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["torch", "torch_legacy", "pickle", "smuggled"])
def test_code_in_a_checkpoint_is_never_run(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "hacked"
    value = torch.load(checkpoint, weights_only=True) | {"facts": Hostile(target)}
    if kind == "pickle":
        checkpoint.write_bytes(pickle.dumps(Hostile(target)))
    elif kind == "smuggled":
        whole = io.BytesIO(checkpoint.read_bytes())
        with zipfile.ZipFile(whole) as old, zipfile.ZipFile(checkpoint, "w") as new:
            for name in old.namelist():
                is_code = name.endswith("data.pkl")
                new.writestr(name, pickle.dumps(Hostile(target)) if is_code else old.read(name))
    else:
        torch.save(value, checkpoint, _use_new_zipfile_serialization=kind == "torch")
    assert "refused" in refused(checkpoint)
    assert not target.exists()
    # The trap works: an unsafe load makes the folder.
    if kind == "pickle":
        pickle.loads(checkpoint.read_bytes())
    else:
        torch.load(checkpoint, weights_only=False)
    assert target.is_dir()


def test_other_formats(checkpoint: Path) -> None:
    value = torch.load(checkpoint, weights_only=True)
    for other in ([1, 2], {"state_dict": {}}, value | {"format": 2}, {"format": 1, "weights": {}}):
        torch.save(other, checkpoint)
        assert "is not a final_model.pth of semsynth" in refused(checkpoint)
    torch.save(value | {"model": value["model"] | {"colour": 1}}, checkpoint)
    assert "unknown key 'colour'" in refused(checkpoint)


def test_weights_that_do_not_fit(checkpoint: Path) -> None:
    value = torch.load(checkpoint, weights_only=True)
    name = "conv_in.weight"
    weights = value["weights"]
    less = {key: tensor for key, tensor in weights.items() if key != name}
    for wrong in (weights | {name: torch.zeros(1)}, less, weights | {"more": torch.zeros(1)}, [3]):
        torch.save(value | {"weights": wrong}, checkpoint)
        assert "do not fit" in refused(checkpoint)


@pytest.fixture(scope="module")
def pipe() -> SemanticDiffusionPipeline:
    return wrap(make_file())


def wrap(file: ModelFile) -> SemanticDiffusionPipeline:
    return SemanticDiffusionPipeline.from_model_file(file)


EPSILON = {"prediction": "epsilon", "learn_sigma": True, "schedule": "linear"}


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++", "unipc"])
@pytest.mark.parametrize("kind", ["sample_haar", "epsilon_pixel"])
def test_an_image_is_its_mask_and_seed(kind: str, sampler: SamplerName) -> None:
    file = make_file() if kind == "sample_haar" else make_file("pixel", **EPSILON)
    pipe, settings = wrap(file), SamplerSettings(sampler, 4, 2.0)
    three = masks(3)
    images = pipe.generate(three, [5, 6, 5], settings)
    assert images.shape == (3, 16, 24, 3) and images.dtype == np.uint8
    assert float(images.std()) > 1
    torch.manual_seed(99)  # the global generator has no effect
    assert np.array_equal(pipe.generate(three, [5, 6, 5], settings), images)
    alone = pipe.generate(three[1:2], [6], settings)
    assert np.abs(alone[0].astype(int) - images[1]).max() <= 1
    turned = pipe.generate(three[::-1], [5, 6, 5], settings)
    assert np.abs(turned[::-1].astype(int) - images).max() <= 1
    other = pipe.generate(three[1:2], [7], settings)
    assert (other[0] != images[1]).mean() > 0.3


def test_other_sizes_than_trained_on(pipe: SemanticDiffusionPipeline) -> None:
    settings = SamplerSettings(steps=2)
    assert pipe.generate(masks(1, 32, 8), [0], settings).shape == (1, 32, 8, 3)
    for height, width in ((16, 22), (18, 24)):
        assert pipe.generate(masks(1, height, width), [0], settings).shape == (1, height, width, 3)


def test_a_side_that_cannot_be_halved_is_padded_with_unlabelled_pixels(
    pipe: SemanticDiffusionPipeline,
) -> None:
    settings = SamplerSettings(steps=2)
    odd = masks(2, 14, 21)
    whole = np.pad(odd, ((0, 0), (0, 2), (0, 3)), constant_values=0)  # 0 is ignored
    images = pipe.generate(odd, [4, 5], settings)
    assert np.array_equal(images, pipe.generate(whole, [4, 5], settings)[:, :14, :21])
    other = np.pad(odd, ((0, 0), (0, 2), (0, 3)), constant_values=1)
    assert not np.array_equal(images, pipe.generate(other, [4, 5], settings)[:, :14, :21])


def test_a_seed_for_each_mask(pipe: SemanticDiffusionPipeline) -> None:
    with pytest.raises(UserError, match="2 masks but 3 seeds"):
        pipe.generate(masks(2), [1, 2, 3])


@pytest.mark.parametrize("wrong", [5, 77])
def test_unknown_ids(wrong: int, pipe: SemanticDiffusionPipeline) -> None:
    mask = masks(2)
    mask[1, 3, 4] = wrong
    with pytest.raises(UserError, match=rf"{wrong} \(1 pixels\)"):
        pipe.generate(mask, [1, 2])


def test_guidance_of_0_ignores_the_mask(pipe: SemanticDiffusionPipeline) -> None:
    a, b = masks(2)
    free = pipe.generate(np.stack([a, b]), [3, 3], SamplerSettings(steps=3, guidance_scale=0.0))
    assert np.abs(free[0].astype(int) - free[1]).max() <= 1
    led = pipe.generate(np.stack([a, b]), [3, 3], SamplerSettings(steps=3, guidance_scale=1.0))
    assert not np.array_equal(led[0], led[1])


def test_an_unknown_device(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="--device tpu"):
        SemanticDiffusionPipeline.from_checkpoint(checkpoint, "tpu")

"""Diffusers folders: round trips bit for bit, the Hub's cache, and what is broken."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from semsynth import SemanticDiffusionPipeline
from semsynth.core.errors import UserError
from semsynth.core.files import sha256_file
from semsynth.data.labels import Label, LabelSet
from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256
from semsynth.pipelines.formats.model_file import ModelFile, load_checkpoint, load_model_file

WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture
def folder(pipe: Any, tmp_path: Path) -> Path:
    pipe.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def same(a: ModelFile, b: ModelFile) -> bool:
    assert a.weights.keys() == b.weights.keys()
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)
    return replace(a, weights={}) == replace(b, weights={})


@pytest.mark.parametrize("model", [{}, {"codec": "pixel", "edges": True}])
def test_pth_to_folder_to_pth(
    model: dict[str, Any], new_pipe: Any, new_masks: Any, tmp_path: Path
) -> None:
    pipe = new_pipe(**model)
    pipe.save_checkpoint(tmp_path / "a.pth")
    first = SemanticDiffusionPipeline.from_checkpoint(tmp_path / "a.pth", "cpu")
    first.save_pretrained(tmp_path / "b")
    second = SemanticDiffusionPipeline.from_pretrained(tmp_path / "b")
    second.save_checkpoint(tmp_path / "c.pth")
    assert same(load_model_file(tmp_path / "a.pth"), load_model_file(tmp_path / "c.pth"))
    images = [p.generate(new_masks(1), [1]) for p in (pipe, first, second)]
    assert np.array_equal(images[0], images[1]) and np.array_equal(images[0], images[2])


def test_labels_that_are_damaged_are_of_a_folder(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["labels"]["labels"][0]["id"]
    (folder / "config.json").write_text(json.dumps(config))
    for load in (load_checkpoint, SemanticDiffusionPipeline.from_pretrained):
        with pytest.raises(UserError, match=rf"^{folder}.*: labels: .* was it edited"):
            load(folder)


def test_files_of_a_folder(folder: Path) -> None:
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert found == [
        "README.md", "config.json", "labels.png", "model_index.json", "pipeline.py",
        "scheduler/scheduler_config.json", "unet/config.json", f"unet/{WEIGHTS}.safetensors",
    ]  # fmt: skip
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "SemanticDiffusionPipeline"]
    assert index["unet"] == ["semsynth", "SemanticUNet"] and index["height"] == 16
    config = json.loads((folder / "config.json").read_text())
    assert config.keys() == {"labels", "model", "diffusion", "facts"}
    assert config.keys().isdisjoint(index)
    assert config["facts"]["licence"] == "CC BY 4.0"
    betas = (folder / "scheduler" / "scheduler_config.json").read_text().splitlines()
    assert len(betas) < 60 and json.loads("\n".join(betas))["trained_betas"]


def test_plain_diffusers_reads_a_folder(folder: Path, pipe: Any, new_masks: Any) -> None:
    loaded = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    assert isinstance(loaded, SemanticDiffusionPipeline)
    assert same(loaded.model_file, pipe.model_file)
    assert np.array_equal(loaded.generate(new_masks(1), [1]), pipe.generate(new_masks(1), [1]))
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="needs labels, model, diffusion"):
        DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)


def test_our_class_runs_no_code_of_a_folder(folder: Path) -> None:
    (folder / "pipeline.py").write_text("raise SystemExit('hacked')\n")
    SemanticDiffusionPipeline.from_pretrained(folder)


def test_a_folder_of_earlier_versions_is_read(folder: Path, pipe: Any, tmp_path: Path) -> None:
    """They had everything in ``model_index.json``."""
    as_it_was(folder)
    digest = checkpoint_sha256(folder)
    loaded = SemanticDiffusionPipeline.from_pretrained(folder)
    assert same(loaded.model_file, pipe.model_file)
    loaded.save_pretrained(tmp_path / "now")
    assert checkpoint_sha256(tmp_path / "now") == digest
    loaded.register_to_config(facts={**loaded.metadata, "licence": "MIT"})
    loaded.save_pretrained(folder)
    assert SemanticDiffusionPipeline.from_pretrained(folder).licence == "MIT"


def as_it_was(folder: Path) -> None:
    index, config = (
        json.loads((folder / f"{n}.json").read_text()) for n in ("model_index", "config")
    )
    index = {**index, **config, "_class_name": "SemanticDiffusionPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))
    for name in ("config.json", "pipeline.py"):
        (folder / name).unlink()


@pytest.mark.parametrize("classes", [3, 300])
def test_a_pipeline_says_what_it_is(new_pipe: Any, classes: int) -> None:
    pipe = new_pipe()
    labels = [Label(i, f"<c{i}>", (i % 256, 7, i // 256), i) for i in range(classes)]
    pipe._labels = LabelSet(tuple(labels), None)
    lines = repr(pipe).splitlines()
    assert len(lines) < 30 and max(map(len, lines)) < 100
    assert lines[0] == "SemanticDiffusionPipeline"
    for text in ("16x24 (height x width)", "CC BY 4.0", "0 <c0>", type(pipe.scheduler).__name__):
        assert text in repr(pipe)
    assert ("more" in lines[-1]) == (classes == 300)
    html = pipe._repr_html_()
    assert (
        "<c0>" not in html and html.count("<span style='display:inline-block;width:1em") == classes
    )
    for label in labels:
        assert f"&lt;c{label.id}&gt;" in html
        assert "background:#{:02x}{:02x}{:02x}".format(*label.color) in html


def test_saving_again_gives_the_same_bytes(folder: Path, tmp_path: Path, has_modes: bool) -> None:
    """No path of this machine, no order of keys, gets into it."""
    SemanticDiffusionPipeline.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for file in folder.rglob("*"):
        if file.is_file():
            other = tmp_path / "again" / file.relative_to(folder)
            assert other.read_bytes() == file.read_bytes(), file
    assert not has_modes or os.stat(tmp_path / "again").st_mode & 0o777 == 0o755


def test_the_scheduler_is_saved(new_pipe: Any, tmp_path: Path) -> None:
    pipe = new_pipe()
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "model")
    loaded = SemanticDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert type(loaded.scheduler).__name__ == "EulerDiscreteScheduler"
    other = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    swapped = SemanticDiffusionPipeline.from_pretrained(tmp_path / "model", scheduler=other)
    assert swapped.scheduler is other


def test_half_precision_and_variants(folder: Path, new_masks: Any) -> None:
    half = SemanticDiffusionPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.unet.conv_in.weight.dtype == torch.bfloat16
    half.set_progress_bar_config(disable=True)
    assert len(half(new_masks(1), num_inference_steps=2).images) == 1
    half.save_pretrained(folder, variant="bf16")
    again = SemanticDiffusionPipeline.from_pretrained(
        folder, variant="bf16", dtype=torch.bfloat16, low_cpu_mem_usage=False
    )
    assert torch.equal(again.unet.conv_in.weight, half.unet.conv_in.weight)
    whole = SemanticDiffusionPipeline.from_pretrained(folder)
    assert whole.dtype == torch.float32


def test_shards(folder: Path, new_pipe: Any, tmp_path: Path) -> None:
    new_pipe().save_pretrained(tmp_path / "shards", max_shard_size="500KB")
    assert len(list((tmp_path / "shards" / "unet").glob("*.safetensors"))) > 1
    a, b = (SemanticDiffusionPipeline.from_pretrained(p) for p in (folder, tmp_path / "shards"))
    assert same(a.model_file, b.model_file)


def test_the_hash_is_of_what_decides_the_images(folder: Path, new_pipe: Any) -> None:
    first = checkpoint_sha256(folder)
    pipe = SemanticDiffusionPipeline.from_checkpoint(folder, "cpu")
    assert pipe.checkpoint_sha256 == first and len(first) == 64
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.register_to_config(facts={"licence": "MIT"})
    pipe.save_pretrained(folder)
    assert checkpoint_sha256(folder) == first
    with torch.no_grad():
        pipe.unet.conv_in.bias[0] += 1
    pipe.save_pretrained(folder)
    assert checkpoint_sha256(folder) != first
    pipe.save_checkpoint(folder.parent / "final_model.pth")
    assert checkpoint_sha256(folder.parent) == sha256_file(folder.parent / "final_model.pth")


def test_weights_are_not_copied(new_pipe: Any) -> None:
    file = new_pipe().model_file
    pipe = SemanticDiffusionPipeline.from_model_file(file)
    for name, parameter in pipe.unet.named_parameters():
        assert parameter.data_ptr() == file.weights[name].data_ptr()
    assert not pipe.unet.training


def test_components_make_another_pipeline(pipe: Any, new_masks: Any) -> None:
    other = SemanticDiffusionPipeline(**pipe.components, **pipe.parameters)
    assert other.unet is pipe.unet and other.labels == pipe.labels
    with pytest.raises(UserError, match="needs labels, model, diffusion"):
        SemanticDiffusionPipeline(**pipe.components)
    wrong = {**pipe.parameters, "model": {**pipe.parameters["model"], "instance_edges": True}}
    with pytest.raises(UserError, match=r"has 3 condition and 12 image channels.* 4 and 12"):
        SemanticDiffusionPipeline(**pipe.components, **wrong)


@pytest.fixture
def cache(folder: Path, tmp_path: Path) -> Path:
    """The Hub's cache with the folder as repository me/streets."""
    repository = tmp_path / "cache" / "models--me--streets"
    commit = "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    return tmp_path / "cache"


def test_from_the_hub(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = SemanticDiffusionPipeline.from_pretrained
    options = {"cache_dir": cache, "local_files_only": True}
    assert same(load("me/streets", **options).model_file, load(folder).model_file)
    with pytest.raises(UserError, match="me/forests: cannot be loaded") as error:
        load("me/forests", **options)
    assert "\n" not in str(error.value)

    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **kwargs: asked.update(kwargs) or folder
    )
    load("me/streets", revision="v1", token="t")
    wanted = asked.pop("allow_patterns")
    assert (asked["revision"], asked["token"]) == ("v1", "t")
    assert not any(pattern.endswith((".bin", ".py", "/*")) for pattern in wanted)
    assert {"vae/*.json", f"vae/{WEIGHTS}.safetensors"} <= set(wanted)  # a model may have one
    with pytest.raises(UserError, match=r"variant|fp16"):
        load("me/streets", variant="fp16")
    assert f"unet/{WEIGHTS}.fp16.safetensors" in asked["allow_patterns"]


def refused(path: Path | str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        SemanticDiffusionPipeline.from_pretrained(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_not_a_folder_of_ours(tmp_path: Path, folder: Path, pipe: Any) -> None:
    refused(tmp_path / "nothing", "no such folder")
    refused("./a/b", "no such folder")
    refused(tmp_path, "has no model_index.json")
    pipe.save_checkpoint(tmp_path / "run" / "final_model.pth")
    refused(tmp_path / "run", "load it with from_checkpoint")
    refused(tmp_path / "run" / "final_model.pth", "load it with from_checkpoint")
    index = folder / "model_index.json"
    value = json.loads(index.read_text())
    index.write_text(json.dumps(value | {"_class_name": "StableDiffusionPipeline"}))
    refused(folder, "holds a StableDiffusionPipeline")
    index.write_text("{")
    refused(folder, "is not valid JSON")


def test_a_broken_folder(folder: Path) -> None:
    weights = folder / "unet" / f"{WEIGHTS}.safetensors"
    content = weights.read_bytes()
    for cut in (0, 100, len(content) // 2, len(content) - 1):
        weights.write_bytes(content[:cut])
        refused(folder, "cannot be loaded")
    weights.unlink()
    refused(folder, "cannot be loaded")
    weights.write_bytes(content)
    index = folder / "config.json"
    value = json.loads(index.read_text())
    for name, wrong, message in (
        ("model", value["model"] | {"colour": 1}, "unknown key 'colour'"),
        ("labels", {"labels": []}, "labels"),
        ("labels", None, "needs labels"),
        ("diffusion", {"prediction": "x"}, "prediction"),
    ):
        index.write_text(json.dumps(value | {name: wrong}))
        with pytest.raises(UserError, match=message):
            SemanticDiffusionPipeline.from_pretrained(folder)


def test_the_network_class_is_ours_whatever_a_folder_names(folder: Path, pipe: Any) -> None:
    """A folder from before a move of modules loads, and none can name other code."""
    index = folder / "model_index.json"
    value = json.loads(index.read_text())
    for place in (["semsynth.model.unet", "SemanticUNet"], ["os", "system"]):
        index.write_text(json.dumps(value | {"unet": place}))
        loaded = SemanticDiffusionPipeline.from_pretrained(folder)
        assert same(loaded.model_file, pipe.model_file)


def test_a_checkpoint_with_keys_of_the_loss_is_read(folder: Path, pipe: Any) -> None:
    """Files had them in ``diffusion`` before recipes had a section ``loss``."""
    old = {
        "zero_terminal_snr": False, "loss_sigma_min": 0.316, "min_snr_gamma": None,
        "times": "uniform", "logit_mean": 0.0, "logit_std": 1.0,
    }  # fmt: skip
    index = folder / "config.json"
    value = json.loads(index.read_text())
    value["diffusion"] |= old
    index.write_text(json.dumps(value))
    assert same(SemanticDiffusionPipeline.from_pretrained(folder).model_file, pipe.model_file)
    path = folder.parent / "final_model.pth"
    pipe.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)
    saved["diffusion"] |= old
    torch.save(saved, path)
    for checkpoint in (path, folder):
        assert same(load_checkpoint(checkpoint), pipe.model_file)
    value["diffusion"]["zero_terminal_snr"] = True
    index.write_text(json.dumps(value))
    refused(folder, "zero_terminal_snr is no longer supported: train the model again")


def test_pickled_code_is_never_run(folder: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "hacked"),)

    (folder / "unet" / f"{WEIGHTS}.safetensors").unlink()
    torch.save({"conv_in.weight": Hostile()}, folder / "unet" / f"{WEIGHTS}.bin")
    refused(folder, "cannot be loaded")
    assert not (tmp_path / "hacked").exists()


def test_a_folder_appears_complete_or_not_at_all(
    new_pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    pipe = new_pipe()
    monkeypatch.setattr(pipe.scheduler, "save_pretrained", fail)
    with pytest.raises(UserError, match="the disk is full"):
        pipe.save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        pipe.save_pretrained(tmp_path / "file")


def test_a_flipped_bit_in_the_weights_is_not_another_model(folder: Path) -> None:
    weights = folder / "unet" / f"{WEIGHTS}.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    refused(folder, "cannot be loaded: damaged, not the file that was written")
    index = folder / "model_index.json"
    value = json.loads(index.read_text())
    assert list(value.pop("_sha256")) == [f"unet/{WEIGHTS}.safetensors"]
    index.write_text(json.dumps(value))
    SemanticDiffusionPipeline.from_pretrained(folder)  # other weights, on purpose

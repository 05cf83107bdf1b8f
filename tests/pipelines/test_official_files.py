"""Official checkpoints become Diffusers folders, and models of ours official files."""

from __future__ import annotations

import errno
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from official_figures import FOLDER, figures, label_map, state
from safetensors import SafetensorError
from torch import Tensor

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.core.files import sha256_file
from semsynth.data.labels import LabelSet
from semsynth.data.sources import PRESETS, preset
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.config import ModelConfig
from semsynth.pipelines.convert.config import DatasetName, ImportConfig
from semsynth.pipelines.convert.import_official import describe, read_origin
from semsynth.pipelines.formats.model_file import (
    ModelFile,
    build_network,
    load_model_file,
    save_model_file,
)
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.training.recipe import load_recipe

LABELS = LabelSet.from_names({0: "void", 7: "road", 2: "sky", 9: "car"}, ignore_id=0)
FLAGS = ("--head-channels", "16", "--size", "32")
State = dict[str, Any]
Refused = Callable[..., str]


def paper_state() -> State:
    return dict(state(figures("paper_tiny")[0]))


def save(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs ``semsynth import`` on a value or a file; returns its error, one line."""

    def run(value: Any, *flags: str, verb: str = "import") -> str:
        path = value if isinstance(value, Path) else save(tmp_path / "bad.pt", value)
        output = tmp_path / "refused"
        before = sorted(tmp_path.iterdir())
        assert main([verb, str(path), "--output", str(output), *flags]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("error: ") and "Traceback" not in message
        assert sorted(tmp_path.iterdir()) == before  # nothing half-written
        return message

    return run


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    output = tmp_path / "imported"
    file = save(tmp_path / "official.pt", paper_state())
    assert main(["import", str(file), "--output", str(output), *FLAGS]) == 0
    return output


def test_an_imported_network_gives_the_official_numbers(imported: Path) -> None:
    _, tensors = figures("paper_tiny")
    pipe = SemanticDiffusionPipeline.from_pretrained(imported)
    hot = label_map(tensors, "label", pipe.unet)
    with torch.no_grad():
        ours = pipe.unet(tensors["in/x"], tensors["in/t"], hot).sample
    theirs = tensors["out/forward"]
    assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())
    assert (pipe.height, pipe.width) == (32, 32)
    assert list(pipe.labels.names.values()) == [f"class {i}" for i in range(5)]
    assert [label.channel for label in pipe.labels.labels] == [0, 1, 2, 3, 4]
    assert pipe.model_file.diffusion == DiffusionConfig(
        prediction="epsilon", schedule="linear", learn_sigma=True
    )
    assert pipe.licence == "unknown"
    assert pipe.metadata["imported_from"] == "official"
    assert pipe.metadata["source_sha256"] == sha256_file(imported.parent / "official.pt")


@pytest.mark.parametrize("kind", ["half", "module", "legacy", "twice"])
def test_forms_of_the_same_weights(kind: str, imported: Path, tmp_path: Path) -> None:
    value = {name: tensor.half().float() for name, tensor in paper_state().items()}
    expected = SemanticDiffusionPipeline.from_pretrained(imported).unet.state_dict()
    expected = {name: tensor.half().float() for name, tensor in expected.items()}
    file = tmp_path / "other.pt"
    if kind == "half":
        save(file, {name: tensor.half() for name, tensor in value.items()})
    elif kind == "module":
        save(file, {f"module.{name}": tensor for name, tensor in value.items()})
    elif kind == "twice":
        save(file, {f"module.module.{name}": tensor for name, tensor in value.items()})
    else:
        torch.save(value, file, _use_new_zipfile_serialization=False)
        assert not zipfile.is_zipfile(file)
    assert main(["import", str(file), "--output", str(tmp_path / "out"), *FLAGS]) == 0
    found = SemanticDiffusionPipeline.from_pretrained(tmp_path / "out").unet.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_instance_edges(tmp_path: Path) -> None:
    description, tensors = figures("instance_tiny")
    file = save(tmp_path / "official.pt", state(description))
    flags = ("--instances", "--num-classes", "7", "--head-channels", "32", "--size", "32x64")
    assert main(["import", str(file), "--output", str(tmp_path / "out"), *flags]) == 0
    pipe = SemanticDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert (pipe.labels.num_channels, pipe.height, pipe.width) == (7, 32, 64)
    assert pipe.model_file.model.instance_edges
    with torch.no_grad():
        hot = label_map(tensors, "label", pipe.unet)
        ours = pipe.unet(tensors["in/x"], tensors["in/t"], hot).sample
    theirs = tensors["out/forward"]
    assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def published(label_channels: int = 151) -> State:
    """The published network's state dict without storage, for another number of channels."""
    shapes = json.loads((FOLDER / "published_keys.json").read_text())
    for name, shape in shapes.items():
        if name.endswith("mlp_shared.0.weight"):
            shape[1] = label_channels
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def describe_published(label_channels: int, **flags: Any) -> ModelFile:
    config = ImportConfig(Path("f.pt"), Path("out"), **flags)
    return describe(published(label_channels), config, read_origin(config))


@pytest.mark.parametrize(
    ("dataset", "channels", "edges", "size"),
    [
        ("ade20k", 151, False, (256, 256)),
        ("cityscapes", 36, True, (256, 512)),
        ("celebamask", 20, True, (256, 256)),
        ("celebamask", 19, False, (256, 256)),
        ("cocostuff", 183, False, (256, 256)),
    ],
)
def test_the_published_data_sets(
    dataset: DatasetName, channels: int, edges: bool, size: tuple[int, int]
) -> None:
    file = describe_published(channels, dataset=dataset)
    assert file.labels == preset(dataset).labels
    assert file.labels.num_channels == channels - edges
    assert file.model.instance_edges == edges
    assert (file.height, file.width) == size
    assert file.metadata == {"dataset": dataset, "licence": preset(dataset).licence}
    paper = load_recipe("paper_256")
    assert file.model == paper.model.model_copy(update={"instance_edges": edges})
    assert file.diffusion == paper.diffusion_config


def test_another_data_set_than_it_was_trained_on() -> None:
    for dataset, made in (("cityscapes", 35), ("celebamask", 19), ("cocostuff", 183)):
        message = f"has 151 channels, but --dataset {dataset} makes {made}: {made} classes$"
        with pytest.raises(UserError, match=message):
            describe_published(151, dataset=dataset)
    with pytest.raises(UserError, match="makes 152: 151 classes and the edges of instances"):
        describe_published(151, dataset="ade20k", instances=True)
    assert set(get_args(DatasetName)) == set(PRESETS)


def test_the_same_command_again(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, index = imported.parent / "official.pt", imported / "model_index.json"
    written = index.stat().st_mtime_ns
    assert main(["import", str(file), "--output", str(imported), *FLAGS]) == 0
    assert index.stat().st_mtime_ns == written
    capsys.readouterr()
    other = ("--head-channels", "32", "--size", "32")
    assert main(["import", str(file), "--output", str(imported), *other]) == 2
    assert "was made with head_channels=16, now 32" in capsys.readouterr().err


def test_an_output_of_another_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "official.pt", paper_state())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    for output in ("mine", "official.pt"):
        assert main(["import", str(file), "--output", str(tmp_path / output), *FLAGS]) == 2
        assert "choose another output" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["diary.txt", "mine", "official.pt"]


@pytest.mark.parametrize("what", ["full", "safetensors", "interrupted"])
def test_a_folder_that_could_not_be_written_is_removed(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "official.pt", paper_state())

    def fail(self: SemanticDiffusionPipeline, folder: Path) -> None:
        (folder / "half.bin").write_bytes(b"half")
        if what == "interrupted":
            raise KeyboardInterrupt
        if what == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(SemanticDiffusionPipeline, "save_pretrained", fail)
    words = ["import", str(file), "--output", str(tmp_path / "out"), *FLAGS]
    assert main(words) == (130 if what == "interrupted" else 2)
    if what != "interrupted":
        assert "disk" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["official.pt"]


def test_values_that_are_refused(refused: Refused) -> None:
    value = paper_state()
    name = "middle_block.0.in_norm.mlp_shared.0.bias"
    for bad in (float("nan"), float("inf")):
        broken = value[name].clone()
        broken[[3, 5]] = bad
        message = refused({**value, name: broken}, *FLAGS)
        assert f"NaN or infinite weights in {name} (2 of 128 values)" in message
    assert f"{name} (torch.int64)" in refused({**value, name: value[name].long()}, *FLAGS)


def test_files_that_are_refused(refused: Refused, tmp_path: Path) -> None:
    value = paper_state()
    assert "holds list, not a state dict" in refused([1, 2])
    assert "not tensors are state_dict" in refused({"state_dict": value})
    assert "no such file" in refused(tmp_path / "nothing.pt")
    missing = {key: tensor for key, tensor in value.items() if not key.startswith("out.")}
    assert "keys 4 missing: out.0.weight, out.0.bias, out.2.weight" in refused(missing, *FLAGS)
    mixed = {f"module.{key}" if "time" in key else key: t for key, t in value.items()}
    assert "4 unknown: module.time_embed.0.weight" in refused(mixed, *FLAGS)
    whole = save(tmp_path / "cut.pt", value).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    assert "cut short" in refused(tmp_path / "cut.pt")
    save_model_file(tmp_path / "final_model.pth", ours())
    assert "is a final_model.pth of semsynth" in refused(tmp_path / "final_model.pth")


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.target,)


def test_code_is_never_run(refused: Refused, tmp_path: Path) -> None:
    target = tmp_path / "hacked"
    assert "refused: a pickle with code" in refused({"input_blocks.0.0.bias": Hostile(target)})
    torch.load(tmp_path / "bad.pt", weights_only=False)  # the trap works
    assert target.is_dir()


def test_flags_that_do_not_fit(refused: Refused, tmp_path: Path) -> None:
    value = paper_state()
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(LABELS.to_json()))
    cases = {
        "has 5 channels, but --num-classes makes 7: 7 classes": ("--num-classes", "7"),
        "but --num-classes makes 4: 4 classes; if the last": ("--num-classes", "4"),
        "makes 6: 5 classes and the edges": ("--num-classes", "5", "--instances"),
        f"but --labels {labels} makes 3: 3 classes": ("--labels", str(labels)),
        "--dataset and --labels both": ("--labels", str(labels), "--dataset", "ade20k"),
        "--head-channels 48 does not divide the 64 channels": ("--head-channels", "48"),
        "--size 30x32: sides must be multiples of 4": ("--head-channels", "16", "--size", "30x32"),
        "--size big: must be HEIGHTxWIDTH": ("--size", "big"),
    }
    for text, flags in cases.items():
        assert text in refused(value, *flags)


def ours(**changes: Any) -> ModelFile:
    """A model as training writes it, with the paper's loss."""
    model = ModelConfig.model_validate({
        "codec": "pixel", "base_channels": 32, "channel_mult": [1, 2], "blocks_per_level": 1,
        "attention_factors": [2], "head_channels": 16, "spade_hidden": 128, "labels": "nearest",
        **{key: value for key, value in changes.items() if key in ModelConfig.model_fields},
    })  # fmt: skip
    diffusion = DiffusionConfig.model_validate({
        "prediction": "epsilon", "schedule": "linear", "learn_sigma": True,
        **{key: value for key, value in changes.items() if key in DiffusionConfig.model_fields},
    })  # fmt: skip
    torch.manual_seed(0)
    unet, _ = build_network(model, diffusion, LABELS.num_channels)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    metadata = {"licence": "CC0", "dataset": "tiny", "recipe": {"name": "tiny"}, "step": 7}
    return ModelFile(model, diffusion, LABELS, 16, 24, unet.state_dict(), metadata)


@pytest.mark.parametrize("edges", [False, True])
def test_a_model_of_ours_round_trips_bit_for_bit(edges: bool, tmp_path: Path) -> None:
    """final_model.pth to Diffusers to official to Diffusers to final_model.pth."""
    run = tmp_path / "run"
    first = ours(instance_edges=edges)
    save_model_file(run / "final_model.pth", first)

    def step(*words: object) -> None:
        assert main([str(word) for word in words]) == 0

    step("export", run, "--to", "diffusers", "--output", tmp_path / "a")
    step("export", tmp_path / "a", "--to", "official", "--output", tmp_path / "b.pt")
    official = torch.load(tmp_path / "b.pt", weights_only=True)
    assert all(isinstance(value, Tensor) for value in official.values())
    side = json.loads((tmp_path / "b.json").read_text())
    assert f"--no_instance {not edges} " in side["flags"]
    assert "--num_classes 3 " in side["flags"] and "--attention_resolutions 8 " in side["flags"]
    labels = ("--labels", tmp_path / "b.json")
    step("import", tmp_path / "b.pt", "--output", tmp_path / "c", *labels)
    step("export", tmp_path / "c", "--to", "pth", "--output", tmp_path / "d.pth")
    last = load_model_file(tmp_path / "d.pth")
    assert (last.model, last.diffusion, last.labels) == (first.model, first.diffusion, first.labels)
    assert (last.height, last.width) == (16, 24)
    assert {key: last.metadata[key] for key in first.metadata} == first.metadata
    assert last.weights.keys() == first.weights.keys()
    assert all(torch.equal(last.weights[name], first.weights[name]) for name in first.weights)
    step("export", tmp_path / "d.pth", "--to", "official", "--output", tmp_path / "e.pt")
    again = torch.load(tmp_path / "e.pt", weights_only=True)
    assert list(again) == list(official)
    assert all(torch.equal(again[name], official[name]) for name in again)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"codec": "haar", "haar_levels": 1}, "it works on pixels, not behind codec 'haar'"),
        ({"label_features": 8}, "it has no label_features"),
        ({"spade_hidden": 8}, "its spade_hidden is always 128, not 8"),
        ({"base_channels": 16}, r"its widths are multiples of 32, not [16]"),
        ({"channel_mult": [1, 1.5], "base_channels": 64}, "its channel_mult are whole"),
        ({"prediction": "sample", "learn_sigma": False}, "prediction is 'sample'"),
        ({"schedule": "cosine"}, "schedule is 'cosine', in its published use 'linear'"),
        ({"timesteps": 100}, "timesteps is 100, in its published use 1000"),
    ],
)
def test_what_the_official_code_cannot_run(
    changes: dict[str, Any], reason: str, refused: Refused, tmp_path: Path
) -> None:
    save_model_file(tmp_path / "final_model.pth", ours(**changes))
    message = refused(tmp_path / "final_model.pth", "--to", "official", verb="export")
    assert "the official code cannot run this model" in message and reason in message


def test_exports_overwrite_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "final_model.pth"
    save_model_file(model, ours())
    (tmp_path / "a.json").write_text("mine")
    for kind, name in (("official", "a.pt"), ("official", "a.json"), ("pth", model.name)):
        words = ["export", str(model), "--to", kind, "--output", str(tmp_path / name)]
        assert main(words) == 2
        assert "exists; choose another output" in capsys.readouterr().err
    assert (tmp_path / "a.json").read_text() == "mine"
    assert main(["export", str(tmp_path / "no"), "--to", "pth", "--output", "x"]) == 2
    assert "no such checkpoint" in capsys.readouterr().err

"""Runs that start from another model: their first weights, what they remember, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import stop_at

from semsynth.core.errors import UserError
from semsynth.core.files import sha256_file
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.sources import preset
from semsynth.models.official.names import to_official
from semsynth.pipelines.convert.config import ImportConfig
from semsynth.pipelines.convert.import_official import import_official
from semsynth.pipelines.formats.model_file import (
    joint_licence,
    load_model_file,
    meta_network,
    save_model_file,
)
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

Configure = Callable[..., TrainConfig]
Weights = Callable[[Path], dict[str, torch.Tensor]]
Same = Callable[[Path, Path], None]
NO_STEPS = ("train.steps=0", "finetune.steps=0")


@pytest.fixture
def source(configure: Configure, tmp_path: Path) -> Path:
    """A model of the same data, trained for two steps, with weights in every layer."""
    train(configure("source", "train.steps=2", "finetune.steps=0", "seed=5"))
    path = tmp_path / "source" / "final_model.pth"
    bundle = load_model_file(path)
    torch.manual_seed(0)
    weights = {name: w + 0.05 * torch.randn_like(w) for name, w in bundle.weights.items()}
    save_model_file(path, replace(bundle, weights=weights))
    return path


def test_the_same_network_starts_with_the_same_weights(
    configure: Configure, source: Path, tmp_path: Path, assert_same_weights: Same,
    logged: Callable[[], str],
) -> None:  # fmt: skip
    train(configure("run", *NO_STEPS, from_checkpoint=source))
    assert_same_weights(tmp_path / "run", tmp_path / "source")
    log = logged()
    assert "labels transferred: flat-road, flat-sidewalk" in log and "parameters transferred" in log
    assert "fresh" not in log


def test_a_diffusers_folder_gives_the_same_start(
    configure: Configure, source: Path, tmp_path: Path, assert_same_weights: Same
) -> None:
    folder = tmp_path / "diffusers"
    SemanticDiffusionPipeline.from_checkpoint(source, "cpu").save_pretrained(folder)
    train(configure("run", *NO_STEPS, from_checkpoint=folder))
    assert_same_weights(tmp_path / "run", tmp_path / "source")


def test_a_killed_run_resumes_without_the_flag(
    configure: Configure, source: Path, tmp_path: Path, assert_same_weights: Same
) -> None:
    train(configure("straight", from_checkpoint=source))
    stop_at(configure("killed", from_checkpoint=source), 4)
    source.rename(tmp_path / "moved.pth")
    train(configure("killed"))
    assert_same_weights(tmp_path / "straight", tmp_path / "killed")


def test_without_a_checkpoint_of_its_own_it_needs_the_file(
    configure: Configure, source: Path, tmp_path: Path, assert_same_weights: Same
) -> None:
    train(configure("straight", from_checkpoint=source))
    run = tmp_path / "run"
    stop_at(configure("run", from_checkpoint=source), 2)
    shutil.rmtree(run / "step_0000002")
    moved = source.rename(tmp_path / "moved.pth")
    with pytest.raises(UserError, match=r"missing or has changed.*with --from"):
        train(configure("run"))
    train(configure("run", from_checkpoint=moved))
    assert_same_weights(tmp_path / "straight", run)


def test_a_damaged_record_is_named(configure: Configure, source: Path, tmp_path: Path) -> None:
    stop_at(configure("run", from_checkpoint=source), 2)
    (tmp_path / "run" / "from.json").write_text('{"path": "there"}')
    with pytest.raises(UserError, match=r"from\.json: was not written by"):
        train(configure("run"))
    train(configure("run", from_checkpoint=source))


def test_another_start_is_another_run(configure: Configure, source: Path, tmp_path: Path) -> None:
    stop_at(configure("run", from_checkpoint=source), 2)
    bundle = load_model_file(source)
    weights = {name: w + 1 for name, w in bundle.weights.items()}
    save_model_file(tmp_path / "other.pth", replace(bundle, weights=weights))
    with pytest.raises(UserError, match=r"from\.sha256"):
        train(configure("run", from_checkpoint=tmp_path / "other.pth"))
    (tmp_path / "map.yaml").write_text("sky: flat-road\n")
    options: dict[str, Any] = {"from_checkpoint": source, "label_map": tmp_path / "map.yaml"}
    with pytest.raises(UserError, match=r"from\.labels\.sky=\['sky'\], now \['flat-road'\]"):
        train(configure("run", **options))
    stop_at(configure("plain"), 2)
    with pytest.raises(UserError, match=r"plain: was made with from"):
        train(configure("plain", from_checkpoint=source))


def test_the_model_records_what_it_started_from(
    configure: Configure, source: Path, tmp_path: Path, images: Path
) -> None:
    bundle = load_model_file(source)
    terms = "Toys: non-commercial"
    metadata = {
        **bundle.metadata,
        "dataset": "toys",
        "licence": terms,
        "from": {"dataset": "older"},
    }
    labels = LabelSet.from_names({0: "Sky", 1: "ROAD", 2: "bus"})
    weights = dict(bundle.weights)
    for name in weights:
        if name.endswith("shared.weight"):
            weights[name] = weights[name][:, : 3 * 4]
    save_model_file(source, replace(bundle, labels=labels, weights=weights, metadata=metadata))
    train(configure("run", *NO_STEPS, from_checkpoint=source))
    found = load_model_file(tmp_path / "run").metadata
    assert found["licence"] == f"{PreparedDataset.open(images).info.licence}; {terms}"
    assert found["from"]["dataset"] == "toys" and found["from"]["licence"] == terms
    assert found["from"]["from"] == {"dataset": "older"}
    assert found["from"]["labels"] == {"sky": ["Sky"], "flat-road": ["ROAD"]}
    assert "human-person" in found["from"]["averaged"]
    assert str(tmp_path) not in json.dumps(found)
    card = SemanticDiffusionPipeline.from_checkpoint(tmp_path / "run", "cpu")
    card.save_pretrained(tmp_path / "folder")
    assert "a model of toys" in (tmp_path / "folder" / "README.md").read_text()


def test_joint_licences() -> None:
    assert joint_licence("CC BY 4.0", "CC BY 4.0") == "CC BY 4.0"
    assert joint_licence("CC BY 4.0", "a; non-commercial") == "CC BY 4.0; a; non-commercial"
    assert joint_licence("a; b", "b") == "a; b"
    assert joint_licence("CC BY 4.0", "unknown") == "unknown"


PAPER = (
    "model.codec=pixel", "model.labels=nearest", "loss.prediction=epsilon",
    "loss.learn_sigma=true", "diffusion.schedule=linear",
)  # fmt: skip


@pytest.fixture
def official(configure: Configure, tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A state dict of the official code with ADE20K's 151 classes, and its weights in our names."""
    train(configure("paper", "train.steps=1", "finetune.steps=0", *PAPER))
    labels = LabelSet.from_names({i: f"class {i}" for i in range(151)})
    unet = meta_network(replace(load_model_file(tmp_path / "paper"), labels=labels))
    torch.manual_seed(3)
    weights = {name: torch.randn(w.shape) for name, w in unet.state_dict().items()}
    path = tmp_path / "ema_0.9999_best.pt"
    torch.save(to_official(unet, weights), path)
    return path, weights


def test_from_the_authors_ade20k(
    configure: Configure, official: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path,
    weights: Weights, logged: Callable[[], str],
) -> None:  # fmt: skip
    path, theirs = official
    folder = tmp_path / "imported"
    import_official(ImportConfig(path, folder, dataset="ade20k", head_channels=16, size="16x16"))
    train(configure("run", *NO_STEPS, *PAPER, from_checkpoint=folder))
    found = weights(tmp_path / "run")
    log = logged()
    assert "flat-road < road" in log and "vehicle-car < car" in log
    assert "labels that start from the mean of all labels there: flat-crosswalk" in log
    names = [label.name for label in preset("ade20k").labels.labels]
    labels = load_model_file(tmp_path / "run").labels
    channel = {label.name: label.channel for label in labels.labels}
    for name, value in found.items():
        if not name.endswith("shared.weight"):
            assert torch.equal(value, theirs[name])
            continue
        road, crosswalk = channel["flat-road"], channel["flat-crosswalk"]
        assert torch.equal(value[:, road], theirs[name][:, names.index("road") - 1])
        torch.testing.assert_close(value[:, crosswalk], theirs[name].mean(1))
    facts = load_model_file(tmp_path / "run").metadata
    assert "non-commercial" in facts["licence"] and facts["from"]["dataset"] == "ade20k"


def test_a_wrong_start_is_refused(
    configure: Configure, official: tuple[Path, dict[str, torch.Tensor]], source: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "map.yaml").write_text("sky: himmel\n")
    cases: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
        ("convert a checkpoint of the official code", {"from_checkpoint": official[0]}, ()),
        ("no such checkpoint", {"from_checkpoint": tmp_path / "nowhere.pth"}, ()),
        ("is another network: model.spade_hidden is 8, the recipe's 16",
         {"from_checkpoint": source}, ("model.spade_hidden=16",)),
        ("'himmel' is not a label of the model",
         {"from_checkpoint": source, "label_map": tmp_path / "map.yaml"}, ()),
        ("--label-map .*: needs --from", {"label_map": tmp_path / "map.yaml"}, ()),
        ("0 steps leave random weights; set train.steps, or", {}, NO_STEPS),
    ]  # fmt: skip
    for message, options, changes in cases:
        with pytest.raises(UserError, match=message) as error:
            train(configure("run", *changes, **options))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()


def test_a_model_of_the_package_is_known_by_its_name(
    configure: Configure, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    assert_same_weights: Same,
) -> None:  # fmt: skip
    folder = tmp_path / "package"
    (folder / "towns").mkdir(parents=True)
    shutil.copy(source, folder / "towns" / "model.pth")
    digest = sha256_file(source)
    (folder / "towns" / "model.json").write_text(json.dumps({"sha256": digest}))
    shutil.copy(configure("x").recipe, folder / "towns" / "recipe.yaml")
    for place in ("semsynth.pipelines.formats.pretrained", "semsynth.training.recipe"):
        monkeypatch.setattr(f"{place}.FOLDER", folder)
    config = configure("run", *NO_STEPS, from_checkpoint=Path("towns"))
    train(replace(config, recipe="towns"))
    assert_same_weights(tmp_path / "run", tmp_path / "source")
    saved = json.loads((tmp_path / "run" / "from.json").read_text())
    # The name, not a path of this installation.
    assert saved["path"] == saved["facts"]["file"] == "towns" and saved["sha256"] == digest
    assert train(replace(config, recipe="towns"))["steps"] == 0  # resumed
    with pytest.raises(UserError, match=r"--from towns \(--recipe towns is its own\): is another"):
        train(configure("other", "model.spade_hidden=16", from_checkpoint=Path("towns")))


def test_a_run_from_before_the_loss_section(
    source: Path, configure: Configure, tmp_path: Path
) -> None:
    """It is not resumed; its model is read, and another run starts from it."""
    old = tmp_path / "old"
    shutil.copytree(source.parent, old)
    marker = json.loads((old / ".semsynth.json").read_text())
    recipe = marker["key"]["recipe"]
    weights = torch.load(old / "final_model.pth", weights_only=True)
    loss = recipe.pop("loss")
    recipe["diffusion"] |= {"prediction": loss["prediction"], "times": "uniform"}
    weights["diffusion"] |= {"zero_terminal_snr": False, "loss_sigma_min": 0.316, "logit_std": 1.0}
    (old / ".semsynth.json").write_text(json.dumps(marker))
    torch.save(weights, old / "final_model.pth")
    with pytest.raises(UserError, match=r"another version of semsynth; .*--from .*old --output A"):
        train(configure("old"))
    with pytest.raises(UserError, match=r"--fork .*old: is a run of another version.*--from .*old"):
        train(configure("forked", "train.steps=3", fork=old))
    train(configure("run", *NO_STEPS, from_checkpoint=old))
    assert load_model_file(tmp_path / "run").metadata["from"]["dataset"] == "streets"
    weights["diffusion"]["zero_terminal_snr"] = True
    torch.save(weights, old / "final_model.pth")
    with pytest.raises(UserError, match="zero_terminal_snr is no longer supported") as error:
        train(configure("another", *NO_STEPS, from_checkpoint=old))
    assert "\n" not in str(error.value)

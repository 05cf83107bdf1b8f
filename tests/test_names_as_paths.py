"""Wherever a name from a file becomes part of a path, a name that leaves its folder is refused."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from semsynth.app.save import PAIRS, Pair, SavedPairs
from semsynth.core.distributed.heartbeat import heartbeat_path
from semsynth.core.errors import UserError
from semsynth.core.strict import sealed
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import RGB
from semsynth.data.info import INFO
from semsynth.data.labels import LabelSet
from semsynth.data.manifest import MANIFEST, read_manifest
from semsynth.data.prepare.run import prepare
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter
from semsynth.models.codecs.vae import load_vae
from semsynth.pipelines.formats.diffusers_folder import check_folder
from semsynth.training.recipe import TrainConfig, load_recipe, run_folder

NAMES = ("../../out", "..", "/out", "a/b", "a\\b", "C:out", ".hidden", "nul.txt", "a\nb", "x" * 201)
LABELS = LabelSet.from_names({0: "road", 1: "sky"})
FORM = PreparedFormat(LABELS, 8, 8, "stretch", "png")
MASK = np.zeros((8, 8), np.uint8)
IMAGE = np.zeros((8, 8, 3), np.uint8)


def prepared(folder: Path) -> Path:
    writer = PreparedWriter(folder / "prepared", FORM)
    writer.write_pair("train", "a", IMAGE, MASK)
    writer.finish("n", "s", "l")
    return writer.root


def edited(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def stem_of_a_saved_pair(name: str, folder: Path) -> None:
    pairs = folder / "pairs"
    pair = Pair(IMAGE, MASK, LABELS, RGB, {"model": "m"}, "CC0-1.0")
    stem = SavedPairs(pairs).save(pair, "train").stem
    edited(pairs / PAIRS / stem, lambda value: value["made"].update(stem=name))
    SavedPairs(pairs).save(replace(pair, image=IMAGE + 1), "train")


def stem_of_data(name: str, folder: Path) -> None:
    root = prepared(folder)

    def change(value: Any) -> None:
        value["splits"]["train"]["stems"] = [name]
        value["pictures"]["train"] = {name: value["pictures"]["train"]["a"]}

    edited(root / INFO, change)
    PreparedDataset.open(root)


def split_of_data(name: str, folder: Path) -> None:
    root = prepared(folder)
    edited(root / INFO, lambda value: value["splits"].update({name: value["splits"]["train"]}))
    PreparedDataset.open(root)


def manifest_of_samples(name: str, folder: Path) -> None:
    for key in ("source", "stem", "split"):
        line = {"stem": "a", "source": "a", "split": "train", key: name}
        (folder / MANIFEST).write_text(json.dumps(line) + "\n")
        if key != "split":
            with pytest.raises(UserError, match="cannot be a file name"):
                read_manifest(folder)
    read_manifest(folder)


def written_image(name: str, folder: Path) -> None:
    writer = PreparedWriter(folder / "d", FORM)
    with pytest.raises(UserError, match="cannot be a file name"):
        writer.write_pair(name, "a", IMAGE, MASK)
    writer.write_pair("train", name, IMAGE, MASK)


def list_of_written_images(name: str, folder: Path) -> None:
    writer = PreparedWriter(folder / "d", FORM)
    writer.write_pair("train", "a", IMAGE, MASK)
    (list_file,) = writer.root.glob(".progress-*.jsonl")
    lines = [json.loads(line) for line in list_file.read_text().splitlines()]
    changed = [sealed({**line, "stem": name}) if "stem" in line else line for line in lines]
    list_file.write_text("".join(json.dumps(line) + "\n" for line in changed))
    PreparedWriter(folder / "d", FORM)


def recipe(name: str, folder: Path) -> None:
    run_folder(TrainConfig(), load_recipe("streets_demo").model_copy(update={"name": name}))


def autoencoder_of_the_hub(name: str, folder: Path) -> None:
    load_vae(f"owner/name/{name}" if "/" not in name else f"owner/name{name}/..")


def token_of_a_run(name: str, folder: Path) -> None:
    heartbeat_path(folder, name, 0)


def part_of_a_model(name: str, folder: Path) -> None:
    index = {"_class_name": "SemanticDiffusionPipeline", name: ["diffusers", "UNet2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    check_folder(str(folder))


def weights_of_a_model(name: str, folder: Path) -> None:
    index = {"_class_name": "SemanticDiffusionPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet").mkdir()
    shards = {"weight_map": {"conv.weight": name}}
    (folder / "unet" / "model.safetensors.index.json").write_text(json.dumps(shards))
    check_folder(str(folder))


READERS = [
    stem_of_a_saved_pair,
    stem_of_data,
    split_of_data,
    manifest_of_samples,
    written_image,
    list_of_written_images,
    recipe,
    autoencoder_of_the_hub,
    token_of_a_run,
    part_of_a_model,
    weights_of_a_model,
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_are_refused(
    name: str, reader: Callable[[str, Path], None], tmp_path: Path
) -> None:
    inner = tmp_path / "deep" / "inner"
    inner.mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot be a file name|not a valid id") as error:
        reader(name, inner)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["inner"]


@pytest.mark.parametrize("stem", ["a:b", "con", "a\nb", "a*", "a "])
def test_files_on_disk_whose_names_no_other_system_takes(stem: str, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        for name in ("b", stem):
            ok, data = cv2.imencode(".png", MASK if folder == "masks" else IMAGE)
            assert ok
            (tmp_path / "raw" / folder / f"{name}.png").write_bytes(data.tobytes())
    (tmp_path / "raw" / "labels.yaml").write_text("labels: [road, sky]")
    config = PrepareConfig(
        source="folder", data=tmp_path / "raw", output=tmp_path / "o", height=8, width=8, workers=1
    )
    with pytest.raises(UserError, match=r"cannot be a file name") as error:
        prepare(config)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("o/*"))


# Modules that join names of these kinds to a folder, and where the names are checked.
NAMES_OF_FILES = re.compile(r"\b(stem|split|token|member|relative|file_name|item\.name)\b")
JOINED_IN = {
    "app/save.py": "stem_of_a_saved_pair; new ones by path_name",
    "augmentation/filter/measure.py": "PreparedDataset.open",
    "data/dataset.py": "PreparedDataset.open: stem_of_data, split_of_data",
    "data/exports": "PreparedDataset.open",
    "data/records.py": "folders that are listed",
    "data/sources": "folders that are listed; their stems by written_image",
    "data/prepare/tables.py": "path_name of splits and of the files that rows name",
    "data/writer.py": "written_image, list_of_written_images",
    "evaluation/inputs/folders.py": "a folder that is listed",
    "pipelines/generate/real_images.py": "PreparedDataset.open; a split that the data have",
    "pipelines/generate/sample_store.py": "PreparedDataset.open, manifest_of_samples",
    "training/inputs/latent_cache.py": "PreparedDataset.open",
}


def test_every_place_that_joins_such_a_name_is_tried(root: Path) -> None:
    found = set()
    package = root / "src" / "semsynth"
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                # What else is divided by something are numbers.
                is_name = isinstance(node.right, ast.JoinedStr | ast.Name | ast.Attribute)
                if is_name and NAMES_OF_FILES.search(ast.unparse(node.right)):
                    found.add(path.relative_to(package).as_posix())
    new = {name for name in found if not any(name.startswith(known) for known in JOINED_IN)}
    assert new == set(), "refuse names that leave the folder (core.paths), and add them here"

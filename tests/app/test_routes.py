"""What a page gets of data and results: to the pixel, in the model's ids, and again in Python."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edit_scenes
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs semsynth[app]")

from studio_page import (
    HEIGHT,
    STREET,
    WIDTH,
    Page,
    assert_same_bytes_again,
    decoded,
    error,
    wait_for_index,
    write_model,
)

from semsynth.app.config import AppConfig
from semsynth.app.server import build
from semsynth.app.studio import Studio
from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.manifest import read_manifest
from semsynth.data.prepare.run import prepare
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter


def test_a_page_browses_the_data(page: Page, data: PreparedDataset) -> None:
    state = page.get("/api/state").json()
    assert state["data"]["splits"] == {"train": 6, "val": 3}
    assert state["data"]["labels_match"] == "streets: 5 of 5 classes are the model's"
    assert state["data"]["models"] == ["m0"]
    assert (state["evaluator"], state["copies"]) == (False, True)
    assert "start with --segmenter" in state["why_no_evaluator"]
    found = page.get("/api/data", split="train", limit=4).json()
    assert found["total"] == 6 and len(found["items"]) == 4
    item = found["items"][0]
    assert np.array_equal(
        page.png(f"/api/data/{item['id']}/mask"), data.read_mask("train", item["stem"])
    )
    assert np.array_equal(
        page.png(f"/api/data/{item['id']}/image"), data.read_image("train", item["stem"])
    )
    assert not item["instances"]
    assert "has no map of objects" in error(page.get(f"/api/data/{item['id']}/instances"))
    assert page.png(f"/api/data/{item['id']}/thumbnail").shape == (HEIGHT, WIDTH, 3)
    objects = page.get("/api/objects", limit=5).json()
    assert objects["of"] == 6
    assert (
        error(page.get("/api/data", limit="x")) == "400 limit is 'x': must be a whole number from 0"
    )
    assert error(page.get("/api/data", split="no")).startswith("400 ")
    for path in ("/api/data/d99/mask", "/api/data/..%2Fx/mask", "/api/data/d0/file"):
        assert error(page.get(path)).startswith("404 ")


def test_another_models_ids_are_given_for_it(
    open_page: Callable[..., Page], tmp_path: Path, model: Path, data: PreparedDataset
) -> None:
    names = {10: "Sky", 20: "ROAD", 30: "walk", 40: "car", 50: "balloon", 255: "void"}
    other = write_model(tmp_path / "other.pth", LabelSet.from_names(names, ignore_id=255))
    page = open_page(model, other, data=data.root)
    item = page.get("/api/data", model="m1", split="train").json()
    assert "the model does" not in item["labels_match"]
    assert "4 of 5 classes are the model's" in item["labels_match"]
    assert "it does not know 'pole'" in item["labels_match"]
    first = item["items"][0]
    to_model = {0: 255, 1: 10, 2: 20, 3: 30, 4: 40, 5: 255}
    wanted = np.vectorize(to_model.get)(data.read_mask("train", first["stem"]))
    assert np.array_equal(page.png(f"/api/data/{first['id']}/mask", model="m1"), wanted)
    nothing = write_model(tmp_path / "cells.pth", edit_scenes.CELLS)
    assert "no class of its masks" in page_error(open_page, nothing, data=data.root)


def test_of_the_packages_models_that_of_the_data_is_first(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    names = {0: "ground", 1: "fluorescence nucleus", 2: "fluorescence background"}
    labels = LabelSet.from_names(names, ignore_id=0)
    writer = PreparedWriter(tmp_path / "cells", PreparedFormat(labels, 16, 16))
    mask = np.full((16, 16), 2, np.uint8)
    mask[4:9, 4:9] = 1
    writer.write_pair("train", "a", np.zeros((16, 16, 3), np.uint8), mask)
    page = open_page(data=writer.finish("cells", "tests", "").root)
    assert page.studio.default.name == "nuclei"
    state = page.get("/api/state").json()
    assert [x["name"] for x in state["models"] if x["default"]] == ["nuclei"]
    assert state["data"]["labels_match"] == "cells: 2 of 2 classes are the model's"


def page_error(open_page: Callable[..., Page], *models: Path, **flags: Any) -> str:
    with pytest.raises(UserError) as found:
        open_page(*models, **flags)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_the_lines_of_python_make_the_same_bytes(
    page: Page, data: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = data.read_mask("train", "p02")
    region = np.zeros(mask.shape, np.uint8)
    region[10:40, 20:60] = 255
    item = page.get("/api/data", split="train").json()["items"][0]["id"]
    orders: list[dict[str, Any]] = [
        {"seed": 5, "guidance": 1.0},
        {"seed": 2**40, "scheduler": "ddim", "steps": 3, "guidance": 2.0},
        {"seed": 6, "quality": "live", "variation": {"seed": 9, "amount": 0.25}},
        {"seed": 7, "source": item, "strength": 0.6},
        {"seed": 8, "source": item, "keep": True, "region": region},
    ]
    monkeypatch.chdir(tmp_path)
    for order in orders:
        assert_same_bytes_again(page, page.generate(mask, **order))


def test_the_lines_have_edges_and_unlabelled_pixels(
    open_page: Callable[..., Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = LabelSet.from_names({0: "ground", 1: "disc", 2: "ring"}, things=["disc", "ring"])
    recipe = {"name": "tiny", "train": {"region_dropout": 0.1, "steps": 5}}
    model = write_model(tmp_path / "edges.pth", labels, edges=True, recipe=recipe)
    page = open_page(model)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 10:40], mask[10:30, 40:60], mask[50:] = 1, 2, 255
    monkeypatch.chdir(tmp_path)
    text = assert_same_bytes_again(page, page.generate(mask, seed=4))
    assert "edges[None]" in text and "allow_unlabelled()" in text
    # What is unlabelled has a label in the saved pair, too.
    result = page.generate(mask, seed=4)
    saved = page.with_mask("/api/save", mask, result=result).json()
    pair = PreparedDataset.open(saved["folder"])
    assert pair.labels.ignore_id == 255
    assert np.array_equal(pair.read_mask("train", saved["stem"]), mask)


def test_a_result_is_downloaded_as_it_is(page: Page, data: PreparedDataset) -> None:
    mask = data.read_mask("train", "p03")
    result = page.generate(mask, seed=1)
    assert np.array_equal(page.png(f"/api/results/{result}/mask"), mask)
    assert np.array_equal(page.png(f"/api/results/{result}/color"), STREET.colorize(mask))
    answer = page.get(f"/api/results/{result}/image")
    kept = page.studio.results.get(result)
    assert np.array_equal(decoded(answer.content), kept.image_HWC)
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{result}_image.png"'
    assert error(page.get("/api/results/nothing/image")).startswith("404 this image is no longer")
    assert error(page.get(f"/api/results/{result}/file")).startswith("404 ")


def test_a_saved_pair_is_data(page: Page, data: PreparedDataset, tmp_path: Path) -> None:
    mask = data.read_mask("train", "p04")
    mask[:3] = edit_scenes.CAR
    train = page.get("/api/data", split="train").json()["items"]
    item = next(x["id"] for x in train if x["stem"] == "p04")
    result = page.generate(mask, seed=11)
    answer = page.with_mask("/api/save", mask, result=result, split="train", mask_source=item)
    assert answer.status_code == 200, answer.text
    saved = PreparedDataset.open(answer.json()["folder"])
    stem = answer.json()["stem"]
    assert saved.labels == data.labels and (saved.height, saved.width) == (HEIGHT, WIDTH)
    assert np.array_equal(saved.read_mask("train", stem), mask)
    shown = page.get(f"/api/results/{result}/image").content
    assert np.array_equal(saved.read_image("train", stem), decoded(shown))
    (line,) = read_manifest(saved.root)
    synthesizer = page.studio.default.synthesizer
    assert line["checkpoint"] == synthesizer.checkpoint_sha256 and line["seed"] == 11
    assert (line["steps"], line["sampler"]) == (2, "dpm++")
    assert line["mask_from"] == {"data": "street", "split": "train", "stem": "p04"}
    assert saved.info.licence == "CC BY 4.0; CC0-1.0"
    prepared = prepare(PrepareConfig(
        path=saved.root, output=tmp_path / "prepared", height=HEIGHT, width=WIDTH, workers=1
    ))  # fmt: skip
    assert np.array_equal(prepared.read_mask("train", stem), mask)
    # Drawn on since the image was made: they are not a pair.
    mask[0, 0] = edit_scenes.ROAD
    other = page.with_mask("/api/save", mask, result=result, split="train")
    assert error(other).startswith("409 the mask has changed since this image was made")
    assert len(read_manifest(saved.root)) == 1


def test_held_out_masks_do_not_become_training_pairs(page: Page, data: PreparedDataset) -> None:
    mask = data.read_mask("val", "p07")
    page.get("/api/data")
    result = page.generate(mask, seed=1)
    wait_for_index(page)
    # Nobody says where the mask is from, but it is that one.
    answer = page.with_mask("/api/save", mask, result=result, split="train")
    assert error(answer).startswith(
        "400 it was begun from val/p07, which is held out: save it into"
    )
    assert page.with_mask("/api/save", mask, result=result, split="val").status_code == 200
    # So it is with an image that was made from a held-out one, at one remove.
    item = next(x for x in page.get("/api/data", split="val").json()["items"])
    first = page.generate(data.read_mask("train", "p01"), seed=1, source=item["id"], strength=0.5)
    second = page.generate(data.read_mask("train", "p01"), seed=1, source=first, strength=0.5)
    answer = page.with_mask(
        "/api/save", data.read_mask("train", "p01"), result=second, split="train"
    )
    assert f"begun from val/{item['stem']}" in error(answer)


def test_a_session_is_a_zip_that_prepare_reads(
    page: Page, data: PreparedDataset, tmp_path: Path
) -> None:
    mask = data.read_mask("train", "p00")
    ids = [page.generate(mask, seed=seed) for seed in (1, 2)]
    answer = page.post("/api/session.zip", results=[*ids, "lost"])
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        assert file.testzip() is None
        lines = [json.loads(x) for x in file.read("metadata.jsonl").splitlines()]
        assert [line.get("seed") for line in lines] == [1, 2, None]
        assert lines[2] == {"id": "lost", "missing": "no longer kept"}
        for name, line in zip(ids, lines, strict=False):
            for key, kind in (("file_name", "image"), ("mask", "mask"), ("color", "color")):
                content = file.read(line[key])
                assert content == page.get(f"/api/results/{name}/{kind}").content
    path = tmp_path / "session.zip"
    path.write_bytes(answer.content)
    prepared = prepare(PrepareConfig(
        path=path, output=tmp_path / "prepared", height=HEIGHT, width=WIDTH, workers=1
    ))  # fmt: skip
    split = prepared.splits()[0]
    assert np.array_equal(prepared.read_mask(split, prepared.stems(split)[0]), mask)
    assert error(page.post("/api/session.zip", results=[])).startswith("400 ")
    assert error(page.post("/api/session.zip", results=["x"])).startswith("404 none of these")
    assert "at most" in error(page.post("/api/session.zip", results=["x"] * 201))


def test_the_nearest_image_is_found_by_request(page: Page, data: PreparedDataset) -> None:
    mask = data.read_mask("train", "p02")
    result = page.generate(mask, seed=3, guidance=1.0)
    found = page.post("/api/nearest", result=result).json()
    assert found["copy"] in (None, False) and 0 < found["distance"] <= 1
    assert page.get(f"/api/data/{found['item']}/image").status_code == 200


def test_without_data_each_answer_says_why(
    open_page: Callable[..., Page], model: Path, tmp_path: Path
) -> None:
    page = open_page(model)
    state = page.get("/api/state").json()
    assert state["data"] is None and not state["evaluator"] and not state["copies"]
    assert "start with --data FOLDER" in state["why_no_copies"]
    result = page.generate(np.full((HEIGHT, WIDTH), edit_scenes.SKY, np.uint8), seed=0)
    for answer in (
        page.get("/api/data"),
        page.get("/api/objects"),
        page.post("/api/nearest", result=result),
        page.with_mask("/api/evaluate", np.ones((HEIGHT, WIDTH), np.uint8), result=result),
    ):
        assert "start with" in error(answer)
    saved = page.with_mask(
        "/api/save", np.full((HEIGHT, WIDTH), edit_scenes.SKY, np.uint8), result=result
    ).json()
    assert read_manifest(Path(saved["folder"]))[0]["mask_from"] == "drawn"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    config = AppConfig(model=(str(model),), token=False, save_to=tmp_path / "mine")
    with pytest.raises(UserError, match="holds something else than pairs of the studio"):
        build(Studio(config))

"""Objects over HTTP: their pixels, their ids, their borders, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import edit_scenes
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs semsynth[app]")

from studio_page import HEIGHT, WIDTH, Page, assert_same_bytes_again, error, write_model

from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.manifest import read_manifest
from semsynth.data.prepare.run import prepare


def objects_on(page: Page, mask: np.ndarray, count: int = 2) -> tuple[Any, Any, list[Any]]:
    """Put objects of the shelf on a mask: (mask, numbers, what a request says of them)."""
    while (found := page.get("/api/objects", limit=0).json())["indexed"] < found["of"]:
        pass
    mask, numbers, placed = mask.copy(), np.zeros(mask.shape, np.uint8), []
    items = page.get("/api/objects", limit=count).json()["items"]
    for number, item in enumerate(items, 1):
        region = page.png(f"/api/objects/{item['id']}/mask") > 0
        height, width = region.shape
        top, left = 1, 1 + (number - 1) * (mask.shape[1] // 2)
        where = np.zeros(mask.shape, bool)
        seen = region[: mask.shape[0] - top, : mask.shape[1] - left]
        where[top : top + height, left : left + width] = seen
        mask[where], numbers[where] = item["class"], number
        placed.append({"number": number, "id": item["id"], "top": top, "left": left})
    return mask, numbers, placed


def test_objects_bring_their_pixels_and_it_is_recorded(
    page: Page, data: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, numbers, placed = objects_on(page, data.read_mask("train", "p01"))
    result = page.generate(
        mask, instances=numbers, objects=placed, object_strength=0.6, seed=3, guidance=1.0
    )
    kept = page.studio.results.get(result)
    start = kept.real.images_BHWC[0]
    for one in placed:
        rows, columns = np.nonzero(numbers == one["number"])
        pixels = decoded_rgba(page, one["id"])[rows - one["top"], columns - one["left"]]
        assert np.array_equal(start[rows, columns], pixels)
    monkeypatch.chdir(tmp_path)
    assert_same_bytes_again(page, result)
    answer = page.with_mask("/api/save", mask, result=result, split="train")
    (line,) = read_manifest(Path(answer.json()["folder"]))
    listed = page.get("/api/objects", limit=2).json()["items"]
    assert [x["box"] for x in line["objects"]] == [x["box"] for x in listed]
    assert [x["pixels"] for x in line["objects"]] == [
        int((numbers == one["number"]).sum()) for one in placed
    ]
    assert line["object_strength"] == 0.6 and line["mask_from"] == "drawn"
    assert "from_image" not in line
    sources = {(x["split"], x["stem"]) for x in line["pixels_from"]}
    assert sources == {(x["split"], x["stem"]) for x in line["objects"]}
    # From there on at any remove: an image that starts from this one.
    second = page.generate(data.read_mask("train", "p02"), source=result, strength=0.5)
    assert page.studio.results.get(second).items == kept.items


def decoded_rgba(page: Page, name: str) -> np.ndarray:
    data = page.get(f"/api/objects/{name}/picture").content
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return np.asarray(pixels[..., 2::-1])


def test_objects_are_named_by_the_server_alone(page: Page, data: PreparedDataset) -> None:
    mask, numbers, placed = objects_on(page, data.read_mask("train", "p01"), 1)
    for name in ("../../etc/passwd", f"o{0:016x}", "d0"):
        wrong = [{**placed[0], "id": name}]
        answer = page.ask(mask, instances=numbers, objects=wrong)
        assert error(answer).startswith("404 streets: has no such object")
    assert error(page.ask(mask, objects=placed)).startswith("400 objects needs the part instances")
    small = np.zeros((4, 4), np.uint8)
    assert "instances: is 4x4" in error(page.ask(mask, instances=small, objects=placed))
    for wrong in ({"top": 10**6}, {"number": 0}, {"left": "x"}):
        answer = page.ask(mask, instances=numbers, objects=[{**placed[0], **wrong}])
        assert error(answer).startswith("400 ")
    assert error(page.ask(mask, instances=numbers, objects=placed * 201)).startswith("400 ")
    answer = page.ask(mask, instances=numbers, objects=placed, object_strength=2)
    assert "object_strength is 2" in error(answer)


def test_a_model_that_does_not_know_an_object_says_so(
    open_page: Callable[..., Page], tmp_path: Path, model: Path, data: PreparedDataset
) -> None:
    names = {10: "sky", 20: "road", 255: "void"}
    other = write_model(tmp_path / "other.pth", LabelSet.from_names(names, ignore_id=255))
    page = open_page(model, other, data=data.root)
    mask, numbers, placed = objects_on(page, data.read_mask("train", "p01"), 1)
    answer = page.ask(np.full_like(mask, 10), instances=numbers, objects=placed, model="m1")
    assert "400 other does not know '" in error(answer)


def test_a_pair_of_a_model_that_sees_borders_has_a_map_of_objects(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    cells = edit_scenes.write(tmp_path / "cells", "cells", 6)
    model = write_model(tmp_path / "edges.pth", edit_scenes.CELLS, edges=True)
    page = open_page(model, data=cells.root)
    item = page.get("/api/data", split="train").json()["items"][0]
    assert item["instances"]
    found = page.png(f"/api/data/{item['id']}/instances")
    assert np.array_equal(found, cells.read_instances("train", item["stem"]))
    mask = np.full(edit_scenes.SIZE, cells.read_mask("train", item["stem"])[0, 0], np.uint8)
    numbers = np.zeros(mask.shape, np.uint16)
    mask[10:30, 10:50] = edit_scenes.DISC
    numbers[10:30, 30:50] = 7  # two discs that touch
    result = page.generate(mask, instances=numbers, seed=1)
    assert page.studio.results.get(result).edges_HW[20, 29:31].all()
    saved = page.with_mask("/api/save", mask, result=result).json()
    pair = PreparedDataset.open(saved["folder"])
    objects = pair.read_instances("train", saved["stem"])
    assert np.array_equal(
        pair.read_edges("train", saved["stem"]), page.studio.results.get(result).edges_HW
    )
    assert len({*objects[10:30, 10:30].ravel(), *objects[10:30, 30:50].ravel()}) == 2
    prepared = prepare(PrepareConfig(
        path=pair.root, output=tmp_path / "out", height=HEIGHT, width=WIDTH, workers=1
    ))  # fmt: skip
    assert np.array_equal(prepared.read_instances("train", saved["stem"]), objects)
    answer = page.post("/api/session.zip", results=[result])
    (tmp_path / "session.zip").write_bytes(answer.content)
    prepared = prepare(PrepareConfig(
        path=tmp_path / "session.zip", output=tmp_path / "zip", height=HEIGHT, width=WIDTH,
        workers=1,
    ))  # fmt: skip
    split = prepared.splits()[0]
    assert np.array_equal(prepared.read_instances(split, prepared.stems(split)[0]), objects)

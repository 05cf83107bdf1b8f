"""The studio's scores are those of `evaluate`; copies are found, and nothing else is called one."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import ClassVar

import cv2
import edit_scenes
import numpy as np
import pytest

from semsynth.app.copies import Copies, why_no_copies
from semsynth.app.evaluator import ImageEvaluator, why_no_evaluator
from semsynth.app.label_view import LabelView
from semsynth.app.library import Library
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.manifest import MANIFEST
from semsynth.segmentation.metrics import ConfusionMatrix

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 9: "car"}, ignore_id=0)


class Grey:
    """Sees road where an image is dark, sky where it is bright, and else something unknown."""

    name, sha256, seen, has_features = "grey", "0" * 64, None, False
    names = ("sky", "road", "tree")
    about: ClassVar[dict[str, object]] = {}

    def classes(self, images: np.ndarray, size: object) -> tuple[np.ndarray, None]:
        grey = images[..., 0]
        return np.where(grey < 100, 1, np.where(grey > 200, 0, 2)), None


def decoded(text: str) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(text), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def test_scores_and_what_is_marked() -> None:
    mask = np.array([[1, 1, 2, 2], [1, 2, 9, 0]], np.uint8)
    grey = np.array([[0, 255, 255, 150], [0, 255, 0, 0]], np.uint8)
    found = ImageEvaluator(Grey()).score(np.repeat(grey[..., None], 3, 2), mask, LABELS)
    # Cars are not known to it, and void is not a class: neither counts.
    assert np.array_equal(decoded(found["disagreement"]), [[0, 255, 0, 255], [0, 0, 0, 0]])
    assert np.array_equal(decoded(found["map"]), [[1, 2, 2, 0], [1, 2, 1, 1]])
    matrix = ConfusionMatrix([1, 2])
    matrix.add(np.array([[1, 2, 2, -1], [1, 2, 1, 1]]), mask)
    assert found["miou"] == round(matrix.miou, 6) == round((2 / 3 + 2 / 4) / 2, 6)
    assert found["classes"] == [
        {"id": 1, "iou": round(2 / 3, 6), "in_mask": True},
        {"id": 2, "iou": 0.5, "in_mask": True},
    ]
    assert found["line"] == "grey does not know 'car': not counted"


def test_nothing_that_counts_has_no_score() -> None:
    found = ImageEvaluator(Grey()).score(
        np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 9, np.uint8), LABELS
    )
    assert found["miou"] is None and found["classes"] == []
    assert not decoded(found["disagreement"]).any()
    assert found["line"] == "grey: the mask has no pixel of a class that it knows"


def test_what_cannot_be_scored_is_a_line() -> None:
    evaluator = ImageEvaluator(Grey())
    with pytest.raises(UserError, match=r"the mask is 3x2, the image 2x2"):
        evaluator.score(np.zeros((2, 2, 3), np.uint8), np.ones((2, 3), np.uint8), LABELS)
    with pytest.raises(UserError, match="has no class of the data"):
        evaluator.of(LabelSet.from_names({0: "cell"}))
    assert "--segmenter" in why_no_evaluator(None)
    assert "segment train --data cells" in why_no_evaluator("cells")


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Library:
    data = edit_scenes.write(tmp_path_factory.mktemp("copies") / "street", "street", 16, 6)
    library = Library(data)
    library.wait()
    return library


@pytest.fixture(scope="module")
def copies(streets: Library) -> Copies:
    return Copies(streets)


def nearest(copies: Copies, library: Library, image: np.ndarray, mask: np.ndarray, **more: str):
    view = LabelView.of(library.data, edit_scenes.STREET)
    metadata = {"data_sha256": library.data.digest_of(["train"])}
    return copies.nearest(image, mask, view, metadata, **more)


def test_a_training_image_is_a_copy_and_is_named(copies: Copies, streets: Library) -> None:
    data = streets.data
    image = data.read_image("train", "p05")
    found = nearest(copies, streets, image, data.read_mask("val", "p16"))
    assert (found["stem"], found["copy"]) == ("p05", True)
    assert found["distance"] < 0.05 and found["score"] < 1
    assert streets.find(found["item"]).stem == "p05"
    # The same for its own mask, where the layout proves nothing; mirrored it is a copy, too.
    assert nearest(copies, streets, image, data.read_mask("train", "p05"))["copy"] is True
    mirrored = nearest(copies, streets, image[:, ::-1], data.read_mask("val", "p16"))
    assert (mirrored["stem"], mirrored["copy"]) == ("p05", True)


def test_the_layout_alone_is_no_copy(copies: Copies, streets: Library) -> None:
    data = streets.data
    mask = data.read_mask("train", "p05")
    colours = np.random.default_rng(1).integers(0, 256, (6, 3))
    noise = np.random.default_rng(2).integers(-40, 40, (*mask.shape, 3))
    image = np.clip(colours[mask] + noise, 0, 255).astype(np.uint8)
    found = nearest(copies, streets, image, mask, started_from="train/p05")
    assert (found["stem"], found["copy"]) == ("p05", False)
    assert found["line"].startswith("no copy of train/p05, which has this mask")
    assert found["line"].endswith("it was made from train/p05, so it resembles that")


def test_noise_is_no_copy_but_of_other_data_nobody_knows(copies: Copies, streets: Library) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    mask = np.full((64, 96), edit_scenes.ROAD, np.uint8)
    assert nearest(copies, streets, image, mask)["copy"] is False
    view = LabelView.of(streets.data, edit_scenes.STREET)
    found = copies.nearest(image, mask, view, {})
    assert found["copy"] is None
    assert "the model's file does not say that it was trained on street" in found["line"]


def test_why_there_is_nothing_to_compare_with(tmp_path: Path, streets: Library) -> None:
    assert why_no_copies(streets) == ""
    assert "start with --data FOLDER" in why_no_copies(None)
    data = edit_scenes.write(tmp_path / "made", "cells", 4, 0)
    (data.root / MANIFEST).write_text("")
    assert "made holds generated images" in why_no_copies(Library(data))
    (data.root / MANIFEST).unlink()
    info = data.info.model_copy(
        update={"splits": {"val": data.info.splits["train"]}, "images": {"val": {}}}
    )
    assert "made has no split 'train'" in why_no_copies(Library(PreparedDataset(data.root, info)))

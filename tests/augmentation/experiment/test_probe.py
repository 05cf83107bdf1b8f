"""The probe: what it says of known numbers, scaled images, and the whole on small streets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsynth.augmentation.experiment.config import ProbeConfig
from semsynth.augmentation.experiment.probe import run_probe, shrink, small_size, verdict
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter

FINE = {"real": 0.5, "generated": 0.45}
SHARES = {"road": (0.6, 0.5), "sign": (0.001, 0.009), "tree": (0.1, 0.29)}


def entry(gain: float, sure: float, doubling: float = 0.03) -> dict[str, Any]:
    arm = {"gain": {"miou": gain, "above_zero": sure}}
    return {
        "arms": {"strong": {}, "filtered": arm},
        "label_equivalent": {"filtered": {"per_doubling": doubling}},
    }


def test_a_sure_gain_is_likely() -> None:
    found = verdict(entry(0.02, 0.97), 40, FINE, SHARES)
    assert (found["sign"], found["arm"], found["reasons"]) == ("likely", "filtered", [])
    assert found["verdict"] == (
        "synthesis is likely to help here: +2.0 points of mIoU by the arm filtered, above 0 with "
        "probability 0.97 (the thresholds of this verdict are guesses: it was right on six data "
        "sets, none of which gains)"
    )


@pytest.mark.parametrize(
    ("sure", "sign"), [(0.89, "unclear"), (0.5, "unclear"), (0.49, "unlikely")]
)
def test_the_sign_says_how_sure_it_is(sure: float, sign: str) -> None:
    assert verdict(entry(0.001, sure), 40, FINE, SHARES)["sign"] == sign


@pytest.mark.parametrize(
    ("doubling", "n", "consistency", "reason"),
    [
        (0.002, 40, FINE, "saturated: twice as many real labels gain .0.2 points"),
        (0.03, 40, {"real": 0.5, "generated": 0.2}, "generator is too weak.*give 40%"),
        (0.03, 8, FINE, "8 images are too few"),
    ],
)
def test_it_says_why_not(
    doubling: float, n: int, consistency: dict[str, float], reason: str
) -> None:
    found = verdict(entry(-0.01, 0.1, doubling), n, consistency, SHARES)
    assert found["sign"] == "unlikely"
    (only,) = found["reasons"]
    assert re.search(reason, only)
    assert only in found["verdict"]


def test_copies_are_a_reason() -> None:
    numbers = entry(-0.01, 0.1)
    numbers["arms"]["filtered"]["copies"] = {"n": 40, "n_copies": 1, "many": False}
    assert verdict(numbers, 40, FINE, SHARES)["reasons"] == []
    numbers["arms"]["filtered"]["copies"] = {"n": 40, "n_copies": 38, "many": True}
    (only,) = verdict(numbers, 40, FINE, SHARES)["reasons"]
    assert only.startswith("38 of 40 generated images are copies of training images")


def test_a_class_that_the_labels_hardly_show_is_a_reason() -> None:
    shares = {**SHARES, "tree": (0.02, 0.29), "water": (0.0, 0.05)}
    (only,) = verdict(entry(-0.01, 0.1), 40, FINE, shares)["reasons"]
    assert only == (
        "classes that fill much more of the evaluation images than of the labelled ones, and what "
        "labels do not show is not generated: tree (2.0%, there 29.0%), water (0.0%, there 5.0%); "
        "label images with them"
    )
    assert verdict(entry(0.02, 0.97), 40, FINE, shares)["reasons"] == []


def test_images_are_scaled_with_their_masks(tmp_path: Path) -> None:
    labels = LabelSet.from_names({0: "void", 1: "road", 2: "sky"}, ignore_id=0)
    writer = PreparedWriter(tmp_path / "data", PreparedFormat(labels, 256, 512), "prepared", {})
    mask = np.full((256, 512), 1, np.uint8)
    mask[:128] = 2
    image = np.repeat(100 * mask[..., None], 3, 2)
    writer.write_pair("train", "a", image, mask, box=(0, 0, 256, 256))
    data = writer.finish("toy", "made here", "CC0")
    size = small_size(data)
    assert size == (80, 160)  # 12,288 pixels would be 78 x 157
    small = shrink(data, ("train",), size, tmp_path / "small")
    assert small.content_box("train", "a") == (0, 0, 80, 80)
    found = small.read_mask("train", "a")
    assert set(np.unique(found[:40])) == {2} and set(np.unique(found[40:])) == {1}
    np.testing.assert_array_equal(small.read_image("train", "a")[..., 0], 100 * found)
    assert shrink(small, ("train",), size, tmp_path / "again") is small


@pytest.fixture(scope="module")
def streets(small_streets: Callable[[int, int], PreparedDataset]) -> Path:
    return small_streets(8, 8).root


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"n": 3}, "--n is 3: must be at least 4"),
        ({"n": 9}, "has 8 images, --n asks for 9"),
        ({"minutes": 0.0}, "--minutes is 0: must be above 0"),
        ({"eval_split": "train"}, "--eval-split train: is also --split"),
        ({"recipe": "nothing"}, "unknown recipe `nothing`"),
        ({"min_class_images": 9}, "no class is in 9 images"),
    ],
)
def test_what_is_wrong_is_a_line_before_the_work(
    streets: Path, tmp_path: Path, flags: dict[str, Any], match: str
) -> None:
    flags = {"data": streets, "output": tmp_path / "out", "segment": ("arch=unet",), **flags}
    with pytest.raises(UserError, match=match):
        run_probe(ProbeConfig(**flags))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_probe_runs_and_resumes(streets: Path, tmp_path: Path) -> None:
    config = ProbeConfig(
        data=streets,
        output=tmp_path / "out",
        minutes=0.01,  # the least steps
        segment=("arch=unet", "width=8"),
        generate=("steps=2",),
        device="cpu",
    )
    found = run_probe(config)
    assert found["sign"] in ("likely", "unlikely", "unclear")
    assert 0 <= found["probability"] <= 1
    result = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert result["plan"]["segmenter_steps"] == 30
    shares = np.array(list(found["class_shares"].values()))
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-4)
    assert set(result["n"]["8"]["arms"]) == {"quarter", "half", "strong", "filtered", "strength"}
    page = (tmp_path / "out" / "probe.html").read_text()
    assert "Is synthesis likely to help? streets" in page
    assert run_probe(config) == found
    assert PreparedDataset.open(streets).stems("train")

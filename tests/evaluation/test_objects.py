"""Objects and kinds of images in a report: the way of each kind by itself, of known images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample
from semsynth.evaluation.accumulate import SetStatistics
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics.mask_scores import MaskScores
from semsynth.evaluation.partial_results import PartialResults
from semsynth.evaluation.run import evaluate

KINDS = ("day", "night")


def write_with_objects(
    folder: Path, data: PreparedDataset, things: bool = True, kinds: bool = True
) -> PreparedDataset:
    """The val images of toy data again, with instance maps of the cars and a kind by turns."""
    labels = data.labels
    if things:
        labels = LabelSet(
            tuple(replace(label, thing=label.name == "car") for label in labels.labels),
            labels.ignore_id,
        )
    form = PreparedFormat(labels, data.height, data.width)
    writer = PreparedWriter(folder, form)
    for i, stem in enumerate(data.stems("val")):
        mask = data.read_mask("val", stem)
        sample = PreparedSample(
            data.read_image("val", stem), mask, instances=np.where(mask == 7, 5 + i, 0)
        )
        record = write_sample(folder, form, "val", stem, sample)
        writer.add(replace(record, kind=KINDS[i % 2] if kinds else ""))
    return writer.finish("toy", "made here", "CC0-1.0")


def nearly(data: PreparedDataset, stem: str) -> np.ndarray:
    """A real image, other in one unlabelled pixel: generated images are not real ones."""
    image = data.read_image("val", stem).copy()
    image[0, -1] ^= 1
    return image


@pytest.fixture
def score(
    data: PreparedDataset, segmenter: Path, make_samples: Callable[..., PreparedDataset],
    tmp_path: Path,
) -> Callable[..., Any]:  # fmt: skip
    def run(render: Callable[[np.ndarray, int], np.ndarray] | None = None, **real: Any) -> Any:
        kept = write_with_objects(tmp_path / "objects", data, **real)
        images = {data.read_mask("val", s).tobytes(): nearly(data, s) for s in data.stems("val")}
        samples = make_samples(
            render=render or (lambda mask, _: images[mask.tobytes()]), per_mask=1
        )
        return evaluate(
            EvaluateConfig(
                generated=(str(samples.root),), data=kept.root, segmenter=segmenter,
                output=tmp_path / "report", download=False, device="cpu",
            )
        )  # fmt: skip

    return run


@pytest.mark.parametrize("things", [True, False])
def test_real_images_have_all_of_the_way(score: Callable[..., Any], things: bool) -> None:
    metrics = score(things=things)["metrics"]
    found = metrics["instance_f1"]
    assert found["classes"] == ["car"] and found["objects"] == 6 and found["iou"] == 0.5
    assert found["f1"] == pytest.approx(found["f1_real"], abs=0.1) and found["f1"] > 0.5
    assert found["way"]["n"] == 6 and found["f1_mean_colours"] >= 0
    assert metrics["by_kind"].keys() == set(KINDS)
    for entry in metrics["by_kind"].values():
        assert entry["n_masks"] == 3
        assert entry["miou"] == pytest.approx(entry["miou_real"], abs=0.01)
        assert entry["miou"] > 0.5 and "f1_real" in entry["instance_f1"]


def test_a_kind_is_scored_by_itself(
    score: Callable[..., Any], data: PreparedDataset, noise_renderer: Any
) -> None:
    images = {data.read_mask("val", s).tobytes(): (i, s) for i, s in enumerate(data.stems("val"))}

    def render(mask: np.ndarray, seed: int) -> np.ndarray:
        i, stem = images[mask.tobytes()]
        return nearly(data, stem) if i % 2 == 0 else noise_renderer(mask, seed)

    day, night = (score(render)["metrics"]["by_kind"][kind] for kind in KINDS)
    assert day["miou"] == pytest.approx(day["miou_real"], abs=0.01)
    assert night["miou"] < night["miou_real"] - 0.2
    assert night["instance_f1"]["f1"] < day["instance_f1"]["f1"]


def test_without_objects_and_kinds_there_are_no_entries(
    data: PreparedDataset, segmenter: Path, make_samples: Any, tmp_path: Path
) -> None:
    config = EvaluateConfig(
        generated=(str(make_samples().root),), data=data.root, segmenter=segmenter,
        output=tmp_path / "report", download=False, device="cpu",
    )  # fmt: skip
    metrics = evaluate(config)["metrics"]
    assert "instance_f1" not in metrics and "by_kind" not in metrics


def test_counts_of_parts_add_up_through_files() -> None:
    parts = []
    for number in (0, 3):
        scores = MaskScores([0, 1])
        objects = {number: np.array([[number], [4], [5]])}
        parts.append(
            PartialResults({"real": SetStatistics(1, {}, scores, objects=objects)}).to_bytes()
        )
    total = PartialResults.from_bytes(parts[0]) + PartialResults.from_bytes(parts[1])
    found = total.sets["real"].objects
    assert {i: counts.ravel().tolist() for i, counts in found.items()} == {
        0: [0, 4, 5], 3: [3, 4, 5],
    }  # fmt: skip

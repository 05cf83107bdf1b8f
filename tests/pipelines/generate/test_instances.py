"""What samples keep of their masks, so that a model trains on them: objects, kind of image."""

from __future__ import annotations

import shutil
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
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate

Fake = Callable[..., Any]
LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 7: "car", 9: "crane"}, ignore_id=0)
MASK = np.ones((16, 24), np.uint8)
MASK[:6], MASK[8:12, 4:10], MASK[8:12, 14:20] = 2, 7, 9
OBJECTS = np.zeros_like(MASK, np.uint16)
OBJECTS[8:12, 4:7], OBJECTS[8:12, 7:10], OBJECTS[8:12, 14:20] = 1, 2, 300


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two cars that touch and a crane; the second mask has no instance map."""
    form = PreparedFormat(LABELS, 16, 24)
    writer = PreparedWriter(tmp_path / "prepared", form, "prepared", {})
    for stem, objects in (("a", OBJECTS), ("b", None)):
        sample = PreparedSample(None, MASK, (32, 48), instances=objects)
        record = write_sample(writer.root, form, "val", stem, sample)
        writer.add(replace(record, kind="stained" if stem == "a" else ""))
    writer.finish("objects", "made here", "CC0-1.0")
    return tmp_path / "prepared"


def run(data: Path, output: Path, generator: Any, **flags: Any) -> PreparedDataset:
    generate(GenerateConfig(data=data, output=output, per_mask=1, **flags), generator)
    return PreparedDataset.open(output)


def test_samples_have_the_instance_maps_of_their_masks(
    data: Path, tmp_path: Path, fake: Fake
) -> None:
    samples = run(data, tmp_path / "o", fake(labels=LABELS))
    found = samples.find_instances("val", "a__000")
    assert found is not None and np.array_equal(found, OBJECTS)
    assert samples.find_instances("val", "b__000") is None


def test_at_native_size_they_are_as_large_as_the_image(
    data: Path, tmp_path: Path, fake: Fake
) -> None:
    samples = run(data, tmp_path / "o", fake(labels=LABELS), native_size=True)
    doubled = OBJECTS.repeat(2, 0).repeat(2, 1)
    assert np.array_equal(samples.read_instances("val", "a__000"), doubled)


def test_what_becomes_unlabelled_belongs_to_no_object(
    data: Path, tmp_path: Path, fake: Fake
) -> None:
    (tmp_path / "map.yaml").write_text("crane:\n")
    samples = run(data, tmp_path / "o", fake(), label_map=tmp_path / "map.yaml")
    expected = np.where(MASK == 9, 0, OBJECTS)
    assert np.array_equal(samples.read_instances("val", "a__000"), expected)


def test_samples_of_before_get_them_when_the_command_runs_again(
    data: Path, tmp_path: Path, fake: Fake
) -> None:
    images = run(data, tmp_path / "o", fake(labels=LABELS)).image_path("val", "a__000")
    before = images.read_bytes()
    shutil.rmtree(tmp_path / "o" / "instances")
    again = run(data, tmp_path / "o", fake(labels=LABELS))
    assert np.array_equal(again.read_instances("val", "a__000"), OBJECTS)
    assert images.read_bytes() == before


def test_samples_are_of_the_kind_of_their_masks(data: Path, tmp_path: Path, fake: Fake) -> None:
    for _ in range(2):  # written, and found by a run that lost its list
        samples = run(data, tmp_path / "o", fake(labels=LABELS))
        kinds = [samples.record("val", stem).kind for stem in ("a__000", "b__000")]
        assert kinds == ["stained", None]
        for left in ("dataset.json", "metadata_val.jsonl"):
            (tmp_path / "o" / left).unlink(missing_ok=True)

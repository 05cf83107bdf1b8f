"""Masks that number objects: a question, and how they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from raw_folders import Made, opened

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.prepare.run import prepare

ASKS = r"masks have \d+ ids, and the pixels of each are connected.*--masks-as instances.*ids"


def cells(count: int, step: int = 1) -> np.ndarray:
    """Squares of 3 pixels, numbered step, 2 * step, ..."""
    numbers = np.zeros((24, 32), np.uint16)
    for i in range(count):
        y, x = 4 * (i // 7) + 1, 4 * (i % 7) + 1
        numbers[y : y + 3, x : x + 3] = (i + 1) * step
    return numbers


def save(made: Made, masks: list[np.ndarray]) -> None:
    for n, mask in enumerate(masks):
        made.save(f"images/{n}.png", made.image(n))
        made.save(f"masks/{n}.png", mask)


@pytest.mark.parametrize(
    "masks",
    [
        [cells(3), cells(7), cells(5), cells(0)],  # counted from 1, of different numbers
        [cells(40, 9)] * 4,  # many, of one piece each
    ],
    ids=["counted", "many"],
)
def test_numbers_are_a_question(masks: list[np.ndarray], made: Made) -> None:
    save(made, masks)
    with pytest.raises(UserError, match=ASKS):
        opened(made.root)
    ids = set(np.unique(np.stack(masks)).tolist())
    assert set(opened(made.root, masks_as="ids").labels.names) == ids
    source = opened(made.root, masks_as="instances")
    labels = {label.id: (label.name, label.thing) for label in source.labels.labels}
    assert labels == {0: ("background", False), 1: ("object", True)}
    for record in source.records():
        sample, numbers = source.read(record), masks[int(record.stem)]
        assert (sample.mask == (numbers > 0)).all()
        assert sample.instances is not None and (sample.instances == numbers).all()


@pytest.mark.parametrize(
    "masks",
    [
        [cells(3), cells(4), cells(5)],  # as few as there may be classes
        [cells(20), cells(20), cells(20)],  # the same everywhere, as organs are
        [cells(7) % 3, cells(9) % 4],  # pieces of one class
    ],
    ids=["few", "everywhere", "pieces"],
)
def test_classes_are_none(masks: list[np.ndarray], made: Made) -> None:
    save(made, masks)
    assert opened(made.root).labels.names[1] == "class_1"


def test_labels_answer_the_question(made: Made) -> None:
    masks = [cells(3), cells(7), cells(5)]
    save(made, masks)
    made.text("labels.yaml", "{0: nothing, 1: {name: cell, thing: true}}")
    source = opened(made.root, masks_as="instances")
    assert source.labels.names == {0: "nothing", 1: "cell"}
    made.text("labels.yaml", str({i: f"c{i}" for i in range(8)}))
    assert len(opened(made.root).labels.names) == 8


def test_a_prepared_set_has_the_instances(made: Made, tmp_path: Path) -> None:
    masks = [cells(3), cells(7), cells(5), cells(6)]
    save(made, masks)
    size = {"height": 24, "width": 32}
    output = tmp_path / "out"
    prepare(PrepareConfig(path=made.root, output=output, masks_as="instances", workers=1, **size))
    data = PreparedDataset.open(output)
    for split in data.splits():
        assert data.has_instances(split)
        for stem in data.stems(split):
            assert (data.read_instances(split, stem) == masks[int(stem)]).all()
            assert (data.read_mask(split, stem) == (masks[int(stem)] > 0)).all()


def test_other_sources_refuse_the_flag() -> None:
    with pytest.raises(UserError, match="is for folders of images and masks, not sidewalk"):
        PrepareConfig(source="sidewalk", masks_as="instances")

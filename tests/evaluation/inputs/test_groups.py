"""What images are alike of, as a prepared data set records it: the blocks of the bootstrap."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semsynth.data.image_info import ImageInfo
from semsynth.data.labels import LabelSet
from semsynth.data.records import ImageRecord, PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample
from semsynth.evaluation.inputs.image_set import PreparedImages

FORM = PreparedFormat(LabelSet.from_names({0: "a", 1: "b"}), 8, 8)


def prepared(root: Path, groups: dict[str, str]) -> PreparedImages:
    writer = PreparedWriter(root, FORM)
    for number, (stem, group) in enumerate(groups.items()):
        pixels = np.full((8, 8, 3), number, np.uint8)
        sample = PreparedSample(pixels, np.zeros((8, 8), np.uint8))
        record = write_sample(root, FORM, "val", stem, sample)
        writer.add(ImageRecord("val", stem, record.info, record.pixels, group=group))
    writer.finish("set", "made up", "CC0-1.0")
    return PreparedImages.open(root, "val")


def groups_of(images: PreparedImages) -> list[str | None]:
    return [images.group(stem) for stem in images.stems]


def test_a_field_is_more_than_the_image_of_a_tile(tmp_path: Path) -> None:
    fields = {"a@0_0": "f", "a@0_8": "f", "b": "f", "c@0_0": "g", "c@0_8": "g"}
    assert groups_of(prepared(tmp_path, fields)) == ["f", "f", "f", "g", "g"]


def test_one_field_for_all_says_nothing_so_tiles_count(tmp_path: Path) -> None:
    images = prepared(tmp_path, dict.fromkeys(("a@0_0", "a@0_8", "b@0_0", "b@0_8"), "tile8"))
    assert groups_of(images) == ["a", "a", "b", "b"]


def test_each_its_own_is_no_group(tmp_path: Path) -> None:
    assert groups_of(prepared(tmp_path, {"a": "a", "b": "b"})) == [None, None]
    assert ImageInfo(original_size=[8, 8], box=[0, 0, 8, 8], resize=None).group is None

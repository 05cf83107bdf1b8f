"""What preparing keeps of each image in memory: tens of bytes, whatever the number of images."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_info import ImageInfo
from semsynth.data.labels import LabelSet
from semsynth.data.prepare.duplicates import find_duplicates
from semsynth.data.prepare.understood import choose_for_sheet, class_table
from semsynth.data.records import (
    ImageRecord,
    PreparedFormat,
    RecordStore,
    describe,
    read_records,
    write_info,
    write_records,
)
from semsynth.data.sources import open_source

FEW, MANY = 300, 1000
MOST_BYTES = 300  # for one more image, at the peak
LABELS = LabelSet.from_names({0: "none", 1: "road"}, ignore_id=0)


def peak_of(work: Callable[[int], object], count: int) -> int:
    tracemalloc.start()
    work(count)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def growth(work: Callable[[int], object]) -> float:
    work(MANY)  # what is imported, and kept once
    few = peak_of(work, FEW)
    return (peak_of(work, MANY) - few) / (MANY - FEW)


def raw_folder(root: Path, count: int) -> Path:
    folder = root / f"{count}"
    for kind, pixels in (("images", np.zeros((8, 8, 3), np.uint8)), ("masks", np.ones((8, 8)))):
        for split in ("train", "val"):
            (folder / kind / split).mkdir(parents=True)
        first = folder / kind / "val" / "first.png"
        cv2.imwrite(str(first), pixels)
        for number in range(count):
            os.link(first, folder / kind / "train" / f"street_{number:06d}.png")
    (folder / "labels.yaml").write_text("labels: [none, road]\nignore: none\n")
    return folder


def test_a_folder_of_images_and_masks(tmp_path: Path) -> None:
    folders = {count: raw_folder(tmp_path, count) for count in (FEW, MANY)}

    def opened(count: int) -> None:
        source = open_source(
            PrepareConfig(source="auto", data=folders[count], output=tmp_path / "o")
        )
        assert source.total == count + 1
        assert sum(record.split == "train" for record in source.records()) == count
        assert source.tree is not None and not any(
            reason for name, reason in source.tree.inventory().items() if name != "labels.yaml"
        )

    assert growth(opened) < MOST_BYTES


def test_the_record_of_all_images(tmp_path: Path) -> None:
    def recorded(count: int) -> None:
        def records() -> RecordStore:
            return RecordStore.of(
                ImageRecord(
                    "train",  # what is compared of two splits is of one size, but not small
                    f"street_{i:06d}",
                    ImageInfo(
                        original_size=[8, 8],
                        box=[0, 0, 8, 8],
                        resize=None,
                        digests={"images": f"{i:032x}", "masks": f"{7 * i:032x}"},
                    ),
                    {1: 60, 0: 4},
                    hash(("image", i)) % (1 << 64),
                )
                for i in range(count)
            )

        store = records()
        write_records(tmp_path, store)
        assert read_records(tmp_path) == store
        found = find_duplicates(store, 0)
        assert not found.identical and not found.other_masks
        assert len(choose_for_sheet(store.in_order())) == 12
        assert class_table(LABELS, store.in_order()).count("road") == 1
        about = {"name": "n", "source": "s", "licence": "CC0-1.0", "excluded": {}}
        info = describe(PreparedFormat(LABELS, 8, 8), store, about)
        write_info(tmp_path, info)
        assert PreparedDataset.open(tmp_path).info == info

    assert growth(recorded) < MOST_BYTES

"""What was written is read back; an unfinished or foreign folder is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat, read_records, write_records
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample

LABELS = LabelSet.from_names({0: "none", 1: "road", 2: "sky"}, ignore_id=0)
FORM = PreparedFormat(LABELS, 8, 12)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (8, 12, 3), np.uint8)
IDS = RNG.integers(0, 3, (8, 12), np.uint8)


def finish(writer: PreparedWriter) -> PreparedDataset:
    return writer.finish("test", "made here", "CC0-1.0")


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "d", FORM)
    writer.write_pair("val", "a[1]", IMAGE, IDS, original_size=(16, 24))
    writer.write_pair("train", "b", IMAGE[::-1], IDS[::-1])
    finish(writer)
    data = PreparedDataset.open(tmp_path / "d")
    assert data.splits() == ["train", "val"]
    assert data.stems("val") == ["a[1]"]
    assert data.labels == LABELS
    assert (data.read_image("val", "a[1]") == IMAGE).all()
    assert (data.read_mask("train", "b") == IDS[::-1]).all()
    assert data.original_size("val", "a[1]") == (16, 24)
    assert data.content_box("train", "b") == (0, 0, 8, 12)
    assert data.has_images("val")
    assert not data.has_instances("val")
    assert data.info.licence == "CC0-1.0"
    assert not list((tmp_path / "d").glob(".progress*"))


def test_shares_count_the_content_and_not_the_padding(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "d", FORM)
    ids = np.zeros((8, 12), np.uint8)
    ids[2:6] = 1
    ids[2, :6] = 2
    writer.write_pair("train", "a", IMAGE, ids, (4, 12), (2, 0, 4, 12))
    split = finish(writer).info.splits["train"]
    assert split.class_pixels == {"none": 0, "road": 42, "sky": 6}
    assert split.class_shares["road"] == pytest.approx(42 / 48)


def test_masks_alone_and_instances(tmp_path: Path) -> None:
    objects = np.arange(96, dtype=np.int32).reshape(8, 12) * 600
    writer = PreparedWriter(tmp_path / "d", FORM)
    writer.write_pair("val", "a", None, IDS)
    writer.add(
        write_sample(
            writer.root, FORM, "train", "b", PreparedSample(IMAGE, IDS, None, None, objects)
        )
    )
    data = finish(writer)
    assert not data.has_images("val")
    assert (data.read_instances("train", "b") == objects).all()


def test_several_writers_fill_one_folder(tmp_path: Path) -> None:
    writers = [PreparedWriter(tmp_path / "d", FORM, "samples", {"k": 1}, shard) for shard in (0, 1)]
    for number, writer in enumerate(writers):
        writer.write_pair("val", f"p{number}", IMAGE, IDS)
    assert finish(writers[0]).stems("val") == ["p0", "p1"]


def test_a_progress_file_that_was_cut_short_loses_one_image_only(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "d", FORM)
    writer.write_pair("train", "a", IMAGE, IDS)
    writer.write_pair("train", "b", IMAGE, IDS)
    path = next((tmp_path / "d").glob(".progress*"))
    path.write_text(path.read_text()[:-30])
    again = PreparedWriter(tmp_path / "d", FORM)
    assert again.done("train", "a")
    assert not again.done("train", "b")
    again.write_pair("train", "b", IMAGE, IDS)
    again.write_pair("train", "c", IMAGE, IDS)
    last = PreparedWriter(tmp_path / "d", FORM)
    assert finish(last).stems("train") == ["a", "b", "c"]


@pytest.mark.parametrize("stem", ["", "../x", ".x", "a/b", "a\\b", "a\nb"])
def test_names_that_would_leave_the_folder_are_refused(tmp_path: Path, stem: str) -> None:
    writer = PreparedWriter(tmp_path / "d", FORM)
    with pytest.raises(UserError, match="cannot be a file name"):
        writer.write_pair("train", stem, IMAGE, IDS)


def test_wrong_sizes_and_ids_are_not_written(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "d", FORM)
    with pytest.raises(UserError, match="must be"):
        writer.write_pair("train", "a", IMAGE[:4], IDS)
    with pytest.raises(UserError, match="ids outside the labels: 9"):
        writer.write_pair("train", "a", IMAGE, IDS + 9)
    assert not list((tmp_path / "d").rglob("*.png"))


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        PreparedDataset.open(tmp_path / "d")
    writer = PreparedWriter(tmp_path / "d", FORM)
    writer.write_pair("train", "a", IMAGE, IDS)
    with pytest.raises(UserError, match=r"has no dataset.json"):
        PreparedDataset.open(tmp_path / "d")
    data = finish(writer)
    with pytest.raises(UserError, match="has no split 'test'; it has train"):
        data.stems("test")
    path = tmp_path / "d" / "dataset.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "format": 99}))
    with pytest.raises(UserError, match="format is 99, this version reads 1"):
        PreparedDataset.open(tmp_path / "d")
    path.write_text(json.dumps({**info, "widht": 1}))
    with pytest.raises(UserError, match="unknown key 'widht'; did you mean 'width'"):
        PreparedDataset.open(tmp_path / "d")
    path.write_text(json.dumps(info)[:100])
    with pytest.raises(UserError, match="not valid JSON"):
        PreparedDataset.open(tmp_path / "d")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "d", FORM)
    writer.write_pair("train", "a", IMAGE, IDS)
    data = finish(writer)
    data.mask_path("train", "a").write_bytes(b"")
    with pytest.raises(UserError, match=r"masks/train/a.png: cannot be read"):
        data.read_mask("train", "a")
    data.image_path("train", "a").unlink()
    with pytest.raises(UserError, match=r"images/train/a.png: no such file"):
        data.read_image("train", "a")


def test_jpeg_keeps_a_smooth_image(tmp_path: Path) -> None:
    form = PreparedFormat(LABELS, 64, 64, image_format="jpg")
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.dstack(
        [ramp[None].repeat(64, 0), ramp[:, None].repeat(64, 1), 255 - ramp[None].repeat(64, 0)]
    )
    writer = PreparedWriter(tmp_path / "d", form)
    writer.write_pair("train", "a", image, np.ones((64, 64), np.uint8))
    data = finish(writer)
    assert data.image_path("train", "a").suffix == ".jpg"
    assert np.abs(data.read_image("train", "a").astype(int) - image).mean() < 2


def test_a_folder_in_place_of_a_mask_is_named(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "d", FORM)
    writer.write_pair("val", "a", IMAGE, IDS)
    data = finish(writer)
    data.mask_path("val", "a").unlink()
    data.mask_path("val", "a").mkdir()
    with pytest.raises(UserError, match=r"masks/val/a.png: is a folder, not a file"):
        PreparedDataset.open(data.root).read_mask("val", "a")


def test_a_damaged_line_of_the_list_of_written_images_is_not_believed(tmp_path: Path) -> None:
    """Whichever bit flips: that image is written again, or known as it was."""
    writer = PreparedWriter(tmp_path / "d", FORM)
    for stem in ("a", "b"):
        writer.write_pair("val", stem, IMAGE, IDS)
    (path,) = (tmp_path / "d").glob(".progress-*")
    whole, first = writer.records(), path.read_bytes().index(b"\n")
    for bit in range(0, 8 * first, 3):
        changed = bytearray(path.read_bytes())
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        found = PreparedWriter(tmp_path / "d", FORM).records()
        assert found in (whole, whole[1:]), bit
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
    writer.forget("val", "b")
    assert PreparedWriter(tmp_path / "d", FORM).records() == whole[:1]


def test_damaged_records_of_a_finished_data_set_are_refused(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "d", FORM)
    writer.write_pair("val", "a", IMAGE, IDS)
    write_records(tmp_path, writer.records())
    assert list(read_records(tmp_path).values()) == writer.records()
    path = tmp_path / ".records.jsonl"
    counts = path.read_text()
    number = next(iter(writer.records()[0].pixels.values()))
    path.write_text(counts.replace(f'": {number},', f'": {number + 1},', 1))
    with pytest.raises(UserError, match=r"records.jsonl: is damaged"):
        read_records(tmp_path)

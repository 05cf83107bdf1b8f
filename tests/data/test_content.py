"""What a data set is does not depend on where it lies, and nothing in it changes unnoticed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from semsynth.core.errors import UserError
from semsynth.core.outputs import difference
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample

LABELS = LabelSet.from_names({0: "none", 1: "road", 2: "sky"}, ignore_id=0)
FORM = PreparedFormat(LABELS, 8, 12)


def made(folder: Path, form: PreparedFormat = FORM, licence: str = "CC0-1.0") -> PreparedDataset:
    """Make three images of noise, two to train on."""
    rng = np.random.default_rng(0)
    writer = PreparedWriter(folder, form)
    for split, stem in (("train", "a"), ("train", "a.b"), ("val", "c")):
        image, ids = rng.integers(0, 256, (8, 12, 3), np.uint8), rng.integers(0, 3, (8, 12))
        sample = PreparedSample(image, ids.astype(np.uint8), instances=ids)
        writer.add(write_sample(writer.root, form, split, stem, sample))
    return writer.finish("test", "made here", licence)


def edit(path: Path, later: bool = True) -> None:
    """Change a pixel; ``later``: as an editor does, not as a copy that keeps the time."""
    before = path.stat()
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    pixels[0, 0] = (pixels[0, 0] + 1) % 3
    cv2.imwrite(str(path), pixels)
    shift = 10**9 if later else 0
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + shift))


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    data = made(tmp_path / "one")
    digest = data.digest
    assert data.info.content == digest == PreparedDataset.open(tmp_path / "one").digest
    assert made(tmp_path / "elsewhere" / "two").digest == digest
    assert made(tmp_path / "licence", licence="All rights reserved").digest == digest
    shutil.copytree(tmp_path / "one", tmp_path / "copy", copy_function=shutil.copyfile)
    assert PreparedDataset.open(tmp_path / "copy").digest == digest
    (tmp_path / "one").rename(tmp_path / "moved")
    assert PreparedDataset.open(tmp_path / "moved").digest == digest


@pytest.mark.parametrize("kind", ["images", "masks", "instances"])
def test_one_pixel_changes_the_digests_that_it_concerns(tmp_path: Path, kind: str) -> None:
    data = made(tmp_path / "d")
    before, digest = data.digests(["train", "val"]), data.digest
    edit(tmp_path / "d" / kind / "train" / "a.png")
    again = PreparedDataset.open(tmp_path / "d")
    assert again.digest != digest == data.digest
    assert again.digest_of(["val"]) == data.digest_of(["val"])
    others = {"images", "masks", "instances"} - {kind}
    assert again.digest_of(["train"], others) == data.digest_of(["train"], others)
    now = again.digests(["train", "val"])
    assert difference(before, now) == "1 image changed (train/a)"
    assert again.read_mask("train", "a").shape == (8, 12), "what somebody edits counts as it is"


def test_a_changed_licence_is_said_and_used(tmp_path: Path, logged: Callable[[], str]) -> None:
    digest = made(tmp_path / "d").digest
    path = tmp_path / "d" / "dataset.json"
    written = json.loads(path.read_text())
    assert PreparedDataset.open(tmp_path / "d").info.text_checksum == written["text_checksum"]
    assert not logged()
    path.write_text(json.dumps({**written, "licence": "CC0"}))
    data = PreparedDataset.open(tmp_path / "d")
    assert (data.info.licence, data.digest) == ("CC0", digest)
    assert f"{path}: name, source, licence, notes or versions were changed" in logged()
    del written["text_checksum"]  # it is meant so
    path.write_text(json.dumps({**written, "licence": "CC BY 4.0"}))
    assert PreparedDataset.open(tmp_path / "d").info.licence == "CC BY 4.0"
    assert not logged()


def test_labels_and_geometry_are_content_and_colours_are_not(tmp_path: Path) -> None:
    digest = made(tmp_path / "d").digest
    path = tmp_path / "d" / "dataset.json"
    written = json.loads(path.read_text())
    with pytest.raises(
        UserError, match="is not what was written: it is damaged, or was changed by hand"
    ):
        path.write_text(path.read_text().replace('"void"', '"voie"').replace('"a"', '"e"'))
        PreparedDataset.open(tmp_path / "d")
    del written["checksum"]  # it is meant so

    def changed(change: str) -> bool:
        info = json.loads(json.dumps(written))
        exec(change, {"info": info})
        path.write_text(json.dumps(info))
        return PreparedDataset.open(tmp_path / "d").digest != digest

    assert changed("info['labels'][1]['name'] = 'street'")
    assert changed("info['labels'][1]['thing'] = True")
    assert changed("info['ignore_id'] = None")
    assert changed("info['pictures']['train']['a']['box'] = [0, 0, 8, 11]")
    assert not changed("info['labels'][1]['color'] = [1, 2, 3]")
    assert not changed("info['name'] = 'another'")
    assert not changed("info['licence'] = ''")


def test_a_folder_without_digests_is_read_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digest = made(tmp_path / "d").digest
    path = tmp_path / "d" / "dataset.json"
    info = json.loads(path.read_text())
    for image in (image for split in info["pictures"].values() for image in split.values()):
        del image["digests"]
    del info["content"], info["checksum"]
    path.write_text(json.dumps(info))
    with caplog.at_level("INFO"):
        data = PreparedDataset.open(tmp_path / "d")
        assert data.digest == digest
    assert data.record("train", "a").digest is None
    assert caplog.text.count("was made before digests were recorded; reading its files") == 1


def test_files_are_read_only_where_their_time_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "d")
    read: list[Path] = []
    plain = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path), plain(path))[1])
    path = tmp_path / "d" / "images" / "val" / "c.png"
    newest = (tmp_path / "d" / "dataset.json").stat().st_mtime_ns + 10**9
    os.utime(path, ns=(newest, newest))
    for expected in ([path], []):  # copied without its time; then known to be the same
        read.clear()
        assert len(PreparedDataset.open(tmp_path / "d").digest) == 32
        assert [file for file in read if file.suffix == ".png" and file == path] == expected


def test_a_read_only_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = made(tmp_path / "d").digest
    path = tmp_path / "d" / "masks" / "val" / "c.png"
    newest = (tmp_path / "d" / "dataset.json").stat().st_mtime_ns + 10**9
    os.utime(path, ns=(newest, newest))

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    assert PreparedDataset.open(tmp_path / "d").digest == digest


def test_a_file_that_is_replaced_unseen_is_refused_when_it_is_read(tmp_path: Path) -> None:
    made(tmp_path / "d")
    path = tmp_path / "d" / "masks" / "train" / "a.png"
    newest = (tmp_path / "d" / "dataset.json").stat().st_mtime_ns - 10**9
    os.utime(path, ns=(newest, newest))
    edit(path, later=False)
    data = PreparedDataset.open(tmp_path / "d")
    with pytest.raises(UserError, match=r"masks/train/a.png: is not the file that dataset.json"):
        data.read_mask("train", "a")
    path.touch()
    assert PreparedDataset.open(tmp_path / "d").read_mask("train", "a").shape == (8, 12)


def test_a_change_after_the_digest_was_taken_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "d")
    data = PreparedDataset.open(tmp_path / "d")
    assert data.digest_of(["train"])
    copy = pickle.loads(pickle.dumps(data))  # as a worker process has it
    edit(tmp_path / "d" / "images" / "train" / "a.png")
    edit(tmp_path / "d" / "images" / "val" / "c.png")
    for reader in (data, copy):
        with pytest.raises(UserError, match=r"train/a.png: was changed while this command runs"):
            reader.read_image("train", "a")
        assert reader.read_image("val", "c").shape == (8, 12, 3)


def test_differences_are_counted_and_named() -> None:
    old = {f"train/{i}": "x" for i in range(5)}
    new = {"train/0": "x", **{f"train/{i}": "y" for i in range(1, 9)}}
    assert difference(old, old) == ""
    assert difference(old, new) == (
        "4 images added (train/5, train/6, train/7 and 1 more), "
        "4 images changed (train/1, train/2, train/3 and 1 more)"
    )
    assert difference(new, old, "mask").startswith("4 masks removed (train/5")


def test_dropping_an_image_leaves_those_whose_names_begin_alike(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "d", FORM)
    ids = np.ones((8, 12), np.uint8)
    image = np.zeros((8, 12, 3), np.uint8)
    for stem in ("a", "a.b", "a.b.png", "a[1]"):
        writer.write_pair("train", stem, image, ids)
    data = writer.finish("test", "", "", {"train/a": "near-copy of val/x", "train/a[1]": "too"})
    assert data.stems("train") == ["a.b", "a.b.png"]
    for stem in data.stems("train"):
        assert data.read_image("train", stem).shape == (8, 12, 3)
        assert data.colored_path("train", stem).exists()
    left = {path.name for path in (tmp_path / "d").rglob("*.png")}
    assert left == {"a.b.png", "a.b.png.png"}

"""Features of real sets are measured once; what would change them is another entry."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semsynth.evaluation.feature_cache import FeatureCache
from semsynth.evaluation.inputs.folders import image_files
from semsynth.evaluation.inputs.image_set import FolderImages
from semsynth.evaluation.metrics.features import FeatureExtractor
from semsynth.evaluation.protocols import load_protocol


@pytest.fixture
def images(tmp_path: Path) -> FolderImages:
    (tmp_path / "set").mkdir()
    for i, name in enumerate("abc"):
        Image.new("RGB", (8, 6), (i, 0, 0)).save(tmp_path / "set" / f"{name}.png")
    return FolderImages("set", "set", image_files(tmp_path / "set", "--real"))


def test_rows_follow_the_bytes_of_their_images(images: FolderImages, tmp_path: Path) -> None:
    cache = FeatureCache(load_protocol(), tmp_path / "cache")
    extractor = FeatureExtractor("fid", "Inception", lambda x: x, weights="w" * 64)
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert cache.read(images, extractor) is None
    cache.write(images, extractor, rows)
    np.testing.assert_array_equal(cache.read(images, extractor), rows)
    # The same files by other names and in another order.
    moved = tmp_path / "moved"
    moved.mkdir()
    for name, old in zip("xyz", "cab", strict=True):
        (tmp_path / "set" / f"{old}.png").rename(moved / f"{name}.png")
    again = FolderImages("moved", "moved", image_files(moved, "--real"))
    np.testing.assert_array_equal(cache.read(again, extractor), rows[[2, 0, 1]])
    assert cache.read(again, replace(extractor, weights="v" * 64)) is None
    assert cache.read(again, replace(extractor, name="fid_clean", about="clean")) is None
    assert FeatureCache(load_protocol("sdm"), cache.folder).read(again, extractor) is None
    assert cache.read(again.of(["x", "y"]), extractor) is None
    (path,) = cache.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    assert cache.read(again, extractor) is None, "a damaged file is measured again"


def test_the_oldest_files_go_first(images: FolderImages, tmp_path: Path) -> None:
    cache = FeatureCache(load_protocol(), tmp_path / "cache", most_bytes=1500)
    for i, name in enumerate(("old", "new", "newest")):
        extractor = FeatureExtractor(name, name, lambda x: x)
        cache.write(images, extractor, np.zeros((3, 2), np.float32))
        (path,) = cache.folder.glob(f"{name}-*")
        os.utime(path, ns=(i, i))
    assert [path.name.partition("-")[0] for path in cache.folder.iterdir()] != []
    assert not list(cache.folder.glob("old-*")) and list(cache.folder.glob("newest-*"))


def test_a_cache_that_cannot_be_written_is_no_error(images: FolderImages, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = FeatureCache(load_protocol(), tmp_path / "file" / "features")
    extractor = FeatureExtractor("fid", "Inception", lambda x: x)
    cache.write(images, extractor, np.zeros((3, 2), np.float32))
    assert cache.read(images, extractor) is None

"""Latents on disk: right, computed once, of one data set and one codec."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import encode_image
from semsynth.models.codecs.codec import HaarCodec
from semsynth.training.inputs import latent_cache as module
from semsynth.training.inputs.latent_cache import LatentSet, cache_latents


class Counting(HaarCodec):
    """Counts what it encodes, and may be killed after some images."""

    def __init__(self, levels: int = 1, stop_after: int = 1000) -> None:
        super().__init__(levels)
        self.encoded, self.stop_after = 0, stop_after

    def encode(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        self.encoded += len(image_B3HW)
        if self.encoded > self.stop_after:
            raise KeyboardInterrupt
        return super().encode(image_B3HW)


@pytest.fixture
def data(images: Path) -> PreparedDataset:
    return PreparedDataset.open(images)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_latents_are_those_of_the_images(
    data: PreparedDataset, tmp_path: Path, dtype: module.Kept
) -> None:
    codec = HaarCodec(1)
    cache = cache_latents(LatentSet(data, codec, dtype=dtype), "train", folder=tmp_path / "cache")
    for stem in data.stems("train"):
        image = torch.from_numpy(data.read_image("train", stem)).permute(2, 0, 1)[None].float()
        for mirrored in (False, True):
            version = image.flip(-1) if mirrored else image
            expected = codec.encode(version / 127.5 - 1)[0].numpy()
            found = cache.read(stem, mirrored)
            assert found.dtype == np.float32
            # float16 keeps 11 binary digits.
            atol = 1e-6 if dtype == "float32" else 2 / 2048
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_nothing_is_computed_twice(data: PreparedDataset, tmp_path: Path) -> None:
    codec = Counting()
    for _ in range(2):
        cache_latents(LatentSet(data, codec), "train", folder=tmp_path / "cache")
        assert codec.encoded == 2 * len(data.stems("train"))
    cache_latents(LatentSet(data, codec), "val", folder=tmp_path / "cache")
    assert codec.encoded == 2 * (len(data.stems("train")) + len(data.stems("val")))


def test_a_killed_run_resumes(
    data: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIXELS_AT_A_TIME", 1)
    folder, stems = tmp_path / "cache", data.stems("train")
    with pytest.raises(KeyboardInterrupt):
        cache_latents(LatentSet(data, Counting(stop_after=5)), "train", folder=folder)
    assert len(list(folder.glob("*.safetensors"))) == 2
    codec = Counting()
    cache = cache_latents(LatentSet(data, codec), "train", folder=folder)
    assert codec.encoded == 2 * (len(stems) - 2)
    whole = cache_latents(LatentSet(data, HaarCodec(1)), "train", folder=tmp_path / "whole")
    for stem in stems:
        assert np.array_equal(cache.read(stem, True), whole.read(stem, True))


def test_processes_share_the_work(data: PreparedDataset, tmp_path: Path) -> None:
    codec = Counting()
    for rank in range(3):
        cache = cache_latents(LatentSet(data, codec), "train", "cpu", tmp_path / "c", (rank, 3))
    assert codec.encoded == 2 * len(data.stems("train"))
    assert all(cache.read(stem).any() for stem in data.stems("train"))


def test_another_codec_is_refused_and_named(data: PreparedDataset, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache_latents(LatentSet(data, HaarCodec(1)), "val", folder=folder)
    cases = {
        r"codec\.levels=1, now 2": LatentSet(data, HaarCodec(2)),
        "mirrored": LatentSet(data, HaarCodec(1), mirrored=False),
        "dtype": LatentSet(data, HaarCodec(1), dtype="float32"),
    }
    for message, latents in cases.items():
        with pytest.raises(UserError, match=message) as error:
            cache_latents(latents, "val", folder=folder)
        assert str(folder) in str(error.value) and "\n" not in str(error.value)
    folders = {latents.folder for latents in cases.values()}
    assert len(folders) == len(cases)
    assert all(path.parent.name.endswith("_latents") for path in folders)


def test_equal_images_of_a_moved_or_renamed_data_set_are_shared(
    data: PreparedDataset, tmp_path: Path
) -> None:
    folder, codec = tmp_path / "cache", Counting()
    cache_latents(LatentSet(data, codec), "val", folder=folder)
    count = codec.encoded
    shutil.copytree(data.root, tmp_path / "other")
    info = tmp_path / "other" / "dataset.json"
    info.write_text(info.read_text().replace('"licence": "', '"licence": "x'))
    other = PreparedDataset.open(tmp_path / "other")
    other.mask_path("val", other.stems("val")[0]).touch()
    cache_latents(LatentSet(other, codec), "val", folder=folder)
    assert codec.encoded == count > 0


def test_damaged_files_are_named(data: PreparedDataset, tmp_path: Path) -> None:
    cache = cache_latents(
        LatentSet(data, HaarCodec(1), mirrored=False), "val", folder=tmp_path / "c"
    )
    stem = data.stems("val")[0]
    with pytest.raises(UserError, match="no latents of mirrored images"):
        cache.read(stem, True)
    path = tmp_path / "c" / f"{data.file_digests('val')[stem]['images']}.safetensors"
    whole = path.read_bytes()
    flipped = bytes([*whole[:-5], whole[-5] ^ 1, *whole[-4:]])
    for content in (b"", whole[:-5], b"something else", flipped):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"\.safetensors: is missing or damaged"):
            cache.read(stem)
    cache_latents(LatentSet(data, HaarCodec(1), mirrored=False), "val", folder=tmp_path / "c")
    assert path.read_bytes() == whole


def test_latents_of_images_that_changed_are_computed_and_the_old_ones_stay(
    data: PreparedDataset, tmp_path: Path
) -> None:
    """A training that reads the old ones goes on with them."""
    shutil.copytree(data.root, tmp_path / "own")
    own = PreparedDataset.open(tmp_path / "own")
    first = cache_latents(LatentSet(own, HaarCodec(1)), "train")
    kept = {stem: first.read(stem) for stem in own.stems("train")}
    changed = own.stems("train")[2:4]
    for stem in changed:
        own.image_path("train", stem).write_bytes(
            encode_image(255 - own.read_image("train", stem), "png")
        )
    codec = Counting()
    edited = PreparedDataset.open(tmp_path / "own")
    again = cache_latents(LatentSet(edited, codec), "train")
    assert again.folder == first.folder and codec.encoded == 2 * len(changed)
    for stem, before in kept.items():
        sign = -1 if stem in changed else 1  # the transform is linear
        np.testing.assert_allclose(again.read(stem), sign * before, rtol=0, atol=2 / 2048)
        np.testing.assert_array_equal(first.read(stem), before)
    cache_latents(LatentSet(edited, codec), "train")
    assert codec.encoded == 2 * len(changed)


def test_some_images_of_a_split(data: PreparedDataset, tmp_path: Path) -> None:
    codec = Counting()
    stems = data.stems("train")[1:4]
    cache = cache_latents(LatentSet(data, codec), "train", folder=tmp_path / "c", stems=stems)
    assert codec.encoded == 2 * len(stems) and cache.read(stems[-1], True).any()


def test_a_missing_image(data: PreparedDataset, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "own")
    own = PreparedDataset.open(tmp_path / "own")
    own.image_path("val", own.stems("val")[0]).unlink()
    with pytest.raises(UserError, match=r"no such file; prepare the data again"):
        cache_latents(LatentSet(own, HaarCodec(1)), "val")


def test_values_beyond_float16_are_refused(data: PreparedDataset, tmp_path: Path) -> None:
    class Wild(HaarCodec):
        def encode(self, image_B3HW: torch.Tensor) -> torch.Tensor:
            return super().encode(image_B3HW) * 1e6

    with pytest.raises(UserError, match="not finite in float16"):
        cache_latents(LatentSet(data, Wild(1)), "val", folder=tmp_path / "c")
    assert not list((tmp_path / "c").rglob("*.npy"))

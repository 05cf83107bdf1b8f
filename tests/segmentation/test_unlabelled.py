"""Images without masks are read as the labelled ones were; what is known already is not used."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.prepare.run import prepare
from semsynth.data.resize import fit
from semsynth.segmentation import unlabelled as module
from semsynth.segmentation.seen import SeenImages
from semsynth.segmentation.unlabelled import UnlabelledImages
from semsynth.segmentation.unlabelled_files import looks_like_mask

Prepared = Callable[..., PreparedDataset]
SIZE = (24, 32)


def photo(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return an image whose look differs from that of any other seed, with noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    else:
        assert cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    return path


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Prepare raw images and masks, half of them held out, as a user does."""

    def make(images: list[np.ndarray], suffix: str = ".png", **flags: Any) -> PreparedDataset:
        for i, image in enumerate(images):
            save(tmp_path / "raw" / "images" / f"{i}{suffix}", image)
            mask = np.zeros(image.shape[:2], np.uint8)
            mask[len(mask) // 2 :] = 1
            save(tmp_path / "raw" / "masks" / f"{i}.png", mask)
        (tmp_path / "raw" / "labels.yaml").write_text("labels: {0: ground, 1: sky}\n")
        options = {"height": SIZE[0], "width": SIZE[1], "val_share": 0.5, "workers": 1} | flags
        output = tmp_path / "prepared"
        prepare(PrepareConfig(path=tmp_path / "raw", output=output, **options))
        return PreparedDataset.open(output)

    return make


@pytest.fixture
def data(prepared: Prepared) -> PreparedDataset:
    return prepared([photo(i) for i in range(4)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        save(tmp_path / "photos" / f"{i}.png", photo(100 + i))
    return tmp_path / "photos"


def raw_of(data: PreparedDataset, split: str) -> Path:
    """Return the raw file of the first image of a split."""
    return data.root.with_name("raw") / "images" / f"{data.stems(split)[0]}.png"


def test_images_of_any_size_are_fitted_as_the_labelled_ones(
    data: PreparedDataset, folder: Path
) -> None:
    path = save(folder / "deep" / "er" / "large.jpg", photo(200, 96, 64))
    (folder / "notes.txt").write_text("no image")
    save(folder / ".hidden.png", photo(201))
    found = UnlabelledImages(folder, data, "train")
    assert found.names == ["0.png", "1.png", "2.png", "deep/er/large.jpg"]
    image, inside = found[3]
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(image, fit(decoded, "stretch", SIZE, nearest=False))
    assert inside.all()
    assert found.summary() == {"images": 4}


def test_padding_is_no_content(prepared: Prepared, folder: Path) -> None:
    data = prepared([photo(i, 64, 64) for i in range(4)], height=32, width=32, resize="pad")
    image, inside = UnlabelledImages(folder, data, "train")[0]
    assert inside[4:28].all()
    assert inside.sum() == 24 * 32
    assert not image[~inside].any()


def test_large_images_are_cut_as_the_labelled_ones_were(prepared: Prepared, folder: Path) -> None:
    images = [photo(i, 128, 128) for i in range(4)]
    data = prepared(images, height=None, width=None, tile=64)
    save(folder / "large.png", photo(300, 96, 64))
    (folder / "held_out.png").write_bytes(raw_file_of_a_tile(data).read_bytes())
    found = UnlabelledImages(folder, data, "train")
    assert found.names == ["0.png", "1.png", "2.png", "large.png@0_0", "large.png@32_0"]
    assert np.array_equal(found[4][0], photo(300, 96, 64)[32:])
    assert found.left_out == {"held out (split 'val')": 4}


def test_prepared_images_that_are_larger_than_the_tiles_are_cut_too(
    prepared: Prepared, make_data: Callable[..., PreparedDataset]
) -> None:
    data = prepared([photo(i, 128, 128) for i in range(4)], height=None, width=None, tile=64)
    other = make_data("other", n=1, n_val=0, size=(96, 64))
    names = UnlabelledImages(other.root, data, "train").names
    assert names == ["train_00@0_0", "train_00@32_0"]


def test_names_that_are_no_text_are_read_all_the_same(data: PreparedDataset, folder: Path) -> None:
    strange = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")
    try:
        os.rename(folder / "0.png", strange)
    except OSError:
        pytest.skip("this file system takes names of UTF-8 alone")
    found = UnlabelledImages(folder, data, "train")
    assert found.names == ["1.png", "2.png", "caf\\udce9.png"]
    json.dumps(found.digests()).encode()
    assert found[2][0].any()


def raw_file_of_a_tile(data: PreparedDataset) -> Path:
    stem = data.stems("val")[0].partition("@")[0]
    return data.root.with_name("raw") / "images" / f"{stem}.png"


def test_what_is_labelled_or_held_out_is_left_out(
    data: PreparedDataset, folder: Path, logged: Callable[[], str]
) -> None:
    (folder / "labelled.png").write_bytes(raw_of(data, "train").read_bytes())
    held_out = cv2.imread(str(raw_of(data, "val")), cv2.IMREAD_COLOR_RGB)
    (folder / "held_out.png").write_bytes(raw_of(data, "val").read_bytes())
    save(folder / "same_pixels.bmp", held_out)
    save(folder / "compressed.jpg", held_out)
    save(folder / "twice.png", photo(101))
    save(folder / "white.png", np.full((48, 64, 3), 255, np.uint8))
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:200])
    found = UnlabelledImages(folder, data, "train")
    assert found.names == ["0.png", "1.png", "2.png"]
    assert found.left_out == {
        "held out (split 'val')": 2,
        "labelled": 1,
        "nearly the same as held-out ones": 1,
        "of one colour": 1,
        "there twice": 1,
        "unreadable": 1,
    }
    text = logged()
    assert "broken.png: cannot be read" in text
    assert "3 unlabelled images; left out: 2 held out (split 'val') (held_out.png, same_pix" in text


def test_a_prepared_data_set_gives_what_the_other_has_not(
    data: PreparedDataset, make_data: Callable[..., PreparedDataset]
) -> None:
    with pytest.raises(UserError, match=r"none of its images can be used: 2 labelled \("):
        UnlabelledImages(data.root, data, "train")
    with pytest.raises(UserError, match=r"none of its images can be used: 2 held out"):
        UnlabelledImages(data.root, data, "train", "val")
    other = make_data("other", n=1, n_val=0, size=(48, 64))
    image, _ = UnlabelledImages(other.root, data, "train")[0]
    raw = other.read_rgb("train", "train_00")
    assert np.array_equal(image, fit(raw, "stretch", SIZE, nearest=False))
    with pytest.raises(UserError, match="has no split 'test'"):
        UnlabelledImages(other.root, data, "train", "test")


def test_masks_are_never_read(make_data: Callable[..., PreparedDataset], data) -> None:
    other = make_data("other", n=1, n_val=0)
    for path in (other.root / "masks").rglob("*.png"):
        path.write_bytes(b"nothing")
    assert len(UnlabelledImages(other.root, data, "train")) == 1


def test_masks_are_no_images(data: PreparedDataset, tmp_path: Path) -> None:
    for below in ("masks", "colored_masks"):
        with pytest.raises(UserError, match=r"4 of 4 files look like masks \(train/"):
            UnlabelledImages(data.root / below, data, "train")
    # A folder with both of them.
    with pytest.raises(UserError, match=r"4 of 8 files look like masks \(masks/"):
        UnlabelledImages(tmp_path / "raw", data, "train")


def test_where_images_look_like_masks_they_may(prepared: Prepared, tmp_path: Path) -> None:
    def drawing(seed: int) -> np.ndarray:
        blocks = np.random.default_rng(seed).integers(0, 2, (4, 4)).astype(np.uint8) * 255
        return np.repeat(np.kron(blocks, np.ones((12, 16), np.uint8))[..., None], 3, -1)

    data = prepared([drawing(i) for i in range(4)])
    assert looks_like_mask(drawing(9), data.labels)
    save(tmp_path / "drawings" / "a.png", drawing(9))
    assert len(UnlabelledImages(tmp_path / "drawings", data, "train")) == 1


def test_an_image_is_no_mask(data: PreparedDataset) -> None:
    dark = np.random.default_rng(0).integers(4, 12, (48, 64, 1)).astype(np.uint8)
    assert not looks_like_mask(photo(3), data.labels)
    assert not looks_like_mask(np.repeat(dark, 3, -1), data.labels)
    assert not looks_like_mask(np.zeros((48, 64, 3), np.uint8), data.labels)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.txt"], "has no images"),
        ([], "has no images"),
        (["broken.png"], "none of its images can be used: 1 unreadable (broken.png)"),
    ],
)
def test_nothing_to_learn_from(
    data: PreparedDataset, tmp_path: Path, names: list[str], said: str
) -> None:
    (tmp_path / "folder").mkdir()
    for name in names:
        (tmp_path / "folder" / name).write_bytes(b"nothing")
    with pytest.raises(UserError, match=re.escape(said)):
        UnlabelledImages(tmp_path / "folder", data, "train")


def test_a_folder_that_is_not_there_and_generated_images(
    data: PreparedDataset, make_data: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no such folder"):
        UnlabelledImages(tmp_path / "nothing", data, "train")
    samples = make_data("samples")
    (samples.root / "manifest.jsonl").write_text("")
    with pytest.raises(UserError, match="are generated or edited images, which have masks"):
        UnlabelledImages(samples.root, data, "train")


def test_grey_images_become_rgb_where_the_labelled_ones_are(
    data: PreparedDataset, folder: Path
) -> None:
    grey = photo(300)[..., 0]
    save(folder / "grey.png", grey)
    found = UnlabelledImages(folder, data, "train")
    image, _ = found[found.names.index("grey.png")]
    assert (image == fit(grey, "stretch", SIZE, nearest=False)[..., None]).all()


def deep(seed: int, most: int) -> np.ndarray:
    return (photo(seed)[..., 0].astype(np.uint32) * most // 255).astype(np.uint16)


def test_a_window_counts_for_both(prepared: Prepared, tmp_path: Path) -> None:
    data = prepared([deep(i, 4000) for i in range(4)], window=(0.0, 4095.0))
    save(tmp_path / "more" / "a.png", deep(9, 4000))
    image, _ = UnlabelledImages(tmp_path / "more", data, "train")[0]
    assert image.max() > 200


def test_sixteen_bits_are_read_as_far_as_the_labelled_ones_say(
    data: PreparedDataset, folder: Path
) -> None:
    save(folder / "deep.png", deep(300, 65535))
    found = UnlabelledImages(folder, data, "train")
    assert found[found.names.index("deep.png")][0].max() > 200
    save(folder / "twelve.png", deep(301, 4095))
    with pytest.raises(UserError, match=r"twelve\.png: has 16 bits .* prepared without --window"):
        UnlabelledImages(folder, data, "train")


def test_channels_are_those_of_the_labelled_ones(prepared: Prepared, tmp_path: Path) -> None:
    def channels(seed: int, n: int) -> np.ndarray:
        return np.concatenate([photo(seed), photo(seed + 50)], -1)[..., :n].astype(np.uint16) * 16

    data = prepared([channels(i, 5) for i in range(4)], ".tif")
    assert (data.pixels.channels, data.pixels.bits) == (5, 12)
    save(tmp_path / "more" / "a.tif", channels(9, 5))
    image, _ = UnlabelledImages(tmp_path / "more", data, "train")[0]
    shown = fit(channels(9, 5)[..., :3] >> 4, "stretch", SIZE, nearest=False)
    assert np.abs(image.astype(int) - shown).max() <= 1
    save(tmp_path / "more" / "b.tif", channels(10, 4))
    with pytest.raises(UserError, match=r"b\.tif: has 4 channels of 16 bits, .* 5 channels of 12"):
        UnlabelledImages(tmp_path / "more", data, "train")
    save(tmp_path / "more" / "b.tif", channels(10, 5) * 16)
    with pytest.raises(
        UserError, match=r"b\.tif: has 5 channels .* values up to 65280; the images"
    ):
        UnlabelledImages(tmp_path / "more", data, "train")


def test_what_is_not_kept_is_read_again_and_must_be_the_same(
    data: PreparedDataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = UnlabelledImages(folder, data, "train")
    monkeypatch.setattr(module, "CACHE_BYTES", 24 * 32 * 3)
    found = UnlabelledImages(folder, data, "train")
    for i in range(3):
        assert np.array_equal(found[i][0], kept[i][0])
    save(folder / "2.png", photo(500))
    with pytest.raises(UserError, match=r"2\.png was changed while this command runs"):
        found[2]


def test_digests_are_those_of_the_content(data: PreparedDataset, folder: Path) -> None:
    before = UnlabelledImages(folder, data, "train")
    moved = folder.rename(folder.with_name("elsewhere"))
    assert UnlabelledImages(moved, data, "train").digests() == before.digests()
    save(moved / "1.png", photo(400))
    after = UnlabelledImages(moved, data, "train").digests()
    changed = [name for name, digest in after.items() if digest != before.digests()[name]]
    assert changed == ["1.png"]


def test_an_evaluator_knows_them_again(
    prepared: Prepared, data: PreparedDataset, folder: Path
) -> None:
    seen = UnlabelledImages(folder, data, "train").seen()
    for path in (data.root.with_name("raw") / "images").iterdir():
        path.write_bytes((folder / f"{int(path.stem) % 3}.png").read_bytes())
    again = SeenImages.of([(prepared_again(data), "val")])
    assert again.real & seen


def prepared_again(data: PreparedDataset) -> PreparedDataset:
    output = data.root.with_name("again")
    raw = data.root.with_name("raw")
    prepare(PrepareConfig(path=raw, output=output, height=16, width=16, workers=1))
    return PreparedDataset.open(output)

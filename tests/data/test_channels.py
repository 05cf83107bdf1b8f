"""Images of other channels or bits than RGB of 8: what is kept, what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.augment import adjust_color
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import (
    PixelForm,
    as_rgb,
    bits_of,
    decode_image,
    encode_tiff,
    read_tiff,
    tiff_channels,
)
from semsynth.data.prepare.run import prepare
from semsynth.data.resize import fit

SIZE = (24, 32)


def pixels(seed: int, channels: int, most: int = 4095, kind: str = "uint16") -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.integers(0, most + 1, (*SIZE, channels)).astype(kind)
    found[0, 0] = most
    return found


def save_raw(root: Path, images: list[np.ndarray], **options: Any) -> Path:
    """Write TIFFs with masks of two classes."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    options = options or {"photometric": "minisblack", "planarconfig": "contig"}
    for i, image in enumerate(images):
        tifffile.imwrite(root / "images" / f"a{i}.tif", image, **options)
        mask = np.zeros(SIZE, np.uint8)
        mask[:, i + 4 :] = 1
        Image.fromarray(mask).save(root / "masks" / f"a{i}.png")
    (root / "labels.yaml").write_text("labels: {0: background, 1: cell}\n")
    return root


def prepared(raw: Path, **flags: Any) -> PreparedDataset:
    options = {"height": SIZE[0], "width": SIZE[1], "workers": 1, "val_share": 0.3} | flags
    prepare(PrepareConfig(path=raw, output=raw.with_name("prepared"), **options))
    return PreparedDataset.open(raw.with_name("prepared"))


def all_images(data: PreparedDataset) -> dict[str, np.ndarray]:
    return {s: data.read_image(p, s) for p in data.splits() for s in data.stems(p)}


@pytest.mark.parametrize("channels", [2, 4, 5, 8])
def test_tiffs_of_many_channels_are_kept_to_the_value(tmp_path: Path, channels: int) -> None:
    images = [pixels(i, channels) for i in range(4)]
    data = prepared(save_raw(tmp_path / "raw", images))
    assert (data.info.channels, data.info.bits, data.info.image_format) == (channels, 12, "tif")
    found = all_images(data)
    assert all((found[f"a{i}"] == images[i]).all() for i in range(4))
    split, stem = data.splits()[0], data.stems(data.splits()[0])[0]
    assert data.read_rgb(split, stem).dtype == np.uint8
    assert data.read_rgb(split, stem).shape == (*SIZE, 3)


@pytest.mark.parametrize("imagej", [True, False])
def test_pages_of_channels_are_kept(tmp_path: Path, imagej: bool) -> None:
    images = [pixels(i, 3, 65535) for i in range(4)]
    options: dict[str, Any] = {"metadata": {"axes": "CYX"}, "imagej": imagej, "ome": not imagej}
    planes = [np.moveaxis(image, -1, 0).copy() for image in images]
    data = prepared(save_raw(tmp_path / "raw", planes, **options))
    assert data.pixels == PixelForm(3, 16) and data.info.image_format == "png"
    found = all_images(data)
    assert all((found[f"a{i}"] == images[i]).all() for i in range(4))


def test_unnamed_pages_and_columns_are_channels_if_asked(tmp_path: Path) -> None:
    image = pixels(0, 5)
    for written in (np.moveaxis(image, -1, 0).copy(), image):
        file = io.BytesIO()
        tifffile.imwrite(file, written)
        stored = tiff_channels(file.getvalue(), "x.tif")
        assert stored is not None and not stored.stated
        assert (stored.channels, stored.size) == (5, SIZE)
        assert (read_tiff(file.getvalue(), "x.tif") == image).all()


def test_grey_of_16_bits_is_windowed_unless_all_is_kept(tmp_path: Path) -> None:
    images = [pixels(i, 1, 65535)[..., 0] for i in range(4)]
    raw = save_raw(tmp_path / "raw", images, photometric="minisblack")
    data = prepared(raw)
    assert data.pixels.is_rgb and data.info.channels is None
    assert "channels" not in (data.root / "dataset.json").read_text()
    other = tmp_path / "kept"
    prepare(
        PrepareConfig(
            path=raw, output=other, channels="all", height=SIZE[0], width=SIZE[1], workers=1
        )
    )
    found = PreparedDataset.open(other)
    assert found.pixels == PixelForm(1, 16) and found.info.image_format == "png"
    for i, image in enumerate(images):
        split = next(s for s in found.splits() if f"a{i}" in found.stems(s))
        assert (found.read_image(split, f"a{i}")[..., 0] == image).all()
        assert (found.read_rgb(split, f"a{i}")[..., 0] == image >> 8).all()


def test_a_window_gives_8_bits_of_all_channels(tmp_path: Path) -> None:
    images = [pixels(i, 5, 1000).astype(np.int16) - 500 for i in range(4)]
    raw = save_raw(tmp_path / "raw", images)
    with pytest.raises(UserError, match=r"int16 values from -500 to 500.*--window -500 500"):
        prepared(raw)
    data = prepared(raw, window=(-500, 500))
    assert data.pixels == PixelForm(5, 8)
    found = all_images(data)["a0"]
    assert found.dtype == np.uint8 and found[0, 0, 0] == 255


def test_images_of_several_forms_are_refused(tmp_path: Path) -> None:
    raw = save_raw(tmp_path / "raw", [pixels(0, 5), pixels(1, 4)])
    with pytest.raises(UserError, match=r"a0.tif has 5 channels but .*a1.tif has 4"):
        prepared(raw)
    raw = save_raw(tmp_path / "many", [pixels(0, 9), pixels(1, 9)])
    with pytest.raises(UserError, match="has 9 channels; images may have 1 to 8"):
        prepared(raw)
    with pytest.raises(UserError, match=r"--image-format jpg: cannot hold 5 channels of 12 bits"):
        prepared(save_raw(tmp_path / "jpg", [pixels(i, 5) for i in range(4)]), image_format="jpg")


def test_enlarging_stays_within_the_bits(tmp_path: Path) -> None:
    data = prepared(
        save_raw(tmp_path / "raw", [pixels(i, 5) for i in range(4)]), height=64, width=96
    )
    assert max(int(image.max()) for image in all_images(data).values()) <= 4095


def test_the_file_of_an_image_must_be_of_its_form() -> None:
    image = pixels(0, 5)
    data = encode_tiff(image)
    assert (decode_image(data, PixelForm(5, 12), "x.tif") == image).all()
    with pytest.raises(UserError, match=r"has 5 channels of uint16, dataset.json says 4 channels"):
        decode_image(data, PixelForm(4, 12), "x.tif")
    with pytest.raises(UserError, match="has values above 1023"):
        decode_image(data, PixelForm(5, 10), "x.tif")


def test_what_is_shown() -> None:
    image = pixels(0, 5)
    assert (as_rgb(image, 12) == image[..., :3] >> 4).all()
    assert (as_rgb(image[..., :2], 12) == (image[..., :1] >> 4)).all()
    assert [bits_of(n) for n in (0, 255, 256, 4095, 4096, 65535)] == [8, 8, 9, 12, 13, 16]
    assert PixelForm().view_note() == ""
    assert PixelForm(5, 12).view_note().startswith("images have 5 channels of 12 bits; seen here")


def test_each_channel_is_resized_alike() -> None:
    image = pixels(0, 5)
    small = fit(image, "stretch", (11, 50), nearest=False)
    alone = [fit(image[..., c], "stretch", (11, 50), nearest=False) for c in range(5)]
    assert (small == np.stack(alone, -1)).all()
    assert fit(image[..., :1], "pad", (40, 40), nearest=False).shape == (40, 40, 1)


def test_colour_changes_all_channels_alike() -> None:
    image = np.full((2, 2, 5), 2048, np.uint16)
    brighter = adjust_color(image, 0.5, 0, 3.0, bits=12)
    assert brighter.dtype == np.uint16 and (brighter == round(2048 + 0.5 * 4095 / 2)).all()
    assert (adjust_color(image, 9, 0, 0, bits=12) == 4095).all()

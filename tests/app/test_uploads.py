"""What is decoded, and what is refused before or while it is."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semsynth.app.refused import Refused
from semsynth.app.uploads import (
    read_mask,
    read_photo,
    read_region,
    scaled,
    scaled_image,
)
from semsynth.data.image_files.channels import encode_image


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        file, kind, **options
    )
    return file.getvalue()


IDS = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def test_ids_are_read_as_they_were_written() -> None:
    assert (read_mask(encoded(IDS)) == IDS).all()
    wide = IDS.astype(np.uint16) * 200
    found = read_mask(encoded(wide))
    assert found.dtype == np.uint16 and (found == wide).all()
    palette = Image.fromarray(IDS)
    palette.putpalette([5] * 768)  # colours say nothing
    assert (read_mask(encoded(palette)) == IDS).all()
    for ids in (IDS, wide):
        assert (read_mask(encode_image(ids, "png")) == ids).all()


def chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(width: int, height: int, depth: int = 8, color: int = 0, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"GIF89a not an image", "is not a PNG"),
        (encoded(IDS, "JPEG"), "is not a PNG"),
        (encoded(IDS, "TIFF"), "is not a PNG"),
        (encoded(IDS, "BMP"), "is not a PNG"),
        (encoded(np.zeros((3, 4, 3), np.uint8)), "one channel"),
        (encoded(np.zeros((3, 4, 4), np.uint8)), "one channel"),
        (encoded(IDS)[:-30], "cannot be read"),
        (png(2, 1, 4, 0, b"\0\x12"), "grey PNG of 4 bits"),
        (png(0, 0), "mask"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_mask_is_one_line(data: bytes, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        read_mask(data)
    assert refused.value.http == 400 and "\n" not in str(refused.value)


@pytest.mark.parametrize("size", [(4097, 1), (1, 4097), (60_000, 60_000), (20_000, 8_000)])
def test_large_images_are_refused_by_their_header(size: tuple[int, int]) -> None:
    for read in (read_mask, read_photo):
        with pytest.raises(Refused, match="too large") as refused:
            read(png(*size))
        assert refused.value.http == 413


def test_the_largest_image_is_read() -> None:
    assert read_mask(encoded(np.zeros((4096, 4096), np.uint8))).shape == (4096, 4096)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_photos_of_three_kinds_are_read(kind: str) -> None:
    image = np.full((16, 24, 3), (200, 40, 90), np.uint8)
    assert abs(read_photo(encoded(image, kind)).astype(int) - image).max() < 12


def test_photos_are_upright_and_rgb() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_photo(encoded(np.zeros((4, 9), np.uint8), exif=exif)).shape == (9, 4, 3)
    assert read_photo(encoded(np.zeros((4, 9, 4), np.uint8))).shape == (4, 9, 3)
    for kind in ("TIFF", "GIF", "BMP", "ICO"):
        with pytest.raises(Refused, match="is not a PNG, JPEG, WebP"):
            read_photo(encoded(np.zeros((32, 32, 3), np.uint8), kind))


def test_regions_have_two_values() -> None:
    region = np.array([[0, 255], [255, 0]], np.uint8)
    assert (read_region(encoded(region)) == (region == 255)).all()
    with pytest.raises(Refused, match="other values"):
        read_region(encoded(np.array([[0, 7]], np.uint8)))


def test_maps_are_scaled_by_the_nearest_pixel() -> None:
    assert (scaled(IDS, (6, 8)) == IDS.repeat(2, 0).repeat(2, 1)).all()
    assert (scaled(IDS.repeat(3, 0).repeat(5, 1), (3, 4)) == IDS).all()
    assert scaled(IDS, (1, 1)) == IDS[1, 2]


def test_images_of_any_channels_are_scaled() -> None:
    for channels in (1, 3, 5):
        image = np.full((4, 6, channels), 77, np.uint16)
        for size in ((2, 3), (8, 12), (8, 3)):
            found = scaled_image(image, size)
            assert found.shape == (*size, channels) and (found == 77).all()

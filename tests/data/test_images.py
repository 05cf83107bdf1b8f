"""Every kind of image is read as it is shown; every kind of mask as it is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.image_files.images import read_rgb, read_size
from semsynth.data.image_files.masks import ids_from_image, read_ids, read_mask
from semsynth.data.labels import LabelSet

RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
GREY = np.random.default_rng(1).integers(0, 256, (6, 10), np.uint8)
IDS = np.random.default_rng(2).integers(0, 4, (6, 10), np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rgb_grey_and_transparent_images(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    save(path, Image.fromarray(RGB))
    assert (read_rgb(path, "p") == RGB).all()
    save(path, Image.fromarray(GREY))
    assert (read_rgb(path, "p") == GREY[..., None]).all()
    save(path, Image.fromarray(np.dstack([RGB, GREY])))
    assert (read_rgb(path, "p") == RGB).all()
    save(path, Image.fromarray(GREY.astype(np.uint16) * 257))
    assert (read_rgb(path, "p") == GREY[..., None]).all()


def test_palette_and_cmyk_images(tmp_path: Path) -> None:
    few = Image.fromarray(RGB).quantize(16)
    assert (read_rgb(save(tmp_path / "p.png", few), "p") == np.array(few.convert("RGB"))).all()
    flat = Image.new("CMYK", (10, 6), (0, 255, 255, 0))
    read = read_rgb(save(tmp_path / "p.tif", flat), "p")
    assert (read == (255, 0, 0)).all()
    read = read_rgb(save(tmp_path / "p.jpg", flat), "p")
    assert (np.abs(read.astype(int) - (255, 0, 0)) < 8).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "p.png", Image.fromarray(RGB), exif=exif)
    shown = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: RGB.transpose(1, 0, 2)[:, ::-1],
        7: RGB.transpose(1, 0, 2)[::-1, ::-1],
        8: RGB.transpose(1, 0, 2)[::-1],
    }[orientation]
    assert (read_rgb(path, "p") == shown).all()
    assert read_size(path) == shown.shape[:2]


def test_masks_of_every_depth_are_read_as_stored(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    for bits in (1, 2, 4, 8):
        image = Image.fromarray(np.minimum(IDS, 2**bits - 1))
        palette = image.convert("P") if bits == 8 else image
        assert (read_ids(save(path, palette), "m") == np.minimum(IDS, 2**bits - 1)).all()
    deep = IDS.astype(np.uint16) * 9000
    assert (read_ids(save(path, Image.fromarray(deep)), "m") == deep).all()
    assert (read_ids(save(path, Image.fromarray(IDS > 0)), "m") == (IDS > 0)).all()


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_png_of_few_bits_is_not_spread(tmp_path: Path, bits: int) -> None:
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    ids = np.arange(8, dtype=np.uint8)[None] % 2**bits
    packed = np.packbits(np.unpackbits(ids[..., None], axis=2)[:, :, -bits:].reshape(1, -1), axis=1)
    header = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    path = tmp_path / "m.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" + packed.tobytes()))
        + chunk(b"IEND", b"")
    )
    assert (read_ids(path, "m") == ids).all()
    assert (read_ids(path.read_bytes(), "m") == ids).all()
    labels = LabelSet.from_names({i: f"c{i}" for i in range(8)})
    with Image.open(path) as image:
        assert (ids_from_image(image, labels) == ids).all()


def test_palette_masks_are_read_as_indices(tmp_path: Path) -> None:
    image = Image.fromarray(IDS).convert("P")
    image.putpalette([200, 10, 30] * 256)
    assert (read_ids(save(tmp_path / "m.png", image), "m") == IDS).all()


def test_coloured_masks(tmp_path: Path) -> None:
    labels = LabelSet.from_names({0: "a", 1: "b", 2: "c", 3: "d"})
    path = save(tmp_path / "m.png", Image.fromarray(labels.colorize(IDS)))
    assert (read_mask(path, labels, "m") == IDS).all()
    assert (read_mask(path, labels, "m", "colors") == IDS).all()
    with pytest.raises(UserError, match=r"m: is coloured.*numbers"):
        read_ids(path, "m")


LABELS = LabelSet.from_names({0: "a", 1: "b", 2: "c", 3: "d", 40_000: "e"})


def with_alpha(rgb: np.ndarray, alpha: int) -> Image.Image:
    layer = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    layer[0, :3] = alpha
    return Image.fromarray(np.concatenate([rgb, layer], -1))


def test_every_image_of_a_mask_gives_its_ids(tmp_path: Path) -> None:
    deep = IDS.astype(np.uint16)
    deep[0, 0] = 40_000
    palette = Image.fromarray(IDS).convert("P")
    palette.putpalette([9, 9, 9] * 256)
    colored = LABELS.colorize(deep)
    for image, ids in (
        (Image.fromarray(IDS), IDS),
        (Image.fromarray(IDS > 0), IDS > 0),
        (palette, IDS),
        (Image.fromarray(deep), deep),
        (Image.fromarray(deep.astype(np.int32)), deep),
        (Image.fromarray(colored), deep),
        (with_alpha(colored, 255), deep),
    ):
        assert (ids_from_image(image, LABELS) == ids).all(), image.mode
        name = tmp_path / "m.tif"
        image.save(name)
        with Image.open(name) as opened:
            assert (ids_from_image(opened, LABELS) == ids).all(), image.mode


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(IDS.astype(np.float32)), "m: has mode F; a mask is one channel"),
        (Image.new("LA", (4, 4)), "m: 16 pixels are transparent"),
        (Image.new("CMYK", (4, 4)), "m: has mode CMYK"),
        (with_alpha(LABELS.colorize(IDS), 254), "m: 3 pixels are transparent"),
        (Image.fromarray(IDS + np.uint8(200)), "m: ids outside the labels: 200"),
        (Image.fromarray(IDS.astype(np.int32) - 9), "m: ids outside the labels: -9"),
        (Image.fromarray(RGB), r"m: colour .* belongs to no label.* nearest label is '"),
    ],
)
def test_images_that_are_not_masks_are_refused(image: Image.Image, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ids_from_image(image, LABELS, "m")


def test_masks_cut_short_or_lossy_are_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "m.png", Image.fromarray(GREY)).read_bytes()
    (tmp_path / "m.png").write_bytes(whole[:-30])
    with (
        Image.open(tmp_path / "m.png") as image,
        pytest.raises(UserError, match="m: cannot be read"),
    ):
        ids_from_image(image, LABELS, "m")
    for pixels in (IDS, LABELS.colorize(IDS)):
        name = save(tmp_path / "m.jpg", Image.fromarray(pixels))
        with Image.open(name) as image, pytest.raises(UserError, match="m: is a JPEG"):
            ids_from_image(image, LABELS, "m")


def test_lossy_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="m: is a JPEG"):
        read_ids(save(tmp_path / "m.jpg", Image.fromarray(IDS)), "m")


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "bmp"])
def test_every_cut_gives_one_line_and_never_a_image(tmp_path: Path, kind: str) -> None:
    whole = save(tmp_path / f"p.{kind}", Image.fromarray(RGB)).read_bytes()
    for share in (0, 0.02, 0.3, 0.7):
        path = tmp_path / f"cut.{kind}"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError, match=r"^here: ") as caught:
            read_rgb(path, "here")
        assert "\n" not in str(caught.value)

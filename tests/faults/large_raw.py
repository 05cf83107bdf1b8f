"""Raw data sets of many small images, of many classes, and of one image that is too large."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

SIDE = 64
_MASKS = 64  # that are different; files are links to them
_MOST_LINKS = 1000
_ADLER = 65521


def write(folder: Path, train: int, val: int, classes: int = 3) -> None:
    """Write images and masks of ``SIDE`` x ``SIDE`` pixels, each image another one.

    Masks are few files with many names, as file systems allow it: writing them is quick.
    """
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)

    def png(pixels: object) -> bytes:
        done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])  # type: ignore[call-overload]
        assert done
        return bytes(data)

    masks = []
    for number in range(_MASKS):
        mask = np.full((SIDE, SIDE), 1, np.uint8)
        mask[int(rng.integers(16, 48)) :] = 2
        for _ in range(4):
            top, left = rng.integers(0, SIDE - 16, 2)
            mask[top : top + 12, left : left + 12] = rng.integers(1, classes + 1)
        # Each class is in some mask.
        mask[:8, :8] = 1 + number % classes
        mask[8:16, :8] = 1 + (number + _MASKS) % classes
        mask[16:24, :8] = 1 + (number + 2 * _MASKS) % classes
        mask[24:32, :8] = 1 + (number + 3 * _MASKS) % classes
        masks.append(png(mask))
    for split, count in (("train", train), ("val", val)):
        images, labels = folder / "images" / split, folder / "masks" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            # A few large squares of random colours: small files, all different, none alike.
            coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
            pixels = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
            name = f"street_{number:06d}.png"
            (images / name).write_bytes(png(pixels))
            first = labels / f"street_{number - number % (_MASKS * _MOST_LINKS):06d}.png"
            first = first.with_name(f"street_{int(first.stem[7:]) + number % _MASKS:06d}.png")
            if first.name == name:
                first.write_bytes(masks[number % _MASKS])
            else:
                os.link(first, labels / name)
    names = ", ".join(["void", *(f"class {i}" for i in range(1, classes + 1))])
    (folder / "labels.yaml").write_text(f"labels: [{names}]\nignore: void\n")


def write_black(path: Path, side: int) -> None:
    """Write a grey PNG of ``side`` x ``side`` pixels of 0, in a moment and in little memory."""
    size = side * (side + 1)  # each line begins with its filter, 0
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    unit = 1 << 24
    packed = block.compress(bytes(unit)) + block.flush(zlib.Z_FULL_FLUSH)
    # The first unit may be repeated: after a full flush nothing refers to what is before it.
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = rest.compress(bytes(size % unit)) + rest.flush()
    adler = (size % _ADLER) << 16 | 1
    data = b"\x78\xda" + packed * (size // unit) + end + struct.pack(">I", adler)

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)

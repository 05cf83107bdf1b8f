"""NumPy files (``np.save``) as images and masks: what their headers say, and their pixels.

They are read as Pillow images, so what holds for a PNG of the same values holds for them. Pickled
objects are never loaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from semsynth.core.arrays import PARSING
from semsynth.core.errors import UserError
from semsynth.data.image_files.metadata import ImageMetadata
from semsynth.data.labels import Array

SUFFIX = ".npy"
_MAGIC = b"\x93NUMPY"
# The type of objects, as the header of a file has it.
_OBJECTS = b"'|O'"
_HEAD = 4096
# Pillow's mode by type; other numbers are integers of 32 bits, which hold every id.
_MODES = {"bool": ("1", 1), "uint8": ("L", 8), "uint16": ("I;16", 16)}
_WIDE = ("I", 32)
_NEEDED = (
    "a mask is (H, W) whole numbers or bool, an image (H, W) of uint8 or uint16 or (H, W, 3) of "
    "uint8"
)


def is_array(path: str | Path) -> bool:
    """Return whether a file is a NumPy file, by its name."""
    return str(path).lower().endswith(SUFFIX)


def holds_objects(path: Path) -> bool:
    """Return whether a NumPy file holds pickled Python objects, such as Cellpose's ``_seg.npy``."""
    head = _head(path)
    return head.startswith(_MAGIC) and _OBJECTS in head


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def open_array(path: Path, where: str) -> Array:
    """Return the array of a NumPy file of any shape; what is not used of it is not read.

    Args:
        path: of the file.
        where: what to call it in messages.

    Raises:
        UserError: not an array that ``np.save`` wrote, pickled objects, or cut short.
        FileNotFoundError: there is none.
    """
    head = _head(path)
    if not head.startswith(_MAGIC):
        raise UserError(f"{where}: is not an array that np.save wrote")
    if _OBJECTS in head:
        raise UserError(
            f"{where}: holds pickled Python objects, as Cellpose's _seg.npy does, and these are "
            "not loaded; export the masks from Cellpose as PNG or TIFF"
        )
    try:
        with PARSING:
            return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: cannot be read ({reason}); was it cut short?") from None


def array_metadata(path: Path, where: str) -> ImageMetadata:
    """Describe an image or a mask in a NumPy file from its header.

    Raises:
        UserError: as ``open_array``, or an array that is neither.
        PIL.Image.DecompressionBombError: more pixels than Pillow reads.
    """
    plane, mode, depth = _plane(path, where)
    return ImageMetadata(where, mode, (plane.shape[0], plane.shape[1]), depth)


def array_image(path: Path, where: str) -> Image.Image:
    """Read an image (H, W) or (H, W, 3), or a mask (H, W), of a NumPy file.

    Raises:
        UserError: as ``array_metadata``, values that are not whole, or beyond 32 bits.
        PIL.Image.DecompressionBombError: more pixels than Pillow reads.
    """
    plane, mode, _ = _plane(path, where)
    native = plane.dtype.newbyteorder("=")
    return Image.fromarray(_whole(plane, where) if mode == _WIDE[0] else plane.astype(native))


def _plane(path: Path, where: str) -> tuple[Array, str, int]:
    """Return an array without an axis of length 1, its mode and its bits."""
    found = open_array(path, where)
    plane = found
    if found.ndim == 3 and 1 in (found.shape[0], found.shape[2]):
        plane = found[0] if found.shape[0] == 1 else found[..., 0]
    colors = plane.ndim == 3 and plane.shape[2] == 3 and plane.dtype == np.uint8
    if not (plane.ndim == 2 or colors) or plane.dtype.kind not in "buif" or not plane.size:
        raise UserError(f"{where}: is an array of shape {found.shape}, {found.dtype}; {_NEEDED}")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and plane.shape[0] * plane.shape[1] > 2 * limit:
        raise Image.DecompressionBombError
    mode, depth = ("RGB", 8) if colors else _MODES.get(plane.dtype.newbyteorder("=").name, _WIDE)
    return plane, mode, depth


def _whole(plane: Array, where: str) -> npt.NDArray[np.int32]:
    """Return numbers as integers of 32 bits."""
    if plane.dtype.kind == "f":
        broken = ~(np.isfinite(plane) & (plane == np.floor(plane)))
        if broken.any():
            raise UserError(
                f"{where}: holds {plane.dtype} values that are not whole numbers "
                f"({plane[broken][0]:g}); {_NEEDED}"
            )
    low, high = plane.min(), plane.max()
    limits = np.iinfo(np.int32)
    if low < limits.min or high > limits.max:
        raise UserError(f"{where}: holds values from {low:g} to {high:g}, beyond 32 bits")
    return plane.astype(np.int32)

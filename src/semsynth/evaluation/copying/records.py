"""What the search for copies keeps of each image; parts of several processes add up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.distributed.shards import Shard
from semsynth.core.logging import progress
from semsynth.data.resize import Box
from semsynth.evaluation.copying.thumbnails import SIDE, Halfs, thumbnail

Array = npt.NDArray[Any]
Read = Callable[[int], tuple[Array, Box | None, Array | None]]


@dataclass(frozen=True)
class ImageRecords:
    """Thumbnails and fingerprints of a set of images, by the number of the image.

    Attributes:
        thumbnails: float16 (S, S) each.
        images: fingerprint of the pixels.
        masks: fingerprint of the mask; none for a mask of one class, which says nothing.
    """

    thumbnails: dict[int, Halfs] = field(default_factory=dict)
    images: dict[int, int] = field(default_factory=dict)
    masks: dict[int, int] = field(default_factory=dict)

    def __add__(self, other: ImageRecords) -> ImageRecords:
        """Return the records of both parts together."""
        return ImageRecords(
            self.thumbnails | other.thumbnails, self.images | other.images, self.masks | other.masks
        )

    @property
    def numbers(self) -> list[int]:
        """Numbers of the images, in order."""
        return sorted(self.thumbnails)

    def stacked(self) -> Halfs:
        """Return the thumbnails (N, S, S) in the order of the numbers."""
        images = [self.thumbnails[number] for number in self.numbers]
        whole = images[0].base if images else None
        if whole is not None and _are_rows(images, whole):
            return whole  # as they were recorded, by one process: no second copy
        return np.stack(images) if images else np.zeros((0, SIDE, SIDE), np.float16)

    def to_arrays(self) -> dict[str, Array]:
        """Return them as arrays, for a file."""
        arrays: dict[str, Array] = {"thumbnails": self.stacked()}
        arrays["numbers"] = np.array(self.numbers, np.int64)
        for name in ("images", "masks"):
            values: dict[int, int] = getattr(self, name)
            arrays[f"{name}/numbers"] = np.array(list(values), np.int64)
            arrays[f"{name}/values"] = np.array(list(values.values()), np.uint64)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> ImageRecords:
        """Return what ``to_arrays`` made arrays of.

        Raises:
            KeyError, ValueError: other arrays.
        """
        images, masks = (
            dict(
                zip(
                    arrays[f"{name}/numbers"].tolist(),
                    arrays[f"{name}/values"].tolist(),
                    strict=True,
                )
            )
            for name in ("images", "masks")
        )
        thumbnails = dict(zip(arrays["numbers"].tolist(), arrays["thumbnails"], strict=True))
        return cls(thumbnails, images, masks)


def record_images(read: Read, numbers: Sequence[int], title: str, shard: Shard) -> ImageRecords:
    """Record this process's part of some images.

    Args:
        read: returns an image (H, W, 3) uint8 RGB, the box of its content (None: all of it), and
            its mask (H, W) of ids (None: it has none), by its number.
        numbers: numbers of the images of all processes.
        title: title of the progress bar.
        shard: which part.
    """
    records = ImageRecords()
    mine = shard.of(numbers)
    thumbnails = np.empty((len(mine), SIDE, SIDE), np.float16)
    for place, number in enumerate(progress(mine, title, len(mine), "image")):
        image, box, mask = read(number)
        thumbnails[place] = thumbnail(image, box)
        records.thumbnails[number] = thumbnails[place]
        records.images[number] = _fingerprint(image)
        if mask is not None and mask.min() != mask.max():
            records.masks[number] = _fingerprint(mask.astype(np.int32))
    return records


def _are_rows(images: Sequence[Halfs], whole: Array) -> bool:
    """Return whether images are the rows of one array, all of them, in their order."""
    if whole.shape != (len(images), *images[0].shape):
        return False
    starts = (x.__array_interface__["data"][0] for x in images)
    first, step = whole.__array_interface__["data"][0], whole.strides[0]
    return all(start == first + i * step for i, start in enumerate(starts))


def _fingerprint(pixels: Array) -> int:
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return int.from_bytes(digest.digest())

"""Objects of the shelf with their own pixels: pasted into an image, then made part of it.

As `edit --kinds transplant` pastes, and as `generate --from-image --keep outside` makes the pasted
region again from noise, by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from semsynth.app.config import MAX_SIDE
from semsynth.app.refused import Refused
from semsynth.app.uploads import scaled, scaled_image
from semsynth.augmentation.edits.config import usual_margin
from semsynth.augmentation.edits.pair import Cutout, Pair, footprint, grown, paste
from semsynth.augmentation.edits.survey import Bools
from semsynth.core.config import Config
from semsynth.data.labels import Array
from semsynth.pipelines.from_image import FromImage

Json = dict[str, Any]
# Objects with their pixels on one canvas.
MOST_OBJECTS = 200
# Half of the noise, as for whole images, leaves little of an object: small ones are mostly detail.
OBJECT_STRENGTH = 0.15


class PlacedOrder(Config):
    """An object of the shelf on the canvas.

    Attributes:
        number: of its pixels in the part ``instances`` of the request.
        id: what the shelf calls it.
        top: row of the canvas that the first row of its box lies on; may be outside.
        left: the same of columns.
    """

    number: int = Field(ge=1, le=65535)
    id: str = Field(max_length=64)
    top: int = Field(ge=-MAX_SIDE, le=MAX_SIDE)
    left: int = Field(ge=-MAX_SIDE, le=MAX_SIDE)


@dataclass(frozen=True)
class Transplant:
    """An object that was placed.

    Attributes:
        number: of its pixels in the map of objects.
        place: row and column of the upper left corner of its box on the canvas.
        cutout: its pixels, in channels and bits of the model's; its label is one of the model's.
        item: id of the image of the data that it is from.
        facts: what metadata say of it.
    """

    number: int
    place: tuple[int, int]
    cutout: Cutout
    item: str
    facts: Json


@dataclass(frozen=True)
class Pasted:
    """An image with objects pasted into it.

    Attributes:
        image_HWC: of the model's size.
        where_HW: which of its pixels are of the objects.
    """

    image_HWC: Array
    where_HW: Bools

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return int(self.image_HWC.nbytes + self.where_HW.nbytes)


@dataclass(frozen=True)
class Pasting:
    """Objects, and the pixels of a canvas where they are seen.

    Attributes:
        objects: those of which something is seen.
        visible: of each: (H, W) of the canvas.
        region: (H, W) of the model's size, where the image may change; None: everywhere.
        strength: from how much noise they are made part of the image.
    """

    objects: tuple[Transplant, ...]
    visible: tuple[Bools, ...]
    region: Bools | None
    strength: float

    @classmethod
    def of(
        cls,
        placed: Sequence[Transplant],
        mask_HW: Array,
        instances_HW: Array,
        region: Bools | None,
        strength: float | None,
    ) -> Pasting | None:
        """Find where objects are seen; None where none is.

        That is where the map of objects has their number, their own pixels are, and the mask still
        has their class; with a region, only in it.

        Args:
            placed: the objects.
            mask_HW: the canvas, in ids of the model.
            instances_HW: the number of the object that each pixel belongs to.
            region: where the image may change, of any size; None: everywhere.
            strength: None: ``OBJECT_STRENGTH``.
        """
        canvas = (mask_HW.shape[0], mask_HW.shape[1])
        inside = None if region is None else scaled(region, canvas)
        found = []
        for one in placed:
            (label,) = one.cutout.labels
            seen = footprint(one.cutout, one.place, canvas)
            seen &= (instances_HW == one.number) & (mask_HW == label)
            if inside is not None:
                seen &= inside
            if seen.any():
                found.append((one, seen))
        if not found:
            return None
        objects, visible = zip(*found, strict=True)
        return cls(objects, visible, region, OBJECT_STRENGTH if strength is None else strength)

    def into(self, image_HWC: Array) -> Pasted:
        """Return an image with the objects pasted, as they are.

        Args:
            image_HWC: of the model's size, which may be another than the canvas's.
        """
        size, canvas = image_HWC.shape[:2], self.visible[0].shape
        image = image_HWC if size == canvas else scaled_image(image_HWC, canvas)
        pair = Pair(image, np.zeros(canvas, np.int64), None, (0, 0, *canvas))
        for one, seen in zip(self.objects, self.visible, strict=True):
            pair = paste(pair, one.cutout, seen, one.place)
        where, image = np.logical_or.reduce(self.visible), pair.image
        if size != canvas:
            where = scaled(where, size)
            image = np.where(where[..., None], scaled_image(image, size), image_HWC)
        return Pasted(image, where)

    def to_refine(self, pasted: Pasted) -> FromImage:
        """Return what makes the objects part of the image that they were pasted into.

        The region is the objects and a margin around them; all else of the image stays.
        """
        size = pasted.image_HWC.shape[:2]
        region = grown(pasted.where_HW, usual_margin(size[0]))
        if self.region is not None:
            region = region & scaled(self.region, size)
        return FromImage(pasted.image_HWC[None], self.strength, region[None])

    def facts(self) -> list[Json]:
        """Return what metadata say of each object: JSON values; ``pixels`` of it are seen."""
        pairs = zip(self.objects, self.visible, strict=True)
        return [{**one.facts, "pixels": int(seen.sum())} for one, seen in pairs]


def check_instances(instances_HW: Array | None, mask_HW: Array, placed: bool) -> None:
    """Check the part ``instances`` of a request.

    Raises:
        Refused: it is missing with objects that are placed, or of another size than the mask.
    """
    if instances_HW is None:
        if placed:
            raise Refused("objects needs the part instances: a PNG of the number at each pixel")
        return
    if instances_HW.shape != mask_HW.shape:
        (height, width), (rows, columns) = instances_HW.shape, mask_HW.shape
        raise Refused(f"instances: is {width}x{height} (width x height), the mask {columns}x{rows}")

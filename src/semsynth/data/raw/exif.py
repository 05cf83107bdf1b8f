"""Whether the EXIF rotation of an image is meant: what the sizes of its maps tell."""

from __future__ import annotations

from collections.abc import Sequence

from semsynth.data.image_files.metadata import Exif, ImageMetadata

EXIF: tuple[Exif, Exif] = ("apply", "ignore")


def exif_of(
    image: ImageMetadata,
    maps: Sequence[ImageMetadata],
    stated: Exif | None,
    resize_masks: bool = False,
) -> tuple[Exif | None, tuple[str, ...]]:
    """Return whether the EXIF rotations of an image and its maps are applied, and a note.

    Where only one of them has a rotation, their sizes tell which was meant; None: they do not
    (``exif_doubt`` says it).

    Args:
        image: the image.
        maps: its mask, and its instances if there are any.
        stated: what the user says; None: as the sizes tell.
        resize_masks: whether the same aspect ratio is enough.
    """
    if stated is not None:
        return stated, ()
    if all(other.orientation == image.orientation for other in maps):
        return "apply", ()
    fits = {exif: all(fits_map(image, m, exif, resize_masks) for m in maps) for exif in EXIF}
    if fits["ignore"] and not fits["apply"]:
        return "ignore", ("EXIF rotation not applied: the mask fits the image as it is stored",)
    if not fits["ignore"]:
        return "apply", ("EXIF rotation applied",)
    return None, ()


def exif_doubt(image: ImageMetadata, maps: Sequence[ImageMetadata]) -> str:
    """Return the line on an EXIF rotation of which the sizes do not tell whether it is meant."""
    turned = next(f for f in (image, *maps) if f.orientation != 1)
    other = next(f for f in (image, *maps) if f.orientation != turned.orientation)
    return (
        f"{turned.where}: has EXIF orientation {turned.orientation}, {other.where} has "
        f"{other.orientation}, and both ways the sizes fit; say --exif apply if the masks fit the "
        "images as a viewer shows them, --exif ignore if they fit the stored pixels"
    )


def fits_map(image: ImageMetadata, other: ImageMetadata, exif: Exif, resize_masks: bool) -> bool:
    """Return whether a map has the size of its image, or only its aspect ratio."""
    size, found = image.size(exif), other.size(exif)
    if not resize_masks:
        return size == found
    return abs(found[0] * size[1] - found[1] * size[0]) <= max(*found, *size)

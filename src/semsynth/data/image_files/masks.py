"""Reading masks of any kind: ids or colours, decided once for all of them.

``decide_masks`` decides for the masks of a data set or a call whether they hold ids or the colours
of the labels; ``mask_ids`` gives the ids of one, unless its metadata contradicts that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.core.packed import Picked
from semsynth.data.image_files.metadata import Exif, ImageMetadata
from semsynth.data.image_files.raw_masks import RawMask, open_mask, raw_mask
from semsynth.data.labels import BLACK, Array, LabelSet

MasksAs = Literal["ids", "colors", "auto"]
_OrReason = tuple[Array | None, str]  # values, or None and the reason


@dataclass(frozen=True)
class MaskDecision:
    """What the masks of a data set, or of a call, hold.

    Attributes:
        reading: ids, or the colours of the labels.
        because: what decided it.
        stated: whether somebody said so; else a mask that can only be read the other way is.
        evident: whether a mask has values that only one reading has.
        colors_given: whether somebody chose the colours of the labels.
    """

    reading: Literal["ids", "colors"] = "ids"
    because: str = "one channel of ids"
    stated: bool = False
    evident: bool = True
    colors_given: bool = False


def read_ids(source: Path | bytes, where: str, exif: Exif = "apply") -> Array:
    """Read a map of numbers: (H, W) integers, exactly as stored.

    One channel of 1 to 16 bits, or a palette image, whose indices are the numbers.

    Raises:
        UserError: not an image, cut short, lossy, or with several channels.
    """
    return stored_numbers(open_mask(source, where, exif))


def stored_numbers(mask: RawMask) -> Array:
    """Return the numbers (H, W) of a map that has no labels: ids of a file, instances."""
    meta, pixels = _checked(mask)
    numbers, _ = _numbers(meta, pixels)
    if numbers is None:
        raise UserError(f"{meta.where}: is coloured; it must be one channel of numbers")
    return numbers


def read_mask(
    source: Path | bytes,
    labels: LabelSet,
    where: str,
    masks_as: MasksAs = "auto",
    exif: Exif = "apply",
) -> Array:
    """Read a mask file of ids or in the colours of ``labels``: see ``mask_ids``."""
    mask = open_mask(source, where, exif)
    return mask_ids(mask, labels, decide_masks([mask], labels, masks_as))[0]


def ids_from_image(
    image: Image.Image, labels: LabelSet, where: str = "mask", masks_as: MasksAs = "auto"
) -> Array:
    """Return the ids (H, W) of a mask that was opened with Pillow: see ``mask_ids``."""
    mask = raw_mask(image, where)
    return mask_ids(mask, labels, decide_masks([mask], labels, masks_as))[0]


def decide_masks(
    masks: Sequence[RawMask],
    labels: LabelSet,
    masks_as: MasksAs = "auto",
    colors_given: bool = False,
) -> MaskDecision:
    """Decide whether masks hold ids or colours, from as few of them as tell it.

    Masks of three channels tell it by their values, palettes by the colours of the indices that are
    used, grey masks only where grey colours of labels were given.

    Args:
        masks: those of a data set or a call.
        labels: what their ids or colours mean.
        masks_as: what somebody says that they hold.
        colors_given: whether somebody chose the colours of the labels. White is the first colour
            that is made up; grey masks of 0 and 255 do not mean that one.

    Raises:
        UserError: a palette contradicts the labels and has none of their colours, or two palettes
            contradict each other.
    """
    if masks_as != "auto":
        because = f"--masks-as {masks_as}"
        return MaskDecision(masks_as, because, stated=True, colors_given=colors_given)

    def of(layout: str) -> Sequence[RawMask]:
        return Picked(masks, lambda m: m.metadata.layout == layout and not m.metadata.lossy)

    groups = {layout: of(layout) for layout in ("rgb", "palette", "grey")}
    found = _decide_values(groups["rgb"], labels) or _decide_palettes(groups["palette"], labels)
    colors = {label.color for label in labels.labels if colors_given} - {BLACK}
    if found is None and (groups["rgb"] or any(len(set(color)) == 1 for color in colors)):
        by_values = _decide_values(groups["grey"], labels)
        if by_values is not None and (by_values.reading == "ids" or colors_given):
            found = by_values
    if found is None and groups["rgb"]:
        found = MaskDecision("colors", "masks of three channels", evident=False)
    if found is None and groups["palette"]:
        found = MaskDecision(because="the indices of palettes, which do not contradict it")
    return replace(found or MaskDecision(), colors_given=colors_given)


def mask_ids(mask: RawMask, labels: LabelSet, decision: MaskDecision) -> tuple[Array, str]:
    """Return the ids (H, W) of a mask, and what is worth a note in how it was read (or "").

    One channel holds ids, the indices of a palette among them; so do three equal channels, and one
    beside two empty ones. Colours are those of ``labels``: of three channels, a palette, or
    grey. Only opaque pixels count.

    Raises:
        UserError: lossy, several frames, transparent pixels, another mode; ids or colours of no
            label; or two readings that differ, without a word on which is meant.
    """
    meta, pixels = _checked(mask)
    numbers, note = _numbers(meta, pixels)
    note = mask.note or note
    ids, ids_error = _fitting_ids(meta, numbers, labels)
    if decision.reading == "ids" and ids is not None:
        wrong = _contradiction(meta, pixels, labels)
        if not wrong:
            return ids, note or _transparent_note(meta, pixels)
        if decision.stated:
            return ids, "palette with other colours than the labels': its indices are read"
        ids_error = f"{wrong}; --masks-as ids if the indices are the ids"
    colors, colors_error = _fitting_colors(meta, pixels, labels)
    if decision.reading == "ids":
        surely = numbers is None or meta.layout == "palette"
        if colors is not None and surely and not decision.stated:
            return colors, f"{_KINDS[meta.layout]} in colours of the labels: read by them"
        if numbers is None and not decision.stated:
            raise UserError(colors_error)
        way = "auto reads it by its colours" if surely else "colors if those of all masks are"
        known = colors is not None and (surely or decision.colors_given)
        hint = f"; its values are colours of labels: --masks-as {way}" if known else ""
        raise UserError(ids_error + hint)
    if colors is not None:
        doubtful = numbers is not None and (meta.layout == "grey" or not decision.evident)
        if doubtful and not decision.stated and ids is not None and meta.layout != "palette":
            _refuse_doubt(meta, ids, colors, labels)
        return colors, ""
    free = not decision.stated and (meta.layout == "palette" or not decision.evident)
    if ids is not None and (meta.layout == "grey" or free):
        wrong = _contradiction(meta, pixels, labels)
        if wrong:
            raise UserError(f"{wrong}, but {colors_error.removeprefix(f'{meta.where}: ')}")
        return ids, note or f"{_KINDS[meta.layout]} among coloured ones: read as ids"
    if ids is not None and decision.stated:
        colors_error += "; its values are ids: --masks-as ids if those of all masks are"
    neither = ids is None and numbers is not None and meta.layout == "rgb"
    raise UserError(ids_error if neither and not decision.evident else colors_error)


_KINDS = {"grey": "grey mask", "palette": "palette mask", "rgb": "mask of three channels"}


def _checked(mask: RawMask) -> tuple[ImageMetadata, Array]:
    mask.metadata.refuse_as_mask()
    pixels = mask.pixels()
    _refuse_transparent(mask.metadata, pixels)
    return mask.metadata, pixels


def _refuse_transparent(meta: ImageMetadata, pixels: Array) -> None:
    if meta.has_alpha:
        count = int((pixels[..., -1] != 255).sum())
    elif meta.transparent and meta.layout == "rgb":
        count = int((pixels == np.array(meta.transparent[0])).all(-1).sum())
    else:
        return  # an index or a grey value is an id, whatever a viewer shows
    if count:
        raise UserError(
            f"{meta.where}: {count} pixels are transparent; save it without transparency, each "
            "pixel with its label (erased ones too)"
        )


def _transparent_note(meta: ImageMetadata, pixels: Array) -> str:
    if not meta.transparent or meta.has_alpha or meta.layout == "rgb":
        return ""
    used = bool(np.isin(pixels, meta.transparent).any())
    return "mask with a transparent index or value: read as an id" if used else ""


def _first_channel(pixels: Array) -> Array:
    return pixels if pixels.ndim == 2 else pixels[..., 0]


def _numbers(meta: ImageMetadata, pixels: Array) -> tuple[Array | None, str]:
    """Return the single number (H, W) of each pixel, or None for colours; and a note."""
    values = pixels[..., :-1] if meta.has_alpha else pixels
    if meta.layout == "rgb":
        red, green, blue = (values[..., channel] for channel in range(3))
        if (red == green).all() and (red == blue).all():
            return red, "mask of three equal channels: read as ids"
        filled = [channel for channel in (red, green, blue) if channel.any()]
        if len(filled) == 1:
            return filled[0], "mask of which one channel has values: read as ids"
        return None, ""
    values = _first_channel(values)
    if meta.layout == "grey" and meta.depth in (2, 4):
        # Pillow spreads grey values of 2 and 4 bits over 0..255; ids come back as stored.
        values = values // (255 // (2**meta.depth - 1))
    return values.astype(np.uint8) if values.dtype == bool else values, ""


def _fitting_ids(meta: ImageMetadata, numbers: Array | None, labels: LabelSet) -> _OrReason:
    """Return the ids if all of them are in the labels, else None and why."""
    if numbers is None:
        return None, f"{meta.where}: is coloured (three channels that differ)"
    try:
        labels.check_ids(numbers, meta.where)
    except UserError as error:
        return None, str(error)
    return numbers, ""


def _fitting_colors(meta: ImageMetadata, pixels: Array, labels: LabelSet) -> _OrReason:
    """Return the ids of the colours if all of them are in the labels, else None and why."""
    values = pixels[..., :-1] if meta.has_alpha else pixels
    if meta.layout == "rgb":
        return _decoded(values, meta, labels)
    indices = _first_channel(values)
    if meta.layout == "palette":
        transparent = int(np.isin(indices, meta.transparent).sum())
        if transparent:
            return None, f"{meta.where}: {transparent} pixels are transparent; save it without"
        table = np.array(meta.palette_colors() or [BLACK], np.uint8)
    else:
        levels = np.array([0, 255] if meta.depth == 1 else range(256), np.uint8)
        table = np.repeat(levels[:, None], 3, axis=-1)
        indices = indices.astype(np.uint8) if indices.dtype == bool else indices
    if meta.depth > 8 or int(indices.min()) < 0 or int(indices.max()) >= len(table):
        return None, f"{meta.where}: value {indices.max()} is not a colour of 8 bits"
    # Few colours, many pixels: each colour is looked up once.
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=len(table)))
    ids, _ = _decoded(table[used][None], meta, labels)
    if ids is None:
        return _decoded(table[indices], meta, labels)  # which says how many pixels are wrong
    found = np.zeros(len(table), labels.mask_dtype)
    found[used] = ids[0]
    return found[indices], ""


def _decoded(colors: Array, meta: ImageMetadata, labels: LabelSet) -> _OrReason:
    if colors.dtype != np.uint8 and colors.min() >= 0 and colors.max() <= 255:
        colors = colors.astype(np.uint8)
    try:
        return labels.decode_colors(colors, meta.where), ""
    except UserError as error:
        return None, str(error)


def _decide_values(masks: Sequence[RawMask], labels: LabelSet) -> MaskDecision | None:
    """Decide by the first mask that fits one reading only."""
    for mask in masks:
        meta = mask.metadata
        meta.refuse_as_mask()
        pixels = mask.pixels()
        numbers, _ = _numbers(meta, pixels)
        if numbers is None:
            return MaskDecision("colors", f"{meta.where} is coloured")
        ids, _ = _fitting_ids(meta, numbers, labels)
        colors, _ = _fitting_colors(meta, pixels, labels)
        if ids is not None and colors is None:
            return MaskDecision("ids", f"the values of {meta.where} are ids")
        if colors is not None and ids is None:
            return MaskDecision("colors", f"{meta.where} has colours of labels, and no ids")
        if ids is None:
            return None  # fits neither: reading it says why
    return None


def _decide_palettes(masks: Sequence[RawMask], labels: LabelSet) -> MaskDecision | None:
    """Decide by the first palette that contradicts the labels; the others are as their indices."""
    differing = len({mask.metadata.palette[: 3 * labels.max_id + 3] for mask in masks}) > 1
    seen: dict[int, tuple[tuple[int, int, int], str]] = {}
    conflict = ""
    for mask in masks:
        meta = mask.metadata
        if not differing and not _other_labels(meta, labels):
            continue
        pixels = mask.pixels()
        if wrong := _contradiction(meta, pixels, labels):
            if _fitting_colors(meta, pixels, labels)[0] is None:
                raise UserError(
                    f"{wrong}, but other colours of it belong to no label; give each label its "
                    "color, or --masks-as ids if the indices are the ids"
                )
            return MaskDecision("colors", wrong)
        palette = meta.palette_colors()
        for index in np.unique(_first_channel(pixels)).tolist():
            color = palette[index] if index < len(palette) else BLACK
            before, name = seen.setdefault(index, (color, meta.where))
            if before != color and not conflict:
                conflict = f"{meta.where}: index {index} is {color}, in {name} it is {before}"
    if conflict:
        raise UserError(
            f"{conflict}: the palettes differ, so the indices may not be ids; --masks-as ids if "
            "they are, --masks-as colors if the colours are those of the labels file"
        )
    return None


def _other_labels(meta: ImageMetadata, labels: LabelSet) -> dict[int, int]:
    """Return the indices whose colour is that of the label of another id, with that id.

    Black does not count: it is the usual colour of whatever is first, or of nothing.
    """
    if meta.layout != "palette":
        return {}
    owner = {label.color: label.id for label in labels.labels if label.color != BLACK}
    colors = enumerate(meta.palette_colors())
    return {i: owner[color] for i, color in colors if owner.get(color, i) != i}


def _contradiction(meta: ImageMetadata, pixels: Array, labels: LabelSet) -> str:
    """Name an index that is used although its colour is another label's; "" if there is none."""
    others = _other_labels(meta, labels)
    if not others:
        return ""
    for index in np.unique(_first_channel(pixels)).tolist():
        if index in others:
            name = labels.by_id[others[index]].name
            return f"{meta.where}: its palette gives index {index} the colour of '{name}'"
    return ""


def _refuse_doubt(meta: ImageMetadata, ids: Array, colors: Array, labels: LabelSet) -> None:
    differing = ids != colors
    if not differing.any():
        return
    first = labels.by_id[int(ids[differing][0])].name
    second = labels.by_id[int(colors[differing][0])].name
    raise UserError(
        f"{meta.where}: its values are ids and colours of labels: '{first}' as an id is "
        f"'{second}' as a colour; choose one with --masks-as ids or --masks-as colors"
    )

"""Pascal VOC: JPEGImages, SegmentationClass with a palette, lists, and labelmap.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from semsynth.data.exports.base import (
    IGNORE,
    LABELS,
    Collection,
    Entry,
    Item,
    copy_image,
    each,
)
from semsynth.data.exports.segments import objects
from semsynth.data.image_files.channels import encode_image
from semsynth.data.labels import BLACK, Array, Color, distinct_colors

LISTS = Path("ImageSets") / "Segmentation"
_BACKGROUND = "background"


def write(collection: Collection, folder: Path) -> str:
    """Write the folders of VOC2012's segmentation task.

    Indexes are 0, 1, ... and 255 for unlabelled pixels; the palette has the colours. Readers of VOC
    look for ``.jpg`` alone, so other images are encoded as JPEG (quality 95, full colour).
    """
    collection.check_index_masks("voc")
    entries = color_entries(collection)
    palette = np.zeros((256, 3), np.uint8)
    for entry in entries:
        palette[entry.value] = entry.color

    def write_item(item: Item) -> bool:
        images, masks = folder / "JPEGImages", folder / "SegmentationClass"
        converted = item.image.suffix != ".jpg"
        if converted:
            pixels = item.part.data.read_rgb(item.source_split, item.stem)
            (images / f"{item.name}.jpg").write_bytes(encode_image(pixels, "jpg"))
        else:
            copy_image(item, images)
        ids = item.ids
        write_palette(collection.indexes(ids), palette, masks / f"{item.name}.png")
        write_objects(collection, item, ids, folder)
        return converted

    for name in ("JPEGImages", "SegmentationClass", LISTS):
        (folder / name).mkdir(parents=True)
    converted = sum(each(collection.items, write_item, "writing"))
    if converted:
        collection.notes.append(
            f"{converted} images are not JPEG and were encoded as JPEG (quality 95), because "
            "readers of VOC look for .jpg alone; the other formats copy the files as they are"
        )
    splits = {split: [i.name for i in items] for split, items in collection.splits().items()}
    both = splits.get("train", []) + splits.get("val", [])
    for split, names in {**splits, **({"trainval": both} if both else {})}.items():
        path = folder / LISTS / f"{split}.txt"
        path.write_text("\n".join(names) + "\n", encoding="utf-8")
    write_color_names(collection, entries, folder)
    return (
        "torchvision's `VOCSegmentation` reads this folder as `ROOT/VOCdevkit/VOC2012` "
        "(`download=False`); MMSegmentation's `PascalVOCDataset` as `data_root`. Index 0 is the "
        f"first class of {LABELS} (VOC itself has the background there), 255 is unlabelled."
    )


def color_entries(collection: Collection) -> list[Entry]:
    """Return names and colours where black means "nothing is labelled", as for VOC and CVAT.

    Black is the unlabelled label, or a class "background"; other black classes get a colour. Values
    are the indexes of the classes, 255 for unlabelled; black comes first.
    """
    labels, ignored = collection.classes, collection.ignored
    names = {label.name.casefold(): label for label in labels}
    black = None if ignored is not None else names.get(_BACKGROUND)
    taken = {label.color for label in labels} | {BLACK}
    entries = []
    for index, label in enumerate(labels):
        color: Color = label.color
        if label is black:
            color = BLACK
        elif color == BLACK:
            (color,) = distinct_colors(1, taken)
            taken.add(color)
            collection.notes.append(
                f"class '{label.name}' is black, which means unlabelled here; its colour is "
                f"{color} instead"
            )
        entries.append(Entry(index, label.name, color, label.thing))
    if ignored is not None:
        name = ignored.name if _BACKGROUND in names else _BACKGROUND
        entries.append(Entry(IGNORE, name, BLACK))
    return sorted(entries, key=lambda entry: entry.color != BLACK)


def write_color_names(collection: Collection, entries: Sequence[Entry], folder: Path) -> None:
    """Write ``labelmap.txt`` and ``labels.yaml``."""
    rows = [f"{e.name}:{','.join(map(str, e.color))}::" for e in entries]
    if not any(entry.color == BLACK for entry in entries):
        rows.insert(0, f"{_BACKGROUND}:0,0,0::")
    text = "\n".join(["# label:color_rgb:parts:actions", *rows]) + "\n"
    (folder / "labelmap.txt").write_text(text, encoding="utf-8")
    ignore = None if collection.ignored is None else IGNORE
    (folder / LABELS).write_text(collection.labels_yaml(entries, ignore), encoding="utf-8")


def write_palette(indexes: Array, palette: Array, path: Path) -> None:
    """Write indexes (H, W) uint8 as PNG with a palette, (256, 3) uint8 RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indexes, "P")
    image.putpalette(palette.tobytes())
    image.save(path)


def write_objects(collection: Collection, item: Item, ids: Array, folder: Path) -> None:
    """Write ``SegmentationObject/NAME.png`` in VOC's colours, if there is an instance map."""
    numbers = objects(collection, item, ids)
    if numbers is None:
        return
    path = folder / "SegmentationObject" / f"{item.name}.png"
    path.parent.mkdir(exist_ok=True)
    colors = voc_colors(int(numbers.max()) + 1)
    if len(colors) <= 256:
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(colors)] = colors
        write_palette(numbers.astype(np.uint8), palette, path)
    else:
        Image.fromarray(colors[numbers]).save(path)


def voc_colors(count: int) -> Array:
    """Return VOC's colours of 0, 1, ...: (count, 3) uint8; the bits of the number, interleaved."""
    numbers = np.arange(count)
    colors = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return colors

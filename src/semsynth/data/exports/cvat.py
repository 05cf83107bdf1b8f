"""CVAT's "Segmentation mask 1.1": masks in the colours of labelmap.txt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semsynth.data.exports.base import Collection, Item, copy_image, each, write_png
from semsynth.data.exports.voc import LISTS, color_entries, write_color_names, write_objects


def write(collection: Collection, folder: Path) -> str:
    """Write labelmap.txt, lists, masks in RGB, objects and images.

    Black is what nobody labelled. One split is the list ``default.txt``; several have a list each,
    which are subsets in CVAT (an image in two lists would get its masks twice).
    """
    entries = color_entries(collection)
    lut = np.zeros((256, 3), np.uint8)
    for entry in entries:
        lut[entry.value] = entry.color
    collection.check_index_masks("cvat")

    def write_item(item: Item) -> None:
        copy_image(item, folder / "JPEGImages")
        ids = item.ids
        colors = lut[collection.indexes(ids)]
        write_png(colors, folder / "SegmentationClass" / f"{item.name}.png")
        write_objects(collection, item, ids, folder)

    for _ in each(collection.items, write_item, "writing"):
        pass
    splits = collection.splits()
    (folder / LISTS).mkdir(parents=True)
    for split, items in splits.items():
        path = folder / LISTS / f"{split if len(splits) > 1 else 'default'}.txt"
        path.write_text("\n".join(item.name for item in items) + "\n", encoding="utf-8")
    write_color_names(collection, entries, folder)
    labels = ", ".join(label.name for label in collection.classes)
    return (
        "Create a task or project in CVAT with the labels of labelmap.txt "
        f"({labels}), zip the content of this folder (`python -m zipfile -c data.zip *`), and "
        'import it as "Segmentation mask 1.1".'
    )

"""COCO panoptic: a JSON file and PNG files of segment ids for each split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from semsynth.core.version import __version__
from semsynth.data.exports.base import (
    Collection,
    Item,
    copy_image,
    each,
    write_png,
)
from semsynth.data.exports.segments import segments


def write(collection: Collection, folder: Path) -> str:
    """Write ``SPLIT/``, ``annotations/panoptic_SPLIT.json`` and ``annotations/panoptic_SPLIT/``.

    A class is one segment of an image, and an object is one where there are instance maps. The id
    of a segment is R + 256 G + 65536 B in its PNG, 0 is unlabelled. Category ids are 1, 2, ...
    """

    def write_item(item: Item) -> tuple[dict[str, Any], dict[str, Any]]:
        copy_image(item, folder / item.split)
        name = f"{item.name}.png"
        numbers, found = segments(collection, item, item.ids)
        rgb = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], -1).astype(np.uint8)
        write_png(rgb, folder / "annotations" / f"panoptic_{item.split}" / name)
        height, width = numbers.shape
        image = {
            "file_name": f"{item.name}{item.image.suffix}",
            "height": height,
            "width": width,
            "license": collection.parts.index(item.part) + 1,
            "source": item.part.origin,
        }
        return image, {"file_name": name, "segments_info": found}

    rows = list(each(collection.items, write_item, "writing"))
    things = [label.name for label in collection.classes if label.thing]
    lacking = sum(not item.has_instances for item in collection.items)
    if things and lacking:
        collection.notes.append(
            f"{lacking} images have no instance map: there all objects of a class are one segment "
            f"({', '.join(things)})"
        )
    for split in collection.splits():
        content = _head(collection)
        for number, (item, (image, annotation)) in enumerate(
            zip(collection.items, rows, strict=True), 1
        ):
            if item.split == split:
                content["images"].append({"id": number, **image})
                content["annotations"].append({"image_id": number, **annotation})
        path = folder / "annotations" / f"panoptic_{split}.json"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return (
        "Images are in `SPLIT/`, segments in `annotations/panoptic_SPLIT.json` and "
        "`annotations/panoptic_SPLIT/*.png` (id = R + 256 G + 65536 B; 0 is unlabelled)."
    )


def _head(collection: Collection) -> dict[str, Any]:
    infos = [part.data.info for part in collection.parts]
    kinds = dict.fromkeys(part.origin for part in collection.parts)
    return {
        "info": {
            "description": f"{collection.name} ({' and '.join(kinds)} images)",
            "contributor": f"semsynth {__version__}",
            "source": "; ".join(info.source for info in infos),
            "notes": list(collection.notes),
        },
        # One for each data set, so that an image's licence also names its origin.
        "licenses": [
            {"id": number, "name": info.licence, "url": "", "data_set": info.name}
            for number, info in enumerate(infos, 1)
        ],
        "categories": [
            {
                "id": index + 1,
                "name": label.name,
                "supercategory": "thing" if label.thing else "stuff",
                "isthing": int(label.thing),
                "color": list(label.color),
            }
            for index, label in enumerate(collection.classes)
        ],
        "images": [],
        "annotations": [],
    }

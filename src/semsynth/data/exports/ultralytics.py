"""Ultralytics' semantic task (8.4): images/, masks/ with class indexes, and data.yaml."""

from __future__ import annotations

from pathlib import Path

import yaml

from semsynth.core.errors import UserError
from semsynth.data.exports.base import (
    HERE,
    SPLITS,
    Collection,
    Item,
    copy_image,
    each,
    write_index_names,
    write_png,
)


def write(collection: Collection, folder: Path) -> str:
    """Write ``images/SPLIT``, ``masks/SPLIT`` and ``data.yaml``; 255 is unlabelled.

    Raises:
        UserError: one class, whose masks Ultralytics reads in another way.
    """
    collection.check_index_masks("ultralytics")
    if len(collection.classes) == 1:
        raise UserError(
            f"{collection.parts[0].data.root}: has one class; in a data set of one class "
            "Ultralytics takes 0 for the background and 1 for the class, so background must be a "
            "class of its own, not unlabelled"
        )

    def write_item(item: Item) -> None:
        copy_image(item, folder / "images" / item.split)
        write_png(collection.indexes(item.ids), folder / "masks" / item.split / f"{item.name}.png")

    for _ in each(collection.items, write_item, "writing"):
        pass
    splits = [split for split in SPLITS if split in collection.splits()]
    collection.note_other_splits("data.yaml", "images")
    content = {
        # No `path`: it is where this file is, so the folder may be moved.
        **{split: f"images/{split}" for split in splits},
        "masks_dir": "masks",
        "names": {index: label.name for index, label in enumerate(collection.classes)},
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    write_index_names(collection, folder)
    missing = [split for split in ("train", "val") if split not in splits]
    if missing:
        collection.notes.append(
            f"data.yaml has no {' and no '.join(missing)}, which Ultralytics wants: export real "
            "images together with these (--with)"
        )
    return (
        f"`yolo semantic train data={HERE}/data.yaml model=yolo26n-sem.pt` "
        "(Ultralytics 8.4; the semantic task reads masks, not polygons)."
    )

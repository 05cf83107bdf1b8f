"""Hugging Face: parquet files with a card, for `datasets.load_dataset` and the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semsynth.core.files import write_json
from semsynth.core.logging import progress_bar
from semsynth.data.exports.base import (
    HERE,
    IGNORE,
    Collection,
    Item,
    each,
    index_entries,
    write_index_names,
)
from semsynth.data.exports.provenance import counts_text, origin_text
from semsynth.data.hub_files import README, card, front_matter, hub_splits, table
from semsynth.data.image_files.channels import encode_image
from semsynth.data.labels import hex_color

# Bytes of images in a file, as the Hub advises; bytes and rows that are written, and read, at once.
_SHARD, _GROUP, _ROWS = 500_000_000, 100_000_000, 100


def write(collection: Collection, folder: Path) -> str:
    """Write ``data/SPLIT-00000-of-00001.parquet``, the card and the names.

    Columns: image and mask (files as bytes), name, split, source, classes (those in the mask), and
    instances where there are instance maps. Mask values: 0, 1, ..., and 255 for unlabelled pixels.
    """
    collection.check_index_masks("hf")
    features = _features(collection)
    (folder / "data").mkdir()
    found = collection.splits()
    names = hub_splits(found)
    splits = {names[split]: items for split, items in found.items()}
    with progress_bar(len(collection.items), "writing", "image") as bar:
        for split, items in splits.items():
            shards = list(_cut(items, _SHARD))
            for number, shard in enumerate(shards):
                path = folder / "data" / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
                for count in _write_shard(collection, features, split, shard, path):
                    bar.update(count)
    classes = {str(index): label.name for index, label in enumerate(collection.classes)}
    write_json(folder / "id2label.json", classes)
    write_index_names(collection, folder)
    (folder / README).write_text(_card(collection, list(splits)), encoding="utf-8")
    return f'`datasets.load_dataset("{HERE}")`'


def _features(collection: Collection) -> Any:
    from datasets import ClassLabel, Features, Image, List, Value

    columns = {
        "image": Image(),
        "mask": Image(),
        "name": Value("string"),
        "split": Value("string"),
        "source": ClassLabel(names=["real", "synthetic"]),
        "classes": List(ClassLabel(names=[label.name for label in collection.classes])),
    }
    if any(item.has_instances for item in collection.items):
        columns["instances"] = Image()
    return Features(columns)


def _cut(items: Sequence[Item], n_bytes: int, rows: int = 10**9) -> Iterator[list[Item]]:
    """Cut ``items`` into pieces of at most so many bytes and rows, but at least one row."""
    piece: list[Item] = []
    size = 0
    for item in items:
        if piece and (size + item.size > n_bytes or len(piece) == rows):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += item.size
    yield piece


def _write_shard(
    collection: Collection, features: Any, split: str, items: Sequence[Item], path: Path
) -> Iterator[int]:
    """Write one file; yield the number of rows after each group of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = features.arrow_schema
    with pq.ParquetWriter(path, schema) as writer:
        for group in _cut(items, _GROUP, _ROWS):
            rows = list(each(group, lambda item: _row(collection, features, split, item)))
            writer.write_table(pa.Table.from_pylist(rows, schema))
            yield len(rows)


def _row(collection: Collection, features: Any, split: str, item: Item) -> dict[str, Any]:
    mask = collection.indexes(item.ids)
    row = {
        "image": {"bytes": item.bytes, "path": f"{item.name}{item.image.suffix}"},
        "mask": {"bytes": encode_image(mask, "png"), "path": f"{item.name}.png"},
        "name": item.name,
        "split": split,
        "source": features["source"].str2int(item.part.origin),
        "classes": [int(value) for value in np.unique(mask) if value != IGNORE],
    }
    if "instances" in features:
        instances = item.instances
        row["instances"] = (
            instances is not None
            and {
                "bytes": encode_image(instances, "png"),
                "path": f"{item.name}.png",
            }
        ) or None
    return row


def _card(collection: Collection, splits: Sequence[str]) -> str:
    # Without `configs`: `datasets` finds data/SPLIT-* by itself, and with them its cache would not
    # tell two local folders of one name apart.
    front = front_matter(
        collection.name,
        [part.data.info.licence for part in collection.parts],
        [part.origin for part in collection.parts],
        len(collection.items),
    )
    rows = [
        (entry.value, entry.name, hex_color(entry.color)) for entry in index_entries(collection)
    ]
    notes = "\n".join(f"- {note}" for note in collection.notes)
    unlabelled = "" if collection.ignored is None else f"; {IGNORE} is unlabelled"
    sections = {
        "": counts_text(collection),
        "Load": (
            "```python\nfrom datasets import load_dataset\n\n"
            f'data = load_dataset("{HERE}")  # or the name of the repository\n'
            f'row = data["{splits[0]}"][0]\n'
            'row["image"], row["mask"], row["classes"], row["source"]\n```\n\n'
            f"Mask values are the numbers below{unlabelled}."
        ),
        "Classes": table(("value", "name", "colour"), rows),
        **({"Notes": notes} if notes else {}),
        "Origin": origin_text(collection),
    }
    return card(front, collection.name, sections)

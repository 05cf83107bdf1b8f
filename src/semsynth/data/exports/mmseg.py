"""MMSegmentation 1.x: img_dir, ann_dir, lists by split and kind, and a configuration of them."""

from __future__ import annotations

from pathlib import Path

from semsynth.data.exports.base import (
    HERE,
    Collection,
    Item,
    copy_image,
    each,
    write_index_names,
    write_png,
)

CONFIG = "dataset.py"
_PIPELINES = """
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=({width}, {height}), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=({width}, {height}), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
"""
_LOADERS = """
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='ConcatDataset', datasets={train}),
)
"""
_HELD_OUT = """
{name}_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ConcatDataset', datasets={datasets}),
)
{name}_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'], ignore_index=255)
"""


def write(collection: Collection, folder: Path) -> str:
    """Write the folders, ``splits/*.txt``, ``dataset.py`` and the names.

    A list has one kind of images (real or synthetic) and one file format, because a data set of
    MMSegmentation has one suffix.
    """
    collection.check_index_masks("mmseg")

    def write_item(item: Item) -> None:
        copy_image(item, folder / "img_dir" / item.split)
        write_png(
            collection.indexes(item.ids), folder / "ann_dir" / item.split / f"{item.name}.png"
        )

    for _ in each(collection.items, write_item, "writing"):
        pass
    lists: dict[str, dict[tuple[str, str], str]] = {}
    (folder / "splits").mkdir()
    for split, items in collection.splits().items():
        names: dict[tuple[str, str], list[str]] = {}
        for item in items:
            names.setdefault((item.part.origin, item.image.suffix), []).append(item.name)
        for (origin, suffix), listed in names.items():
            name = f"splits/{split}_{origin}_{suffix[1:]}.txt"
            (folder / name).write_text("\n".join(listed) + "\n", encoding="utf-8")
            lists.setdefault(split, {})[origin, suffix] = name
    collection.note_other_splits(CONFIG, "img_dir")
    (folder / CONFIG).write_text(_config(collection, lists), encoding="utf-8")
    write_index_names(collection, folder)
    return (
        "In a configuration of MMSegmentation 1.x: "
        f"`_base_ = ['{HERE}/{CONFIG}', ...]`, and `num_classes="
        f"{len(collection.classes)}` in its heads. Masks: 0 to {len(collection.classes) - 1} in "
        "the order of `classes`, 255 is unlabelled; `reduce_zero_label=False`."
    )


def _config(collection: Collection, lists: dict[str, dict[tuple[str, str], str]]) -> str:
    """Return a configuration file: classes, palette, pipelines, loaders."""
    data = collection.parts[0].data
    classes = "".join(f"    {label.name!r},\n" for label in collection.classes)
    palette = "".join(f"    {list(label.color)},\n" for label in collection.classes)
    text = (
        "# Written by semsynth. To be a _base_ of a configuration of MMSegmentation 1.x; the\n"
        "# folder may be moved. Lists of synthetic images can be removed from train_dataloader.\n"
        "data_root = '{{ fileDirname }}'\n"
        f"classes = (\n{classes})\npalette = [\n{palette}]\n"
        "metainfo = dict(classes=classes, palette=palette)\n"
        f"num_classes = {len(collection.classes)}\n"
        f"crop_size = ({data.height}, {data.width})\n"
    )
    text += _PIPELINES.format(height=data.height, width=data.width)
    if "train" in lists:
        text += _LOADERS.format(train=_datasets("train", lists["train"], "train_pipeline"))
    for split in ("val", "test"):
        # MMSegmentation's test loop wants a data set as well.
        found = split if split in lists else "val"
        if found in lists:
            datasets = _datasets(found, lists[found], "test_pipeline")
            text += _HELD_OUT.format(name=split, datasets=datasets)
    return text


def _datasets(split: str, lists: dict[tuple[str, str], str], pipeline: str) -> str:
    return (
        "["
        + "".join(
            "\n        dict(\n"
            "            type='BaseSegDataset',\n"
            "            data_root=data_root,\n"
            f"            ann_file={name!r},\n"
            f"            img_suffix={suffix!r},\n"
            "            seg_map_suffix='.png',\n"
            f"            data_prefix=dict(img_path={f'img_dir/{split}'!r}, "
            f"seg_map_path={f'ann_dir/{split}'!r}),\n"
            "            metainfo=metainfo,\n"
            "            reduce_zero_label=False,\n"
            "            ignore_index=255,\n"
            f"            pipeline={pipeline},\n"
            "        ),"
            for (_, suffix), name in lists.items()
        )
        + "\n    ]"
    )

"""A part of a prepared data set as a data set of its own, without copying its images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from semsynth.core.files import write_bytes
from semsynth.data.dataset import INFO, PreparedDataset
from semsynth.data.labels import Array
from semsynth.data.writer import PreparedFormat, PreparedWriter, encode_image
from semsynth.pipelines.generate.sample_store import record_of

SPLIT = "train"


def write_subset(
    data: PreparedDataset,
    split: str,
    stems: Sequence[str],
    folder: Path,
    masks: Mapping[str, Array] | None = None,
) -> PreparedDataset:
    """Make ``folder`` a data set of ``stems``, all in the split ``train``.

    Args:
        data: where the images are.
        split: their split there.
        stems: which ones.
        folder: written to; one that is finished is opened as it is.
        masks: other masks (H, W) for some of the stems.

    Raises:
        UserError: the folder belongs to something else.
    """
    key = {"of": str(data.root), "split": split, "stems": list(stems)}
    form = PreparedFormat(
        data.labels, data.height, data.width, data.info.resize, data.info.image_format
    )
    writer = PreparedWriter(folder, form, "subset", key)
    if (folder / INFO).exists():
        return PreparedDataset.open(folder)
    for stem in stems:
        image, mask = data.image_path(split, stem), data.mask_path(split, stem)
        _link(image, folder / "images" / SPLIT / image.name)
        target = folder / "masks" / SPLIT / mask.name
        if masks is not None and stem in masks:
            write_bytes(target, encode_image(masks[stem].astype(data.labels.mask_dtype), "png"))
        else:
            _link(mask, target)
        writer.add(record_of(target, SPLIT, stem, data.record(split, stem)))
    return writer.finish(data.info.name, data.info.source, data.info.licence)


def _link(source: Path, target: Path) -> None:
    """Link where the file system can, else copy; files here are replaced, never changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

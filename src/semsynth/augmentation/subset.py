"""Which images an experiment uses, and data sets that hold only those.

Synthetic images are filtered by how well a segmenter's prediction agrees with their mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semsynth.core.files import link_or_copy, write_bytes
from semsynth.data.content import digest_bytes, digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import encode_image
from semsynth.data.info import INFO
from semsynth.data.labels import Array, LabelSet
from semsynth.data.writer import PreparedWriter, record_of

SPLIT = "train"


def agreement(predicted: Array, mask: Array, ignore_id: int | None) -> float:
    """Return the share of an image's labelled pixels whose prediction equals the mask.

    Args:
        predicted: (H, W) ids.
        mask: (H, W) ids; pixels of ``ignore_id`` do not count.
        ignore_id: the id of unlabelled pixels, or None.

    Returns:
        0 to 1; 1 for an image without labelled pixels, which cannot disagree.
    """
    counted = np.ones(mask.shape, bool) if ignore_id is None else mask != ignore_id
    return float((predicted == mask)[counted].mean()) if counted.any() else 1.0


def keep_best(agreements: Mapping[str, float], share: float) -> list[str]:
    """Return the ``share`` (above 0, at most 1) of the images with the highest agreement.

    At least one, in the order of ``agreements``; of equal ones the first.
    """
    n = max(1, math.floor(share * len(agreements) + 1e-9))
    ranked = sorted(agreements, key=lambda stem: -agreements[stem])[:n]
    return [stem for stem in agreements if stem in set(ranked)]


def ignore_disagreeing(predicted: Array, mask: Array, ignore_id: int, min_iou: float) -> Array:
    """Return the mask with those classes ignored whose IoU in this image is below ``min_iou``.

    Args:
        predicted: (H, W) ids.
        mask: (H, W) ids.
        ignore_id: the id of unlabelled pixels.
        min_iou: 0 to 1.
    """
    trusted = mask.copy()
    for i in np.unique(mask[mask != ignore_id]):
        target, found = mask == i, (predicted == i) & (mask != ignore_id)
        if (target & found).sum() < min_iou * (target | found).sum():
            trusted[target] = ignore_id
    return trusted


def write_subset(
    data: PreparedDataset,
    split: str,
    stems: Sequence[str],
    folder: Path,
    masks: Mapping[str, Array] | None = None,
    instances: Mapping[str, Array] | None = None,
    labels: LabelSet | None = None,
) -> PreparedDataset:
    """Write ``stems`` as a data set of their own, in the split ``train``; images are not copied.

    Args:
        data: the data set that has the images.
        split: their split there.
        stems: the images.
        folder: written to; a finished one is opened unchanged.
        masks: masks (H, W) that replace those of some of the stems.
        instances: numbers (H, W) of the objects of stems, 0 for none; other images have none.
        labels: of the new data set, if ``masks`` have an id that those of the data have not.

    Raises:
        UserError: the folder belongs to something else.
    """
    key = _key_of(data, split, stems, masks, labels)
    form = replace(data.form, large=None, labels=labels or data.labels)
    writer = PreparedWriter(folder, form, "subset", key)
    if (folder / INFO).exists():
        return PreparedDataset.open(folder)
    for stem in stems:
        image, mask = data.image_path(split, stem), data.mask_path(split, stem)
        link_file(image, folder / "images" / SPLIT / image.name)
        target = folder / "masks" / SPLIT / mask.name
        if masks is not None and stem in masks:
            write_bytes(target, encode_image(masks[stem].astype(form.labels.mask_dtype), "png"))
        else:
            link_file(mask, target)
        numbers = (instances or {}).get(stem)
        if numbers is not None:
            write_bytes(folder / "instances" / SPLIT / mask.name, encode_image(numbers, "png"))
        known = data.record(split, stem)
        info = known.changed(instances=numbers is not None)
        record = record_of(writer.root, form, SPLIT, stem, info)
        writer.add(replace(record, group=known.group or "", kind=known.kind or ""))
    return writer.finish(data.info.name, data.info.source, data.info.licence)


def _key_of(
    data: PreparedDataset,
    split: str,
    stems: Sequence[str],
    masks: Mapping[str, Array] | None,
    labels: LabelSet | None,
) -> dict[str, Any]:
    kinds = ("images", "masks")
    key: dict[str, Any] = {
        "of": data.digest_of([split], kinds),
        "split": split,
        "stems": list(stems),
    }
    if masks is not None:
        key["masks"] = digest_json({s: digest_bytes(masks[s].tobytes()) for s in sorted(masks)})
    if labels is not None:
        key["labels"] = labels.to_json()
    return key


def link_file(source: Path, target: Path) -> None:
    """Link ``target`` to ``source``, or copy; files of data sets are replaced, never changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    link_or_copy(source, target)

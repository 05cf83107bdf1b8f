"""The filtered data set: linked images, new masks, what happened to each class; and a preview."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.augmentation.filter.measure import Measurements
from semsynth.augmentation.filter.rules import Limits, borders, verdict
from semsynth.augmentation.filter.teacher import Teacher
from semsynth.augmentation.subset import link_file
from semsynth.core.files import read_text, write_bytes, write_text
from semsynth.core.logging import progress
from semsynth.core.rng import evenly
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import encode_image
from semsynth.data.image_info import file_path
from semsynth.data.labels import Array
from semsynth.data.manifest import EDITS, MANIFEST
from semsynth.data.writer import PreparedWriter, record_of
from semsynth.pipelines.generate.contact_sheet import image_table
from semsynth.segmentation.loader import class_indices, index_lut

Counts = npt.NDArray[np.int64]
Name = tuple[str, str]
ClassTable = dict[str, dict[str, Any]]
COUNTED = ("pixels", "border", "ignored", "relabelled", "gained")
# Lists of how each image was made, a line of JSON with its stem each.
_LISTS = (MANIFEST, EDITS)
_ROWS = 6
_IGNORED, _RELABELLED, _BORDER = (230, 30, 30), (250, 210, 0), (255, 255, 255)


def write_images(
    measurements: Measurements,
    writer: PreparedWriter,
    names: Sequence[Name],
    found: Limits,
    relabel_above: float | None,
) -> dict[str, Counts]:
    """Write the images that stay with their new masks, and count pixels.

    Args:
        measurements: of the samples.
        writer: of the filtered set; its labels have an ignored id.
        names: split and stem of the images.
        found: what is believed of each class.
        relabel_above: see ``rules.verdict``.

    Returns:
        (C,) pixels of each class: all; ignored at borders; ignored; relabelled as another class;
        and gained from others.
    """
    samples, form = measurements.samples, writer.form
    ids = np.array([label.id for label in samples.labels.trainable])
    ignored = form.labels.ignore_id
    assert ignored is not None, "the caller gives labels with one"
    counts = {name: np.zeros(len(ids), np.int64) for name in COUNTED}
    for split, stem in progress(names, "write masks", unit="image"):
        image = measurements.labelled(split, stem)
        decided = verdict(image, found, relabel_above)
        mask = samples.read_mask(split, stem).astype(form.labels.mask_dtype)
        mask[decided.border | decided.ignored] = ignored
        mask[decided.relabelled] = ids[image.best[decided.relabelled]]
        for name, chosen in (
            ("pixels", image.classes >= 0),
            ("border", decided.border),
            ("ignored", decided.ignored),
            ("relabelled", decided.relabelled),
        ):
            counts[name] += np.bincount(image.classes[chosen], minlength=len(ids))
        counts["gained"] += np.bincount(image.best[decided.relabelled], minlength=len(ids))
        if writer.done(split, stem):
            continue
        _write_one(samples, writer, (split, stem), mask, decided.changed)
    return counts


def pixels_of(measurements: Measurements, names: Sequence[Name]) -> Counts:
    """Return the pixels (C,) of each class in some samples."""
    counts = np.zeros(len(measurements.samples.labels.trainable), np.int64)
    for split, stem in names:
        classes = measurements.classes(measurements.samples, split, stem)
        counts += np.bincount(classes[classes >= 0], minlength=len(counts))
    return counts


def _write_one(
    samples: PreparedDataset, writer: PreparedWriter, name: Name, mask: Array, changed: Array
) -> None:
    split, stem = name
    form, info = writer.form, samples.record(split, stem)

    def path(kind: str) -> Any:
        return writer.root / file_path(kind, form.image_format, split, stem)

    link_file(samples.image_path(split, stem), path("images"))
    write_bytes(path("masks"), encode_image(mask, "png"))
    write_bytes(path("colored_masks"), encode_image(form.labels.colorize(mask), "png"))
    if info.instances:
        # What is no longer known to be of an object belongs to none.
        instances = np.where(changed, 0, samples.read_instances(split, stem))
        write_bytes(path("instances"), encode_image(instances.astype(np.uint16), "png"))
    writer.add(record_of(writer.root, form, split, stem, info))


def copy_lists(samples: PreparedDataset, writer: PreparedWriter, names: Sequence[Name]) -> None:
    """Copy from the lists of how images were made the lines of those that stay."""
    kept: dict[str | None, set[str]] = {None: {stem for _, stem in names}}
    for split in {split for split, _ in names}:
        kept[split] = {stem for where, stem in names if where == split}
    for name in _LISTS:
        source = samples.root / name
        if not source.exists():
            continue
        lines = read_text(source).splitlines()
        values = [json.loads(line) for line in lines if line.strip()]
        chosen = [x for x in values if x["stem"] in kept.get(x.get("split"), ())]
        write_text(writer.root / name, "".join(json.dumps(x) + "\n" for x in chosen))


def class_table(
    names: Sequence[str],
    counts: Mapping[str, Counts],
    found: Limits,
    means: tuple[npt.NDArray[np.float64], Counts],
) -> ClassTable:
    """Return what happened to each class that the samples have, as JSON values by its name.

    Args:
        names: of the C classes.
        counts: (C,) pixels each, of ``write_images``; and those of images that were ``dropped``.
        found: what was believed.
        means: (C,) mean loss and pixels of each class in the real images.
    """
    mean, real_pixels = means
    table = {}
    for i, name in enumerate(names):
        entry: dict[str, Any] = {key: int(values[i]) for key, values in counts.items()}
        entry["pixels"] += entry["dropped"]
        if not entry["pixels"] and not entry["gained"]:
            continue
        lost = sum(entry[key] for key in ("dropped", "border", "ignored", "relabelled"))
        pixels = max(entry["pixels"], 1)
        entry["kept"] = entry["pixels"] - lost
        entry["kept_share"] = round(entry["kept"] / pixels, 6)
        entry["ignored_share"] = round((entry["border"] + entry["ignored"]) / pixels, 6)
        plain = float(found.plain_share[i])
        entry["kept_share_without_quota"] = None if np.isnan(plain) else round(plain, 6)
        checked = bool(np.isfinite(found.loss[i])) and mean[i] > 0
        entry["mean_loss"] = round(float(mean[i]), 6) if real_pixels[i] else None
        entry["real_pixels"] = int(real_pixels[i])
        entry["tolerance"] = round(float(found.loss[i] / mean[i]), 4) if checked else None
        entry["border_ignored"] = bool(found.border[i])
        table[name] = entry
    return table


def preview(
    filtered: PreparedDataset, samples: PreparedDataset, teacher: Teacher, border: int
) -> bytes:
    """Return a PNG with images from least to most changed masks.

    Columns: the image; its mask; the new mask, black where it is ignored; where it changed (white:
    ignored at a border, red: ignored because the teacher does not believe it, yellow: relabelled);
    what the teacher sees.
    """
    names = [(split, stem) for split in filtered.splits() for stem in filtered.stems(split)]
    changed = {name: _changed(filtered, samples, name) for name in names}
    order = sorted(names, key=lambda name: (float(changed[name].mean()), name))
    ids = np.array([label.id for label in samples.labels.trainable])
    ignored = filtered.labels.ignore_id
    rows: list[list[Array | None]] = []
    for split, stem in evenly(order, _ROWS):
        image, before = samples.read_rgb(split, stem), samples.read_mask(split, stem)
        after = filtered.read_mask(split, stem)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        marked = np.repeat(grey[..., None] // 2, 3, 2)
        gone = changed[split, stem] & (after == ignored)
        inside = samples.content(split, stem)
        classes = class_indices(before, inside, index_lut(samples.labels))
        marked[changed[split, stem] & (after != ignored)] = _RELABELLED
        marked[gone] = _IGNORED
        marked[gone & borders(classes, border)] = _BORDER
        seen = ids[teacher.log_probabilities(image)[0].argmax(0)]
        masks = samples.labels.colorize(before), filtered.labels.colorize(after)
        rows.append([image, *masks, marked, samples.labels.colorize(seen)])
    names_of = ["image", "mask", "new mask", "changed", "teacher"]
    title = (
        f"{filtered.info.name}: least to most changed; white: border, red: not believed, "
        "yellow: relabelled"
    )
    return image_table(rows, names_of, title, {1, 2, 3, 4})


def _changed(filtered: PreparedDataset, samples: PreparedDataset, name: Name) -> Array:
    return np.asarray(filtered.read_mask(*name) != samples.read_mask(*name))

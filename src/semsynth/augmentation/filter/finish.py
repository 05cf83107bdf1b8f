"""From what was measured to the filtered set: images that stay, limits, masks, filter.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semsynth.augmentation.filter.images import Copies, Far, check_copies, find_far
from semsynth.augmentation.filter.measure import REAL, SAMPLES, mean_losses
from semsynth.augmentation.filter.rules import MIN_PIXELS, Tally, limits
from semsynth.augmentation.filter.task import KIND, Name, Task
from semsynth.augmentation.filter.write import (
    ClassTable,
    class_table,
    copy_lists,
    pixels_of,
    write_images,
)
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger, progress
from semsynth.core.outputs import Output, write_result
from semsynth.core.version import __version__
from semsynth.data.manifest import read_manifest
from semsynth.data.writer import PreparedWriter
from semsynth.evaluation.copying.measure import sequences
from semsynth.evaluation.inputs.image_set import PreparedImages

Json = dict[str, Any]
RESULT = "filter.json"
_NAMED = 6


def write_set(task: Task, output: Output) -> None:
    """Write the filtered set and filter.json, dataset.json last; then remove the measurements.

    Raises:
        UserError: no image is left.
    """
    config, measurements, samples = task.config, task.measurements, task.samples
    chosen = choose_images(task)
    means = mean_losses(measurements, config.splits[1])
    plain = np.where(means[1] >= MIN_PIXELS, config.tolerance * means[0], np.inf)
    if config.rule == "none":
        plain[:] = np.inf
    tally = Tally(plain)
    for split, stem in progress(chosen.names, "count losses", unit="image"):
        tally.add(measurements.labelled(split, stem))
    found = limits(tally, config.keep_at_least)
    form = replace(samples.form, labels=samples.labels.with_ignore("ignored"), large=None)
    writer = PreparedWriter(config.output, form, KIND, output.key)
    relabel_above = config.relabel_above if config.rule == "relabel" else None
    counts = write_images(measurements, writer, chosen.names, found, relabel_above)
    counts["dropped"] = pixels_of(measurements, list(chosen.dropped))
    copy_lists(samples, writer, chosen.names)
    classes = class_table([x.name for x in samples.labels.trainable], counts, found, means)
    result = _result(task, chosen, classes)
    write_result(config.output, RESULT, result)
    excluded = {"/".join(name): why for name, why in chosen.dropped.items()}
    writer.finish(samples.info.name, samples.info.source, samples.info.licence, excluded)
    for line in result["warnings"]:
        logger.warning(line)
    measurements.remove()


@dataclass(frozen=True)
class Chosen:
    """The samples that stay, and those that do not.

    Attributes:
        names: split and stem of those that stay.
        dropped: why the others do not.
        far: how far all samples are; None: not known, or not asked for.
        copies: what is found of copies among those that are not far.
    """

    names: list[Name]
    dropped: dict[Name, str]
    far: Far | None
    copies: Copies


def choose_images(task: Task) -> Chosen:
    """Leave out images that are far, and copies if that is asked for.

    Raises:
        UserError: no image is left.
    """
    config, dropped = task.config, dict[Name, str]()
    far = _far(task)
    if far is not None:
        for i in far.dropped:
            dropped[task.names[i]] = (
                f"far: {far.distances[i]:.4f} from the nearest real image, limit {far.limit:.4f}"
            )
    near = [name for name in task.names if name not in dropped]
    copies = Copies({}, {})
    if near:
        copies = check_copies(task.samples, near, task.real, (config.split, config.val_split))
    for name in copies.nearest if config.drop_copies else ():
        dropped[name] = f"copy of {config.split}/{copies.nearest[name]}"
    names = [name for name in near if name not in dropped]
    if not names:
        raise UserError(
            f"{task.samples.root}: no image is left: all {len(dropped)} are far from the real ones "
            "or copies; keep them with --drop-far 0 and --no-drop-copies, or generate others"
        )
    return Chosen(names, dropped, far, copies)


def _far(task: Task) -> Far | None:
    config, measurements = task.config, task.measurements
    if measurements.features.name is None:
        return None

    def rows(kind: str, names: Sequence[Name]) -> Any:
        return np.stack([measurements.read((kind, *name))["features"] for name in names])

    stems = measurements.compared(config.split)
    groups = sequences(PreparedImages(task.real, config.split, stems), stems)
    real = rows(REAL, [(config.split, stem) for stem in stems])
    return find_far(rows(SAMPLES, task.names), real, groups, config.drop_far)


def _result(task: Task, chosen: Chosen, classes: ClassTable) -> Json:
    """Return the content of filter.json."""
    config, teacher, samples = task.config, task.teacher.network, task.samples
    entries = classes.values()
    labelled = max(sum(x["pixels"] - x["dropped"] for x in entries), 1)
    added = samples.labels.ignore_id is None
    result: Json = {
        "format": 1,
        "dataset": samples.info.name,
        "samples": samples.info.source,
        "n_samples": len(task.names),
        "n_kept": len(chosen.names),
        "settings": config.settings,
        "teacher": {
            "name": teacher.name,
            "sha256": teacher.sha256,
            **teacher.about,
            "share_of_mean_images_trained_on": task.known,
        },
        "ignored_label": samples.labels.with_ignore("ignored").ignore_id if added else None,
        "shares": {
            name: round(sum(x[name] for x in entries) / labelled, 6)
            for name in ("border", "ignored", "relabelled")
        },
        "classes": classes,
        "vanished": [name for name, x in classes.items() if x["pixels"] and not x["kept"]],
        "quotas": quotas(classes, config.keep_at_least),
        "dropped": {"/".join(name): why for name, why in chosen.dropped.items()},
        "far": _far_entry(task, chosen.far),
        "copies": chosen.copies.entry
        | {"stems": {"/".join(k): stem for k, stem in chosen.copies.nearest.items()}},
        "versions": {"semsynth": __version__},
    }
    return result | {"warnings": _warnings(task, chosen, result)}


def quotas(classes: ClassTable, keep: float) -> Json:
    """Return the classes that would have kept less than their share, and what was done."""
    return {
        name: {
            "kept_without": x["kept_share_without_quota"],
            "kept": x["kept_share"],
            "tolerance": x["tolerance"],
            "border_ignored": x["border_ignored"],
        }
        for name, x in classes.items()
        if x["kept_share_without_quota"] is not None and x["kept_share_without_quota"] < keep
    }


def _far_entry(task: Task, far: Far | None) -> Json | None:
    if far is None:
        return None
    return {
        "features": task.measurements.features.name,
        "limit": round(far.limit, 6),
        "median": round(float(np.median(far.distances)), 6),
        "largest": round(float(far.distances.max()), 6),
        "n_far": far.count,
        "n_dropped": len(far.dropped),
        "about": "distance to the nearest real image, between features of length 1; limit: 99% of "
        "the real images are nearer to one of another group",
    }


def _warnings(task: Task, chosen: Chosen, result: Json) -> list[str]:
    """Say what a user must know before training on the set."""
    config, classes = task.config, result["classes"]
    lines = []
    if result["quotas"]:
        shown = [f"{name} {x['kept_without']:.0%}" for name, x in result["quotas"].items()]
        lines.append(
            f"{len(shown)} of {len(classes)} classes would have kept less than "
            f"{config.keep_at_least:.0%} of their pixels ({abbreviate(shown, _NAMED)}): they keep "
            "the pixels with the smallest loss, up to that share (--keep-at-least)"
        )
    if result["vanished"]:
        names = abbreviate(result["vanished"], _NAMED)
        lines.append(
            f"missing from the filtered set: {names}; raise --keep-at-least or --tolerance, or "
            "give a teacher that predicts them"
        )
    lost = [
        f"{name} ({x['kept_share']:.0%} left)"
        for name, x in classes.items()
        if 0 < x["kept"] < x["pixels"] / 2
    ]
    if lost:
        lines.append(f"lost more than half of their pixels: {abbreviate(lost, _NAMED)}")
    unknown = [
        name
        for name, x in classes.items()
        if config.rule != "none" and x["pixels"] and x["real_pixels"] < MIN_PIXELS
    ]
    if unknown:
        lines.append(
            f"{abbreviate(unknown, _NAMED)}: fewer than {MIN_PIXELS} pixels in the real images of "
            f"'{config.splits[1]}', so there is no mean loss, and their labels are kept"
        )
    lines += _of_images(task, chosen)
    copies = chosen.copies.entry
    if config.drop_copies and "not_applicable" in copies:
        lines.append(f"--drop-copies is not applicable: {copies['not_applicable']}; they stay")
    return lines + list(copies.get("warnings", ()))


def _of_images(task: Task, chosen: Chosen) -> list[str]:
    config, lines, far = task.config, [], chosen.far
    if far is not None and far.count:
        lines.append(
            f"{far.count} of {len(task.names)} images are farther from the real ones than real "
            f"images are from each other: the farthest {len(far.dropped)} are left out (--drop-far)"
        )
    held_out = sum(line["split"] == config.val_split for line in read_manifest(task.samples.root))
    if held_out and config.val_split != config.split:
        lines.append(
            f"{held_out} images have masks of '{config.val_split}': a segmenter that is trained "
            "on them must not be scored there"
        )
    return lines

"""The check for copies as a part of an evaluation: from its inputs to the entry of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from semsynth.core.distributed.shards import Shard
from semsynth.core.logging import logger
from semsynth.core.rng import evenly
from semsynth.data.resize import Box
from semsynth.evaluation.baselines import MeanColorBaseline
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.copying.entry import ImageSets, find_copies
from semsynth.evaluation.copying.records import ImageRecords, record_images
from semsynth.evaluation.copying.thumbnails import Floats
from semsynth.evaluation.inputs.image_set import ImageSet, PreparedImages
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.inputs.mask_set import MaskSet, PreparedMasks
from semsynth.evaluation.metrics.blocks import sequences_of
from semsynth.evaluation.partial_results import PartialResults

Array = npt.NDArray[Any]
# 13 kB of memory each.
MAX_TRAINING = 20_000
MISSING = "needs training images: --train, or prepared data that have a train split"


def training_images(inputs: Inputs, split: str) -> tuple[ImageSet | None, MaskSet | None]:
    """Return the training images and their masks; also where the samples are of this very split.

    Args:
        inputs: what is scored.
        split: the training split of prepared data.
    """
    if inputs.training is not None:
        return inputs.training, inputs.training_masks
    real = inputs.real
    if isinstance(real, PreparedImages) and real.split == split:
        stems = real.data.stems(split)
        masks = PreparedMasks.of_split(real.data, split)
        return PreparedImages(real.data, split, stems), masks
    return None, None


def record_sets(
    inputs: Inputs, baseline: MeanColorBaseline | None, split: str, shard: Shard
) -> dict[str, ImageRecords]:
    """Record this process's part of all images; nothing without training images.

    Args:
        inputs: what is scored.
        baseline: the mean colours, where there are masks.
        split: the training split of prepared data.
        shard: which part.
    """
    training, training_masks = training_images(inputs, split)
    if training is None:
        return {}
    masks, samples = inputs.masks_order, inputs.samples_with_masks
    stems = training.stems
    known = set() if training_masks is None else set(training_masks.stems)

    def read_generated(i: int) -> tuple[Array, Box | None, Array | None]:
        stem, mask = samples[i]
        return inputs.generated.read_rgb(stem), _box(inputs, stem, mask), None

    def read_real(i: int) -> tuple[Array, Box | None, Array | None]:
        image, box = inputs.real.read_rgb(masks[i]), inputs.real.content_box(masks[i])
        return image, box, None if inputs.masks is None else inputs.masks.read_mask(masks[i])

    def read_training(i: int) -> tuple[Array, Box | None, Array | None]:
        mask = training_masks.read_mask(stems[i]) if training_masks and stems[i] in known else None
        return training.read_rgb(stems[i]), training.content_box(stems[i]), mask

    def read_colours(i: int) -> tuple[Array, Box | None, Array | None]:
        assert inputs.masks is not None and baseline is not None
        mask = inputs.masks.read_mask(masks[i])
        return baseline.render(mask), inputs.masks.content_box(masks[i]), None

    chosen = evenly(range(len(stems)), MAX_TRAINING)
    every = range(len(masks))
    records = {
        "generated": record_images(read_generated, range(len(samples)), "small samples", shard),
        "real": record_images(read_real, every, "small real images", shard),
        "training": record_images(read_training, chosen, "small training images", shard),
    }
    if baseline is not None and inputs.masks is not None:
        colours = record_images(read_colours, every, "small mean colours", shard)
        records["mean_colours"] = colours
    return records


def _box(inputs: Inputs, stem: str, mask: str) -> Box:
    """Return the content of a sample: that of its real image, where nothing else is known."""
    plain = not isinstance(inputs.generated, PreparedImages)
    if plain and inputs.generated.size(stem) == inputs.real.size(mask):
        return inputs.real.content_box(mask)
    return inputs.generated.content_box(stem)


def add_copies(
    report: dict[str, Any], inputs: Inputs, results: PartialResults, config: EvaluateConfig
) -> None:
    """Write into a report what is found of copies, or why nothing is, and say what matters.

    ``results.values["copies"]`` gets for each sample: the place of the nearest training image among
    the training images, distance, ratio, and whether it is a copy.

    Args:
        report: the content of report.json.
        inputs: what is scored.
        results: of all processes.
        config: seed and training split.
    """
    training, _ = training_images(inputs, config.train_split)
    if training is None:
        report["missing"]["copies"] = MISSING
        return
    index = {name: i for i, name in enumerate(inputs.masks_order)}
    sets = ImageSets(
        results.records,
        [index[mask] for _, mask in inputs.samples_with_masks],
        {
            "generated": [stem for stem, _ in inputs.samples_with_masks],
            "real": inputs.masks_order,
            "training": training.stems,
        },
        {
            "real": sequences(inputs.real, inputs.masks_order),
            "training": sequences(training, training.stems),
        },
        _common_features(results),
    )
    copies = find_copies(sets, config.seed)
    report["metrics"]["copies"] = copies.entry
    nearest = {row.nearest for row in copies.rows.values()}
    place = {stem: i for i, stem in enumerate(training.stems) if stem in nearest}
    results.values["copies"] = {
        number: (place[row.nearest], row.distance, row.ratio, row.is_copy)
        for number, row in copies.rows.items()
    }
    for line in copies.entry["warnings"]:
        logger.warning(line)


def nearest_training(
    training: ImageSet | None, results: PartialResults
) -> dict[int, tuple[str, float, float]]:
    """Return stem, distance and ratio of the nearest training image, by number of the sample."""
    if training is None:
        return {}
    stems = training.stems
    rows = results.values.get("copies", {})
    return {
        number: (stems[int(i)], distance, ratio) for number, (i, distance, ratio, _) in rows.items()
    }


def sequences(images: ImageSet, stems: Sequence[str]) -> list[str | None]:
    """Return the sequence, tile or field of images; see ``blocks.sequences_of``."""
    return sequences_of(stems, [images.group(stem) for stem in stems])


def _common_features(results: PartialResults) -> dict[str, dict[str, Floats]]:
    """Return the rows of the networks that measured every image of all sets."""
    records, sets = results.records, results.sets
    if not records.keys() <= sets.keys():
        return {}
    names = set.intersection(*(set(sets[key].features) for key in records))
    whole = [
        name
        for name in sorted(names)
        if all(sets[key].features[name].keys() >= records[key].thumbnails.keys() for key in records)
    ]
    return {
        key: {name: sets[key].rows(name, records[key].numbers) for name in whole} for key in records
    }

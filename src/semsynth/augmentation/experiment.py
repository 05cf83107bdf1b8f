"""What synthetic images add: the same segmenter with and without them, on held-out real ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from semsynth.augmentation.config import AugmentConfig
from semsynth.augmentation.filter import agreement, ignore_disagreeing, keep_best
from semsynth.augmentation.results import CEILING, FILTERED, REAL, SYNTHETIC, summarise
from semsynth.augmentation.subset import SPLIT, write_subset
from semsynth.core.errors import UserError
from semsynth.core.files import claim_output_dir, read_json, write_json
from semsynth.core.rng import derive_seed, numpy_rng
from semsynth.core.version import __version__
from semsynth.data.dataset import PreparedDataset
from semsynth.pipelines.generate.sample_store import read_manifest
from semsynth.segmentation.config import SEGMENTER_FILE, SegmentTrainConfig
from semsynth.segmentation.evaluate import chunks, score_split, summary
from semsynth.segmentation.loader import check_same_labels
from semsynth.segmentation.segmenter import Segmenter
from semsynth.segmentation.train import train_segmenter

RESULT = "augmentation.json"
_BATCH = 32


def run_experiment(config: AugmentConfig) -> dict[str, Any]:
    """Train and score the segmenters and write ``augmentation.json``.

    Every arm of a trial has the same real images, the same initial weights and the same number
    of steps and images a step; synthetic images take the place of real ones in the batches.
    The real images that the generator was trained on are not counted: the question is what
    somebody gains who has the generator, and these few images.

    Returns:
        JSON values: n_real, n_synthetic, n_val, arms (name to miou, std, pixel_accuracy and
        per_class), gain (of mIoU by arm: mean, std over the trials, each trial's), trials,
        settings, missing (what was not measured, and why).

    Raises:
        UserError: data and samples do not fit, samples of held-out masks, fewer real images
            than asked for, an output that belongs to something else.
    """
    data, samples = PreparedDataset.open(config.data), PreparedDataset.open(config.samples)
    sources = _sources(samples, config)
    _check(config, data, samples)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    decides = {k: v for k, v in settings.items() if k not in ("output", "device", "trials")}
    output = claim_output_dir(config.output, "augmentation", decides)
    missing = {}
    real_stems = set(data.stems(config.split))
    with_image = [source for source in sources if source in real_stems]
    if config.ceiling and not with_image:
        missing[CEILING] = f"no real images of the samples' masks in split '{config.split}'"
    trials = [
        _trial(config, output / f"trial_{number}", data, samples, with_image)
        for number in range(config.trials)
    ]
    result = {
        "format": 1,
        "dataset": data.info.name,
        "samples": samples.info.source,
        "n_real": config.real_images,
        "n_synthetic": len(samples.stems(config.samples_split)),
        "n_val": len(data.stems(config.val_split)),
        **summarise(trials),
        "missing": missing,
        "settings": settings,
        "versions": {"semsynth": __version__},
    }
    write_json(output / RESULT, result)
    return {"result": str(output / RESULT), **result}


def _check(config: AugmentConfig, data: PreparedDataset, samples: PreparedDataset) -> None:
    check_same_labels(samples.labels, data.labels, str(samples.root), str(data.root))
    if (samples.height, samples.width) != (data.height, data.width):
        raise UserError(
            f"{samples.root}: images are {samples.width}x{samples.height}, in {data.root} "
            f"{data.width}x{data.height}; generate them without --native-size"
        )
    available = len(data.stems(config.split))
    if config.real_images > available:
        raise UserError(
            f"{data.root}: split '{config.split}' has {available} images, --real-images "
            f"asks for {config.real_images}; ask for fewer"
        )
    if config.ignore_below > 0 and data.labels.ignore_id is None:
        raise UserError(f"{data.root}: --ignore-below needs labels with an ignored id")
    for where, split in ((data, config.split), (data, config.val_split)):
        if not where.has_images(split):
            raise UserError(f"{where.root}: split '{split}' has masks without images")


def _sources(samples: PreparedDataset, config: AugmentConfig) -> list[str]:
    """Return the masks that the samples were painted for; none without a manifest."""
    stems = set(samples.stems(config.samples_split))
    lines = [line for line in read_manifest(samples.root) if line["stem"] in stems]
    if any(line["split"] == config.val_split for line in lines):
        raise UserError(
            f"{samples.root}: was painted for masks of '{config.val_split}', which score here; "
            "generate images for other masks (semsynth generate --split train)"
        )
    return list(dict.fromkeys(line["source"] for line in lines))


def _trial(
    config: AugmentConfig,
    folder: Path,
    data: PreparedDataset,
    samples: PreparedDataset,
    with_image: list[str],
) -> dict[str, Any]:
    """Train and score one segmenter an arm; arms that were scored before are read."""
    stems = data.stems(config.split)
    seed = derive_seed(config.seed, folder.name)
    chosen = numpy_rng(seed, "real pictures").permutation(len(stems))[: config.real_images]
    few = [stems[i] for i in sorted(chosen)]
    real = write_subset(data, config.split, few, folder / f"images_{REAL}")
    scores = {REAL: _arm(config, folder, REAL, data, real, None)}
    synthetic = (samples, config.samples_split)
    scores[SYNTHETIC] = _arm(config, folder, SYNTHETIC, data, real, synthetic)
    if config.filters:
        trusted = _filter(config, folder, samples)
        scores[FILTERED] = _arm(config, folder, FILTERED, data, real, (trusted, SPLIT))
    if config.ceiling and with_image:
        more = write_subset(data, config.split, with_image, folder.parent / f"images_{CEILING}")
        scores[CEILING] = _arm(config, folder, CEILING, data, real, (more, SPLIT))
    return scores


def _arm(
    config: AugmentConfig,
    folder: Path,
    name: str,
    data: PreparedDataset,
    real: PreparedDataset,
    extra: tuple[PreparedDataset, str] | None,
) -> Any:
    path = folder / f"{name}.json"
    if path.exists():
        return read_json(path)
    checkpoint = train_segmenter(
        SegmentTrainConfig(
            data=real.root,
            output=folder / name,
            split=SPLIT,
            extra=None if extra is None else extra[0].root,
            extra_split=SPLIT if extra is None else extra[1],
            mix_share=config.mix_share,
            width=config.width,
            steps=config.steps,
            batch_size=config.batch_size,
            seed=derive_seed(config.seed, folder.name) % 2**31,
            device=config.device,
        )
    )
    segmenter = Segmenter.load(checkpoint, config.device)
    scores = summary(score_split(segmenter, data, config.val_split), data.labels.names)
    write_json(path, scores)
    return scores


def _filter(config: AugmentConfig, folder: Path, samples: PreparedDataset) -> PreparedDataset:
    """Keep what the segmenter of the real images alone agrees with."""
    segmenter = Segmenter.load(folder / REAL / SEGMENTER_FILE, config.device)
    split, ignore_id = config.samples_split, samples.labels.ignore_id
    agreements, masks = {}, {}
    for batch in chunks(samples.stems(split), _BATCH):
        predicted = segmenter.predict(np.stack([samples.read_image(split, s) for s in batch]))
        for stem, ids in zip(batch, predicted, strict=True):
            mask = samples.read_mask(split, stem)
            agreements[stem] = agreement(ids, mask, ignore_id)
            if config.ignore_below > 0 and ignore_id is not None:
                masks[stem] = ignore_disagreeing(ids, mask, ignore_id, config.ignore_below)
    kept = keep_best(agreements, config.keep_share)
    return write_subset(samples, split, kept, folder / f"images_{FILTERED}", masks)

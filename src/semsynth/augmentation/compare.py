"""What synthetic images add: the same segmenter with and without them, on held-out real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semsynth.augmentation.config import AugmentConfig
from semsynth.augmentation.subset import (
    SPLIT,
    agreement,
    ignore_disagreeing,
    keep_best,
    write_subset,
)
from semsynth.core.distributed.shards import chunks
from semsynth.core.errors import UserError
from semsynth.core.files import read_json, remove_left_over, sha256_file, write_json
from semsynth.core.outputs import Output, write_result
from semsynth.core.rng import derive_seed, numpy_rng
from semsynth.core.version import __version__
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import check_same_labels
from semsynth.data.manifest import MANIFEST, read_manifest
from semsynth.segmentation.config import SEGMENTER_FILE, SegmentTrainConfig
from semsynth.segmentation.metrics import score_split, summary
from semsynth.segmentation.segmenter import Segmenter
from semsynth.segmentation.train import train_segmenter

RESULT = "augmentation.json"
# The arms of a trial: what a segmenter is trained on.
REAL = "real"
SYNTHETIC = "real_and_synthetic"
FILTERED = "real_and_filtered"
CEILING = "real_and_more_real"
_BATCH = 32


def run_experiment(config: AugmentConfig) -> dict[str, Any]:
    """Train and score the segmenters and write ``augmentation.json``.

    All arms of a trial have the same real images, initial weights, number of steps and batch
    size; synthetic images replace real ones in the batches. The real images that the generator
    was trained on are not counted: the experiment measures what a user gains who has the
    generator and only these few images.

    Returns:
        JSON values: n_real, n_synthetic, n_val, arms (name to miou, std, pixel_accuracy and
        per_class), gain (of mIoU by arm: mean, std over the trials, each trial's), trials,
        settings, missing (what was not measured, and why).

    Raises:
        UserError: data and samples do not belong together, samples of held-out masks, fewer real
            images than asked for, an output that belongs to something else.
    """
    data, samples = PreparedDataset.open(config.data), PreparedDataset.open(config.samples)
    data.say_what_is_shown()
    masks = _masks_of_samples(samples, config)
    _check(config, data, samples)
    settings, whole = _settings(config), _output(config, data, samples)
    output = whole.claim()
    missing = {}
    real_stems = set(data.stems(config.split))
    ceiling_stems = [stem for stem in masks if stem in real_stems]
    if config.ceiling and not ceiling_stems:
        missing[CEILING] = f"no real images of the samples' masks in split '{config.split}'"
    trials = [
        _run_trial(Trial(config, data, output / f"trial_{number}"), samples, ceiling_stems)
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
    write_result(output, RESULT, result)
    whole.complete()
    return {"result": str(output / RESULT), **result}


def _settings(config: AugmentConfig) -> dict[str, Any]:
    """Return the configuration as JSON values; files call ``real_images`` ``real_pictures``."""
    return {
        "real_pictures" if name == "real_images" else name: (
            str(value) if isinstance(value, Path) else value
        )
        for name, value in asdict(config).items()
        if name != "overwrite"
    }


def _output(config: AugmentConfig, data: PreparedDataset, samples: PreparedDataset) -> Output:
    """Return the folder, and what a resumed experiment must share: no paths."""
    free = ("output", "device", "trials", "data", "samples")
    settings = {k: v for k, v in _settings(config).items() if k not in free}
    splits = list(dict.fromkeys((config.split, config.val_split)))
    kinds, manifest = ("images", "masks"), samples.root / MANIFEST
    inputs = {
        "data": data.digests(splits, kinds),
        "samples": samples.digests([config.samples_split], kinds),
    }
    key = {
        "format": 2,
        **settings,
        "data": data.digest_of(splits, kinds),
        "samples": samples.digest_of([config.samples_split], kinds),
        # It says whose images the ceiling has.
        "manifest": sha256_file(manifest) if manifest.exists() else None,
    }
    return Output(config.output, "augmentation", key, inputs, config.overwrite)


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
        raise UserError(
            f"{data.root}: --ignore-below needs labels with an ignored id; omit the flag"
        )
    for split in (config.split, config.val_split):
        if not data.has_images(split):
            raise UserError(
                f"{data.root}: split '{split}' has masks without images; choose another split"
            )


def _masks_of_samples(samples: PreparedDataset, config: AugmentConfig) -> list[str]:
    """Return the masks that the samples were generated from; none without a manifest."""
    stems = set(samples.stems(config.samples_split))
    lines = [line for line in read_manifest(samples.root) if line["stem"] in stems]
    if any(line["split"] == config.val_split for line in lines):
        raise UserError(
            f"{samples.root}: generated from masks of '{config.val_split}', the held-out split; "
            "generate images for other masks (semsynth generate --split train)"
        )
    return list(dict.fromkeys(line["source"] for line in lines))


@dataclass(frozen=True)
class Trial:
    """One repetition: its random real images, and a folder in which its arms are kept."""

    config: AugmentConfig
    data: PreparedDataset
    folder: Path

    @property
    def seed(self) -> int:
        """Seed of the real images and of the initial weights."""
        return derive_seed(self.config.seed, self.folder.name)

    def real_images(self) -> PreparedDataset:
        """Return the real images that all arms of this trial have."""
        config, stems = self.config, self.data.stems(self.config.split)
        # The name of the random stream decides which images are drawn: it must not change.
        order = numpy_rng(self.seed, "real pictures").permutation(len(stems))
        chosen = [stems[i] for i in sorted(order[: config.real_images])]
        return write_subset(self.data, config.split, chosen, self.folder / f"images_{REAL}")

    def score_arm(
        self, name: str, real: PreparedDataset, extra: tuple[PreparedDataset, str] | None
    ) -> Any:
        """Train a segmenter on ``real`` and ``extra`` and score it; read the scores if stored.

        Args:
            name: name of the arm.
            real: the real images.
            extra: data set and split of the images that are mixed in.
        """
        config, path = self.config, self.folder / f"{name}.json"
        if path.exists():
            return read_json(path)
        checkpoint = train_segmenter(
            SegmentTrainConfig(
                data=real.root,
                output=self.folder / name,
                split=SPLIT,
                extra=None if extra is None else extra[0].root,
                extra_split=SPLIT if extra is None else extra[1],
                mix_share=config.mix_share,
                width=config.width,
                steps=config.steps,
                batch_size=config.batch_size,
                seed=self.seed % 2**31,
                device=config.device,
            )
        )
        segmenter = Segmenter.load(checkpoint, config.device)
        matrix = score_split(segmenter, self.data, config.val_split)
        scores = summary(matrix, self.data.labels.names)
        write_json(path, scores, seal=True)
        return scores

    def filter_samples(self, samples: PreparedDataset) -> PreparedDataset:
        """Return the samples that agree best with the segmenter of the real images alone."""
        config, ignore_id = self.config, samples.labels.ignore_id
        segmenter = Segmenter.load(self.folder / REAL / SEGMENTER_FILE, config.device)
        split, agreements, masks = config.samples_split, {}, {}
        for batch in chunks(samples.stems(split), _BATCH):
            predicted = segmenter.predict(np.stack([samples.read_rgb(split, s) for s in batch]))
            for stem, ids in zip(batch, predicted, strict=True):
                mask = samples.read_mask(split, stem)
                agreements[stem] = agreement(ids, mask, ignore_id)
                if config.ignore_below > 0 and ignore_id is not None:
                    masks[stem] = ignore_disagreeing(ids, mask, ignore_id, config.ignore_below)
        best = keep_best(agreements, config.keep_share)
        return write_subset(samples, split, best, self.folder / f"images_{FILTERED}", masks)


def _run_trial(
    trial: Trial, samples: PreparedDataset, ceiling_stems: Sequence[str]
) -> dict[str, Any]:
    """Return the scores of each arm."""
    config = trial.config
    if trial.folder.is_dir():
        remove_left_over(trial.folder)
    real = trial.real_images()
    scores = {REAL: trial.score_arm(REAL, real, None)}
    scores[SYNTHETIC] = trial.score_arm(SYNTHETIC, real, (samples, config.samples_split))
    if config.filters:
        filtered = trial.filter_samples(samples)
        scores[FILTERED] = trial.score_arm(FILTERED, real, (filtered, SPLIT))
    if config.ceiling and ceiling_stems:
        folder = trial.folder.parent / f"images_{CEILING}"
        more_real = write_subset(trial.data, config.split, ceiling_stems, folder)
        scores[CEILING] = trial.score_arm(CEILING, real, (more_real, SPLIT))
    return scores


def summarise(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average over trials, and compare each arm with the real images alone, trial by trial.

    Args:
        trials: for each trial the scores of each arm (miou, pixel_accuracy, per_class).

    Returns:
        ``arms``: name to the means (and the std of the mIoU over the trials, None for one trial);
        ``gain``: name to the differences of mIoU from ``real``, their mean and std;
        ``trials``: the mIoU of each.
    """
    names = list(trials[0])
    return {
        "arms": {name: _means([trial[name] for trial in trials]) for name in names},
        "gain": {name: _gain(trials, name) for name in names if name != REAL},
        "trials": [{name: trial[name]["miou"] for name in names} for trial in trials],
    }


def _means(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mious = [score["miou"] for score in scores]
    classes = scores[0]["per_class"]
    return {
        "miou": _mean(mious),
        "std": _std(mious),
        "pixel_accuracy": _mean([score["pixel_accuracy"] for score in scores]),
        "per_class": {name: _mean([s["per_class"][name] for s in scores]) for name in classes},
    }


def _gain(trials: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    differences = [trial[name]["miou"] - trial[REAL]["miou"] for trial in trials]
    classes = trials[0][REAL]["per_class"]
    return {
        "miou": _mean(differences),
        "std": _std(differences),
        "trials": [round(difference, 6) for difference in differences],
        "per_class": {
            c: _mean([t[name]["per_class"][c] - t[REAL]["per_class"][c] for t in trials])
            for c in classes
        },
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 6)


def _std(values: Sequence[float]) -> float | None:
    return round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else None

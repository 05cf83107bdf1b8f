"""A segmenter trained on generated images alone, against one trained on the real images.

Both learn from the same masks, with the same settings, initial weights and number of steps; both
are tested on real images that neither of them, nor the generator, has seen:

- a split that is neither that of the samples nor that of the training images, if there is one;
- otherwise the masks are cut into two halves, by groups where the data have them. Segmenters of
  one half's masks are tested on the real images of the other, and the other way round, so that
  every real image is tested once.

Training images of the generator are not a fair test: it has seen them, and generated images that
are close to them would be rewarded.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.devices import pick_device
from semsynth.core.distributed.shards import Shard, chunks
from semsynth.core.errors import UserError
from semsynth.core.logging import logger, progress
from semsynth.data.content import digest_json
from semsynth.data.resize import inside_box
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.image_set import ImageSet, PreparedImages
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.inputs.mask_set import MaskSet, PreparedMasks
from semsynth.evaluation.metrics.blocks import blocks_of
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.metrics.mask_scores import MaskScores
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.loader import CACHE_BYTES, class_indices, index_lut
from semsynth.segmentation.metrics import mean_iou
from semsynth.segmentation.segmenter import Segmenter
from semsynth.segmentation.train import build_segmenter, fit_segmenter

Json = dict[str, Any]
Rows = dict[int, tuple[float, ...]]
Array = npt.NDArray[Any]
# In the output folder, until the report is written.
_FOLDER = ".trained"
ARMS = ("trained on generated images", "trained on real images")
# With fewer masks in a half there is nothing to learn, or nothing to test.
_MIN_MASKS = 8
ABOUT = (
    "mIoU on real images of a segmenter that was trained on the generated images alone, over that "
    "of one that was trained on the real images of the same masks (same settings, seed and steps)"
)


@dataclass(frozen=True)
class Labelled:
    """Images with masks of one size, for training and testing.

    Attributes:
        images: the images.
        masks: their masks.
        pairs: stem of each image, and of its mask.
    """

    images: ImageSet
    masks: MaskSet
    pairs: Sequence[tuple[str, str]]
    # What was read, where all of it fits.
    _read: dict[int, tuple[Array, Array]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Return an image (H, W, 3) uint8 and its class indices (H, W), or ``IGNORE_INDEX``."""
        if index in self._read:
            return self._read[index]
        stem, mask = self.pairs[index]
        ids = self.masks.read_mask(mask)
        inside = inside_box(self.masks.content_box(mask), (ids.shape[0], ids.shape[1]))
        target = class_indices(ids, inside, index_lut(self.masks.labels))
        pair = self.images.read_rgb(stem), target
        if len(self.pairs) * (pair[0].nbytes + pair[1].nbytes) <= CACHE_BYTES:
            self._read[index] = pair
        return pair

    def class_shares(self) -> npt.NDArray[np.float64]:
        """Return each class's share of the labelled pixels, in the order of the class indices."""
        counts = np.zeros(len(self.masks.labels.trainable))
        for _, mask in self.pairs:
            indices = index_lut(self.masks.labels)[self.masks.read_mask(mask)]
            counts += np.bincount(indices[indices >= 0], minlength=len(counts))
        return np.asarray(counts / max(counts.sum(), 1.0))

    def check_size(self) -> tuple[int, int]:
        """Return the size of all images; UserError where they have several."""
        sizes = {self.images.size(stem) for stem, _ in self.pairs}
        if len(sizes) > 1:
            raise UserError(f"images of {self.images.title} have {len(sizes)} sizes; one is needed")
        return sizes.pop()


@dataclass(frozen=True)
class Fold:
    """What two segmenters are trained on, and what both are tested on.

    Attributes:
        generated: the generated images of some masks.
        real: the real images of these masks.
        test: real images of other masks.
        first: number of the first test image among those of all folds.
    """

    generated: Labelled
    real: Labelled
    test: Labelled
    first: int


@dataclass(frozen=True)
class Plan:
    """All folds, and in words which images test.

    Attributes:
        folds: one, or two halves.
        tested_on: which images test, and why.
    """

    folds: tuple[Fold, ...]
    tested_on: str

    @property
    def test_stems(self) -> list[str]:
        """The stems of all test images, by their number."""
        return [stem for fold in self.folds for stem, _ in fold.test.pairs]

    def key(self, config: EvaluateConfig) -> list[Any]:
        """Return what decides the outcome besides the samples and the real images of the masks."""
        tested = [[f.test.images.digests()[stem] for stem, _ in f.test.pairs] for f in self.folds]
        return [digest_json(tested), config.train_segmenter_steps, config.train_segmenter_init]

    @property
    def test_groups(self) -> list[str | None]:
        """The group of each test image."""
        return [f.test.images.group(stem) for f in self.folds for stem, _ in f.test.pairs]


def plan_training(inputs: Inputs, config: EvaluateConfig) -> Plan:
    """Decide what is trained on what, and what tests.

    Raises:
        UserError: no masks, too few of them, or images of several sizes.
    """
    if inputs.masks is None:
        raise UserError("--train-segmenter: needs masks; give --masks (and --labels)")
    if len(inputs.by_mask) < _MIN_MASKS:
        raise UserError(
            f"--train-segmenter: {len(inputs.by_mask)} masks are too few, {_MIN_MASKS} are "
            "needed; omit the flag"
        )
    third = _third_split(inputs, config)
    if third is not None:
        fold = Fold(*_arms(inputs, inputs.masks_order), third, 0)
        assert isinstance(third.images, PreparedImages)
        plan = Plan((fold,), f"the {len(third)} real images of split '{third.images.split}'")
    else:
        plan = _halves(inputs)
    for fold in plan.folds:
        if len({part.check_size() for part in (fold.generated, fold.real, fold.test)}) > 1:
            raise UserError(
                "--train-segmenter: generated and real images have different sizes; resize them"
            )
    return plan


def _arms(inputs: Inputs, stems: Sequence[str]) -> tuple[Labelled, Labelled]:
    assert inputs.masks is not None
    samples = [(sample, mask) for mask in stems for sample in inputs.by_mask[mask]]
    real = [(mask, mask) for mask in stems]
    return (
        Labelled(inputs.generated, inputs.masks, samples),
        Labelled(inputs.real, inputs.masks, real),
    )


def _third_split(inputs: Inputs, config: EvaluateConfig) -> Labelled | None:
    """Return the images of a split that were used in no training; None: there are none."""
    if not isinstance(inputs.real, PreparedImages):
        return None
    data = inputs.real.data
    seen = {config.split, config.train_split}
    splits = [name for name in data.splits() if name not in seen and data.has_images(name)]
    # The usual names first.
    splits.sort(key=lambda name: (name != "test", name != "val", name))
    if not splits or not data.stems(splits[0]):
        return None
    stems = data.stems(splits[0])
    images = PreparedImages(data, splits[0], stems)
    known = set(inputs.real.digests().values())
    fresh = [stem for stem, digest in images.digests().items() if digest not in known]
    masks = PreparedMasks.of_split(data, splits[0])
    return Labelled(images, masks, [(stem, stem) for stem in fresh]) if fresh else None


def _halves(inputs: Inputs) -> Plan:
    """Cut the masks in two, neighbours and groups together."""
    stems = inputs.masks_order
    half = _half(len(stems), inputs.blocks.index)
    parts = [
        [s for s, first in zip(stems, half, strict=True) if first == side] for side in (True, False)
    ]
    folds: list[Fold] = []
    for learned, tested in (parts, parts[::-1]):
        first = folds[0].first + len(folds[0].test) if folds else 0
        test = _arms(inputs, tested)[1]
        folds.append(Fold(*_arms(inputs, learned), test, first))
    return Plan(
        tuple(folds),
        f"the {len(stems)} real images of the masks, each by segmenters of the other half's masks "
        f"({len(parts[0])} and {len(parts[1])} masks, {inputs.blocks.sentence})",
    )


def _half(n: int, index: Array | None) -> list[bool]:
    """Return which of n masks are in the first half; blocks are not cut, if they are known."""
    if index is None:
        return [i < n // 2 for i in range(n)]
    sizes = np.bincount(index)
    # The largest first, each to the smaller half.
    totals, side = [0, 0], {}
    for block in np.argsort(-sizes, kind="stable").tolist():
        side[block] = totals[0] <= totals[1]
        totals[0 if side[block] else 1] += int(sizes[block])
    return [side[block] for block in index.tolist()]


def train_and_test(plan: Plan, config: EvaluateConfig, shard: Shard) -> dict[str, Rows]:
    """Train this process's part of the segmenters and test them; an interrupted one goes on.

    Args:
        plan: what is trained on what.
        config: ``train_segmenter_steps``, ``train_segmenter_init``, ``seed``, ``device``.
        shard: which of the segmenters this process trains.

    Returns:
        By the arm, then by the number of the test image: hits, target and predicted pixels of each
        class, one after the other.
    """
    settings, folder = _settings(config), config.output / _FOLDER
    tasks = [(i, arm) for i in range(len(plan.folds)) for arm in range(len(ARMS))]
    found: dict[str, Rows] = {name: {} for name in ARMS}
    for i, arm in shard.of(tasks):
        fold = plan.folds[i]
        images = (fold.generated, fold.real)[arm]
        logger.info(f"segmenter {ARMS[arm]}: {len(images)} images, {settings.steps} steps")
        segmenter = _trained(images, settings, folder / f"{_digest(images, settings)}.pth")
        found[ARMS[arm]] |= _test(segmenter, fold, config.batch_size)
    return found


def _settings(config: EvaluateConfig) -> SegmentTrainConfig:
    """Return the settings of the segmenters' training: those of `semsynth segment train`."""
    return SegmentTrainConfig(
        steps=config.train_segmenter_steps,
        init_from=config.train_segmenter_init,
        seed=config.seed,
        device=config.device,
    )


def _digest(images: Labelled, settings: SegmentTrainConfig) -> str:
    digests = images.images.digests()
    masks = images.masks.digests()
    content = [[digests[stem], masks[mask]] for stem, mask in images.pairs]
    how = [settings.steps, settings.init_from, settings.seed]
    return hashlib.sha256(json.dumps([content, how]).encode()).hexdigest()[:16]


def _trained(images: Labelled, settings: SegmentTrainConfig, path: Path) -> Segmenter:
    """Return the segmenter of a training, from its file if it is finished."""
    if path.exists():
        try:
            return Segmenter.load(path, settings.device)
        except UserError as error:
            logger.warning(f"{error}; trained again")
    path.parent.mkdir(parents=True, exist_ok=True)
    segmenter = build_segmenter(settings, images.masks.labels, images.check_size())
    segmenter = segmenter.to(pick_device(settings.device))
    fit_segmenter(segmenter, images, settings, path.with_suffix(".state"))
    segmenter.save(path)
    return segmenter


def forget_trainings(config: EvaluateConfig) -> None:
    """Remove the segmenters, once the report is written."""
    shutil.rmtree(config.output / _FOLDER, ignore_errors=True)


def _test(segmenter: Segmenter, fold: Fold, batch_size: int) -> Rows:
    test, labels = fold.test, segmenter.labels
    scores = MaskScores([label.id for label in labels.trainable], boundaries=False)
    batches = chunks(range(len(test)), batch_size)
    for batch in progress(batches, "test segmenter", unit="batch"):
        images = np.stack([test.images.read_rgb(test.pairs[i][0]) for i in batch])
        for i, ids in zip(batch, segmenter.predict(images), strict=True):
            mask = test.pairs[i][1]
            target, box = test.masks.read_mask(mask), test.masks.content_box(mask)
            number = fold.first + i
            scores.add(number, number, ids, target, labels.ignore_id, box)
    return {number: tuple(row.ravel().tolist()) for number, row in scores.rows.items()}


def trained_entry(values: Mapping[str, Rows], plan: Plan, config: EvaluateConfig) -> Json:
    """Return ``trained_on_generated`` of a report.

    Args:
        values: what ``train_and_test`` of all processes returned.
        plan: what tested.
        config: of the command.
    """
    stems = plan.test_stems
    # (arms, images, 3, classes)
    rows = np.array([[values[arm][i] for i in range(len(stems))] for arm in ARMS])
    rows = rows.reshape(len(ARMS), len(stems), 3, -1)
    generated, real = (float(mean_iou(*part.sum(0))) for part in rows)
    blocks = blocks_of(stems, plan.test_groups)
    resampling = Resampling.of(blocks, config.seed)
    interval = None
    if resampling is not None:
        drawn = [mean_iou(*resampling.sums(part).swapaxes(0, 1)) for part in rows]
        ratio = np.divide(
            drawn[0], drawn[1], out=np.full(len(drawn[0]), np.nan), where=drawn[1] > 0
        )
        interval = resampling.interval(ratio)
    value = round(generated / real, 6) if real > 0 else None
    found = None if interval is None else [round(each, 6) for each in interval]
    line = {
        "title": "Segmenter trained on generated images alone, of one trained on the real ones",
        "value": value,
        "interval": found,
        "real": 1.0,
        "n": len(stems),
        "unit": "share of its mIoU on real images; higher is better",
        "style": "share",
    }
    return {
        "value": value,
        "interval": found,
        "miou": round(generated, 6),
        "miou_real": round(real, 6),
        "n_test": len(stems),
        "n_generated": sum(len(fold.generated) for fold in plan.folds),
        "n_real": sum(len(fold.real) for fold in plan.folds),
        "tested_on": plan.tested_on,
        "blocks": blocks.sentence,
        "steps": config.train_segmenter_steps,
        "init_from": config.train_segmenter_init and Path(config.train_segmenter_init).name,
        "about": f"{ABOUT}; the interval is over test images, not over trainings",
        "lines": [line],
    }

"""One pass over a set of images: scores of the segmenter's masks, and rows of features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.devices import release_memory
from semsynth.core.distributed.shards import ALL, Shard
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import progress
from semsynth.data.resize import Box
from semsynth.evaluation.evaluators import Evaluator
from semsynth.evaluation.metrics.features import FeatureExtractor, Floats
from semsynth.evaluation.metrics.instances import Counts, instance_counts
from semsynth.evaluation.metrics.mask_scores import MaskScores
from semsynth.evaluation.protocols import Protocol, load_protocol
from semsynth.segmentation.metrics import OTHER

Array = npt.NDArray[Any]
# Name of the Frechet distance on the segmenter's own features.
SEGMENTER = "fd_segmenter"


@dataclass(frozen=True)
class EvalSample:
    """An image with the masks that its predicted mask is compared with.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        group: number of its mask; intervals resample masks.
        mask: (H, W) ids of its mask, and the box of its content; None: not compared.
        shuffled_mask: the same of another image's mask, for the control; None: not compared.
        instances: (H, W) numbers of the objects of its mask; None: not known.
    """

    image: Array
    group: int = 0
    mask: tuple[Array, Box] | None = None
    shuffled_mask: tuple[Array, Box] | None = None
    instances: Array | None = None


@dataclass(frozen=True)
class SetStatistics:
    """What was measured of a set of images; that of disjoint sets adds up to that of both.

    Attributes:
        n: number of images.
        features: float32 (D,) features by number of the image, by the name of the distance.
        scores: of the first evaluator's masks against the images' own; None: without both.
        shuffled: of its masks against those of other images; None: not compared.
        second: of the second evaluator's masks against the images' own; None: there is none.
        agreement: of the second evaluator's masks against the first one's, where the masks have
            a class that both know; None: there is no second one.
        objects: ``instance_counts`` of the first evaluator's masks by number of the image.
    """

    n: int = 0
    features: dict[str, dict[int, Floats]] = field(default_factory=dict)
    scores: MaskScores | None = None
    shuffled: MaskScores | None = None
    second: MaskScores | None = None
    agreement: MaskScores | None = None
    objects: dict[int, Counts] = field(default_factory=dict)

    def __add__(self, other: SetStatistics) -> SetStatistics:
        """Return the statistics of both sets together."""
        features = {
            name: self.features.get(name, {}) | other.features.get(name, {})
            for name in self.features | other.features
        }
        return SetStatistics(
            self.n + other.n,
            features,
            _both(self.scores, other.scores),
            _both(self.shuffled, other.shuffled),
            _both(self.second, other.second),
            _both(self.agreement, other.agreement),
            self.objects | other.objects,
        )

    def rows(self, name: str, numbers: Iterable[int] | None = None) -> Floats:
        """Return the features (N, D) of all images in their order, or of those ``numbers``."""
        features = self.features[name]
        chosen = sorted(features) if numbers is None else numbers
        return np.stack([features[number] for number in chosen])


def _both(one: MaskScores | None, other: MaskScores | None) -> MaskScores | None:
    return one + other if one is not None and other is not None else one or other


@dataclass(frozen=True)
class MetricAccumulator:
    """Measures sets of images, batch by batch.

    Attributes:
        evaluators: predict masks; the first one may give features of its own. None: images alone.
        extractors: further features.
        batch_size: images per batch.
        shard: which of the batches this process measures; the statistics of all processes add up.
        protocol: says what the extractors see of an image.
        object_classes: ids of the classes whose objects are counted.
    """

    evaluators: Sequence[Evaluator]
    extractors: Sequence[FeatureExtractor]
    batch_size: int
    shard: Shard = ALL
    protocol: Protocol = field(default_factory=load_protocol)
    object_classes: Sequence[int] = ()

    @property
    def feature_names(self) -> list[str]:
        """Names of all distances."""
        own = [SEGMENTER] if self.evaluators and self.evaluators[0].has_features else []
        return [*own, *(extractor.name for extractor in self.extractors)]

    def numbers(self, n: int) -> list[int]:
        """Return which of ``n`` images this process measures."""
        starts = self.shard.of(range(0, n, self.batch_size))
        return [i for start in starts for i in range(start, min(n, start + self.batch_size))]

    def measure(
        self,
        read: Callable[[int], EvalSample],
        n: int,
        title: str,
        name_of: Callable[[int], str] = str,
    ) -> SetStatistics:
        """Measure this process's part of ``n`` images.

        Args:
            read: returns an image by its number.
            n: number of images of all processes.
            title: title of the progress bar.
            name_of: returns an image's name by its number, for messages.

        Raises:
            UserError: features that are not finite numbers.
        """
        total = self._empty()
        if not self.evaluators and not self.extractors:
            return replace(total, n=len(self.numbers(n)))
        count = 0
        starts = self.shard.of(range(0, n, self.batch_size))
        for start in progress(starts, title, len(starts), "batch"):
            samples = {i: read(i) for i in range(start, min(n, start + self.batch_size))}
            count += len(samples)
            for part in _of_one_size(samples):
                names = [name_of(number) for number in part]
                for name, rows in self._measure_batch(part, total).items():
                    _check_finite(rows, name, names)
                    total.features[name] |= dict(zip(part, rows, strict=True))
            release_memory()
        return replace(total, n=count)

    def _empty(self) -> SetStatistics:
        features: dict[str, dict[int, Floats]] = {name: {} for name in self.feature_names}
        if not self.evaluators:
            return SetStatistics(0, features)
        first, *others = self.evaluators
        scores = MaskScores(first.ids), MaskScores(first.ids, boundaries=False)
        if not others:
            return SetStatistics(0, features, *scores)
        both = [i for i in first.ids if i in others[0].ids]
        more = MaskScores(others[0].ids), MaskScores(both, boundaries=False) if both else None
        return SetStatistics(0, features, *scores, *more)

    def _measure_batch(
        self, samples: Mapping[int, EvalSample], total: SetStatistics
    ) -> dict[str, Floats]:
        """Return the features (B, D) of images of one size; their scores are added to ``total``."""
        images = np.stack([sample.image for sample in samples.values()])
        found: dict[str, Floats] = {}
        masks = [sample.mask[0] for sample in samples.values() if sample.mask is not None]
        size = masks[0].shape if masks else None
        predicted = []
        # Images without masks are evaluated only for the features.
        needed = self.evaluators if masks else [x for x in self.evaluators[:1] if x.has_features]
        for evaluator in needed:
            ids, features = evaluator.analyse(images, size)
            predicted.append(ids)
            if evaluator is self.evaluators[0] and features is not None:
                found[SEGMENTER] = features.astype(np.float32)
        for i, (number, sample) in enumerate(samples.items()):
            self._score(number, sample, [ids[i] for ids in predicted], total)
        seen = images
        if self.extractors and self.protocol.distance_size is not None:
            seen = np.stack([self.protocol.distance_image(image) for image in images])
        for extractor in self.extractors:
            found[extractor.name] = extractor.extract(seen)
        return found

    def _score(
        self, number: int, sample: EvalSample, predicted: Sequence[Array], total: SetStatistics
    ) -> None:
        """Add the scores of the masks that the evaluators predict of an image."""
        pairs = [(total.scores, 0, sample.mask), (total.shuffled, 0, sample.shuffled_mask)]
        pairs.append((total.second, 1, sample.mask))
        for scores, i, target in pairs:
            if scores is not None and target is not None:
                mask, box = target
                ignore = self.evaluators[i].labels.ignore_id
                scores.add(number, sample.group, predicted[i], mask, ignore, box)
        if sample.instances is not None and sample.mask is not None and predicted:
            mask, box = sample.mask
            ignore = self.evaluators[0].labels.ignore_id
            total.objects[number] = instance_counts(
                predicted[0], mask, sample.instances, self.object_classes, ignore, box
            )
        if total.agreement is not None and sample.mask is not None:
            mask, box = sample.mask
            known = total.agreement.ids
            first = np.where(np.isin(mask, known), predicted[0], OTHER)
            second = np.where(np.isin(predicted[1], known), predicted[1], OTHER)
            total.agreement.add(number, sample.group, second, first, None, box)


def _of_one_size(samples: Mapping[int, EvalSample]) -> Iterator[dict[int, EvalSample]]:
    """Cut a batch into parts of images, and masks, of one size."""
    sizes: dict[tuple[tuple[int, ...], ...], dict[int, EvalSample]] = {}
    for number, sample in samples.items():
        of_mask = () if sample.mask is None else sample.mask[0].shape
        sizes.setdefault((sample.image.shape, of_mask), {})[number] = sample
    yield from sizes.values()


def _check_finite(rows: Floats, name: str, images: Sequence[str]) -> None:
    wrong = ~np.isfinite(rows).all(1)
    if wrong.any():
        names = [images[i] for i in np.flatnonzero(wrong).tolist()]
        raise UserError(
            f"{name}: features of {abbreviate(names, 5)} are not finite numbers (NaN or infinity); "
            "try --device cpu, or leave these images out"
        )

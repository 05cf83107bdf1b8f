"""What the teacher and the features say of each image, kept in a file each until all are there.

    .measured/mean/<split>/<stem>.npz      sums of losses and pixels by class, of a real image
    .measured/real/<split>/<stem>.npz      features of a real image
    .measured/samples/<split>/<stem>.npz   loss of each pixel, likeliest class, features of a sample

An interrupted command goes on with what is missing, and several processes share the list. Each
image is seen alone, so that no number depends on which others were seen with it.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.augmentation.filter.rules import Labelled, borders
from semsynth.augmentation.filter.teacher import Teacher
from semsynth.core.arrays import arrays_of
from semsynth.core.distributed.shards import Shard
from semsynth.core.errors import Unavailable, UserError
from semsynth.core.files import write_bytes
from semsynth.core.logging import logger, progress
from semsynth.core.rng import evenly
from semsynth.data.dataset import PreparedDataset
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics.features import FeatureExtractor, lite2_extractor
from semsynth.segmentation.loader import class_indices, index_lut

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Item = tuple[str, str, str]
FOLDER = ".measured"
MEAN, REAL, SAMPLES = "mean", "real", "samples"
# Real images whose features samples are compared with, evenly spread.
MAX_COMPARED = 2000


@dataclass(frozen=True)
class Features:
    """What images are compared by: EfficientNet-Lite2's features, or else the teacher's own.

    Attributes:
        name: of the features, with the digest of their weights; None: there are none.
        extractor: None: they are the teacher's.
    """

    name: str | None
    extractor: FeatureExtractor | None = None

    @classmethod
    def open(cls, teacher: Teacher, device: str) -> Features:
        """Choose: what is installed, and of which segmenter, decides."""
        try:
            found = lite2_extractor(EvaluateConfig(device=device))
        except Unavailable as reason:
            if not teacher.network.has_features:
                logger.warning(f"--drop-far: {reason}, and the teacher gives no features")
                return cls(None)
            logger.info(f"--drop-far: by the teacher's features ({reason})")
            return cls(f"{teacher.network.name} {teacher.network.sha256[:16]}")
        return cls(f"{found.name} {found.weights[:16]}", found)


@dataclass(frozen=True)
class Measurements:
    """The files of one filtered set.

    Attributes:
        folder: of the filtered set.
        teacher: the segmenter.
        features: what images are compared by.
        samples: the synthetic images.
        real: the real ones.
        border: width of borders in pixels.
    """

    folder: Path
    teacher: Teacher
    features: Features
    samples: PreparedDataset
    real: PreparedDataset
    border: int

    def items(self, split: str, mean_split: str) -> list[Item]:
        """Return what is to be measured: kind, split and stem.

        Args:
            split: of the real images that samples are compared with.
            mean_split: of those whose mean losses are taken.
        """
        compared = self.compared(split) if self.features.name else []
        found = [(MEAN, mean_split, stem) for stem in self.real.stems(mean_split)]
        found += [(REAL, split, stem) for stem in compared]
        return found + [
            (SAMPLES, s, stem) for s in self.samples.splits() for stem in self.samples.stems(s)
        ]

    def compared(self, split: str) -> list[str]:
        """Return the real images that samples are compared with."""
        return evenly(self.real.stems(split), MAX_COMPARED)

    def measure(self, items: Sequence[Item], shard: Shard) -> list[Item]:
        """Measure what is missing of this process's part; return what is missing of all."""
        kinds: dict[str, Callable[[str, str], dict[str, Array]]] = {
            MEAN: self._mean,
            REAL: partial(self._features_of, self.real),
            SAMPLES: self._sample,
        }
        todo = [item for item in shard.of(items) if not self._path(item).exists()]
        for kind, split, stem in progress(todo, "look at images", unit="image"):
            buffer = io.BytesIO()
            np.savez(buffer, **kinds[kind](split, stem))  # type: ignore[arg-type]
            write_bytes(self._path((kind, split, stem)), buffer.getvalue())
        return [item for item in items if not self._path(item).exists()]

    def read(self, item: Item) -> dict[str, Array]:
        """Return what was measured of an image; UserError if the file is damaged."""
        path = self._path(item)
        try:
            return arrays_of(path.read_bytes())
        except ValueError as error:
            raise UserError(
                f"{path}: {error}; remove it and run the command again, which measures this image"
            ) from None

    def labelled(self, split: str, stem: str) -> Labelled:
        """Return a sample's mask with what the teacher says of it."""
        found = self.read((SAMPLES, split, stem))
        classes = self.classes(self.samples, split, stem)
        edge = borders(classes, self.border)
        return Labelled(classes, found["loss"], found["best"], found["sure"], edge)

    def remove(self) -> None:
        """Remove the files, once the filtered set is written."""
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)

    def _path(self, item: Item) -> Path:
        kind, split, stem = item
        return self.folder / FOLDER / kind / split / f"{stem}.npz"

    def classes(self, data: PreparedDataset, split: str, stem: str) -> Array:
        """Return class indices (H, W); -1 without a label, and in padding."""
        mask, inside = data.read_mask(split, stem), data.content(split, stem)
        return class_indices(mask, inside, index_lut(data.labels))

    def _mean(self, split: str, stem: str) -> dict[str, Array]:
        classes = self.classes(self.real, split, stem)
        found, _ = self.teacher.log_probabilities(self.real.read_rgb(split, stem))
        there, n = classes >= 0, len(found)
        loss = _loss(found, classes)[there].astype(np.float64)
        counted = classes[there]
        return {
            "sums": np.bincount(counted, loss, n),
            "pixels": np.bincount(counted, minlength=n),
        }

    def _sample(self, split: str, stem: str) -> dict[str, Array]:
        image = self.samples.read_rgb(split, stem)
        classes = self.classes(self.samples, split, stem)
        found, features = self.teacher.log_probabilities(image)
        best = found.argmax(0)
        values = {
            "loss": _loss(found, classes),
            "best": best.astype(np.int16),
            "sure": np.exp(found.max(0)),
        }
        return values | self._rows(image, features)

    def _features_of(self, data: PreparedDataset, split: str, stem: str) -> dict[str, Array]:
        image, features = data.read_rgb(split, stem), None
        if self.features.extractor is None:
            _, features = self.teacher.log_probabilities(image)
        return self._rows(image, features)

    def _rows(self, image: Array, features: Floats | None) -> dict[str, Array]:
        if self.features.extractor is not None:
            features = self.features.extractor.extract([image])[0]
        return {} if self.features.name is None or features is None else {"features": features}


def _loss(log_probabilities_CHW: Floats, classes: Array) -> Floats:
    """Return the loss (H, W) of each pixel's label; 0 where there is none."""
    index = np.maximum(classes, 0)[None].astype(np.int64)
    loss = -np.take_along_axis(log_probabilities_CHW, index, 0)[0]
    return np.asarray(np.where(classes >= 0, loss, 0), np.float32)


def mean_losses(
    measurements: Measurements, split: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return mean loss (C,) and number of pixels (C,) of each class in the real images."""
    sums: list[Array] = []
    pixels: list[Array] = []
    for stem in measurements.real.stems(split):
        found = measurements.read((MEAN, split, stem))
        sums.append(found["sums"])
        pixels.append(found["pixels"])
    total = np.sum(pixels, 0)
    return np.sum(sums, 0) / np.maximum(total, 1), total

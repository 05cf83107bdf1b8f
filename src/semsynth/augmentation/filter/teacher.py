"""The teacher: a segmenter with the classes of the data that did not learn the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.evaluation.evaluators import Network, open_network
from semsynth.segmentation.seen import image_digests

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Teacher:
    """A segmenter, in terms of the class indices of the data.

    Attributes:
        network: what predicts.
        order: place of each class of the data among the network's.
    """

    network: Network
    order: list[int]

    @classmethod
    def open(cls, source: str, labels: LabelSet, device: str) -> Teacher:
        """Open a segmenter of ours or a Transformers model.

        Raises:
            UserError: it cannot be loaded, or has other classes than the data.
        """
        network = open_network(source, device)
        theirs, ours = list(network.names), [label.name for label in labels.trainable]
        lacking = [name for name in ours if name not in theirs]
        more = [name for name in theirs if name not in ours]
        if lacking or more or len(set(theirs)) < len(theirs):
            parts = [f"lacks {abbreviate(lacking, 3)}"] if lacking else []
            parts += [f"also has {abbreviate(more, 3)}"] if more else []
            raise UserError(
                f"--segmenter {network.name}: has other classes than the data "
                f"({'; '.join(parts) or 'one of them twice'}); give one that was trained on these "
                "labels (semsynth segment train)"
            )
        return cls(network, [theirs.index(name) for name in ours])

    def log_probabilities(self, image_HWC: Array) -> tuple[Floats, Floats | None]:
        """Return logarithms (C, H, W), and features (D,) of segmenters of ours, of one image."""
        size = (image_HWC.shape[0], image_HWC.shape[1])
        found, features = self.network.log_probabilities(image_HWC, size)
        return found[self.order], features


def check_teacher(teacher: Teacher, samples: PreparedDataset, known: set[bytes]) -> None:
    """Check that the teacher was not trained on the samples: it would agree with any label.

    Args:
        teacher: the segmenter.
        samples: what it checks.
        known: digests of the real images: a sample that equals one is a copy, which is found later.

    Raises:
        UserError: it was.
    """
    seen = teacher.network.seen
    if seen is None:
        logger.info(
            f"teacher {teacher.network.name}: its file does not say which images it was trained on"
        )
        return
    trained = (seen.generated | seen.real) - known
    found, total = [], 0
    for split in samples.splits():
        total += len(samples.stems(split))
        digests = image_digests(samples, split) if trained else {}
        found += [stem for stem, each in digests.items() if not trained.isdisjoint(each)]
    if found:
        raise UserError(
            f"--segmenter {teacher.network.name}: was trained on {len(found)} of the {total} "
            f"samples ({abbreviate(found, 3)}), so it agrees with their labels; give one that was "
            "trained on real images"
        )


def known_share(teacher: Teacher, real: PreparedDataset, split: str) -> tuple[float | None, Any]:
    """Return the share of real images that the teacher was trained on, and their digests.

    None where its file does not say.
    """
    seen = teacher.network.seen
    digests = image_digests(real, split)
    pixels = {each[0] for each in digests.values()}
    if seen is None:
        return None, pixels
    count = sum(not seen.real.isdisjoint(each) for each in digests.values())
    return count / len(digests), pixels

"""The score of an arm in a draw: what is counted in each evaluation image, for each seed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.augmentation.experiment.arms import MASK_TEACHERS, TEACHERS, Arm, chosen_arms
from semsynth.augmentation.experiment.draws import Made
from semsynth.augmentation.experiment.settings import teachers_of
from semsynth.augmentation.experiment.stages import Stages
from semsynth.core.arrays import arrays_of
from semsynth.core.distributed.shards import chunks
from semsynth.core.files import atomic_path, read_bytes
from semsynth.core.logging import logger, progress
from semsynth.data.content import digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.evaluation.metrics.instances import classes_with_objects, jaccard_parts
from semsynth.segmentation.metrics import ConfusionMatrix
from semsynth.segmentation.segmenter import Segmenter

_BATCH = 32
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EvaluationImages:
    """The real images on which segmenters are scored: a split of the pool's data set."""

    data: PreparedDataset
    split: str
    stems: tuple[str, ...]

    @property
    def key(self) -> str:
        """What they are."""
        found = self.data.digests([self.split])
        return digest_json([found[f"{self.split}/{stem}"] for stem in self.stems])[:12]

    @cached_property
    def objects(self) -> list[int]:
        """The ids of the classes that have objects; empty unless all images have instance maps."""
        data, split = self.data, self.split
        if not all(data.record(split, stem).instances for stem in self.stems):
            return []
        maps = ((data.read_mask(split, s), data.read_instances(split, s)) for s in self.stems)
        return classes_with_objects(data.labels, maps)

    def score(self, segmenter: Segmenter) -> dict[str, Counts]:
        """Return what is counted in each of N images.

        Returns:
            ``counts``: confusion matrices (N, C, C + 1), the last column ``other``; where the
            images have instance maps ``objects``: numerator and denominator of the AJI (N, 2).
        """
        matrix, ignore = ConfusionMatrix.of(self.data.labels), self.data.labels.ignore_id
        found, objects = [], []
        batches = chunks(self.stems, _BATCH)
        for batch in progress(batches, f"score {self.split}", unit="batch"):
            images = np.stack([self.data.read_rgb(self.split, stem) for stem in batch])
            for stem, ids in zip(batch, segmenter.predict(images), strict=True):
                mask = self.data.read_mask(self.split, stem)
                box = self.data.content_box(self.split, stem)
                found.append(matrix.add_places(*matrix.places(ids, mask, ignore, box)))
                if self.objects:
                    instances = self.data.read_instances(self.split, stem)
                    objects.append(jaccard_parts(ids, mask, instances, self.objects, ignore, box))
        counts = np.stack(found).astype(np.int64)
        return {"counts": counts, **({"objects": np.stack(objects)} if objects else {})}


@dataclass(frozen=True)
class ArmScore:
    """What is kept of an arm in a draw.

    Attributes:
        counts: (S, N, C, C + 1) confusion matrices of S segmenters on N images.
        seconds: CPU seconds of each segmenter's training (of the clock, on a GPU).
        steps: of each segmenter.
        objects: (S, N, 2) numerators and denominators of the AJI; None without instance maps.
    """

    counts: Counts
    seconds: npt.NDArray[np.float64]
    steps: int
    objects: Counts | None = None

    def of_seed(self, number: int) -> ArmScore:
        """Return the score of one segmenter."""
        one = slice(number, number + 1)
        objects = None if self.objects is None else self.objects[one]
        return ArmScore(self.counts[one], self.seconds[one], self.steps, objects)


def score_arm(stages: Stages, arm: Arm, eval_images: EvaluationImages) -> ArmScore:
    """Train and score the segmenters of an arm; read the scores of those that are done."""
    found = [_score(stages, arm, number, eval_images) for number in range(stages.config.seeds)]
    return ArmScore(
        np.stack([one["counts"] for one in found]),
        np.array([float(one["seconds"]) for one in found]),
        int(found[-1]["steps"]),
        np.stack([one["objects"] for one in found]) if eval_images.objects else None,
    )


def _score(stages: Stages, arm: Arm, number: int, eval_images: EvaluationImages) -> dict[str, Any]:
    made = stages.segmenter(arm, number)
    path = score_path(stages, made, eval_images)
    found = _stored(path)
    if found is None:
        segmenter = Segmenter.load(made.make(), stages.config.device)
        steps = segmenter.info.provenance["steps"]
        found = {
            **eval_images.score(segmenter),
            "seconds": stages.draw.seconds(made),
            "steps": steps,
        }
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **found)
    kept = arm.name in TEACHERS.values()
    if not kept and arm.name in MASK_TEACHERS and number == 0:
        kept = any(arm in teachers_of(stages.config, a) for a in chosen_arms(stages.config.arms))
    if not kept and made.root.exists():
        # Its weights are of no more use; teachers filter labels, choose images and label others.
        shutil.rmtree(made.root, ignore_errors=True)
        stages.draw.cost_file(made.root).unlink(missing_ok=True)
    return found


def _stored(path: Path) -> dict[str, Any] | None:
    """Return what is kept of a segmenter; None: nothing, or it is damaged."""
    if not path.exists():
        return None
    try:
        return arrays_of(read_bytes(path))
    except ValueError as error:
        logger.warning(f"{path}: {error}; the segmenter is trained and scored again")
        return None


def is_scored(stages: Stages, arm: Arm, eval_images: EvaluationImages) -> bool:
    """Return whether all segmenters of an arm are trained and scored."""
    numbers = range(stages.config.seeds)
    found = (score_path(stages, stages.segmenter(arm, number), eval_images) for number in numbers)
    return all(path.exists() for path in found)


def score_path(stages: Stages, made: Made, eval_images: EvaluationImages) -> Path:
    """Return the file of the confusion matrices of a segmenter."""
    return stages.draw.folder / "scores" / f"{made.root.name}-{eval_images.key}.npz"

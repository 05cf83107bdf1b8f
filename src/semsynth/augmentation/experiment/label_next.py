"""Which images to label next: those on which segmenters of different seeds disagree most.

Query by committee: the vote entropy (Dagan and Engelson 1995) of each pixel, mean over the image.
Images of one sequence, field or tile are alike, so they are spread: the best of each group first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.augmentation.experiment.arms import ARMS, BASELINE
from semsynth.augmentation.experiment.draws import groups_of
from semsynth.augmentation.experiment.overlap import image_digests, unlabelled_images, without
from semsynth.augmentation.experiment.stages import Stages
from semsynth.core.distributed.shards import chunks
from semsynth.core.logging import progress
from semsynth.data.dataset import PreparedDataset
from semsynth.segmentation.segmenter import Segmenter

COUNT = 30
_BATCH = 16


def vote_entropy(votes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the entropy in bits of each pixel's votes: (H, W).

    Args:
        votes: (K, H, W) ids that K segmenters predict.
    """
    entropy = np.zeros(votes.shape[1:])
    for value in np.unique(votes):
        share = (votes == value).mean(0)
        entropy -= np.where(share > 0, share * np.log2(np.maximum(share, 1e-12)), 0.0)
    return entropy


def spread_over_groups(
    scores: Mapping[str, float], groups: Mapping[str, str], count: int
) -> list[str]:
    """Return the ``count`` names of the highest scores, the best of each group first.

    Then the second of each group, and so on; within a round the highest first.
    """
    ranked = sorted(scores, key=lambda name: (-scores[name], name))
    taken: dict[str, int] = defaultdict(int)
    rounds = {}
    for name in ranked:
        rounds[name] = taken[groups[name]]
        taken[groups[name]] += 1
    return sorted(ranked, key=lambda name: (rounds[name], -scores[name], name))[:count]


def label_next(stages: Stages, count: int = COUNT) -> dict[str, Any]:
    """Return which images to label next, by the draw's own segmenters; JSON values.

    Returns:
        ``images`` (stem, disagreement in bits a pixel, group), or ``missing``: why there are none.
    """
    config = stages.config
    if config.seeds < 2:
        return {"missing": "one segmenter alone cannot disagree: --seeds 2 or more"}
    if config.unlabelled is not None:
        part = unlabelled_images(config, stages.data)
        data, split = part.data, part.split
        with_masks = image_digests(stages.data, config.split, stages.draw.stems)
        stems = without(data, split, part.stems, with_masks)
    else:
        data, split, stems = stages.data, config.split, stages.rest()
    if not stems:
        return {"missing": "no image is left that has no mask yet; give others with --unlabelled"}
    scores = _disagreement(stages, data, split, stems)
    groups = dict(zip(stems, groups_of(data, split, stems), strict=True))
    chosen = spread_over_groups(scores, groups, count)
    return {
        "data": data.info.name,
        "split": split,
        "images": [
            {"stem": stem, "disagreement": round(scores[stem], 4), "group": groups[stem]}
            for stem in chosen
        ],
    }


def _disagreement(
    stages: Stages, data: PreparedDataset, split: str, stems: Sequence[str]
) -> dict[str, float]:
    made = [stages.segmenter(ARMS[BASELINE], i) for i in range(stages.config.seeds)]
    committee = [Segmenter.load(one.make(), stages.config.device) for one in made]
    found = {}
    for batch in progress(chunks(stems, _BATCH), "disagreement", unit="batch"):
        images = np.stack([data.read_rgb(split, stem) for stem in batch])
        votes = np.stack([segmenter.predict(images) for segmenter in committee])
        for i, stem in enumerate(batch):
            found[stem] = float(vote_entropy(votes[:, i])[data.content(split, stem)].mean())
    return found

"""Which images to label next: those on which segmenters of different seeds disagree most.

Query by committee: the vote entropy (Dagan and Engelson 1995) of each pixel, mean over the image.
Images of one sequence, field or tile are alike, so they are spread: the best of each group first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.augmentation.experiment.arms import MORE_LABELS
from semsynth.augmentation.experiment.draws import Draw, Made, Part, groups_of, write_union
from semsynth.core.distributed.shards import chunks
from semsynth.core.logging import progress
from semsynth.core.rng import numpy_rng
from semsynth.segmentation.segmenter import Segmenter

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


def label_next(
    candidates: Part, committee: Sequence[Made], device: str, count: int = MORE_LABELS
) -> dict[str, Any]:
    """Return which images to label next, by a draw's own segmenters; JSON values.

    Args:
        candidates: the images; their masks are not read.
        committee: segmenters of the draw that differ in their seed.
        device: where they run.
        count: so many images at most.

    Returns:
        ``images`` (stem, disagreement in bits a pixel, group), or ``missing``: why there are none.
    """
    data, split, stems = candidates.data, candidates.split, candidates.stems
    if len(committee) < 2:
        return {"missing": "one segmenter alone cannot disagree: --seeds 2 or more"}
    if not stems:
        return {"missing": "no image is left that has no mask yet; give others with --unlabelled"}
    scores = _disagreement(candidates, committee, device)
    groups = dict(zip(stems, groups_of(data, split, stems), strict=True))
    return {
        "data": data.info.name,
        "split": split,
        "images": [
            {"stem": stem, "disagreement": round(scores[stem], 4), "group": groups[stem]}
            for stem in spread_over_groups(scores, groups, count)
        ],
    }


def with_more_labels(
    draw: Draw, parts: tuple[Part, Part], committee: Sequence[Made], device: str
) -> Made:
    """Return the draw's images with ``MORE_LABELS`` others: what labelling these would bring.

    Args:
        draw: the draw.
        parts: its images, and the others of the pool, which are labelled, too.
        committee: as for ``label_next``, which chooses them; empty: they are drawn by chance.
        device: where the committee runs.
    """
    known, others = parts

    def build(folder: Path) -> None:
        if committee:
            found = label_next(others, committee, device, MORE_LABELS)["images"]
            chosen = [image["stem"] for image in found]
        else:
            order = numpy_rng(draw.seed, "more labels").permutation(len(others.stems))
            chosen = [others.stems[i] for i in order[:MORE_LABELS]]
        write_union([known, replace(others, stems=chosen)], folder)

    key = [known.key, others.key, MORE_LABELS, [one.key for one in committee]]
    return draw.plan("more-labels", key, build)


def _disagreement(candidates: Part, committee: Sequence[Made], device: str) -> dict[str, float]:
    data, split = candidates.data, candidates.split
    segmenters = [Segmenter.load(one.make(), device) for one in committee]
    found = {}
    for batch in progress(chunks(candidates.stems, _BATCH), "disagreement", unit="batch"):
        images = np.stack([data.read_rgb(split, stem) for stem in batch])
        votes = np.stack([segmenter.predict(images) for segmenter in segmenters])
        for i, stem in enumerate(batch):
            found[stem] = float(vote_entropy(votes[:, i])[data.content(split, stem)].mean())
    return found

"""Whether what a draw's generator made are copies of the images that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semsynth.augmentation.experiment.arms import ARMS, Arm
from semsynth.augmentation.experiment.draws import Made
from semsynth.augmentation.experiment.stages import Stages
from semsynth.augmentation.subset import SPLIT
from semsynth.core.files import read_json, write_json
from semsynth.data.dataset import PreparedDataset
from semsynth.evaluation.copying.entry import are_many
from semsynth.evaluation.copying.threshold import share_interval

COPIES = "copies.json"


def add_copies(arms: dict[str, Any], draws: Sequence[Stages]) -> None:
    """Add what ``copies_of`` says to the entry of each arm with images from noise, as ``copies``.

    Args:
        arms: the entries of the arms in experiment.json, by name; changed in place.
        draws: what made the images of each draw.
    """
    for name, entry in arms.items():
        if (found := copies_of(ARMS[name], draws)) is not None:
            entry["copies"] = found


def copies_in_words(copies: Mapping[str, Any] | None) -> str:
    """Say that many of an arm's images are copies; empty where few are, or none was looked for."""
    if copies is None or not copies["many"]:
        return ""
    return (
        f"; {copies['n_copies']} of {copies['n']} of its images are copies of training images: the "
        "generator memorised them"
    )


def copies_of(arm: Arm, draws: Sequence[Stages]) -> dict[str, Any] | None:
    """Return how many of an arm's images from noise are copies; None: it has none.

    Samples are compared as by `semsynth evaluate`: those of a training mask with the image of that
    mask, others by a threshold of images of the pool that were not drawn. A generator that
    memorised its few images brings a segmenter nothing that these do not.

    Returns:
        ``n`` images of all draws, ``n_copies``, their ``share`` with its 95% ``interval``
        (Clopper and Pearson's), the share of each of the ``draws``, and ``many``: those of a draw
        are more than chance gives (``are_many``).
    """
    if arm.start != "noise":
        return None
    found = [read_json(_checked(arm, stages).make() / COPIES) for stages in draws]
    n, count = (sum(entry[name] for entry in found) for name in ("n", "n_copies"))
    return {
        "n": n,
        "n_copies": count,
        "share": round(count / n, 6),
        "interval": share_interval(count, n),
        "draws": [entry["share"] for entry in found],
        "many": any(map(are_many, found)),
    }


def _checked(arm: Arm, stages: Stages) -> Made:
    """Return the check of the images of one draw. They are those of before a filter."""
    assert arm.masks is not None and arm.start is not None
    samples, real = stages.samples(arm.masks, arm.start), stages.real_of_filter()

    def build(folder: Path) -> None:
        from semsynth.augmentation.filter.images import check_copies

        made = PreparedDataset.open(samples.make())
        names = [(SPLIT, stem) for stem in made.stems(SPLIT)]
        known = PreparedDataset.open(real.make())
        found = check_copies(made, names, known, (SPLIT, "val"))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / COPIES, found.entry, seal=True)

    return stages.draw.plan(f"copies-{arm.masks}", [samples.key, real.key], build)

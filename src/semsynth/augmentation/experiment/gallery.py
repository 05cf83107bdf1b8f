"""The images of experiment.html: what each arm adds, and what to label next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semsynth.augmentation.experiment.arms import Arm
from semsynth.augmentation.experiment.draws import Part
from semsynth.augmentation.experiment.stages import Stages
from semsynth.augmentation.experiment.unlabelled import open_unlabelled
from semsynth.augmentation.subset import SPLIT
from semsynth.core.rng import evenly
from semsynth.data.dataset import PreparedDataset
from semsynth.evaluation.report.album import Shown, encode
from semsynth.evaluation.report.gallery import Strip
from semsynth.evaluation.report.page import legend

if TYPE_CHECKING:
    from semsynth.augmentation.experiment.run import Experiment

_PAIRS = 4


@dataclass(frozen=True)
class Gallery:
    """Images of one n.

    Attributes:
        rows: pairs of masks and images: the draw's own, then those that each arm adds.
        to_label: the images to label next; None where there is no list.
        legend: name and colour of each class.
    """

    rows: Sequence[Strip]
    to_label: Strip | None
    legend: Sequence[tuple[str, str]]

    @property
    def images(self) -> Iterator[Shown]:
        """All images in the order of the page."""
        for strip in (*self.rows, *(() if self.to_label is None else (self.to_label,))):
            yield from strip.images


def galleries_of(experiment: Experiment, result: Mapping[str, Any]) -> dict[str, Gallery]:
    """Return the images for each n, of its first draw; encoded, all of them in one page's budget.

    Args:
        experiment: whose tasks are finished.
        result: the content of experiment.json.
    """
    draw, found = experiment.config.draws_of_stage[0], {}
    for n, entry in result["n"].items():
        stages = experiment.stages(int(n), draw)
        listed = entry["label_next"].get("images", [])
        labels = stages.data.labels
        if any(arm.masks == "predicted" for arm in experiment.arms):
            labels = labels.with_ignore("unlabelled")
        found[n] = Gallery(
            [*_rows(stages, experiment.arms)],
            _to_label(stages, entry["label_next"]["split"], listed) if listed else None,
            legend(labels),
        )
    encode([image for gallery in found.values() for image in gallery.images])
    return found


def _rows(stages: Stages, arms: Sequence[Arm]) -> Iterator[Strip]:
    """Yield pairs, evenly spread, of what is there: removed samples are not made again."""
    yield Strip(
        "real images of the draw", _pairs(Part(stages.data, stages.config.split, stages.draw.stems))
    )
    for arm in arms:
        if arm.fresh:  # generated during training, and not kept
            continue
        extra = stages.extra(arm)
        if extra is not None and extra.finished:
            data = PreparedDataset.open(extra.root)
            yield Strip(f"{arm.name}: {arm.meaning}", _pairs(Part(data, SPLIT, data.stems(SPLIT))))


def _pairs(part: Part) -> list[Shown]:
    data, split = part.data, part.split
    images = []
    for stem in evenly(list(part.stems), _PAIRS):
        mask = data.labels.colorize(data.read_mask(split, stem))
        images.append(Shown("mask", mask, f"mask of {stem}", flat=True))
        images.append(Shown("image", data.read_rgb(split, stem), f"image {stem}"))
    return images


def _to_label(stages: Stages, split: str, listed: Sequence[Mapping[str, Any]]) -> Strip:
    config, data = stages.config, stages.data
    if config.unlabelled is not None:
        data = open_unlabelled(config, data)
    stems = [entry["stem"] for entry in listed]
    images = [Shown(stem, data.read_rgb(split, stem), stem) for stem in stems]
    return Strip("To label next: segmenters of different seeds disagree most", images)

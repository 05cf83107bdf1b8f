"""What is filtered and by what: opened and checked before any network runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from semsynth.augmentation.filter.config import FilterConfig
from semsynth.augmentation.filter.measure import Features, Item, Measurements
from semsynth.augmentation.filter.teacher import Teacher, check_teacher, known_share
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import check_same_labels

Name = tuple[str, str]
KIND = "filtered"


@dataclass(frozen=True)
class Task:
    """What is filtered, and by what.

    Attributes:
        known: share of the images of the mean losses that the teacher was trained on.
    """

    config: FilterConfig
    samples: PreparedDataset
    real: PreparedDataset
    measurements: Measurements
    known: float | None

    @property
    def teacher(self) -> Teacher:
        """The segmenter."""
        return self.measurements.teacher

    @cached_property
    def items(self) -> list[Item]:
        """What is measured."""
        return self.measurements.items(*self.config.splits)

    @cached_property
    def names(self) -> list[Name]:
        """Split and stem of all samples."""
        splits = self.samples.splits()
        return [(split, stem) for split in splits for stem in self.samples.stems(split)]


def open_task(config: FilterConfig) -> Task:
    """Open and check everything that is given, before any network runs."""
    samples, real = PreparedDataset.open(config.samples), PreparedDataset.open(config.real)
    check_same_labels(samples.labels, real.labels, str(samples.root), str(real.root))
    for data, splits in ((samples, samples.splits()), (real, config.splits)):
        data.say_what_is_shown()
        for split in splits:
            if not data.stems(split) or not data.has_images(split):
                raise UserError(
                    f"{data.root}: split '{split}' has masks without images, or nothing; choose "
                    "another split"
                )
    teacher = Teacher.open(config.segmenter, real.labels, config.device)
    share, digests = known_share(teacher, real, config.splits[1])
    more = () if config.splits[0] == config.splits[1] else (config.splits[0],)
    for split in more:
        digests |= known_share(teacher, real, split)[1]
    check_teacher(teacher, samples, digests)
    features = Features.open(teacher, config.device) if config.drop_far else Features(None)
    measurements = Measurements(config.output, teacher, features, samples, real, config.border)
    return Task(config, samples, real, measurements, share)

"""Images without masks get those that segmenters predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semsynth.augmentation.experiment.draws import Draw, Made, Part, write_union
from semsynth.augmentation.subset import SPLIT, write_subset
from semsynth.core.logging import progress
from semsynth.data.dataset import PreparedDataset
from semsynth.data.instances import objects_of
from semsynth.data.labels import Array, LabelSet


def pseudo_labelled(draw: Draw, unlabelled: Made, teachers: Sequence[Made], device: str) -> Made:
    """Return images with the masks that segmenters of the draw agree on.

    Args:
        draw: whose folder it is in.
        unlabelled: the images; their masks and instances are not used.
        teachers: segmenters of the draw, which know the masks of its images alone.
        device: where they run.
    """

    def predict(folder: Path) -> None:
        from semsynth.segmentation.segmenter import Segmenter

        segmenters = [Segmenter.load(teacher.make(), device) for teacher in teachers]
        data, labels = PreparedDataset.open(unlabelled.make()), segmenters[0].labels
        write_predicted(data, [segmenter.predict for segmenter in segmenters], labels, folder)

    key = [unlabelled.key, [teacher.key for teacher in teachers]]
    return draw.plan("pseudo-labelled", key, predict)


def united(draw: Draw, parts: Sequence[Part], predicted: Made) -> Made:
    """Return labelled images together with those of ``pseudo_labelled``, to train a generator."""

    def unite(folder: Path) -> None:
        data = PreparedDataset.open(predicted.make())
        others = Part(data, SPLIT, data.stems(SPLIT), prefix="unlabelled_")
        write_union([*parts, others], folder)

    return draw.plan("trained-on", [[part.key for part in parts], predicted.key], unite)


def write_predicted(
    data: PreparedDataset,
    predictors: Sequence[Callable[[Array], Array]],
    labels: LabelSet,
    folder: Path,
) -> PreparedDataset:
    """Write the images of a data set with predicted masks in place of its own.

    Pixels that are not predicted alike by all become unlabelled: one segmenter of few images is
    wrong in more places than several that were trained in different ways and agree.

    If the data set has instances, those of the new one are connected pixels of a class of things.

    Args:
        data: the images, in the split ``train``.
        predictors: each uint8 RGB images (B, H, W, 3) to ids (B, H, W).
        labels: of these ids; an ignored one is added if there is none.
        folder: written to; a finished one is opened unchanged.

    Raises:
        UserError: the folder belongs to something else.
    """
    labels = labels.with_ignore("unlabelled")
    masks: dict[str, Array] = {}
    instances: dict[str, Array] = {}
    with_instances = data.has_instances(SPLIT)  # which looks at all images
    for stem in progress(data.stems(SPLIT), "predict masks", unit="image"):
        images = data.read_rgb(SPLIT, stem)[None]
        first, *others = (predict(images)[0] for predict in predictors)
        mask = first.astype(labels.mask_dtype)
        for other in others:
            mask[other != first] = labels.ignore_id
        mask[~data.content(SPLIT, stem)] = labels.ignore_id
        masks[stem] = mask
        if with_instances:
            instances[stem] = connected_things(mask, labels)
    return write_subset(data, SPLIT, list(masks), folder, masks, instances, labels)


def connected_things(mask: Array, labels: LabelSet) -> npt.NDArray[np.uint16]:
    """Number the connected pixels of each class of things in a mask (H, W), from 1; 0: none."""
    numbers = np.zeros(mask.shape, np.uint16)
    count = 0
    for label in labels.trainable:
        if label.thing:
            for _, place, pixels in objects_of(mask == label.id, None):
                count += 1
                numbers[place][pixels] = count
    return numbers

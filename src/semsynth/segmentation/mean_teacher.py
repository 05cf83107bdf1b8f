"""Learning from images without labels: a mean teacher with the views of UniMatch.

UniMatch (Yang et al., CVPR 2023, arXiv 2208.09910): a weak view of an unlabelled image (geometry
alone) gives pseudo-labels, where they are sure; two strong views of it (colours, blur, CutMix), and
the weak view with half of the encoder's channels set to zero, must be predicted so. There the
student itself is the teacher. Here it is the moving average of its weights (Tarvainen and Valpola
2017, arXiv 1703.01780), as in UniMatch V2 (arXiv 2410.10777, "for more stable pseudo-labels"): with
few labels the student changes much from step to step, and learns its own mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.core.devices import autocast
from semsynth.core.distributed.shards import chunks
from semsynth.core.errors import UserError
from semsynth.core.logging import logger, progress
from semsynth.core.rng import evenly, numpy_rng, torch_generator
from semsynth.data.dataset import PreparedDataset
from semsynth.segmentation.appearance import Appearance
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.loader import IGNORE_INDEX, Array, EpochSampler, Pair
from semsynth.segmentation.objective import Supervised, keep_statistics
from semsynth.segmentation.segmenter import Segmenter
from semsynth.segmentation.strong import Geometry

# Of the loss on unlabelled images: each strong view, and the weak one without some channels.
_STRONG, _WITHOUT_CHANNELS = 0.25, 0.5
# Strong views differ more in colour than labelled images: nearly as much as in the paper.
_COLOR = 1.5
# Share of the channels that are set to zero.
_DROPPED = 0.5
# CutMix: how often, the share of the image that is replaced, and the box's height by its width.
_CUT, _CUT_AREA, _CUT_ASPECT = 0.5, (0.02, 0.4), (0.3, 1 / 0.3)
# So many unlabelled images show at the end what share of them has pseudo-labels.
_MEASURED, _BATCH = 500, 16


class Unlabelled(Protocol):
    """Images of one size without labels."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return an image (H, W, 3) uint8, and where (H, W) it is content and not padding."""


@dataclass
class MeanTeacher:
    """The loss on labelled images, and on unlabelled ones.

    The latter is ``weight`` times the mean over the content of cross-entropies with the sure
    pseudo-labels: 0.25 for each strong view, 0.5 for the weak one without some channels. That is
    UniMatch's loss up to a factor of 2, which AdamW does not see.

    Attributes:
        supervised: the loss on labelled images, extra ones among them.
        images: the unlabelled ones.
        config: the settings of the training.
        geometry: moves an image and its indices, for the weak view.
        appearance: changes how the weak view looks, for the strong ones.
    """

    supervised: Supervised
    images: Unlabelled
    config: SegmentTrainConfig
    geometry: Callable[[Array, Array, np.random.Generator], Pair]
    appearance: Callable[[Array, np.random.Generator], npt.NDArray[np.float32]]

    @classmethod
    def of(
        cls, supervised: Supervised, images: Unlabelled, config: SegmentTrainConfig
    ) -> MeanTeacher:
        """Return that of a configuration: views as `--augment strong` changes images."""
        geometry = Geometry(config.scale, config.flip, config.rotate)
        appearance = Appearance(_COLOR * config.color, config.stain, config.blur)
        return cls(supervised, images, config, geometry, appearance)

    def __post_init__(self) -> None:
        """Order the images by the seed."""
        self._batch_size = self.config.unlabelled_batch or self.config.batch_size
        self._sampler = EpochSampler(len(self.images), self.config.seed, "unlabelled")

    def loss(self, segmenter: Segmenter, averaged: Segmenter | None, step: int) -> Tensor:
        """Return the loss of a step; see ``fit.Objective``."""
        labelled = self.supervised.loss(segmenter, averaged, step)
        return labelled + self.config.unlabelled_weight * self.consistency(
            segmenter, segmenter if averaged is None else averaged, step
        )

    def consistency(self, segmenter: Segmenter, teacher: Segmenter, step: int) -> Tensor:
        """Return the loss on the unlabelled images of a step, a scalar."""
        weak, strong, inside = self._views(step)
        weak, inside = weak.to(segmenter.device), inside.to(segmenter.device)
        boxes = cut_boxes(len(weak), inside.shape[1:], self._rng("cut", step))
        # Apart: autocast would keep casts of weights that were made without gradients.
        with autocast(segmenter.device, self.supervised.precision):
            confidence, labels = pseudo_labels(teacher, weak)
        labels[(confidence < self.config.confidence) | ~inside] = IGNORE_INDEX
        with autocast(segmenter.device, self.supervised.precision), keep_statistics(segmenter):
            mixed = [cut_mix(x.to(segmenter.device), b) for x, b in zip(strong, boxes, strict=True)]
            logits = segmenter(torch.cat(mixed))[0].float().chunk(2)
            drop = ChannelDropout(torch_generator(self.config.seed, "channels", step))
            without = segmenter(weak, drop)[0].float()
        loss = _WITHOUT_CHANNELS * self._entropy(without, labels, inside)
        for view, box in zip(logits, boxes, strict=True):
            targets, content = cut_mix(labels, box), cut_mix(inside, box)
            loss = loss + _STRONG * self._entropy(view, targets, content)
        return loss

    def _entropy(self, logits: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
        """Return the mean over the content (B, H, W), where what is not sure adds nothing."""
        weights = self.supervised.weights.to(logits.device)
        total = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE_INDEX, reduction="sum")
        return total / inside.sum().clamp_min(1)

    def _views(self, step: int) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Return the weak view (B, 3, H, W), two strong ones, and what is content (B, H, W)."""
        first = step * self._batch_size
        weak: list[Array] = []
        strong: tuple[list[Array], list[Array]] = [], []
        inside: list[Array] = []
        for place, index in enumerate(self._sampler.indices(first, self._batch_size)):
            image, content = self.images[int(index)]
            rng = self._rng("views", step, place)
            target = np.where(content, 0, IGNORE_INDEX).astype(np.int16)
            image, target = self.geometry(image, target, rng)
            weak.append(image.astype(np.float32) / 255)
            for views in strong:
                views.append(self.appearance(image, rng))
            inside.append(target != IGNORE_INDEX)
        return (
            _channels_first(weak),
            (_channels_first(strong[0]), _channels_first(strong[1])),
            torch.from_numpy(np.stack(inside)),
        )

    def _rng(self, *key: str | int) -> np.random.Generator:
        return numpy_rng(self.config.seed, "unlabelled", *key)


def _channels_first(images: list[Any]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@torch.no_grad()
def pseudo_labels(teacher: Segmenter, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the teacher's confidence (B, H, W), 0 to 1, and class indices (B, H, W) int64."""
    with _evaluating(teacher):
        confidence, labels = teacher(images)[0].float().softmax(1).max(1)
    return confidence, labels


@contextmanager
def _evaluating(segmenter: Segmenter) -> Iterator[None]:
    training = segmenter.training
    segmenter.eval()
    try:
        yield
    finally:
        segmenter.train(training)


class ChannelDropout:
    """Sets half of the channels of each feature map to zero, and doubles the others.

    Attributes:
        calls: how many feature maps have come.
    """

    def __init__(self, generator: torch.Generator) -> None:
        """Take a generator of the CPU: what is dropped does not depend on the device."""
        self._generator, self.calls = generator, 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return feature maps (B, C, H, W), or tokens (B, N, C), without some channels."""
        self.calls += 1
        channels = 1 if x.ndim == 4 else x.ndim - 1
        shape = [n if i in (0, channels) else 1 for i, n in enumerate(x.shape)]
        kept = torch.rand(shape, generator=self._generator) >= _DROPPED
        return x * (kept.to(x.device, x.dtype) / (1 - _DROPPED))


def cut_boxes(
    n: int, size: tuple[int, ...], rng: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return where (n, H, W) each image is replaced by the next one, for two views."""
    boxes = np.zeros((2, n, *size), bool)
    height, width = size
    for view in boxes:
        for image in view:
            if rng.random() >= _CUT:
                continue
            area = rng.uniform(*_CUT_AREA) * height * width
            aspect = rng.uniform(*_CUT_ASPECT)
            h = min(height, max(1, round(np.sqrt(area * aspect))))
            w = min(width, max(1, round(np.sqrt(area / aspect))))
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            image[top : top + h, left : left + w] = True
    return boxes[0], boxes[1]


def cut_mix(x: Tensor, boxes: npt.NDArray[np.bool_]) -> Tensor:
    """Replace the boxes (B, H, W) of images or maps by those of the next image of the batch.

    Args:
        x: (B, H, W) or (B, C, H, W).
        boxes: of ``cut_boxes``.
    """
    inside = torch.from_numpy(boxes).to(x.device)
    return torch.where(inside if x.ndim == 3 else inside[:, None], x.roll(-1, 0), x)


def check_encoder(segmenter: Segmenter) -> None:
    """Check that the network has an encoder whose feature maps can be changed.

    Raises:
        UserError: it has none apart from its head.
    """
    drop = ChannelDropout(torch.Generator())
    size = (segmenter.info.height, segmenter.info.width)
    with torch.no_grad(), _evaluating(segmenter):
        segmenter(torch.zeros(1, 3, *size, device=segmenter.device), drop)
    if not drop.calls:
        raise UserError(
            "--unlabelled: this model of --init-from has no encoder apart from its head, whose "
            "channels could be left out; choose another one, or --arch"
        )


def measure(
    segmenter: Segmenter,
    images: Unlabelled,
    data: PreparedDataset,
    split: str | None,
    confidence: float,
) -> dict[str, Any]:
    """Return what pseudo-labels a segmenter gives: JSON values.

    Args:
        segmenter: trained.
        images: the unlabelled ones; at most 500 of them, evenly chosen, are looked at.
        data: the labelled images, whose names of classes are used.
        split: of ``data``, held out: there pseudo-labels can be compared with labels; None: none.
        confidence: from which on a prediction is a pseudo-label.

    Returns:
        ``share`` of the pixels that have a pseudo-label, their ``classes`` (shares of them by
        name), and with a split ``val_share`` and ``val_accuracy`` (None without any).
    """
    names = [label.name for label in data.labels.trainable]
    counts, pixels = np.zeros(len(names), np.int64), 0
    batches = chunks(evenly(range(len(images)), _MEASURED), _BATCH)
    for batch in progress(batches, "pseudo-labels", unit="batch"):
        pairs = [images[index] for index in batch]
        sure, labels = _sure(segmenter, np.stack([image for image, _ in pairs]), confidence)
        inside = np.stack([content for _, content in pairs])
        counts += np.bincount(labels[sure & inside], minlength=len(names))
        pixels += int(inside.sum())
    known = counts.sum()
    found: dict[str, Any] = {"share": round(float(known) / max(pixels, 1), 6)}
    shares = (counts / max(known, 1)).tolist()
    found["classes"] = {name: round(x, 6) for name, x in zip(names, shares, strict=True)}
    if split is not None:
        found |= _compared(segmenter, data, split, confidence)
    _tell(found, confidence)
    return found


def _compared(
    segmenter: Segmenter, data: PreparedDataset, split: str, confidence: float
) -> dict[str, Any]:
    """Compare pseudo-labels of held-out images with their labels."""
    ids = segmenter.ids.cpu().numpy()
    right = given = pixels = 0
    for batch in chunks(data.stems(split), _BATCH):
        sure, labels = _sure(
            segmenter, np.stack([data.read_rgb(split, s) for s in batch]), confidence
        )
        for stem, one, index in zip(batch, sure, labels, strict=True):
            mask = data.read_mask(split, stem)
            counted = np.isin(mask, ids) & data.content(split, stem)
            pixels += int(counted.sum())
            given += int((counted & one).sum())
            right += int((counted & one & (ids[index] == mask)).sum())
    return {
        "val_share": round(given / max(pixels, 1), 6),
        "val_accuracy": round(right / given, 6) if given else None,
    }


def _sure(
    segmenter: Segmenter, images_BHWC: Array, confidence: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    pixels = torch.from_numpy(np.ascontiguousarray(images_BHWC)).to(segmenter.device)
    found, labels = pseudo_labels(segmenter, pixels.permute(0, 3, 1, 2).float() / 255)
    return (found >= confidence).cpu().numpy(), labels.cpu().numpy()


def _tell(found: dict[str, Any], confidence: float) -> None:
    right = found.get("val_accuracy")
    compared = "" if right is None else f"; of held-out ones {right:.1%} are right"
    text = f"pseudo-labels above {confidence:g}: {found['share']:.1%} of the unlabelled pixels"
    if found["share"] < 0.01:
        logger.warning(
            f"{text}: they contributed next to nothing; lower --confidence or train longer"
        )
    else:
        logger.info(f"{text}{compared}")

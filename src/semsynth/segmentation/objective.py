"""The loss of a segmenter's training on labelled images, some of which may be extra ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from semsynth.core.devices import Precision, autocast
from semsynth.segmentation.loader import IGNORE_INDEX, Batch, MixedBatches, TrainingImages
from semsynth.segmentation.segmenter import Segmenter

# Rarer classes are weighted as if they had this share of the pixels: weights stay bounded.
_LEAST_SHARE = 1e-3


@dataclass
class Supervised:
    """The loss on batches of labelled images.

    Attributes:
        batches: the images of each step.
        weights: (classes,) of ``class_weights``.
        extra_weight: how many times a pixel of an extra image counts.
        precision: of the network; the loss is computed in float32.
    """

    batches: MixedBatches
    weights: Tensor
    extra_weight: float = 1.0
    precision: Precision = "no"

    def loss(self, segmenter: Segmenter, averaged: Segmenter | None, step: int) -> Tensor:
        """Return the loss of a step; see ``fit.Objective``."""
        batch = self.batches.batch(step).to(segmenter.device)
        logits = mixed_logits(segmenter, batch, self.precision)
        counts = None
        if self.extra_weight != 1:
            counts = torch.ones(len(logits), device=logits.device)
            counts[batch.n_real :] = self.extra_weight
        return segmentation_loss(logits, batch.targets, self.weights.to(logits.device), counts)


def mixed_logits(segmenter: Segmenter, batch: Batch, precision: Precision = "no") -> Tensor:
    """Return logits (B, classes, H, W) float32 in training; statistics are of real images alone.

    Where the network has batch norms, real and extra images pass apart: the real ones in training
    mode, then the extra ones with the statistics that are kept of real ones (``keep_statistics``).
    """
    images, n = batch.images, batch.n_real
    apart = any(_batch_norms(segmenter))
    with autocast(segmenter.device, precision):
        if n == len(images) > 1 or not apart:
            return segmenter(images)[0].float()  # type: ignore[no-any-return]
        parts = []
        # A single image is not enough to estimate the statistics.
        if n > 1:
            parts, images = [segmenter(images[:n])[0].float()], images[n:]
        # Backward passes need the statistics as they are: no image may change them from here on.
        with keep_statistics(segmenter):
            parts.append(segmenter(images)[0].float())
        return torch.cat(parts)


def _batch_norms(network: nn.Module) -> Iterator[_BatchNorm]:
    """Yield the batch norms that would keep statistics of what passes now."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats:
            yield module


@contextmanager
def keep_statistics(network: nn.Module) -> Iterator[None]:
    """Let batch norms normalize by the statistics that they keep, and not change them."""
    norms = list(_batch_norms(network))
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def class_weights(real: TrainingImages, exponent: float) -> Tensor:
    """Return weights by class index whose mean over the labelled pixels is 1."""
    shares = torch.from_numpy(real.class_shares())
    weights = shares.clamp_min(_LEAST_SHARE) ** -exponent
    return (weights / (weights * shares).sum()).float()


def segmentation_loss(
    logits: Tensor, targets: Tensor, weights: Tensor, counts: Tensor | None = None
) -> Tensor:
    """Return weighted cross-entropy plus soft Dice loss over the labelled pixels; 0 without any.

    The Dice loss (Milletari et al. 2016, arXiv 1606.04797), which is close to 1 - mIoU, is
    averaged over the classes that the batch contains.

    Args:
        logits: (B, classes, H, W).
        targets: (B, H, W) class indices; pixels of ``IGNORE_INDEX`` do not count.
        weights: (classes,) of the cross-entropy.
        counts: (B,) how many times each image's pixels count, as if it were in the batch that
            often (0: as if it were not there); None: once.
    """
    labelled = (targets != IGNORE_INDEX).float()
    index = targets.clamp_min(0)
    if counts is None:
        losses = F.cross_entropy(
            logits, targets, weights, ignore_index=IGNORE_INDEX, reduction="sum"
        )
    else:
        labelled = labelled * counts[:, None, None]
        each = F.cross_entropy(
            logits, targets, weights, ignore_index=IGNORE_INDEX, reduction="none"
        )
        losses = (each * labelled).sum()
    entropy = losses / (weights[index] * labelled).sum().clamp_min(1e-6)
    probabilities = logits.softmax(1)
    correct = probabilities.gather(1, index[:, None])[:, 0] * labelled
    overlap = torch.zeros_like(weights).index_add(0, index.flatten(), correct.flatten())
    total = torch.zeros_like(weights).index_add(0, index.flatten(), labelled.flatten())
    dice = 1 - (2 * overlap + 1) / ((probabilities * labelled[:, None]).sum((0, 2, 3)) + total + 1)
    present = total > 0
    return entropy + (dice * present).sum() / present.sum().clamp_min(1)

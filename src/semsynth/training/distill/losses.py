"""The discriminator's losses (OASIS, arXiv 2012.04781, eq. 1 to 3) and its accuracy.

Each is a mean over an image's pixels and over the scales, so that it does not depend on which other
images a process has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.data.class_checks import pixels_by_split
from semsynth.data.dataset import PreparedDataset
from semsynth.training.distill.diversity import directions

ANY_CLASS = -1  # of unlabelled pixels: real, of whatever class
IGNORED = -2  # of padding
_LEAST, _MOST = 0.3, 4.0


def class_weights(data: PreparedDataset, power: float) -> Tensor:
    """Return the weights of the classes' pixels, (C,); see ``DistillSection.class_balance``."""
    pixels, channels = pixels_by_split(data)["train"], data.labels.channel_lut()
    counts = torch.ones(data.labels.num_channels, dtype=torch.float64)
    for label, count in pixels.items():
        channel = int(channels[label])
        if channel >= 0:
            counts[channel] += count
    return ((counts.mean() / counts) ** power).clamp(_LEAST, _MOST).float()


@dataclass(frozen=True)
class PixelLoss:
    """The discriminator's cross entropy, where C classes and "generated" are told apart.

    Attributes:
        weights_C: of the classes.
        unlabelled: a channel that stands for unlabelled pixels, or -1
            (``LabelSet.unlabelled_channel``).
    """

    weights_C: Tensor
    unlabelled: int = -1

    @property
    def classes(self) -> int:
        """Return C."""
        return len(self.weights_C)

    def target(self, channels_BHW: Tensor, content_B1HW: Tensor | None) -> Tensor:
        """Return what pixels are, (B, H, W) int64: a class, ``ANY_CLASS`` or ``IGNORED``."""
        found = channels_BHW.long()
        found = found.masked_fill((found < 0) | (found == self.unlabelled), ANY_CLASS)
        return found if content_B1HW is None else found.masked_fill(~content_B1HW[:, 0], IGNORED)

    def real(self, logits: list[Tensor], target_BHW: Tensor) -> Tensor:
        """Return the losses (B,) of images that are to be taken for real ones of their masks."""
        return self._mean(self._real(x, t) for x, t in _scales(logits, target_BHW))

    def generated(self, logits: list[Tensor], target_BHW: Tensor) -> Tensor:
        """Return the losses (B,) of images that are to be recognised as generated."""
        return self._mean(
            (-F.log_softmax(x, 1)[:, -1], t != IGNORED) for x, t in _scales(logits, target_BHW)
        )

    def taken_for_real(self, logits: list[Tensor], target_BHW: Tensor) -> Tensor:
        """Return the shares (B,) of pixels that the discriminator does not call generated."""
        return self._mean(
            ((x.argmax(1) != self.classes).float(), t != IGNORED)
            for x, t in _scales([x.detach() for x in logits], target_BHW)
        )

    def _real(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        log_p, labelled = F.log_softmax(logits, 1), target >= 0
        channel = target.clamp(min=0)
        own = log_p.gather(1, channel[:, None])[:, 0] * self.weights_C[channel]
        loss = -torch.where(labelled, own, torch.logsumexp(log_p[:, :-1], 1))
        return loss, target != IGNORED

    @staticmethod
    def _mean(scales: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        means = [
            (values * counts).sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)
            for values, counts in scales
        ]
        return torch.stack(means).mean(0)


def perceptual_distance(features: list[Tensor], others: list[Tensor]) -> Tensor:
    """Return the mean squared distances (B,) of normalised features, over pixels and scales."""
    pairs = zip(directions(features), directions(others), strict=True)
    return torch.stack([((a - b) ** 2).sum(1).mean((1, 2)) for a, b in pairs]).mean(0)


def grid_loss(image_BCHW: Tensor, side: int) -> Tensor:
    """Return how unlike the places in blocks of ``side`` x ``side`` pixels are, (B,).

    Real images know no blocks: steps from a pixel to the next are the same wherever in a block they
    are, in size and in sign. Of rows and of columns, two variances over the places: of the
    logarithm of the mean absolute step (borders are seen), and of the mean step over the mean
    absolute one (all blocks have one pattern). 0.02 of real streets at 96x128; 0 for a codec
    without blocks, and for an image that ends before two of them.

    Args:
        image_BCHW: in [-1, 1]; blocks begin at its top left corner.
        side: of a block, in pixels.
    """
    total = torch.zeros(len(image_BCHW), device=image_BCHW.device)
    for axis in (2, 3):
        if side == 1 or image_BCHW.shape[axis] < 2 * side:
            continue
        steps = image_BCHW.float().diff(dim=axis).transpose(axis, 3)
        places = [steps[..., n::side] for n in range(side)]
        # The small number stands for a step that nobody sees.
        sizes = torch.stack([x.abs().mean((1, 2, 3)) for x in places], 1) + 1e-3
        means = torch.stack([x.mean((2, 3)) for x in places], 1)  # (B, side, C)
        total = total + sizes.log().var(1, correction=0)
        repeated = means.var(1, correction=0).mean(1)
        total = total + repeated / sizes.mean(1).square()
    return total


def _scales(logits: list[Tensor], target_BHW: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits with the targets at the centres of their pixels."""
    for x in logits:
        rows, columns = (
            ((torch.arange(n, device=x.device) + 0.5) * m / n).long()
            for n, m in zip(x.shape[-2:], target_BHW.shape[-2:], strict=True)
        )
        yield x, target_BHW[:, rows][:, :, columns]

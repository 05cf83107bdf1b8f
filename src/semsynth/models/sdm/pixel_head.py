"""The head that draws images at the resolution of their pixels, behind the codec's blocks.

Shape suffixes: B batch, C channels, H height, W width, M masks.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semsynth.models.codecs.codec import HaarCodec, PixelCodec
from semsynth.models.sdm.blocks import layout_of


class PixelHead(nn.Module):
    """A head that draws the image at the resolution of its pixels.

    Behind the Haar codec a pixel of the latent is a block of 4 x 4 image pixels (with two levels).
    Where the last convolution predicts whole blocks, each from features of its own, they do not fit
    together, and all of them may have one texture: a grid is seen, which adversarial training makes
    stronger. This head knows nothing of where blocks begin:

        c = (1 + scale(t)) * means + pass(t) * means of x
        image = up(c) + draw(up(c), enlarge(h, image of x), image of x, labels, t)

    where ``means``, of blocks, are all that the network's last convolution predicts, h the map that
    it sees, x the noisy latent, t the noise level, and labels the classes at each pixel. Norms take
    away what an image has as a whole, its brightness and its colour: where there is little noise,
    c has it from x (c_skip and c_out of arXiv 2206.00364, learned). Maps are doubled in size
    bilinearly, with two convolutions at each size. That has no power at the frequencies of blocks:
    equal features in all blocks give no pattern. Detail comes from the noise at each pixel and the
    borders of classes, and where there is little noise, from the image that x shows.

    Args:
        width_in: channels of the network's last map.
        channels: of the latent.
        side: image pixels that a latent pixel covers along a side, a power of two.
        width: channels of the head's maps at pixels; half as many more at each halved size.
        label_channels: of the label map.
        embedding: width of the embedding of the noise level.
    """

    def __init__(
        self,
        width_in: int,
        channels: int,
        side: int,
        width: int,
        label_channels: int,
        embedding: int,
    ) -> None:
        """Build it with fresh weights that leave the enlarged means of the blocks as they are."""
        super().__init__()
        colours, levels = channels // side**2, side.bit_length() - 1
        self.side = side
        self._codec = HaarCodec(levels, colours) if levels else PixelCodec(colours)
        given = int(width * 1.5 ** max(levels - 1, 1))
        self.features = nn.Conv2d(width_in, given, 3, padding=1)
        self.stages = nn.ModuleList()
        for halvings in range(levels - 1, 0, -1):
            out = int(width * 1.5**halvings)
            self.stages.append(_HeadStage(given + colours, out))
            given = out
        # No bias: no labels, all zeros, add nothing.
        self.labels = nn.Conv2d(label_channels, width, 3, padding=1, bias=False)
        self.first = nn.Conv2d(2 * colours + given, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, colours, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.gates = nn.Linear(embedding, 2 * colours)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)
        self.level = nn.Linear(embedding, width, bias=False)
        nn.init.zeros_(self.level.weight)

    def forward(
        self,
        h_BCHW: Tensor,
        means_BCHW: Tensor,
        embedding_BE: Tensor,
        noisy_BCHW: Tensor,
        labels_MCHW: Tensor | None,
    ) -> Tensor:
        """Return the predicted latent, float32.

        Args:
            h_BCHW: the network's last map, activated.
            means_BCHW: what its last convolution predicts: as the first channels of a latent, the
                means of the blocks times ``side``.
            embedding_BE: of the noise levels.
            noisy_BCHW: the noisy latent.
            labels_MCHW: what ``labels`` makes of the label maps of M masks, the batch having B / M
                images of each; None of no mask at all.
        """
        act = F.silu(embedding_BE)
        passed, scale = self.gates(act).float()[:, :, None, None].chunk(2, 1)
        given = noisy_BCHW[:, : passed.shape[1]].float()
        means = (1 + scale) * means_BCHW.float() + passed * given
        image = _enlarged(means / self.side, self.side)
        features = self.features(h_BCHW)
        noisy = self._codec.decode(noisy_BCHW.float())  # exact in float32 alone
        # In the layout of the features: maps of two layouts are slow to join.
        noisy = _as_in(features, noisy)
        side = self.side
        for stage in self.stages:
            side //= 2
            features = stage(_enlarged(features, 2), F.avg_pool2d(noisy, side))
        features = _enlarged(features, side)
        x = self.first(torch.cat([_as_in(features, image), noisy, features], dim=1))
        if labels_MCHW is not None:
            labels = labels_MCHW.to(x.dtype)
            if labels.shape[2:] != x.shape[2:]:  # of latent pixels (``labels: nearest``)
                labels = F.interpolate(labels, x.shape[2:], mode="nearest")
            if len(labels) != len(x):
                labels = labels.repeat_interleave(len(x) // len(labels), 0)
            x = x + labels
        x = F.silu(x + self.level(act)[:, :, None, None].to(x.dtype))
        x = x + F.silu(self.second(x))
        x = x + F.silu(self.third(x))
        return self._codec.encode(image + self.last(x).float())


class _HeadStage(nn.Module):
    """Two convolutions of ``PixelHead`` at a size between the latent's and the image's."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor, noisy_BCHW: Tensor) -> Tensor:
        """Return the map (B, out_channels, H, W) of features and the noisy image at their size."""
        x = F.silu(self.first(torch.cat([x_BCHW, noisy_BCHW], dim=1)))
        return x + F.silu(self.second(x))


def _as_in(map_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
    """Return another map in the precision and the memory layout of a map."""
    return other_BCHW.to(map_BCHW.dtype).contiguous(memory_format=layout_of(map_BCHW))


def _enlarged(x_BCHW: Tensor, times: int) -> Tensor:
    if times == 1:
        return x_BCHW
    # In its own precision: autocast would enlarge in float32, to be rounded by the convolution. A
    # network whose operations are counted only (meta) has none.
    device = x_BCHW.device.type
    with nullcontext() if x_BCHW.is_meta else torch.autocast(device, enabled=False):
        return F.interpolate(x_BCHW, scale_factor=float(times), mode="bilinear")

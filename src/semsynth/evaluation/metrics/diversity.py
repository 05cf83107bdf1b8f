"""How much several images of one mask differ."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from semsynth.core.devices import pick_device
from semsynth.core.distributed.shards import ALL, Shard
from semsynth.core.logging import progress
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.metrics.lpips import MIN_SIDE, Lpips
from semsynth.evaluation.metrics.weights import ALEXNET, LPIPS_ALEX, Unavailable, find_weights

ONE_SAMPLE = "every mask has only one sample; generate several per mask"


def pixel_std_within_mask(inputs: Inputs, shard: Shard = ALL) -> dict[int, float]:
    """Return the spread of the samples of each mask, 0 (all equal) to 0.5, by the mask's number.

    For each mask with two samples or more: the standard deviation over its samples (divisor n) of
    each pixel and channel in 0..1, averaged over the content box.

    Args:
        inputs: the samples.
        shard: which of the masks this process measures.

    Raises:
        Unavailable: no mask has two samples.
    """
    masks = _repeated_samples(inputs, "pixel diversity", shard)
    return {number: float((images / 255.0).std(0).mean()) for number, images in masks}


def load_lpips(config: EvaluateConfig, inputs: Inputs) -> Lpips:
    """Load LPIPS.

    Raises:
        Unavailable: its weights are not available, or the images are too small for it.
        UserError: a given file is missing or is not the published one.
    """
    sides = (min(inputs.generated.size(stem)) for stem in inputs.generated.stems)
    if min(sides) < MIN_SIDE["alex"]:
        raise Unavailable(f"AlexNet needs images of at least {MIN_SIDE['alex']} pixels a side")
    backbone = find_weights(ALEXNET, config.lpips_backbone, config.weights, config.download)
    heads = find_weights(LPIPS_ALEX, config.lpips_heads, config.weights, config.download)
    return Lpips.from_files(backbone.path, heads.path).to(pick_device(config.device))


@torch.inference_mode()
def lpips_within_mask(
    inputs: Inputs, lpips: Lpips, shard: Shard = ALL
) -> dict[int, tuple[float, int]]:
    """Return the mean LPIPS of all pairs of samples of each mask, and the number of pairs.

    Args:
        inputs: the samples.
        lpips: the network; images are measured on its device.
        shard: which of the masks this process measures.

    Raises:
        Unavailable: no mask has two samples.
    """
    device, means = lpips.shift.device, {}
    for number, images in _repeated_samples(inputs, "LPIPS", shard):
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        levels = lpips.embed(pixels.permute(0, 3, 1, 2).float() / 255)
        first, second = zip(*combinations(range(len(images)), 2), strict=True)
        left, right = ([x[list(i)] for x in levels] for i in (first, second))
        distances = lpips.distance(left, right)
        means[number] = (float(distances.mean()), len(distances))
    return means


def _repeated_samples(
    inputs: Inputs, title: str, shard: Shard
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield number and samples (K, H, W, 3) uint8, cut to the box, of masks with several."""
    by_mask = enumerate(inputs.by_mask.values())
    chosen = [(number, stems) for number, stems in by_mask if len(stems) > 1]
    if not chosen:
        raise Unavailable(ONE_SAMPLE)
    for number, stems in progress(shard.of(chosen), title, unit="mask"):
        top, left, height, width = inputs.generated.content_box(stems[0])
        images = np.stack([inputs.generated.read_rgb(stem) for stem in stems])
        yield number, images[:, top : top + height, left : left + width]

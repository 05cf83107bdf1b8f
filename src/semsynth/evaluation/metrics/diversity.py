"""How much samples of one mask differ, and how far they are from the real image of the mask.

Beside each spread stands the same of real images of *different* masks: the most that it can mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from semsynth.core.distributed.shards import ALL, Shard
from semsynth.core.logging import progress
from semsynth.core.rng import numpy_rng
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.metrics.perceptual import PerceptualDistance, open_perceptual

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Values = dict[str, dict[int, tuple[float, ...]]]
ONE_SAMPLE = "every mask has only one sample; generate several per mask"
PIXEL_STD = "pixel_std"


class DiversityMeter:
    """Measures samples against each other and against real images, mask by mask.

    Real images of different masks are compared along a circle through all masks in a random order,
    so each is read and embedded once.
    """

    def __init__(
        self,
        inputs: Inputs,
        distances: Sequence[PerceptualDistance],
        view: Callable[[Bytes], Floats],
        samples: int | None = None,
        seed: int = 0,
    ) -> None:
        """Take what is compared, and how.

        Args:
            inputs: the samples and the real images.
            distances: the perceptual distances.
            view: an image (H, W, 3) as these see it, float32 in 0..1.
            samples: how many samples of each mask they compare; None: all.
            seed: decides which real images are compared.
        """
        self.inputs = inputs
        self.distances = tuple(distances)
        self.view = view
        self.samples = samples
        self.masks = inputs.masks_order
        order = numpy_rng(seed, "different masks").permutation(len(self.masks))
        self.order: list[int] = order.tolist()
        counts = [len(stems) for stems in inputs.by_mask.values()]
        self.fewest, self.most = min(counts), max(counts)
        # A window of the circle, as wide as samples of a mask are compared.
        self._real = lru_cache(self.most + 2)(self._read_real)
        self._real_levels = lru_cache(3 * max(1, len(self.distances)))(self._embed_real)

    def missing(self) -> dict[str, str]:
        """Return the report's entries that cannot be measured, with the reason."""
        names = [f"{each.name}_diversity" for each in self.distances]
        if self.most < 2:
            return dict.fromkeys([*names, "pixel_std_within_mask"], ONE_SAMPLE)
        if self._too_few():
            reason = f"the protocol compares {self.samples} samples of each mask, not {self.fewest}"
            return dict.fromkeys(names, reason)
        return {}

    def measure(self, shard: Shard = ALL) -> Values:
        """Return this process's part of the values, by name and then by the mask's number.

        ``pixel_std`` and ``pixel_std_different``: (spread,): the standard deviation over the images
        (divisor n) of each pixel and channel in 0..1, averaged over the content box: 0 to 0.5.
        ``lpips_within``, ``lpips_to_real``, ``lpips_different`` (``stlpips_...``): (mean distance,
        number of pairs).
        """
        values: Values = defaultdict(dict)
        title = ", ".join([each.name for each in self.distances] or ["pixel diversity"])
        for position in progress(shard.of(range(len(self.order))), title, unit="mask"):
            number = self.order[position]
            stems = self.inputs.by_mask[self.masks[number]]
            samples = [_content(self.inputs.generated, stem) for stem in stems]
            if len(samples) > 1:
                values[PIXEL_STD][number] = (_spread(samples),)
                others = [self._real(self._next(position, step)) for step in range(len(samples))]
                if len(self.order) > 1:
                    others = others[: len(self.order)]
                    values[f"{PIXEL_STD}_different"][number] = (_spread(others),)
            for index in range(len(self.distances)):
                self._compare(values, index, position, samples[: self.samples])
        return dict(values)

    def _compare(self, values: Values, index: int, position: int, samples: list[Bytes]) -> None:
        """Measure one distance for the mask at a position of the circle."""
        each, number = self.distances[index], self.order[position]
        size = samples[0].shape[:2]
        levels = [each.embed(self.view(image)) for image in samples]
        if len(levels) > 1 and not self._too_few():
            within = [each.distance(a, b) for a, b in combinations(levels, 2)]
            values[f"{each.name}_within"][number] = (float(np.mean(within)), len(within))
        real = self._real_levels(index, number, size)
        to_real = [each.distance(real, level) for level in levels]
        values[f"{each.name}_to_real"][number] = (float(np.mean(to_real)), len(to_real))
        other = self._next(position, 1)
        # Of two masks there is one pair, which the first one counts.
        if other != number and (len(self.order) > 2 or position == 0):
            distance = each.distance(real, self._real_levels(index, other, size))
            values[f"{each.name}_different"][number] = (distance, 1)

    def _next(self, position: int, step: int) -> int:
        return self.order[(position + step) % len(self.order)]

    def _too_few(self) -> bool:
        return self.samples is not None and self.fewest < self.samples

    def _read_real(self, number: int) -> Bytes:
        return _content(self.inputs.real, self.masks[number])

    def _embed_real(self, index: int, number: int, size: tuple[int, int]) -> list[Tensor]:
        return self.distances[index].embed(self.view(_resized(self._real(number), size)))


def open_meter(config: EvaluateConfig, inputs: Inputs) -> tuple[DiversityMeter, dict[str, str]]:
    """Return the meter, and the report's entries that cannot be measured, with the reason.

    Raises:
        UserError: a file of weights that was given cannot be used.
    """
    protocol = inputs.protocol
    distances, reasons = open_perceptual(config, protocol.lpips_network)
    if protocol.lpips_size is None:
        smallest = min(min(inputs.generated.size(stem)) for stem in inputs.generated.stems)
        for each in [each for each in distances if smallest < each.min_side]:
            distances.remove(each)
            reasons[each.name] = f"needs images of at least {each.min_side} pixels a side"
    missing = {
        f"{name}_{entry}": reason
        for name, reason in reasons.items()
        for entry in ("diversity", "to_real")
    }
    view, samples = protocol.lpips_image, protocol.lpips_samples
    meter = DiversityMeter(inputs, distances, view, samples, config.seed)
    return meter, missing | meter.missing()


def diversity_entries(
    values: Mapping[str, Mapping[int, tuple[float, ...]]],
    meter: DiversityMeter,
    resampling: Resampling | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the report's entries of ``metrics`` and of ``diversity``.

    Args:
        values: what all processes measured together.
        meter: what measured it.
        resampling: of the masks, for intervals; None: there are none.
    """
    metrics: dict[str, Any] = {}
    mean = meter.inputs.protocol.lpips_mean
    for each in meter.distances:
        for entry, key in (("diversity", "within"), ("to_real", "to_real")):
            measured = values.get(f"{each.name}_{key}")
            if not measured:
                continue
            averages = _column(measured, len(meter.masks))
            metrics[f"{each.name}_{entry}"] = {
                "value": round(mean([averages[[i]] for i in sorted(measured)]), 6),
                "interval": _interval(averages, resampling),
                "n_pairs": _pairs(measured.values()),
                "features": each.about,
            }
        different = values.get(f"{each.name}_different")
        if different and f"{each.name}_diversity" in metrics:
            metrics[f"{each.name}_diversity"]["different_masks"] = {
                "value": _mean(different),
                "n_pairs": _pairs(different.values()),
            }
    names = {"within_mask": PIXEL_STD, "different_masks": f"{PIXEL_STD}_different"}
    diversity = {
        f"pixel_std_{key}": _mean(values[name]) for key, name in names.items() if values.get(name)
    }
    return metrics, diversity


def _column(measured: Mapping[int, tuple[float, ...]], n: int) -> npt.NDArray[np.float64]:
    column = np.full(n, np.nan)
    for number, (value, *_) in measured.items():
        column[number] = value
    return column


def _pairs(measured: Iterable[tuple[float, ...]]) -> int:
    return int(sum(pairs for _, pairs in measured))


def _mean(measured: Mapping[int, tuple[float, ...]]) -> float:
    return round(float(np.mean([measured[i][0] for i in sorted(measured)])), 6)


def _interval(
    averages: npt.NDArray[np.float64], resampling: Resampling | None
) -> list[float] | None:
    if resampling is None:
        return None
    interval = resampling.interval(resampling.means(averages))
    return None if interval is None else [round(value, 6) for value in interval]


def _content(images: Any, stem: str) -> Bytes:
    """Return an image without its padding."""
    top, left, height, width = images.content_box(stem)
    pixels: Bytes = images.read_rgb(stem)[top : top + height, left : left + width]
    return pixels


def _resized(image: Bytes, size: tuple[int, int]) -> Bytes:
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def _spread(images: list[Bytes]) -> float:
    size = images[0].shape[:2]
    pixels = np.stack([_resized(image, size) for image in images]) / 255.0
    return float(pixels.std(0).mean())

"""How many more labelled images a gain is worth, by the curve of real images alone.

Accuracy grows about linearly with the logarithm of the number of labelled images (Sun et al. 2017,
arXiv 1707.02968): a line through the scores at n/4, n/2 and n, by least squares, says what a
doubling is worth. A gain g over n images is worth n (2^(g/slope) - 1) more of them. That is always
beyond n, so it is extrapolated, and said to be. Where all images of a larger pool were labelled,
too, that measured point says it a second time, without extrapolation.

The interval holds the uncertainty of gain and slope together (Fieller's construction): a number of
images is in it, unless the gain differs from what the curve gives for that number, at 95%, over the
same resampled draws and images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semsynth.augmentation.experiment.statistics import Crossed, Resampled

# Numbers of images that are tried, as multiples of n: up to 5 doublings.
_MOST = 31.0
_TRIED = 400
# Shares of the ceiling's gain that are tried, either way.
_SHARES = 3.0
_DIGITS = 6


def slope(curve: Mapping[int, Resampled]) -> Resampled:
    """Return what a doubling of the labelled images brings, by least squares over log2 n.

    Args:
        curve: scores by the number of images; at least two numbers.
    """
    sizes = sorted(curve)
    x = np.log2(np.array(sizes, np.float64))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    total = curve[sizes[0]].scaled(float(weights[0]))
    for size, weight in zip(sizes[1:], weights[1:], strict=True):
        more = curve[size].scaled(float(weight))
        total = Resampled(total.value + more.value, total.sets + more.sets)
    return total


def label_equivalent(
    gain: Resampled, curve: Mapping[int, Resampled], n: int, crossed: Crossed
) -> dict[str, Any]:
    """Return what a gain is worth in labelled images; JSON values.

    Args:
        gain: over n real images.
        curve: scores of real images alone by their number, n among them; a number above n is a
            measured point: then the line is through n and that point.
        n: the number of real images.
        crossed: of the draws and the evaluation images.

    Returns:
        ``images``: how many more, None: more than can be measured (or than the curve says anything
        of); ``interval``: low and high, None where it is open; ``per_doubling``: the slope, with
        ``per_doubling_interval``; ``extrapolated``; ``sizes`` of the curve; ``worth_nothing``.
    """
    beyond = [size for size in curve if size > n]
    used = {size: curve[size] for size in ([n, max(beyond)] if beyond else curve)}
    doubling = slope(used)
    gain_interval = crossed.interval(gain)
    nothing = gain.mean <= 0 or (gain_interval is not None and gain_interval[0] <= 0)
    images = _images(gain.mean, doubling.mean, n)
    low, high = _interval(gain, doubling, n, crossed)
    largest = max(used)
    return {
        "images": images,
        "interval": [low, high],
        "per_doubling": round(doubling.mean, _DIGITS),
        "per_doubling_interval": _rounded(crossed.interval(doubling)),
        "sizes": sorted(used),
        "extrapolated": images is None or n + images > largest,
        "worth_nothing": bool(nothing),
    }


def _images(gain: float, doubling: float, n: int) -> int | None:
    """Return the number of images of a gain; None: no number of images brings it."""
    if gain <= 0:
        return 0
    if doubling <= 0 or gain / doubling > math.log2(1 + _MOST):
        return None
    return round(n * (2 ** (gain / doubling) - 1))


def _interval(
    gain: Resampled, doubling: Resampled, n: int, crossed: Crossed
) -> tuple[int | None, int | None]:
    """Return the least and the greatest number of images that the gain may be worth."""
    tried = np.linspace(0, math.log2(1 + _MOST), _TRIED)
    inside = []
    for doublings in tried:
        ends = crossed.interval(gain - doubling.scaled(float(doublings)))
        # Without an interval any number is possible.
        inside.append(ends is None or ends[0] <= 0 <= ends[1])
    if not any(inside):
        # Less than nothing, or more than the curve ever brings.
        return (0, 0) if gain.mean <= 0 else (None, None)
    numbers = [round(n * (2 ** float(x) - 1)) for x, ok in zip(tried, inside, strict=True) if ok]
    return min(numbers), None if inside[-1] else max(numbers)


def share_of_ceiling(gain: Resampled, whole: Resampled, crossed: Crossed) -> dict[str, Any]:
    """Return a gain as a share of that of all real images of the pool; JSON values.

    Args:
        gain: of an arm over n real images.
        whole: the gain of the arm ``ceiling``.
        crossed: of the draws and the evaluation images.

    Returns:
        ``share``, None where the ceiling gains nothing; ``interval``: low and high by Fieller's
        construction, an end None where it is open.
    """
    if not whole.mean > 0:
        return {"share": None, "interval": [None, None]}
    share = gain.mean / whole.mean
    # Outside of what is tried nothing is said: with the share itself an interval is never empty.
    tried = np.sort(np.append(np.arange(-_SHARES, _SHARES + 0.005, 0.01), share))
    inside = []
    for each in tried:
        ends = crossed.interval(gain - whole.scaled(float(each)))
        inside.append(each == share or ends is None or ends[0] <= 0 <= ends[1])
    low = None if inside[0] else round(float(tried[inside].min()), 2)
    high = None if inside[-1] else round(float(tried[inside].max()), 2)
    return {"share": round(share, 3), "interval": [low, high]}


def _rounded(ends: Sequence[float] | None) -> list[float] | None:
    return None if ends is None else [round(end, _DIGITS) for end in ends]


def in_words(value: Mapping[str, Any], n: int) -> str:
    """Return the label equivalent in a sentence without its end.

    Args:
        value: of ``label_equivalent``.
        n: the number of real images.
    """
    if value["worth_nothing"]:
        return "no gain that can be distinguished from 0"
    low, high = value["interval"]
    ends = f"{low} or more" if high is None else f"{low} to {high}"
    images = value["images"]
    if images is None:
        more = f"more labelled images than the curve can estimate ({ends})"
    else:
        more = f"{images} more labelled images, {ends}"
    sizes = ", ".join(map(str, value["sizes"]))
    how = f"extrapolated beyond {max(value['sizes'])} " if value["extrapolated"] else ""
    return f"worth {more} ({how}by the curve at {sizes})"

"""What blur, noise and a block codec do to texture: power by octave, block borders and patterns.

Distances on deep features hardly see either: half of the finest detail may be gone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# Sides of the blocks that are looked at: of one, two and three Haar levels; JPEG and most
# autoencoders have blocks of 8.
BLOCKS = (2, 4, 8)
# Weights of red, green and blue in a grey value (Rec. 601), for values of 0 to 255.
_GREY = np.array([0.299, 0.587, 0.114], np.float32) / 255
# The coarsest octave begins at so many periods along the shorter side.
_PERIODS = 2


def grey(image: Array) -> npt.NDArray[np.float32]:
    """Return the grey values (H, W), 0 to 1 (Rec. 601), of RGB (H, W, 3) in 0..255."""
    return np.asarray(image[..., :3] @ _GREY, np.float32)


def octave_power(grey_HW: Array) -> Floats:
    """Return the mean power density of an image's spectrum in each octave, the finest first.

    Octave k = 0, 1, ... has radial frequencies from 2^-(k+2) up to 2^-(k+1) cycles per pixel;
    corners beyond 1/2 are left out. The mean is subtracted and a Hann window applied, since the
    opposite edges of an image do not meet. White noise has its variance in every octave.

    Args:
        grey_HW: grey values, 0 to 1.

    Returns:
        (octaves,): log2(shorter side) - 2 of them; none for a side under 8 pixels.
    """
    window, octave, count = _plan(*grey_HW.shape)
    spectrum = np.fft.rfft2((grey_HW - grey_HW.mean()) * window)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    # The last bin holds what is in no octave.
    power *= _both_halves(grey_HW.shape[1])
    return np.asarray(np.bincount(octave, power.ravel(), len(count) + 1)[:-1] / count)


@lru_cache(maxsize=64)
def _plan(height: int, width: int) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Return the window, the octave of each frequency of ``rfft2``, and frequencies an octave."""
    window = np.outer(_hann(height), _hann(width))
    # White noise of variance v has the expected power v at each frequency.
    window /= np.sqrt(np.square(window).sum())
    octaves = max(int(np.log2(min(height, width) / (2 * _PERIODS) + 1e-9)), 0)
    vertical, horizontal = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    radius = np.hypot(vertical[:, None], horizontal[None])
    with np.errstate(divide="ignore"):
        # Just below the border, so that 1/2 is in the finest octave.
        found = np.floor(-np.log2(radius * (1 - 1e-12)) - 1).astype(np.float64)
    octave = np.where((found >= 0) & (found < octaves), found, octaves).astype(np.int64)
    times = np.broadcast_to(_both_halves(width), octave.shape).ravel()
    count = np.bincount(octave.ravel(), times, octaves + 1).astype(np.float64)
    return window, octave.ravel(), count[:octaves]


def _hann(n: int) -> Floats:
    return np.asarray(np.square(np.sin(np.pi * (np.arange(n) + 0.5) / n)))


def _both_halves(width: int) -> Floats:
    """Return how often each column of ``rfft2`` stands in the whole spectrum."""
    times = np.full(width // 2 + 1, 2.0)
    times[0] = 1.0
    if width % 2 == 0:
        times[-1] = 1.0
    return times


def block_steps(grey_HW: Array, block: int) -> tuple[float, float]:
    """Return the mean absolute step between neighbouring pixels across block borders, and inside.

    Blocks begin at the image's top left corner. Both directions count.

    Args:
        grey_HW: grey values.
        block: side of a block, at least 2 pixels.
    """
    border, inside = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey_HW, axis=axis))
        across = (np.arange(steps.shape[axis]) + 1) % block == 0
        border.append(np.compress(across, steps, axis).ravel())
        inside.append(np.compress(~across, steps, axis).ravel())
    return _mean(border), _mean(inside)


def pattern_power(grey_HW: Array, block: int) -> tuple[float, float]:
    """Return the power density at the frequencies of a pattern that each block repeats, and beside.

    A pattern of period ``block`` has its power at multiples of 1 / ``block`` cycles per pixel along
    rows and columns alone. What is beside them, 3 to 6 bins away, tells how much any texture would
    have there. The mean is subtracted and a Hann window applied.

    Args:
        grey_HW: grey values.
        block: side of a block, at least 2 pixels.

    Returns:
        Both, means over the two directions; zeros for a side of fewer than 8 blocks.
    """
    at, beside = [], []
    for axis in (0, 1):
        n = grey_HW.shape[axis]
        if n < 8 * block:
            return 0.0, 0.0
        window = np.expand_dims(_hann(n) * np.sqrt(8 / (3 * n)), 1 - axis)
        spectrum = np.fft.rfft((grey_HW - grey_HW.mean()) * window, axis=axis)
        power = (np.square(spectrum.real) + np.square(spectrum.imag)).mean(1 - axis)
        lines = n / block * np.arange(1, block // 2 + 1)  # in bins
        bins = np.arange(len(power))
        near = np.abs(bins[:, None] - lines[None]).min(1)
        at.append(power[near <= 1.5].mean())
        beside.append(power[(near >= 2.5) & (near < 6.5)].mean())
    return float(np.mean(at)), float(np.mean(beside))


def _mean(parts: list[Array]) -> float:
    values = np.concatenate(parts)
    return float(values.mean()) if len(values) else 0.0


def texture(image: Array) -> Floats:
    """Return all of an image (H, W, 3) in 0..255 as one vector.

    Returns:
        The steps across borders and inside of each of ``BLOCKS``, their ``pattern_power``, then the
        power by octave.
    """
    values = grey(image)
    steps = np.array([block_steps(values, block) for block in BLOCKS])
    patterns = np.array([pattern_power(values, block) for block in BLOCKS])
    return np.concatenate([steps.ravel(), patterns.ravel(), octave_power(values)])


def decibels(power: Array, reference: Array) -> Floats:
    """Return 10 log10(power / reference); NaN where either is 0."""
    known = (power > 0) & (reference > 0)
    ratio = np.divide(power, reference, out=np.ones(np.shape(power)), where=known)
    return np.where(known, 10 * np.log10(ratio), np.nan)


def step_ratio(rows: Array, block: int) -> Floats:
    """Return steps across borders over steps inside, of means (..., D) of ``texture`` vectors.

    1: borders of blocks look like other pixels; NaN without any steps inside.
    """
    i = 2 * BLOCKS.index(block)
    border, inside = rows[..., i], rows[..., i + 1]
    none = np.full(np.shape(border), np.nan)
    return np.asarray(np.divide(border, inside, out=none, where=inside > 0))


def pattern_decibels(rows: Array, block: int) -> Floats:
    """Return how much more power a block's pattern has than what is beside it, in decibels.

    Args:
        rows: means (..., D) of ``texture`` vectors.
        block: one of ``BLOCKS``.
    """
    i = 2 * (len(BLOCKS) + BLOCKS.index(block))
    return decibels(rows[..., i], rows[..., i + 1])


def octaves_of(rows: Array) -> Array:
    """Return the power by octave of ``texture`` vectors (..., D)."""
    return rows[..., 4 * len(BLOCKS) :]


def wavelengths(octaves: int) -> list[str]:
    """Return the names of octaves, the finest first, by the lengths of their waves in pixels."""
    return [f"{2 ** (k + 1)} to {2 ** (k + 2)} px" for k in range(octaves)]

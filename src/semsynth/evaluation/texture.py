"""Texture of generated images against real ones: the spectrum, and the borders of codec blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.distributed.shards import Shard
from semsynth.core.logging import progress
from semsynth.evaluation.inputs.image_set import ImageSet
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.metrics.spectrum import (
    BLOCKS,
    decibels,
    octaves_of,
    pattern_decibels,
    step_ratio,
    texture,
    wavelengths,
)

Json = dict[str, Any]
Rows = dict[int, tuple[float, ...]]
Array = npt.NDArray[Any]
GENERATED, REAL = "texture of generated images", "texture of real images"
# The block of this package's recipes, where the samples do not say whose codec made them.
_BLOCK = 4
ABOUT = (
    "power density of grey values (Rec. 601, 0 to 1, mean subtracted, Hann window) by octave, "
    "10 log10 of generated over real; 0 dB: as much as real images"
)
ABOUT_BORDERS = (
    "mean absolute step of grey values across block borders over that within blocks, of generated "
    "images over that of the real ones; 1: no blocks are seen"
)

ABOUT_PATTERN = (
    "power at multiples of 1 / block cycles per pixel along rows and columns over that of the "
    "frequencies beside them, in decibels, of generated images minus that of the real ones; 0 dB: "
    "blocks repeat no pattern"
)


def measure_texture(inputs: Inputs, shard: Shard) -> dict[str, Rows]:
    """Return the ``texture`` vector of each image by its number, of generated and real images."""
    samples = [stem for stem, _ in inputs.samples_with_masks]
    return {
        GENERATED: _rows(inputs.generated, samples, shard, "texture, generated"),
        REAL: _rows(inputs.real, inputs.masks_order, shard, "texture, real"),
    }


def _rows(images: ImageSet, stems: Sequence[str], shard: Shard, title: str) -> Rows:
    numbers = shard.of(range(len(stems)))
    rows = {}
    for number in progress(numbers, title, len(numbers), "image"):
        top, left, height, width = images.content_box(stems[number])
        image = images.read_rgb(stems[number])[top : top + height, left : left + width]
        rows[number] = tuple(texture(image).tolist())
    return rows


def texture_entries(
    values: Mapping[str, Rows], inputs: Inputs, resampling: Resampling | None
) -> tuple[Json, dict[str, str]]:
    """Return ``spectrum``, ``block_borders`` and ``block_pattern``, and what is missing and why.

    Args:
        values: what ``measure_texture`` of all processes returned.
        inputs: which sample is of which mask; the manifest's ``codec_block``.
        resampling: draws of the masks, for intervals; None: there are none.
    """
    generated, real = _by_mask(values[GENERATED], values[REAL], inputs)
    octaves = octaves_of(real).shape[1]
    entries: Json = {}
    missing = {}
    if octaves:
        entries["spectrum"] = {
            "octaves": _octaves(octaves_of(generated), octaves_of(real), resampling),
            "n": len(values[GENERATED]),
            "n_real": len(real),
            "about": ABOUT,
        }
        entries["spectrum"]["lines"] = _spectrum_lines(entries["spectrum"]["octaves"])
    else:
        missing["spectrum"] = "needs images of at least 8 pixels a side"
    block = inputs.settings.get("codec_block", _BLOCK)
    if block in BLOCKS:
        entries["block_borders"] = _borders(generated, real, int(block), resampling)
        entries["block_borders"]["assumed"] = "codec_block" not in inputs.settings
        pattern = _pattern(generated, real, int(block), resampling)
        if pattern is None:
            missing["block_pattern"] = f"needs images of at least {8 * block} pixels a side"
        else:
            entries["block_pattern"] = pattern
    else:
        reason = f"the codec has blocks of {block} pixels; measured are {BLOCKS}"
        missing |= {"block_borders": reason, "block_pattern": reason}
    return entries, missing


def _by_mask(generated: Rows, real: Rows, inputs: Inputs) -> tuple[Array, Array]:
    """Return the means over the samples of each mask, and the real images, (masks, D)."""
    # Images of several sizes have the octaves of the smallest in common.
    width = min(len(row) for row in [*generated.values(), *real.values()])
    rows, number = [], 0
    for stems in inputs.by_mask.values():
        numbers = range(number, number + len(stems))
        rows.append(np.mean([generated[i][:width] for i in numbers], 0))
        number += len(stems)
    return np.stack(rows), np.stack([real[i][:width] for i in range(len(rows))])


def _octaves(generated: Array, real: Array, resampling: Resampling | None) -> list[Json]:
    value = decibels(generated.sum(0), real.sum(0))
    drawn = (
        None if resampling is None else decibels(resampling.sums(generated), resampling.sums(real))
    )
    found = []
    for k, wavelength in enumerate(wavelengths(len(value))):
        interval = None if drawn is None or resampling is None else resampling.interval(drawn[:, k])
        found.append(
            {
                "wavelength": wavelength,
                "decibels": None if np.isnan(value[k]) else round(float(value[k]), 3),
                "interval": _rounded(interval, 3),
            }
        )
    return found


def _borders(generated: Array, real: Array, block: int, resampling: Resampling | None) -> Json:
    by_block = {
        str(each): _number(step_ratio(generated.sum(0), each) / step_ratio(real.sum(0), each))
        for each in BLOCKS
    }
    interval = None
    if resampling is not None:
        sums = resampling.sums(generated), resampling.sums(real)
        interval = resampling.interval(step_ratio(sums[0], block) / step_ratio(sums[1], block))
    entry: Json = {
        "value": by_block[str(block)],
        "interval": _rounded(interval, 4),
        "block": block,
        "generated": _number(step_ratio(generated.sum(0), block)),
        "real": _number(step_ratio(real.sum(0), block)),
        "by_block": by_block,
        "n": len(generated),
        "about": ABOUT_BORDERS,
    }
    line = {
        "title": f"Step across the borders of {block}-pixel blocks, of real images'",
        "value": entry["value"],
        "interval": entry["interval"],
        "real": 1.0,
        "n": entry["n"],
        "unit": "ratio; 1 is best, above it blocks are seen",
        "style": "number",
    }
    return {**entry, "lines": [line]}


def _pattern(
    generated: Array, real: Array, block: int, resampling: Resampling | None
) -> Json | None:
    value = float(pattern_decibels(generated.sum(0), block) - pattern_decibels(real.sum(0), block))
    if np.isnan(value):
        return None
    interval = None
    if resampling is not None:
        sums = resampling.sums(generated), resampling.sums(real)
        interval = resampling.interval(
            pattern_decibels(sums[0], block) - pattern_decibels(sums[1], block)
        )
    entry: Json = {
        "value": round(value, 3),
        "interval": _rounded(interval, 3),
        "block": block,
        "n": len(generated),
        "about": ABOUT_PATTERN,
    }
    line = {
        "title": f"Pattern that {block}-pixel blocks repeat",
        "value": entry["value"],
        "interval": entry["interval"],
        "real": 0.0,
        "n": entry["n"],
        "unit": "dB above real images; 0 is best, above it blocks look alike",
        "style": "number",
    }
    return {**entry, "lines": [line]}


def _spectrum_lines(octaves: Sequence[Json]) -> list[Json]:
    return [
        {
            "title": f"Power of details of {octave['wavelength'].replace(' px', ' pixels')}",
            "value": octave["decibels"],
            "interval": octave["interval"],
            "real": 0.0,
            "unit": "dB of real images; 0 is best, below it blurred, above it noisy",
            "style": "number",
        }
        for octave in octaves
        if octave["decibels"] is not None
    ]


def _number(value: Any) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _rounded(interval: tuple[float, float] | None, digits: int) -> list[float] | None:
    return None if interval is None else [round(value, digits) for value in interval]

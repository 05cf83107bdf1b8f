"""The size that images are prepared at, when nobody gives one, and what that does to each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig, ResizeMode
from semsynth.data.resize import Size, content_box, source_box

# By how much the codec and the network of most recipes reduce a side.
REDUCTION = 32
# The longer side of larger images: few can train a network beyond it.
MAX_SIDE = 1024


@dataclass(frozen=True)
class SizePlan:
    """What was decided.

    Attributes:
        config: the configuration with height, width and resize filled in.
        lines: what a reader must know: the size and why, and how many images change in which way.
    """

    config: PrepareConfig
    lines: tuple[str, ...] = ()


def plan_size(config: PrepareConfig, sizes: Mapping[Size, int] | None) -> SizePlan:
    """Fill in the size and the way of resizing that ``config`` leaves open.

    For data of one's own: the median size of the images, reduced to 1024 pixels on the longer side
    and rounded to multiples of 32; with one side given, the other by the shape of the median. What
    has another shape is padded, never stretched unless that is asked for.

    Args:
        config: the flags.
        sizes: how many raw images have each size; None: not known, the defaults of the source.
    """
    own = config.has_own_layout
    if config.tile is not None and config.height is None and config.width is None:
        config = replace(config, height=config.tile, width=config.tile)
    lines: list[str] = []
    if own and sizes and None in (config.height, config.width):
        median = _median(sizes)
        height, width = _rounded(median, config.height, config.width)
        lines.append(_why(median, (height, width), config))
        try:
            config = replace(config, height=height, width=width)
        except UserError as error:
            shape = f"the median of the images is {median[1]}x{median[0]}"
            raise UserError(f"{error} ({shape}); give both --height and --width") from None
    else:
        lines.append(f"size: {config.size[1]}x{config.size[0]} (width x height)")
        lines += _not_a_multiple(config.size)
    if (own or config.is_cut) and sizes and config.resize is None:
        changes_shape = any(content_box("pad", size, config.size) != _all(config) for size in sizes)
        config = replace(config, resize="pad" if changes_shape else "stretch")
    if sizes and config.resize_rule != "paper":
        lines += _changes(config, sizes)
    return SizePlan(config, tuple(lines))


def size_notes(mode: ResizeMode, original: Size, size: Size) -> tuple[str, ...]:
    """Return how an image of ``original`` height and width changes at ``size``, in a few words."""
    kept, box = source_box(mode, original, size), content_box(mode, original, size)
    scales = box[2] / kept[2], box[3] / kept[3]
    notes = []
    if max(scales) > 1:
        notes.append("enlarged")
    elif min(scales) < 1:
        notes.append("shrunk")
    if content_box("pad", original, size) != (0, 0, *size):
        done = {"pad": "padded", "crop": "cropped", "stretch": "stretched"}[mode]
        notes.append(f"{done} (another shape)")
    return tuple(notes)


def _median(sizes: Mapping[Size, int]) -> Size:
    counts = list(sizes.values())
    heights, widths = (np.repeat([size[side] for size in sizes], counts) for side in (0, 1))
    middle = (len(heights) - 1) // 2  # a side that an image has, not the mean of two
    return int(np.sort(heights)[middle]), int(np.sort(widths)[middle])


def _rounded(median: Size, height: int | None, width: int | None) -> Size:
    scale = min(1.0, MAX_SIDE / max(median))
    if height is not None:
        scale = height / median[0]
    elif width is not None:
        scale = width / median[1]
    rounded = [max(REDUCTION, round(side * scale / REDUCTION) * REDUCTION) for side in median]
    return height or rounded[0], width or rounded[1]


def _why(median: Size, size: Size, config: PrepareConfig) -> str:
    given = {"--height": config.height, "--width": config.width}
    flag = next((name for name, value in given.items() if value is not None), None)
    how = f"rounded to multiples of {REDUCTION}"
    if flag is not None:
        how = (
            f"whose shape decides the side that is not given, rounded to a multiple of {REDUCTION}"
        )
    elif max(median) > MAX_SIDE:
        how = f"reduced to {MAX_SIDE} pixels and {how}; give --height and --width for another"
    elif size == median:
        how = "as it is"
    return (
        f"size: {size[1]}x{size[0]} (width x height): the median of the images, "
        f"{median[1]}x{median[0]}, {how}"
    )


def _not_a_multiple(size: Size) -> list[str]:
    near = tuple(max(1, round(side / REDUCTION)) * REDUCTION for side in size)
    if near == size or min(size) < 2 * REDUCTION:
        return []
    return [
        f"{size[1]}x{size[0]} is not a multiple of {REDUCTION} on both sides: networks that halve "
        "images five times, as most do, cannot be trained on it; the nearest such size is "
        f"--height {near[0]} --width {near[1]} (for generation alone, masks may have any size)"
    ]


def _all(config: PrepareConfig) -> tuple[int, int, int, int]:
    return 0, 0, *config.size


def _changes(config: PrepareConfig, sizes: Mapping[Size, int]) -> list[str]:
    """Count the images that change in each way: one line."""
    found: Counter[str] = Counter()
    for original, count in sizes.items():
        for note in size_notes(config.resize_mode("val"), original, config.size):
            found[note] += count
    parts = [f"{count} {note}" for note, count in found.items()]
    return [f"of {sum(sizes.values())} images {', '.join(parts)}"] if parts else []

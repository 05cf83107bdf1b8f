"""Larger copies of training images, from which crops are cut: whether there are any, and why.

A crop of an image at the prepared size is enlarged to that size, so it is blurred, and a network
that is trained on it generates blurred images. A crop of a larger copy is scaled down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from semsynth.core.errors import abbreviate
from semsynth.core.logging import logger
from semsynth.data.config import PrepareConfig, ResizeMode
from semsynth.data.content import ALL_KINDS, KINDS
from semsynth.data.resize import Size, content_box, larger_size, source_box

if TYPE_CHECKING:
    from semsynth.data.dataset import PreparedDataset

# By default: the largest factor, the least that is worth it, and the pixels of an image of which
# copies are kept. At 256x256 and twice the size a thousand images take about half a gigabyte.
USUAL, LEAST, PIXELS = 2.0, 1.25, 256 * 256
# The largest that can be asked for.
MOST = 4.0


class LargePlan(NamedTuple):
    """Whether training images are kept larger, too.

    Attributes:
        factor: how many times as large; None: they are not.
        lines: what was decided, for a reader.
    """

    factor: float | None
    lines: tuple[str, ...] = ()


def plan_large(config: PrepareConfig, sizes: Mapping[Size, int] | None) -> LargePlan:
    """Decide at how many times the size training images are kept, too.

    Args:
        config: the flags, with the size and the way of resizing filled in.
        sizes: how many raw images have each height and width; None: not known.
    """
    mode, size = config.resize_mode("train"), config.size
    images = {raw: (without_enlarging(mode, raw, size), n) for raw, n in (sizes or {}).items()}
    total = sum(n for _, n in images.values())
    most = min((factor for factor, _ in images.values()), default=1.0)
    if config.large != "auto":
        soft = sum(n for factor, n in images.values() if factor < config.large)
        if config.large == 1:
            return LargePlan(None)
        if not soft:
            return LargePlan(config.large, (_kept(config.large, size),))
        advice = f"; --large {_floor(most):g} enlarges none" if most >= LEAST else ""
        line = (
            f"large: {soft} of {total} images are smaller than that and are enlarged: crops of "
            f"them are soft{advice}"
        )
        return LargePlan(config.large, (_kept(config.large, size), line))
    if config.resize_rule == "paper" or size[0] * size[1] > PIXELS:
        return LargePlan(None)
    if most >= LEAST:
        factor = _floor(min(USUAL, most))
        return LargePlan(factor, (f"{_kept(factor, size)}; --large 1 leaves them out",))
    small = sum(n for factor, n in images.values() if factor < LEAST)
    if small == total:
        return LargePlan(None)
    return LargePlan(
        None,
        (
            f"large: no larger copies, since {small} of {total} images have less than {LEAST:g} "
            f"times the size; --large {USUAL:g} keeps them, and enlarges these",
        ),
    )


def without_enlarging(mode: ResizeMode, raw: Size, size: Size) -> float:
    """Return how much larger than ``size`` an image can be kept without being enlarged.

    Args:
        mode: how it is resized.
        raw: its height and width.
        size: the prepared height and width.
    """
    kept, box = source_box(mode, raw, size), content_box(mode, raw, size)
    return min(kept[2] / box[2], kept[3] / box[3])


def kinds_read(data: PreparedDataset, crop: float) -> tuple[str, ...]:
    """Return the folders whose files decide the samples of a training.

    Args:
        data: the prepared data set.
        crop: the least share of a side that a crop keeps (``ImageAugmentation``).
    """
    return ALL_KINDS if crop < 1 and data.info.large is not None else KINDS


def images_with_copies(data: PreparedDataset, split: str) -> list[str]:
    """Return the stems of the images that have a larger copy of what they are now.

    One that was edited after it was prepared, and its copy was not, is left out, with a warning.
    """
    records = {stem: data.record(split, stem) for stem in data.stems(split)}
    if not any(record.large for record in records.values()):
        return []
    files = data.file_digests(split, ALL_KINDS)
    found, edited = [], []
    for stem, record in records.items():
        changed = {kind for kind, now in files[stem].items() if record.digests.get(kind) != now}
        if any(kind in changed and f"{kind}_large" not in changed for kind in KINDS):
            edited.append(stem)
        elif record.large:
            found.append(stem)
    if edited:
        logger.warning(
            f"{data.root}: {len(edited)} of the images in '{split}' were edited, and not their "
            f"larger copies ({abbreviate(edited, 3)}): their crops are cut from the edited ones, "
            "and enlarged"
        )
    return found


def blur_note(data: PreparedDataset, crop: float) -> str:
    """Return what ``train.crop`` does to the images, in a line; empty where crops stay sharp.

    Args:
        data: of the training.
        crop: the least share of a side that a crop keeps.
    """
    there = data.info.large or 1.0
    enlarged = 1 / (crop * there)
    if enlarged <= 1 or "train" not in data.splits():
        return ""
    size = (data.height, data.width)
    most = min(
        without_enlarging(image.resize or _mode(data), _size(image.original_size), size)
        for image in data.info.images["train"].values()
    )
    wanted = min(MOST, USUAL if 1 / crop <= USUAL else math.ceil(100 / crop) / 100)
    line = f"train.crop {crop:g} enlarges crops up to {enlarged:.2f} times: generated images will "
    if most >= wanted or most >= LEAST * there:
        return f"{line}be softer; prepare again with --large {min(wanted, _floor(most)):g}"
    return (
        f"{line}be softer, and the raw images have no more pixels; train.crop=1 keeps them sharp, "
        "or prepare a smaller size"
    )


def _mode(data: PreparedDataset) -> ResizeMode:
    return "stretch" if data.info.resize == "paper" else data.info.resize


def _size(original: list[int]) -> Size:
    return original[0], original[1]


def _floor(factor: float) -> float:
    return math.floor(100 * factor) / 100


def _kept(factor: float, size: Size) -> str:
    height, width = larger_size(size, factor)
    return (
        f"large: training images also at {factor:g} times the size ({width}x{height}), so that "
        f"crops (train.crop) stay sharp; they take {factor**2:.2g} times the disk of the others"
    )

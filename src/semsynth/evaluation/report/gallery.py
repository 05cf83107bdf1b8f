"""Which images the page shows: a random choice, the worst and the best, all samples, copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.core.rng import numpy_rng
from semsynth.data.resize import Box, inside_box
from semsynth.evaluation.baselines import MeanColorBaseline
from semsynth.evaluation.copying.alignment import difference_strip
from semsynth.evaluation.inputs.image_set import ImageSet
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.report.album import Array, Shown
from semsynth.evaluation.report.formats import number, share
from semsynth.evaluation.report.per_image import ImageScores, worst_and_best

MAX_SAMPLES = 4
_EXTREMES = 3  # masks that are shown as worst, and as best
_STRIPS = 4
_MAX_STRIP = 16  # samples of one mask
_DISAGREEMENT = np.array([255, 0, 160])  # a colour that no usual palette has
_GAIN = 2  # of differences that are shown


@dataclass(frozen=True)
class Strip:
    """A row of images with its title."""

    title: str
    images: Sequence[Shown]


def random_rows(
    inputs: Inputs, baseline: MeanColorBaseline | None, rows: int, seed: int
) -> list[Strip]:
    """Return randomly chosen masks with their real image, mean colours and samples.

    Args:
        inputs: the images.
        baseline: the mean-colour baseline, if there is one.
        rows: number of masks, at most.
        seed: seed of the choice.
    """
    stems = inputs.masks_order
    chosen = numpy_rng(seed, "gallery").permutation(len(stems))[:rows]
    return [_row(inputs, baseline, stems[i]) for i in sorted(chosen.tolist())]


def _row(inputs: Inputs, baseline: MeanColorBaseline | None, stem: str) -> Strip:
    images = []
    if inputs.masks is not None:
        mask = inputs.masks.read_mask(stem)
        images.append(_mask_image(inputs, stem, mask))
        images.append(_real_image(inputs, stem))
        if baseline is not None:
            flat = baseline.render(mask)
            images.append(Shown("mean colours", flat, f"mean colours of {stem}", flat=True))
    else:
        images.append(_real_image(inputs, stem))
    samples = inputs.by_mask[stem][:MAX_SAMPLES]
    images += [_sample(inputs, sample, f"sample {k + 1}") for k, sample in enumerate(samples)]
    return Strip(stem, images)


def strips(inputs: Inputs, seed: int) -> list[Strip]:
    """Return all samples of some masks that have several, each row with its real image.

    Of a mask with very many samples the first ones are shown, and the title says so.
    """
    stems = [stem for stem in inputs.masks_order if len(inputs.by_mask[stem]) > 1]
    chosen = numpy_rng(seed, "diversity gallery").permutation(len(stems))[:_STRIPS]
    rows = []
    for stem in (stems[i] for i in sorted(chosen.tolist())):
        samples = inputs.by_mask[stem]
        shown = samples[:_MAX_STRIP]
        title = stem if len(shown) == len(samples) else f"{stem}, {len(shown)} of {len(samples)}"
        images = [_real_image(inputs, stem)]
        images += [_sample(inputs, x, f"sample {k + 1}") for k, x in enumerate(shown)]
        rows.append(Strip(title, images))
    return rows


@dataclass(frozen=True)
class EvaluatorScores:
    """What a segmenter finds in the images.

    Attributes:
        evaluator: has ``predict`` of images (B, H, W, 3); called for the images that are shown.
        ids: the classes that are counted.
        scores: of all generated images.
        real_miou: mIoU of the real image by the stem of the mask.
    """

    evaluator: Any
    ids: Sequence[int]
    scores: Sequence[ImageScores]
    real_miou: Mapping[str, float | None]


def extremes(inputs: Inputs, scored: EvaluatorScores) -> list[Strip]:
    """Return the worst and the best masks, with the predicted mask and where it is wrong."""
    worst, best = worst_and_best(scored.scores, _EXTREMES)
    rows = [_extreme(inputs, scored, image, "worst") for image in worst]
    return rows + [_extreme(inputs, scored, image, "best") for image in best]


def _extreme(inputs: Inputs, scored: EvaluatorScores, image: ImageScores, word: str) -> Strip:
    assert inputs.masks is not None
    mask = inputs.masks.read_mask(image.mask)
    pixels = inputs.generated.read_rgb(image.stem)
    predicted = scored.evaluator.predict(pixels[None], mask.shape)[0]
    box = inputs.masks.content_box(image.mask)
    wrong = _wrong_pixels(predicted, mask, box, scored.ids)
    real_miou = scored.real_miou.get(image.mask)
    shown = [
        _mask_image(inputs, image.mask, mask),
        _real_image(inputs, image.mask, f"mIoU {share(real_miou)}"),
        _sample(inputs, image.stem, "sample", f"mIoU {share(image.miou)}"),
        Shown(
            "segmenter's mask",
            colour_ids(inputs, predicted),
            f"mask that the segmenter predicts for {image.stem}",
            flat=True,
        ),
        Shown(
            "disagreement",
            _mark(_at_size(pixels, mask.shape), wrong),
            f"{image.stem} with the pixels marked where the segmenter disagrees with the mask",
            f"{share(float(wrong.mean()))} of pixels",
        ),
    ]
    return Strip(f"{word}: {image.mask}", shown)


def colour_ids(inputs: Inputs, ids_HW: Array) -> Array:
    """Return predicted ids (H, W) in the colours of their classes; unknown ids are black."""
    assert inputs.labels is not None
    ids = list(inputs.labels.by_id)
    known = np.isin(ids_HW, ids)
    colours = inputs.labels.colorize(np.where(known, ids_HW, ids[0]))
    return np.where(known[..., None], colours, 0).astype(np.uint8)


def _wrong_pixels(
    predicted_HW: Array, mask_HW: Array, box: Box, ids: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """Return where a prediction is wrong, of the content's pixels of the classes ``ids``."""
    inside = inside_box(box, (mask_HW.shape[0], mask_HW.shape[1]))
    counted = np.isin(mask_HW, list(ids))
    return np.asarray((predicted_HW != mask_HW) & inside & counted)


def _mark(pixels_HW3: Array, wrong_HW: Array) -> Array:
    """Return a greyed image with the wrong pixels in a strong colour."""
    grey = 0.5 * pixels_HW3.mean(-1, keepdims=True).repeat(3, -1) + 0.5 * pixels_HW3
    marked = 0.3 * pixels_HW3 + 0.7 * _DISAGREEMENT
    return np.where(wrong_HW[..., None], marked, grey).round().astype(np.uint8)


def nearest_pairs(
    inputs: Inputs, training: ImageSet, closest: Sequence[Mapping[str, Any]]
) -> list[Strip]:
    """Return the generated images that are nearest to a training image, beside it.

    Args:
        inputs: the images.
        training: the training images.
        closest: ``metrics.copies.closest`` of the report.
    """
    rows = []
    for pair in closest:
        pixels = inputs.generated.read_rgb(pair["sample"])
        strip = difference_strip(pixels, training.read_rgb(pair["training"]))
        _, shown, rest = np.split(strip, 3, axis=1)
        difference = cv2.convertScaleAbs(rest, alpha=_GAIN)
        names = f"{pair['sample']} and training image {pair['training']}"
        note = f"distance {number(pair.get('distance'))}, ratio {number(pair.get('ratio'))}"
        what = "generated, a copy" if pair.get("is_copy") else "generated"
        images = [
            Shown(what, pixels, f"generated image {pair['sample']}", note),
            Shown("training image", shown, f"training image {pair['training']}"),
            Shown(f"difference x{_GAIN}", difference, f"difference between {names}"),
        ]
        rows.append(Strip(f"{pair['sample']} and {pair['training']}", images))
    return rows


def _mask_image(inputs: Inputs, stem: str, mask: Array) -> Shown:
    assert inputs.labels is not None
    return Shown("mask", inputs.labels.colorize(mask), f"mask of {stem}", flat=True)


def _real_image(inputs: Inputs, stem: str, note: str = "") -> Shown:
    return Shown("real", inputs.real.read_rgb(stem), f"real image of {stem}", note)


def _sample(inputs: Inputs, stem: str, caption: str, note: str = "") -> Shown:
    return Shown(caption, inputs.generated.read_rgb(stem), f"{caption}, {stem}", note)


def _nearest(ids: Array, size: tuple[int, ...]) -> Array:
    if ids.shape == tuple(size):
        return ids
    resized = cv2.resize(
        ids.astype(np.int32), (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return np.asarray(resized)


def _at_size(pixels: Array, size: tuple[int, ...]) -> Array:
    if pixels.shape[:2] == tuple(size):
        return pixels
    return cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA)

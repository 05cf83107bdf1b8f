"""`semsynth evaluate --codec-only`: the reconstruction error of a codec, without diffusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch.nn.functional import pad

from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError
from semsynth.core.files import write_text
from semsynth.core.outputs import Output, write_result
from semsynth.core.rng import numpy_rng
from semsynth.data.dataset import PreparedDataset
from semsynth.data.resize import Box
from semsynth.evaluation.accumulate import (
    SEGMENTER,
    EvalSample,
    MetricAccumulator,
    SetStatistics,
)
from semsynth.evaluation.config import DEFAULT_SEGMENTER, EvaluateConfig
from semsynth.evaluation.distances import FeatureSets, frechet_entry
from semsynth.evaluation.evaluators import Evaluator, open_evaluators
from semsynth.evaluation.inputs.image_set import PreparedImages
from semsynth.evaluation.metrics.blocks import Blocks, blocks_of
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.evaluation.report.about import protocol_entries, provenance
from semsynth.evaluation.report.album import Shown, encode
from semsynth.evaluation.report.classes import class_table
from semsynth.evaluation.report.consistency import ScoredSet, consistency
from semsynth.evaluation.report.entries import MIOU, SEGMENTER_FEATURES, versions
from semsynth.evaluation.report.formats import interval, number
from semsynth.evaluation.report.gallery import Strip
from semsynth.evaluation.report.page import REPORT_HTML, REPORT_JSON, fill_template, legend
from semsynth.models.codecs.codec import Codec, make_codec, normalize_images, open_codec
from semsynth.models.codecs.vae import VaeCodec, load_vae
from semsynth.models.config import whole_size
from semsynth.pipelines.formats.model_file import load_checkpoint
from semsynth.pipelines.outputs import crop_to, to_pixels

Json = dict[str, Any]
Pixels = npt.NDArray[np.uint8]
# Side in pixels of the part of a large image that is shown at full resolution.
WINDOW = 256
# The differences that are shown are multiplied by this.
_GAIN = 8


def evaluate_codec(config: EvaluateConfig) -> Json:
    """Encode and decode the real images of a split, and score the reconstructions.

    Returns:
        The content of report.json: ``codec``, ``metrics.reconstruction`` (PSNR, errors) and
        ``metrics.semantic_consistency``, whose ``per_class`` is sorted by the loss of IoU.

    Raises:
        UserError: data, segmenter or codec are missing or do not belong together.
    """
    data = PreparedDataset.open(config.data_folder)
    _check_images(data, config.split)
    codec = open_chosen_codec(config)
    round_trip = CodecRoundTrip(data, config.split, codec, pick_device(config.device))
    sources = config.segmenters[:1] or (str(DEFAULT_SEGMENTER),)
    (evaluator,) = open_evaluators(sources, data.labels, config.label_map, config.device)
    output = _output(config, data, codec, evaluator)
    output.claim()
    stems = data.stems(config.split)
    accumulator = MetricAccumulator([evaluator], (), config.batch_size)
    real = accumulator.measure(_reader(round_trip, False), len(stems), "real images")
    rebuilt = accumulator.measure(_reader(round_trip, True), len(stems), "reconstructions")
    images = PreparedImages(data, config.split, stems)
    blocks = blocks_of(stems, [images.group(stem) for stem in stems])
    missing: dict[str, str] = {}
    report: Json = {
        "format": 1,
        "dataset": data.info.name,
        "checkpoint": None,  # there is no generator
        "codec": _describe(codec, data, config),
        "n_masks": real.n,
        "n_generated": 0,
        "metrics": {
            "semantic_consistency": _consistency(real, rebuilt, evaluator, blocks, config.seed),
            "reconstruction": round_trip.error.summary(missing),
            "frechet": _distance(real, rebuilt) if evaluator.has_features else {},
        },
        "controls": {},
        "missing": missing,
        **_provenance(data, config, blocks),
    }
    rows = _gallery(round_trip, config.rows, config.seed)
    write_text(config.output / REPORT_HTML, _page(report, rows, data))
    write_result(config.output, REPORT_JSON, report)
    output.complete()
    return report


def _distance(real: SetStatistics, rebuilt: SetStatistics) -> Json:
    """Return the Frechet distance of the reconstructions on the segmenter's features."""
    rows, others = rebuilt.rows(SEGMENTER), real.rows(SEGMENTER)
    entry, _ = frechet_entry(FeatureSets(rows, rows, others, None, None), SEGMENTER_FEATURES)
    return {SEGMENTER: entry}


def _page(report: Json, rows: list[Strip], data: PreparedDataset) -> str:
    consistency, colours = report["metrics"]["semantic_consistency"], legend(data.labels)
    notes = [*protocol_entries(report), *provenance(report)]
    for key, title in (("miou_real", "original"), ("miou", "reconstruction")):
        ends = interval(consistency.get(f"{key}_interval"))
        notes.append((f"95% interval of mIoU, {title}", ends))
    distance = report["metrics"]["frechet"].get(SEGMENTER)
    if distance is not None:
        text = f"{number(distance['value'])} on the segmenter's features, 0 is equal"
        notes.append(("Fréchet distance", text))
    return fill_template(
        "codec.html.j2",
        title=f"semsynth codec report: {report['dataset']}",
        report=report,
        classes=class_table(consistency, dict(colours), "reconstruction"),
        rows=rows,
        legend=colours,
        provenance=notes,
    )


def _check_images(data: PreparedDataset, split: str) -> None:
    if not data.pixels.is_rgb:
        raise UserError(
            f"{data.root}: images have {data.pixels}; codecs are scored on RGB of 8 bits"
        )
    if not data.has_images(split) or not data.stems(split):
        raise UserError(
            f"{data.root}: split '{split}' has masks without images; choose another --split"
        )


def _output(
    config: EvaluateConfig, data: PreparedDataset, codec: Codec, evaluator: Evaluator
) -> Output:
    """Return the folder of the report, and what decides it."""
    splits, kinds = [config.split], ("images", "masks")
    key = {
        "format": 2,
        "data": data.digest_of(splits, kinds),
        "codec": dict(codec.key),
        "judge": evaluator.key,
        **{name: getattr(config, name) for name in ("split", "seed", "rows", "batch_size")},
    }
    inputs = {"data": data.digests(splits, kinds)}
    return Output(config.output, "codec_report", key, inputs, config.overwrite)


def open_chosen_codec(config: EvaluateConfig) -> Codec:
    """Return the codec that --codec, --vae or --model chooses.

    Raises:
        UserError: an autoencoder or a model that cannot be loaded.
    """
    if config.vae is not None:
        return load_vae(config.vae)
    if config.model is not None:
        return open_codec(load_checkpoint(config.model).model)
    return make_codec(config.codec or "haar")


@dataclass
class ReconstructionError:
    """Differences between the images of a split and their reconstructions.

    Attributes:
        psnr: in dB, by image; infinite for equal images.
        squares: sum of the squared errors of all 8-bit values.
        values: number of values (pixels times 3).
        largest: largest absolute error, 0 to 255.
    """

    psnr: dict[str, float] = field(default_factory=dict)
    squares: float = 0.0
    values: int = 0
    largest: int = 0

    def update(self, stem: str, real: Pixels, rebuilt: Pixels, box: Box) -> None:
        """Add an image (H, W, 3) and its reconstruction, inside its content box."""
        top, left, height, width = box
        inside = (slice(top, top + height), slice(left, left + width))
        real, rebuilt = real[inside], rebuilt[inside]
        difference = real.astype(np.int32) - rebuilt
        self.squares += float((difference**2).sum())
        self.values += difference.size
        self.largest = max(self.largest, int(np.abs(difference).max()))
        if difference.any():
            self.psnr[stem] = float(peak_signal_noise_ratio(real, rebuilt, data_range=255))
        else:
            self.psnr[stem] = float("inf")

    def summary(self, missing: dict[str, str]) -> Json:
        """Return the errors as JSON values; why one is missing goes to ``missing``."""
        changed = {stem: value for stem, value in self.psnr.items() if np.isfinite(value)}
        errors: Json = {
            "mse": round(self.squares / self.values, 6),
            "largest_error": self.largest,
            "n_unchanged": len(self.psnr) - len(changed),
        }
        if not changed:
            missing["psnr"] = "infinite: all images are reconstructed exactly"
            return errors
        worst = min(changed, key=lambda stem: changed[stem])
        return {
            "psnr": round(float(np.mean(list(changed.values()))), 4),
            "psnr_worst": {"image": worst, "value": round(changed[worst], 4)},
            **errors,
        }


@dataclass(frozen=True)
class CodecRoundTrip:
    """The images of a split, encoded and decoded; ``error`` accumulates their errors."""

    data: PreparedDataset
    split: str
    codec: Codec
    device: torch.device
    error: ReconstructionError = field(default_factory=ReconstructionError)

    @torch.no_grad()
    def reconstruct(self, image_HW3: Pixels) -> Pixels:
        """Return an image encoded and decoded.

        Sides that are not multiples of the codec's downscale are padded as in sampling, and
        cropped again. The padding repeats the last row and column: a constant border would be an
        edge to encode.
        """
        size = (image_HW3.shape[0], image_HW3.shape[1])
        height, width = whole_size(size, self.codec.downscale)
        pixels = torch.from_numpy(image_HW3).to(self.device).permute(2, 0, 1)[None]
        padding = (0, width - size[1], 0, height - size[0])
        padded = pad(normalize_images(pixels, self.codec.image_bits), padding, mode="replicate")
        image = crop_to(self.codec.decode(self.codec.encode(padded)), size)
        return np.ascontiguousarray(to_pixels(image.clamp(-1, 1))[0])


def _reader(round_trip: CodecRoundTrip, rebuilt: bool) -> Callable[[int], EvalSample]:
    """Return a function that reads an image by its number, or its reconstruction."""
    data, split = round_trip.data, round_trip.split
    stems = data.stems(split)

    def read(number: int) -> EvalSample:
        stem = stems[number]
        image, box = data.read_image(split, stem), data.content_box(split, stem)
        if rebuilt:
            real, image = image, round_trip.reconstruct(image)
            round_trip.error.update(stem, real, image, box)
        return EvalSample(image, number, (data.read_mask(split, stem), box))

    return read


def _describe(codec: Codec, data: PreparedDataset, config: EvaluateConfig) -> Json:
    whole = whole_size((data.height, data.width), codec.downscale)
    size = (whole[0] // codec.downscale, whole[1] // codec.downscale)
    values = codec.channels * size[0] * size[1]
    return {
        **codec.key,
        "source": codec.source if isinstance(codec, VaeCodec) else None,
        "model": None if config.model is None else str(config.model),
        "encoded_size": list(whole),
        "latent": [codec.channels, *size],
        "downscale": codec.downscale,
        "values_per_latent_value": round(3 * data.height * data.width / values, 4),
    }


def _provenance(data: PreparedDataset, config: EvaluateConfig, blocks: Blocks) -> Json:
    return {
        "split": config.split,
        "image_size": [data.height, data.width],
        "seed": config.seed,
        "licence": data.info.licence,
        "protocol": {
            "psnr": "8-bit RGB inside the content box, by image (scikit-image); mean over the "
            "images that are not reconstructed exactly",
            "miou": MIOU,
            "intervals": blocks.interval_sentence,
        },
        "versions": versions(),
    }


def _consistency(
    real: SetStatistics, rebuilt: SetStatistics, evaluator: Evaluator, blocks: Blocks, seed: int
) -> Json:
    """Return the scores of the reconstructions, and of the real images, with their losses."""
    resampling = Resampling.of(blocks, seed)
    first, second = (
        ScoredSet(found.scores, real.n, resampling)
        for found in (rebuilt, real)
        if found.scores is not None
    )
    return _with_costs(consistency(first, second, None, evaluator))


def _with_costs(scores: Json) -> Json:
    """Add the loss of IoU of each class, and sort the classes by it, largest first."""
    costs = {
        name: {**entry, "cost": round((entry["iou_real"] or 0.0) - (entry["iou"] or 0.0), 6)}
        for name, entry in scores["per_class"].items()
    }
    order = sorted(costs, key=lambda name: -costs[name]["cost"])
    return {
        **scores,
        "miou_cost": round(scores["miou_real"] - scores["miou"], 6),
        "per_class": {name: costs[name] for name in order},
    }


def _gallery(round_trip: CodecRoundTrip, rows: int, seed: int) -> list[Strip]:
    """Show the part with the largest error of randomly chosen images, at full resolution."""
    data, split = round_trip.data, round_trip.split
    stems = data.stems(split)
    chosen = numpy_rng(seed, "gallery").permutation(len(stems))[:rows]
    table = []
    for stem in (stems[i] for i in sorted(chosen.tolist())):
        real = data.read_image(split, stem)
        rebuilt = round_trip.reconstruct(real)
        difference = cv2.absdiff(real, rebuilt)
        window = _worst_window(difference)
        shown = {
            "mask": data.labels.colorize(data.read_mask(split, stem)),
            "real": real,
            "reconstruction": rebuilt,
            f"difference x{_GAIN}": cv2.convertScaleAbs(difference, alpha=_GAIN),
        }
        images = [
            Shown(name, image[window], f"{name} of {stem}", flat=name == "mask")
            for name, image in shown.items()
        ]
        table.append(Strip(stem, images))
    encode([image for strip in table for image in strip.images])
    return table


def _worst_window(difference_HW3: npt.NDArray[Any]) -> tuple[slice, slice]:
    """Return the rows and columns, at most WINDOW each, with the largest squared error."""
    height, width = (min(side, WINDOW) for side in difference_HW3.shape[:2])
    total = cv2.integral((difference_HW3.astype(np.float64) ** 2).sum(-1))
    sums = total[height:, width:] - total[:-height, width:]
    sums = sums - (total[height:, :-width] - total[:-height, :-width])
    top, left = (int(i) for i in np.unravel_index(int(sums.argmax()), sums.shape))
    return slice(top, top + height), slice(left, left + width)

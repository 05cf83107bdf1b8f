"""`semsynth evaluate`: all scores of a folder of generated pictures, and the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from semsynth.data.prepared import PreparedDataset
from semsynth.evaluate import diversity
from semsynth.evaluate.charts import read_curves
from semsynth.evaluate.codec import evaluate_codec
from semsynth.evaluate.config import EvaluateConfig
from semsynth.evaluate.controls import MeanColours, derangement
from semsynth.evaluate.features import Extractor, extractors
from semsynth.evaluate.measure import SEGMENTER, Item, Judge, Measured
from semsynth.evaluate.pairs import Pairs, open_pairs
from semsynth.evaluate.report import write_report
from semsynth.evaluate.scores import (
    consistency,
    distance_entry,
    frechet_distances,
    inception_scores,
    summary,
    versions,
)
from semsynth.evaluate.weights import Unavailable
from semsynth.runtime.artifacts import claim_output, read_json
from semsynth.runtime.errors import UserError
from semsynth.runtime.rng import numpy_rng
from semsynth.segment.batches import check_same_labels
from semsynth.segment.network import Segmenter

FORMAT = 1
Json = dict[str, Any]


def evaluate(config: EvaluateConfig) -> Json:
    """Do what `semsynth evaluate` says.

    Returns:
        The content of report.json (docs/design.md, Report).

    Raises:
        UserError: samples, data or segmenter are missing or do not belong together, a file that
            was named cannot be used, or the output belongs to something else.
    """
    if config.codec_only:
        return evaluate_codec(config)
    pairs = open_pairs(config)
    segmenter = Segmenter.load(config.segmenter, config.device)
    check_same_labels(pairs.data.labels, segmenter.labels, str(pairs.data.root), "the segmenter")
    augmentation = None if config.augmentation is None else read_json(config.augmentation)
    curves = [] if config.run is None else read_curves(config.run)
    found, missing = extractors(config)
    claim_output(config.output, "report", {})
    judge = Judge(segmenter, found, config.batch_size)
    real, generated = _measure_pairs(judge, pairs, config.seed)
    reference = _measure_training(judge, pairs, config)
    painter = _painter(pairs.data, config.train_split, missing)
    painted = None if painter is None else _measure_painted(judge, pairs, painter)

    metrics: Json = {"semantic_consistency": consistency(real, generated, segmenter, config.seed)}
    metrics |= inception_scores(real, generated, reference, found, config.seed, missing)
    metrics |= _lpips(config, pairs, missing)
    metrics["frechet"] = frechet_distances(generated, real, reference, judge, missing)
    report: Json = {
        "format": FORMAT,
        "dataset": pairs.data.info.name,
        "checkpoint": pairs.made.get("checkpoint"),
        "n_masks": real.n,
        "n_generated": generated.n,
        "metrics": metrics,
        "controls": _controls(generated, painted, real, judge, missing),
        "diversity": _diversity(pairs, missing),
        "missing": missing,
        **_provenance(pairs, config, found, painter),
    }
    if augmentation is not None:
        report["augmentation"] = augmentation
    write_report(report, pairs, painter, config, curves)
    return report


def _measure_pairs(judge: Judge, pairs: Pairs, seed: int) -> tuple[Measured, Measured]:
    """Measure the real pictures of the masks, and the samples against own and other masks."""
    data, samples, split = pairs.data, pairs.samples, pairs.split
    masks = pairs.masks
    number = {mask: i for i, mask in enumerate(masks)}
    partner = derangement(len(masks), seed) if len(masks) > 1 else None

    def own(folder: PreparedDataset, stem: str) -> tuple[Any, Any]:
        return folder.read_mask(split, stem), folder.content_box(split, stem)

    def real_items() -> Iterator[Item]:
        for i, mask in enumerate(masks):
            yield Item(data.read_image(split, mask), i, own(data, mask))

    def sample_items() -> Iterator[Item]:
        for stem, mask in pairs.shots:
            i = number[mask]
            other = None if partner is None else own(data, masks[partner[i]])
            yield Item(samples.read_image(split, stem), i, own(samples, stem), other)

    real = judge.measure(real_items(), len(masks), "real pictures")
    return real, judge.measure(sample_items(), len(pairs.shots), "generated pictures")


def _measure_training(judge: Judge, pairs: Pairs, config: EvaluateConfig) -> Measured | None:
    """Measure real pictures of the training split, at the most as many as there are samples."""
    data, split = pairs.data, config.train_split
    if split not in data.splits() or split == config.split or not data.has_images(split):
        return None
    stems = data.stems(split)
    order = numpy_rng(config.seed, "reference").permutation(len(stems))[: len(pairs.shots)]
    items = (Item(data.read_image(split, stems[i])) for i in sorted(order.tolist()))
    return judge.measure(items, len(order), "training pictures")


def _painter(data: PreparedDataset, split: str, missing: dict[str, str]) -> MeanColours | None:
    try:
        return MeanColours.of(data, split)
    except UserError as error:
        missing["mean_colours"] = str(error)
        return None


def _measure_painted(judge: Judge, pairs: Pairs, painter: MeanColours) -> Measured:
    data, split = pairs.data, pairs.split

    def items() -> Iterator[Item]:
        for i, stem in enumerate(pairs.masks):
            mask = data.read_mask(split, stem)
            yield Item(painter.paint(mask), i, (mask, data.content_box(split, stem)))

    return judge.measure(items(), len(pairs.masks), "mean colours")


def _lpips(config: EvaluateConfig, pairs: Pairs, missing: dict[str, str]) -> Json:
    try:
        value, n = diversity.lpips_within_mask(pairs, diversity.load_lpips(config, pairs))
    except Unavailable as reason:
        missing["lpips_diversity"] = str(reason)
        return {}
    about = "LPIPS v0.1, AlexNet; mean over the pairs of samples of one mask"
    return {"lpips_diversity": {"value": round(value, 6), "n_pairs": n, "features": about}}


def _controls(
    generated: Measured,
    painted: Measured | None,
    real: Measured,
    judge: Judge,
    missing: dict[str, str],
) -> Json:
    controls: Json = {}
    if real.n > 1:
        controls["shuffled_masks"] = summary(generated.other)
    else:
        missing["shuffled_masks"] = "needs at least two masks"
    if painted is not None:
        distances = {
            name: distance_entry(painted, real, None, name) for name in judge.feature_names
        }
        controls["mean_colours"] = {
            **summary(painted.matrix),
            "frechet": {name: entry for name, entry in distances.items() if entry is not None},
        }
    return controls


def _diversity(pairs: Pairs, missing: dict[str, str]) -> Json:
    try:
        return {"pixel_std_within_mask": round(diversity.pixel_std_within_mask(pairs), 6)}
    except Unavailable as reason:
        missing["pixel_std_within_mask"] = str(reason)
        return {}


def _provenance(
    pairs: Pairs, config: EvaluateConfig, found: list[Extractor], painter: MeanColours | None
) -> Json:
    features = {SEGMENTER: "the evaluating segmenter: means of its coarsest and its last features"}
    features |= {extractor.name: extractor.about for extractor in found}
    return {
        "split": config.split,
        "image_size": [pairs.data.height, pairs.data.width],
        "seed": config.seed,
        "licence": pairs.data.info.licence,
        "made_with": pairs.made,
        "features": features,
        "protocol": {
            "miou": "pixels summed over all pictures; mean over the classes that the masks have; "
            "unlabelled pixels and padding are not counted",
            "frechet": "Gaussians with unbiased covariances, against the real pictures of the "
            "same masks",
            "mean_colours": f"means over {painter.n if painter else 0} pictures of "
            f"'{config.train_split}'",
            "intervals": "95%, moving-block bootstrap over the masks, 1000 draws",
        },
        "versions": versions(),
    }

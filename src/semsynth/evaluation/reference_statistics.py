"""Statistics of a set of real images in a file: `evaluate stats`, and reports against such a file.

    real.npz     mu (D,), sigma (D, D), n, features, resize, weights

``mu`` and ``sigma`` are those of pytorch-fid's files, which can be read, too: they are of its own
Inception-v3 and resize, of an unknown number of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semsynth.core.arrays import arrays_of
from semsynth.core.errors import Unavailable, UserError, abbreviate
from semsynth.core.files import atomic_path, unreadable, write_text
from semsynth.core.logging import progress
from semsynth.core.outputs import Output, write_result
from semsynth.data.content import digest_bytes
from semsynth.evaluation.config import EvaluateConfig, StatsConfig
from semsynth.evaluation.distances import ENOUGH_IMAGES, FEW_IMAGES
from semsynth.evaluation.inputs.folders import image_files, matching_folders
from semsynth.evaluation.inputs.image_set import FolderImages, ImageSet, PreparedImages, digest_of
from semsynth.evaluation.inputs.inputs import is_prepared
from semsynth.evaluation.metrics.features import FID, FeatureExtractor, Floats, open_extractors
from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from semsynth.evaluation.metrics.subsampling import frechet_infinity
from semsynth.evaluation.protocols import Protocol, choose_protocol
from semsynth.evaluation.report.entries import versions
from semsynth.evaluation.report.page import REPORT_HTML, REPORT_JSON, Album, render
from semsynth.evaluation.report.verdict import sentences
from semsynth.pipelines.generate.sample_store import spread

Json = dict[str, Any]
# Of a file of pytorch-fid, which does not say how many images it is of: enough for no bias.
_MANY = 10**9
_INCEPTION_DIMENSIONS = 2048


@dataclass(frozen=True)
class ReferenceStatistics:
    """The statistics of a set of real images on the features of one network.

    Attributes:
        statistics: mean and scatter.
        n: number of images; None: the file does not say.
        features: name of the Frechet distance on these features.
        resize: how images were brought to the network's size.
        weights: SHA-256 of the network's weights; empty: the file does not say.
    """

    statistics: FeatureStatistics
    n: int | None
    features: str
    resize: str
    weights: str

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                mu=self.statistics.mean,
                sigma=self.statistics.covariance,
                n=np.array(self.statistics.n),
                features=np.array(self.features),
                resize=np.array(self.resize),
                weights=np.array(self.weights),
            )

    @classmethod
    def load(cls, path: Path) -> ReferenceStatistics:
        """Read a file of `evaluate stats` or of pytorch-fid.

        Raises:
            UserError: the file is missing, is not one of these, or holds impossible numbers.
        """
        try:
            found = arrays_of(path.read_bytes())
            mu, sigma = found["mu"], found["sigma"]
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; `semsynth evaluate stats` makes one") from None
        except OSError as error:
            raise unreadable(path, error) from None
        except (ValueError, KeyError):
            raise UserError(
                f"{path}: is not a file of statistics with keys mu and sigma (or is cut short); "
                "make it with `semsynth evaluate stats DIR -o FILE.npz`"
            ) from None
        if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
            raise UserError(f"{path}: mu {mu.shape} and sigma {sigma.shape} do not fit together")
        if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
            raise UserError(f"{path}: mu or sigma has NaN or infinite numbers; compute it again")
        words = {name: str(found.get(name, "")) for name in ("features", "resize", "weights")}
        if not words["features"]:
            if len(mu) != _INCEPTION_DIMENSIONS:
                raise UserError(
                    f"{path}: does not record what its {len(mu)} features are; pytorch-fid's files "
                    f"have {_INCEPTION_DIMENSIONS}; make it with `semsynth evaluate stats`"
                )
            words |= {"features": FID, "resize": "pytorch"}
        n = int(found["n"]) if "n" in found else None
        statistics = FeatureStatistics.from_covariance(n or _MANY, mu, sigma)
        return cls(statistics, n, **words)

    def check(self, extractors: Sequence[FeatureExtractor], where: str) -> FeatureExtractor:
        """Return the extractor that the statistics are of.

        Raises:
            UserError: none of them has the same features, resize and weights.
        """
        found = {extractor.name: extractor for extractor in extractors}
        extractor = found.get(self.features)
        if extractor is None:
            raise UserError(
                f"{where}: has statistics of {self.features}, and {' and '.join(found) or 'none'} "
                "can be measured here; give the same --features, --resize and weights, or make the "
                "statistics again"
            )
        if extractor.resize != self.resize:
            raise UserError(
                f"{where}: its images were resized by '{self.resize}', here by "
                f"'{extractor.resize}'; give the same --resize, or make the statistics again"
            )
        if self.weights and extractor.weights != self.weights:
            raise UserError(
                f"{where}: its features are of weights {self.weights[:16]}, here of "
                f"{extractor.weights[:16]}; give the same weights, or make the statistics again"
            )
        return extractor


def write_statistics(config: StatsConfig) -> Json:
    """Run `semsynth evaluate stats`.

    Returns:
        What the file says: ``n``, ``features``, ``resize``, ``weights``, ``dimensions``, and its
        place.

    Raises:
        UserError: no images, one that cannot be read, a network that is not there, features that
            are not finite, or a file that is there already.
    """
    if config.output.suffix != ".npz":
        raise UserError(f"--output {config.output}: give the name of a file that ends in .npz")
    if config.output.exists() and not config.overwrite:
        raise UserError(f"{config.output}: exists already; give another --output, or --overwrite")
    images = _open_images(config.folder, config.split, config.max)
    extractor = _chosen_extractor(config)
    images.check()
    total = FeatureStatistics.of(np.zeros((0, 1)))
    for rows in _features(images, extractor, config.batch_size):
        total = total + FeatureStatistics.of(rows)
    found = ReferenceStatistics(total, total.n, extractor.name, extractor.resize, extractor.weights)
    found.save(config.output)
    said = {name: getattr(found, name) for name in ("n", "features", "resize", "weights")}
    return {**said, "dimensions": len(total.mean), "output": str(config.output)}


def _open_images(folder: Path, split: str, most: int | None) -> ImageSet:
    images: ImageSet
    if is_prepared(folder):
        images = PreparedImages.open(folder, split)
    else:
        images = FolderImages(folder.name, str(folder), image_files(folder, "DIR"))
    images = images.of(spread(images.stems, most))
    if len(images.stems) < 2:
        raise UserError(f"{folder}: has 1 image that counts; statistics need at least 2")
    return images


def _chosen_extractor(config: StatsConfig) -> FeatureExtractor:
    """Return the network of --features: Inception-v3, Lite2, or a Transformers model."""
    own = config.features in ("inception", "lite2")
    settings = EvaluateConfig(
        features=() if own else (config.features,),
        inception=config.inception,
        weights=config.weights,
        download=config.download and config.features == "inception",
        device=config.device,
    )
    extractors, missing = open_extractors(settings, config.resize)
    if not own:
        return extractors[-1]
    for extractor in extractors:
        if extractor.is_inception == (config.features == "inception"):
            return extractor
    lite2 = config.features == "lite2"
    reason = next(why for name, why in missing.items() if ("lite2" in name) == lite2)
    raise UserError(f"--features {config.features}: {reason}")


def _features(images: ImageSet, extractor: FeatureExtractor, batch_size: int) -> Iterator[Floats]:
    """Yield the features of a few thousand images at a time; of the rest no memory is taken."""
    waiting: list[Floats] = []
    starts = range(0, len(images.stems), batch_size)
    for start in progress(starts, "images", len(starts), "batch"):
        stems = images.stems[start : start + batch_size]
        rows = extractor.extract([images.read_rgb(stem) for stem in stems])
        wrong = np.flatnonzero(~np.isfinite(rows).all(1)).tolist()
        if wrong:
            raise UserError(
                f"{extractor.name}: features of {abbreviate([stems[i] for i in wrong], 5)} are not "
                "finite numbers (NaN or infinity); try --device cpu, or leave these images out"
            )
        waiting.append(rows)
        if sum(map(len, waiting)) >= 4096:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def evaluate_against_statistics(config: EvaluateConfig) -> Json:
    """Score generated images against a file of statistics: the Frechet distance alone.

    Returns:
        The content of report.json. What needs the real images themselves is ``missing``.

    Raises:
        UserError: the file is of other features, resize or weights, or images cannot be read.
    """
    assert config.real is not None
    protocol = _check_flags(config)
    reference = ReferenceStatistics.load(config.real)
    folders = matching_folders(config.generated_folders, "--generated")
    if len(folders) > 1:
        raise UserError("--generated: give one folder where --real is a file of statistics")
    images = _open_images(folders[0], config.split, config.max)
    extractors, missing = open_extractors(config, protocol.resize)
    extractor = reference.check(extractors, str(config.real))
    images.check()
    key = {"real": _digest(reference), "generated": digest_of(images), "seed": config.seed}
    output = Output(config.output, "report", key, {}, config.overwrite)
    output.check()
    rows = np.concatenate(list(_features(images, extractor, config.batch_size)))
    report = {
        **_report(reference, rows, extractor, config),
        "image_size": list(images.size(images.stems[0])),
        "protocol": {**protocol.to_json(), "frechet": "Gaussians with unbiased covariances"},
    }
    report["missing"] |= {name: why for name, why in missing.items() if name in report["missing"]}
    report["verdict"] = sentences(report)
    output.claim()
    write_text(config.output / REPORT_HTML, render(report, Album()))
    write_result(config.output, REPORT_JSON, report)
    output.complete()
    return report


def _check_flags(config: EvaluateConfig) -> Protocol:
    """Refuse what needs the real images themselves; return the protocol."""
    for flag in ("masks", "train", "labels", "data", "segmenter"):
        if getattr(config, flag):
            raise UserError(
                f"--{flag}: {config.real} has only statistics, no images to compare with; give "
                "the folder of the real images as --real"
            )
    protocol = choose_protocol(config.protocol, config.protocol_flags)
    if protocol.distance_size is not None:
        raise UserError(
            f"--protocol {config.protocol}: resizes images, and {config.real} has statistics of "
            "images as they are; give the folder of the real images as --real"
        )
    return protocol


def _report(
    reference: ReferenceStatistics,
    rows: Floats,
    extractor: FeatureExtractor,
    config: EvaluateConfig,
) -> Json:
    assert config.real is not None
    value = frechet_distance(FeatureStatistics.of(rows), reference.statistics)
    entry: Json = {
        "value": round(value, 8),
        "n_generated": len(rows),
        "dimensions": rows.shape[1],
        "features": f"{extractor.about}; against the statistics in {config.real.name}",
    }
    if reference.n is not None:
        entry["n_real"] = reference.n
    fewest = min(len(rows), reference.n or len(rows))
    if fewest < ENOUGH_IMAGES:
        entry["few_images"] = FEW_IMAGES.format(n=f"{fewest:,}")
    needs_images = f"needs the real images; {config.real.name} has statistics alone"
    missing = {name: needs_images for name in (extractor.kernel_name, "prdc", "lpips_diversity")}
    missing["semantic_consistency"] = "needs masks: --masks (and --labels)"
    try:
        entry["infinity"] = asdict(frechet_infinity(rows, reference.statistics, seed=config.seed))
    except Unavailable as reason:
        missing[f"{extractor.name}_infinity"] = str(reason)
    inception = extractor.is_inception
    metrics = {extractor.name: entry} if inception else {"frechet": {extractor.name: entry}}
    return {
        "format": 1,
        "n_masks": 0,
        "n_generated": len(rows),
        "n_training": 0,
        "metrics": metrics,
        "controls": {},
        "diversity": {},
        "missing": missing,
        "dataset": config.real.name,
        "checkpoint": None,
        "split": config.split,
        "seed": config.seed,
        "licence": "",
        "made_with": {},
        "features": {extractor.name: extractor.about},
        "versions": versions(),
    }


def _digest(reference: ReferenceStatistics) -> str:
    stored = reference.statistics
    return digest_bytes(stored.mean.tobytes() + stored.scatter.tobytes())

"""The entries of report.json for distances between sets of images.

Two references, each with what it can be read against (docs/how-to/evaluation.md). Against the
training images: generated images beside held-out real images of the same masks, equally many. And
against the real images of the same masks, as papers do: no real images could be put beside that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from semsynth.core.errors import Unavailable
from semsynth.evaluation.accumulate import SetStatistics
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.metrics import kernel, manifold, subsampling
from semsynth.evaluation.metrics.features import Floats
from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance

Json = dict[str, Any]
TOO_FEW = "needs at least two images in each set"
# Below it KID is read first.
ENOUGH_IMAGES = 2000
# Of two sets of one normal distribution in 64 dimensions with equal variances (tests/evaluation).
FEW_IMAGES = (
    "{n} images, fewer than 2,000: fewer images alone make a Frechet distance larger. Two sets of "
    "one distribution in 64 dimensions, truly 0 apart, have 22 at 100 images and 1.1 at 2,000. "
    "Read the kernel distance first, and compare only equal numbers of images"
)
_NEARER = (
    "the generated images are nearer to the training images than held-out real images of the same "
    "masks are, by more than two standard errors: a sign of copies, not a success"
)


@dataclass(frozen=True)
class FeatureSets:
    """The features (N, D) of the sets that are compared, and the blocks that images come in.

    Attributes:
        generated: of the samples that the protocol takes; by default of all.
        first: of the first sample of each mask, in the order of ``real``.
        real: of the real images of the masks that the protocol takes; by default of all.
        training: of the training images, if there are any.
        mean_colours: of the mean-colour images of the masks, if there are any.
        blocks: (N,) number of the block of each real image (a film, field, tile); None: blocks of
            neighbours.
        sample_blocks: the same of the samples.
        covariance: in which precision the protocol computes means and covariances.
    """

    generated: Floats
    first: Floats
    real: Floats
    training: Floats | None
    mean_colours: Floats | None
    blocks: subsampling.Integers | None = None
    sample_blocks: subsampling.Integers | None = None
    covariance: Literal["float32", "float64"] = "float64"

    @classmethod
    def of(cls, sets: Mapping[str, SetStatistics], name: str, inputs: Inputs) -> FeatureSets:
        """Take the features ``name`` of measured sets."""

        def rows(kind: str) -> Floats | None:
            return sets[kind].rows(name) if kind in sets else None

        stems, samples = inputs.masks_order, inputs.samples_with_masks
        protocol, generated = inputs.protocol, sets["generated"]
        blocks = subsampling.blocks_of_images(inputs.blocks, np.arange(len(stems)))
        block_of = dict(zip(stems, blocks.tolist(), strict=True))
        taken = set(protocol.distance_stems(inputs.by_mask))
        numbers = [i for i, (sample, _) in enumerate(samples) if sample in taken]
        n = protocol.whole_batches(len(stems))
        rows_of_all, firsts = generated.rows(name, numbers), inputs.first_samples[:n]
        return cls(
            rows_of_all,
            rows_of_all if numbers == firsts else generated.rows(name, firsts),
            sets["real"].rows(name)[:n],
            rows("training"),
            rows("mean_colours"),
            blocks[:n],
            np.array([block_of[samples[i][1]] for i in numbers], np.int64),
            protocol.covariance,
        )

    @property
    def pair_blocks(self) -> tuple[subsampling.Integers, subsampling.Integers] | None:
        """Blocks of the real images, and of all samples."""
        if self.blocks is None or self.sample_blocks is None:
            return None
        return self.blocks, self.sample_blocks

    def statistics(self, rows_ND: Floats) -> FeatureStatistics:
        """Return mean and covariance in the precision of the protocol."""
        if self.covariance == "float64":
            return FeatureStatistics.of(rows_ND)
        mean = rows_ND.mean(0)
        centred = rows_ND - mean
        covariance = centred.T @ centred / np.float32(len(rows_ND) - 1)
        return FeatureStatistics.from_covariance(len(rows_ND), mean, covariance)

    @property
    def enough(self) -> bool:
        """Whether there are two images in each set that is compared."""
        return min(len(self.generated), len(self.real)) > 1

    @property
    def with_training(self) -> bool:
        """Whether there are training images, and enough of each side for them."""
        return self.training is not None and min(len(self.training), len(self.real)) > 1


def frechet_entry(sets: FeatureSets, about: str, seed: int = 0) -> tuple[Json, str | None]:
    """Return a Frechet distance with both references, and why it has no ``infinity`` if so.

    Args:
        sets: the features.
        about: what they are, in words.
        seed: of the subsets that the distance is extended with.
    """
    real, generated = sets.statistics(sets.real), sets.statistics(sets.generated)
    value = _round(frechet_distance(generated, real))
    entry: Json = {
        "value": value,
        "n_real": len(sets.real),
        "n_generated": len(sets.generated),
        "dimensions": sets.real.shape[1],
        "features": about,
        "to_same_masks": {"value": value, "n": len(sets.generated)},
    }
    fewest = min(len(sets.real), len(sets.generated))
    if fewest < ENOUGH_IMAGES:
        entry["few_images"] = FEW_IMAGES.format(n=f"{fewest:,}")
    reason = None
    try:
        blocks = None if sets.pair_blocks is None else sets.pair_blocks[::-1]
        found = subsampling.frechet_infinity(sets.generated, sets.real, blocks, seed)
        entry["infinity"] = _rounded(asdict(found))
    except Unavailable as unavailable:
        reason = str(unavailable)
    flat = None if sets.mean_colours is None else sets.statistics(sets.mean_colours)
    if flat is not None:
        entry["to_same_masks"]["mean_colours"] = _round(frechet_distance(flat, real))
    if sets.with_training:
        entry["to_training"] = _frechet_to_training(sets, real, flat)
    return entry, reason


def _frechet_to_training(
    sets: FeatureSets, real: FeatureStatistics, flat: FeatureStatistics | None
) -> Json:
    """Return the fair pair: generated and held-out real images from the training images."""
    assert sets.training is not None
    training = sets.statistics(sets.training)
    generated = frechet_distance(sets.statistics(sets.first), training)
    held_out = frechet_distance(real, training)
    error = subsampling.frechet_difference_error(
        sets.first, sets.real, sets.training, (sets.blocks, sets.blocks)
    )
    entry: Json = {"generated": _round(generated), "real": _round(held_out)}
    if flat is not None:
        entry["mean_colours"] = _round(frechet_distance(flat, training))
    return entry | _difference(sets, generated - held_out, error)


def _difference(sets: FeatureSets, difference: float, error: float | None) -> Json:
    assert sets.training is not None
    found: Json = {"difference": _round(difference), "standard_error": _rounded(error)}
    found |= {"n": len(sets.real), "n_training": len(sets.training)}
    if error is not None and difference < -2 * error:
        found["warning"] = _NEARER
    return found


def kernel_entry(sets: FeatureSets, about: str) -> Json:
    """Return KID, or the kernel distance on other features, with both references.

    Its value is that of torch-fidelity's subsets. Differences are of estimates from all pairs of
    images, which are unbiased, too.
    """
    found = kernel.kernel_distance(sets.real, sets.generated, blocks=sets.pair_blocks)
    entry: Json = {
        "value": _round(found.value),
        "standard_error": _rounded(found.standard_error),
        "std": _round(found.std),
        "subsets": found.subsets,
        "subset_size": found.subset_size,
        "subset_rule": "half of the smaller set, which has fewer than 2,000 images"
        if found.halved
        else f"{found.subset_size:,} images",
        "std_is": "the spread over the subsets, not the uncertainty of the value",
        "n_real": len(sets.real),
        "n_generated": len(sets.generated),
        "dimensions": sets.real.shape[1],
        "features": about,
        "to_same_masks": {"value": _round(found.value), "n": len(sets.generated)},
    }
    if sets.mean_colours is not None:
        flat = kernel.BlockMmd.of(sets.mean_colours, sets.real).value
        entry["to_same_masks"]["mean_colours"] = _round(flat)
    if sets.with_training:
        entry["to_training"] = _kernel_to_training(sets)
    return entry


def _kernel_to_training(sets: FeatureSets) -> Json:
    assert sets.training is not None
    generated = kernel.BlockMmd.of(sets.first, sets.training, sets.blocks)
    held_out = kernel.BlockMmd.of(sets.real, sets.training, sets.blocks)
    entry: Json = {"generated": _round(generated.value), "real": _round(held_out.value)}
    if sets.mean_colours is not None:
        flat = kernel.BlockMmd.of(sets.mean_colours, sets.training).value
        entry["mean_colours"] = _round(flat)
    difference = generated - held_out
    return entry | _difference(sets, difference.value, difference.standard_error)


def cmmd_entry(sets: FeatureSets, about: str) -> Json:
    """Return CMMD: the MMD of CLIP embeddings with a Gaussian kernel, times 1,000."""
    found = kernel.gaussian_distance(sets.real, sets.generated, sets.pair_blocks)
    entry: Json = {
        "value": _round(found.value),
        "unbiased": _round(found.unbiased),
        "standard_error": _rounded(found.standard_error),
        "estimator": "biased (each image is paired with itself, too), as the paper's code has it; "
        "Gaussian kernel, sigma 10, times 1,000",
        "n_real": len(sets.real),
        "n_generated": len(sets.generated),
        "dimensions": sets.real.shape[1],
        "features": about,
        "to_same_masks": {"value": _round(found.value), "n": len(sets.generated)},
    }
    if sets.mean_colours is not None:
        flat = kernel.gaussian_distance(sets.real, sets.mean_colours).value
        entry["to_same_masks"]["mean_colours"] = _round(flat)
    return entry


def manifold_entry(sets: FeatureSets) -> Json:
    """Return precision, recall, density and coverage against the real images of the same masks.

    ``to_training`` has the same of generated images against the training images; ``real``, of the
    held-out real images against them, is its floor.

    Raises:
        Unavailable: fewer images than neighbours.
    """
    entry = _manifold(sets.real, sets.generated)
    if sets.training is not None and len(sets.training) > manifold.DENSITY_K:
        entry["to_training"] = _manifold(sets.training, sets.first)
        entry["real"] = _manifold(sets.training, sets.real)
    return entry


def _manifold(reference: Floats, images: Floats) -> Json:
    found = manifold.manifold_scores(reference, images)
    scores = {name: getattr(found, name) for name in ("precision", "recall", "density", "coverage")}
    counts = {"n": found.n_generated, "n_reference": found.n_real}
    ks = {"precision": manifold.PRECISION_K, "density": manifold.DENSITY_K}
    return {**_rounded(scores), **counts, "k": ks}


def _round(value: float) -> float:
    return round(float(np.asarray(value)), 8)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return _round(value) if isinstance(value, float) else value

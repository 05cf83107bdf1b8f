"""Evaluators: the segmenters that score how well images match their masks.

An evaluator is a segmenter of ours, or any semantic segmentation model of the Transformers library.
It may have other classes than the data: they are matched by name, and classes that it does not know
are left out of all scores, of generated and of real images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger, progress
from semsynth.core.paths import may_be_hub_id
from semsynth.data.labels import LabelSet
from semsynth.data.resize import Box
from semsynth.evaluation.config import DEFAULT_SEGMENTER, EvaluateConfig
from semsynth.evaluation.hub_evaluator import HubNetwork, Sees, Size
from semsynth.evaluation.inputs.image_set import FolderImages, PreparedImages
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.inputs.resized import ResizedImages
from semsynth.evaluation.label_maps import LabelMap, NameMatch, match_names
from semsynth.evaluation.own_evaluator import OwnNetwork
from semsynth.segmentation.config import SEGMENTER_FILE
from semsynth.segmentation.metrics import OTHER
from semsynth.segmentation.seen import SeenImages, file_digest, pixel_digest, raw_file_digests

Array = npt.NDArray[Any]
Json = dict[str, Any]


class Network(Protocol):
    """What predicts: a segmenter of ours or of somebody else.

    Attributes:
        name: of the folder or on the Hub; no path.
        names: name of each class that it predicts, in their order.
        sha256: of its file, or of its tensors.
        about: what it is, as JSON values.
        seen: the images that it was trained on; None: not known.
        has_features: whether it gives features.
    """

    name: str
    names: Sequence[str]
    sha256: str
    about: Json
    seen: SeenImages | None
    has_features: bool

    def classes(self, images_BHWC: Array, size: Size | None) -> tuple[Array, Array | None]:
        """Return class indices (B, height, width) and features (B, D), or None without any."""
        ...

    def log_probabilities(self, image_HWC: Array, size: Size) -> tuple[Array, Array | None]:
        """Return logarithms (classes, height, width) float32, and features (D,), or None.

        Of one image (H, W, 3) uint8: what is found in it does not depend on others beside it.
        """
        ...


# Pixels that an evaluator sees at once: eight images of 256x256.
_PIXELS = 8 * 256 * 256


class Images(Protocol):
    """Images that are read by their stems."""

    @property
    def stems(self) -> Sequence[str]:
        """Their stems."""
        ...

    def read_rgb(self, stem: str) -> npt.NDArray[np.uint8]:
        """Return an image (H, W, 3)."""
        ...

    def content_box(self, stem: str) -> Box:
        """Return top, left, height, width of its content."""
        ...


@dataclass(frozen=True)
class Evaluator:
    """A segmenter in terms of the classes of the data.

    Attributes:
        network: what predicts.
        labels: those of the data.
        match: its classes and those of the data.
    """

    network: Network
    labels: LabelSet
    match: NameMatch

    @property
    def name(self) -> str:
        """The name of its folder or on the Hub; no path."""
        return self.network.name

    @property
    def sha256(self) -> str:
        """SHA-256 of its file; of a Transformers model 32 digits of that of its tensors."""
        return self.network.sha256

    @property
    def has_features(self) -> bool:
        """Whether ``analyse`` gives features."""
        return self.network.has_features

    @property
    def ids(self) -> list[int]:
        """Ids of the data's classes that it knows: those that are scored."""
        known = set(self.match.pairs.values())
        return [label.id for label in self.labels.trainable if label.name in known]

    @property
    def left_out(self) -> list[str]:
        """Names of the data's classes that it does not know."""
        return list(self.match.left_out)

    @property
    def about(self) -> Json:
        """What it is, for the report: JSON values without paths."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            **self.network.about,
            "classes_matched_by": self.match.source,
            "several_to_one": _several(self.match.pairs),
            "left_out": self.left_out,
            "without_counterpart": [*self.match.dropped, *self.match.unmapped],
        }

    @property
    def key(self) -> Json:
        """What decides its predictions, as JSON values."""
        size = self.network.about.get("input_size")
        return {"sha256": self.sha256, "pairs": dict(self.match.pairs), "sees": size}

    def analyse(self, images: Array, size: Size | None = None) -> tuple[Array, Array | None]:
        """Predict masks, and give features, in one pass.

        Args:
            images: (B, H, W, 3) uint8 RGB.
            size: height and width of the masks; by default those of the images.

        Returns:
            (B, height, width) int32 ids of the data's classes, ``OTHER`` where it predicts a class
            without a counterpart; and features (B, D) of segmenters of ours, else None.
        """
        # The memory of a pass grows with its pixels, not with --batch-size.
        step = max(_PIXELS // (images.shape[1] * images.shape[2]), 1)
        parts = [
            self.network.classes(images[i : i + step], size) for i in range(0, len(images), step)
        ]
        features = [part for _, part in parts if part is not None]
        classes = np.concatenate([part for part, _ in parts])
        return self._ids[classes], np.concatenate(features) if features else None

    def predict(self, images: Array, size: Size | None = None) -> Array:
        """Return the predicted ids of ``analyse``."""
        return self.analyse(images, size)[0]

    @property
    def _ids(self) -> npt.NDArray[np.int32]:
        by_name = {label.name: label.id for label in self.labels.trainable}
        pairs = self.match.pairs
        found = [by_name[pairs[n]] if n in pairs else OTHER for n in self.network.names]
        return np.array(found, np.int32)


def evaluators_of(
    config: EvaluateConfig, inputs: Inputs, missing: dict[str, str]
) -> list[Evaluator]:
    """Return the evaluators; without a segmenter or masks none, with the reason in ``missing``.

    Raises:
        UserError: see ``open_evaluators``; or one is given without masks.
    """
    sources = config.segmenters
    if inputs.masks is None:
        if sources:
            raise UserError("--segmenter is given without masks; give --masks (and --labels)")
        missing["semantic_consistency"] = "needs masks: --masks (and --labels)"
        return []
    if not sources and not DEFAULT_SEGMENTER.exists():
        missing["semantic_consistency"] = (
            "needs a segmenter: --segmenter (semsynth segment train makes one)"
        )
        return []
    sources = sources or (str(DEFAULT_SEGMENTER),)
    sees = inputs.protocol.evaluator_size
    return open_evaluators(sources, inputs.masks.labels, config.label_map, config.device, sees)


def open_evaluators(
    sources: Sequence[str | Path],
    labels: LabelSet,
    label_map: str | None,
    device: str,
    sees: Sees = "own",
) -> list[Evaluator]:
    """Open one evaluator or two, and say which classes are left out.

    Args:
        sources: segmenter.pth or its folder; or a folder or Hub id of a Transformers model.
        labels: of the data.
        label_map: a file, or a built-in map; see ``LabelMap``.
        device: auto, cpu, cuda, ...
        sees: the size at which they see images; see ``input_size``.

    Raises:
        UserError: more than two; one cannot be loaded, or has no class of the data; a wrong map.
    """
    if len(sources) > 2:
        raise UserError(f"--segmenter: {len(sources)} are given; give one evaluator, or two")
    given = None if label_map is None else LabelMap.read(label_map)
    networks = [open_network(str(source), device, sees) for source in sources]
    if given is not None:
        given.check([network.names for network in networks], labels)
    evaluators = []
    for network in networks:
        evaluators.append(evaluator_of(network, labels, given))
        _say_what_is_left_out(evaluators[-1])
    return evaluators


def evaluator_of(network: Network, labels: LabelSet, given: LabelMap | None = None) -> Evaluator:
    """Return a network as the evaluator of images with these labels.

    Args:
        network: what predicts.
        labels: of the data.
        given: what ``--label-map`` says.

    Raises:
        UserError: it has no class of the data.
    """
    match = match_names(network.names, labels, given)
    if not match.pairs:
        theirs, ours = list(network.names), [label.name for label in labels.trainable]
        raise UserError(
            f"--segmenter {network.name}: has no class of the data (it has "
            f"{abbreviate(theirs, 5)}; the data have {abbreviate(ours, 5)}); give --label-map"
        )
    return Evaluator(network, labels, match)


def check_unseen(evaluator: Evaluator, real: Images, generated: Images, allow: bool) -> Json:
    """Check that an evaluator was not trained on images that it is asked about.

    Generated images that equal *real* training images are copies by the generator: that is said,
    and not refused.

    Args:
        evaluator: the evaluator.
        real: the real images.
        generated: the generated images.
        allow: say it, and go on.

    Returns:
        For the report: ``training_images_known`` (whether its file says what it was trained on),
        ``seen`` (None, or how many ``real`` and ``generated`` images it was trained on), and
        ``copies_of_its_training_images``, a number of generated images.

    Raises:
        UserError: it was, and ``allow`` is False.
    """
    seen = evaluator.network.seen
    if seen is None:
        logger.info(
            f"evaluator {evaluator.name}: its file does not say which images it was trained on"
        )
        return {"training_images_known": False, "seen": None}
    trained = seen.real | seen.generated
    again = _those_of(real, trained, "real")
    made = _those_of(generated, seen.generated, "generated") if seen.generated else []
    copies = _those_of(generated, seen.real, "generated")
    found: Json = {"training_images_known": True, "seen": None}
    found["copies_of_its_training_images"] = len(copies)
    if copies:
        logger.warning(
            f"{len(copies)} generated images are images that the evaluator {evaluator.name} was "
            f"trained on ({abbreviate(copies, 3)}): copies of real images"
        )
    if again or made:
        what = abbreviate([*again, *made], 3)
        message = (
            f"evaluator {evaluator.name}: was trained on {len(again)} of {len(real.stems)} real "
            f"and {len(made)} of {len(generated.stems)} generated images to score ({what})"
        )
        if not allow:
            raise UserError(
                f"{message}; train one on other images, or give --allow-seen to report it so"
            )
        logger.warning(message)
        found["seen"] = {"real": len(again), "generated": len(made)}
    return found


def _those_of(images: Images, digests: frozenset[bytes], what: str) -> list[str]:
    """Return the stems of the images that have one of these digests."""
    if not digests:
        return []
    if isinstance(images, ResizedImages):
        images = images.images
    files: dict[str, bytes] = {}
    if isinstance(images, PreparedImages):
        files = raw_file_digests(images.data, images.split)
    elif isinstance(images, FolderImages):
        files = {stem: file_digest(digest) for stem, digest in images.digests().items()}
    return [
        stem
        for stem in progress(images.stems, f"digests of {what} images", unit="image")
        if files.get(stem) in digests
        or pixel_digest(images.read_rgb(stem), images.content_box(stem)) in digests
    ]


def open_network(source: str, device: str, sees: Sees = "own") -> Network:
    """Open a segmenter of ours, or a Transformers model from a folder or the Hub.

    Raises:
        UserError: it is neither, or cannot be loaded.
    """
    path = Path(source)
    if path.is_file() or (path / SEGMENTER_FILE).is_file():
        return OwnNetwork(path, device, sees)
    if (path / "config.json").is_file():
        return HubNetwork(source, device, sees)
    if may_be_hub_id(source) and path.suffix != ".pth":
        return HubNetwork(source, device, sees)
    raise UserError(
        f"--segmenter {source}: is neither {SEGMENTER_FILE} (or its folder), which 'semsynth "
        "segment train' writes, nor a Transformers model (a folder with config.json, or a Hub id)"
    )


def _several(pairs: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the data's classes that several of the evaluator's are, with those."""
    found: dict[str, list[str]] = {}
    for theirs, ours in pairs.items():
        found.setdefault(ours, []).append(theirs)
    return {ours: theirs for ours, theirs in found.items() if len(theirs) > 1}


def _say_what_is_left_out(evaluator: Evaluator) -> None:
    match, labels = evaluator.match, evaluator.labels
    if match.source != "equal names":
        logger.info(f"evaluator {evaluator.name}: classes are matched by {match.source}")
    if match.left_out:
        logger.warning(
            f"evaluator {evaluator.name}: knows {len(evaluator.ids)} of {len(labels.trainable)} "
            f"classes; left out of all scores: {', '.join(match.left_out)}"
        )
    if match.unmapped:
        logger.warning(
            f"evaluator {evaluator.name}: its classes {', '.join(match.unmapped)} do not occur in "
            "the data: pixels with these predictions count as wrong (or give --label-map)"
        )

"""Feature extractors: networks that turn images into the vectors that distances compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semsynth.core.devices import pick_device
from semsynth.core.errors import Unavailable, UserError
from semsynth.core.logging import logger
from semsynth.core.safe_load import tensors_digest
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics.inception import SIZE, InceptionV3
from semsynth.evaluation.metrics.resizes import ABOUT, Resize, inception_input
from semsynth.evaluation.metrics.weights import (
    INCEPTION,
    check_weights_folder,
    find_weights,
)
from semsynth.models import lite2

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
FID = "fid"
LITE2 = "fd_lite2"
# Images that a network sees at once on a CPU: more are not faster, and take 30 MB each.
_AT_ONCE = 16
_FID_NAMES: dict[Resize, str] = {
    "pytorch": FID,
    "tensorflow": "fid_tensorflow",
    "clean": "fid_clean",
}


@dataclass(frozen=True)
class FeatureExtractor:
    """Images to features.

    Attributes:
        name: name of the Frechet distance on these features. Only Inception-v3's with the published
            weights is called FID: ``fid``, ``fid_tensorflow``, ``fid_clean`` (by the resize); with
            other weights it is ``fd_inception_<8 digits of their SHA-256>``.
        about: what the features are, for the report.
        extract: RGB images of levels 0 to 255, uint8 or float32 (B, H, W, 3) or a list of (H, W, 3)
            of any sizes, to float32 (B, D).
        weights: SHA-256 of the network's weights.
        resize: how images are brought to the network's size.
    """

    name: str
    about: str
    extract: Callable[[Sequence[Array] | Array], Floats]
    weights: str = ""
    resize: str = ""

    @property
    def kernel_name(self) -> str:
        """Name of the kernel distance on these features: ``kid``, ``kd_lite2``, ..."""
        return kernel_name(self.name)

    @property
    def is_inception(self) -> bool:
        """Whether these are Inception-v3's features, whatever its weights."""
        return is_inception(self.name)

    def extract_finite(self, images: Sequence[Array] | Array, names: Sequence[str]) -> Floats:
        """Return the features of images called ``names``.

        Raises:
            UserError: features are NaN or infinite; the message names the images.
        """
        features = self.extract(images)
        bad = [names[i] for i in np.flatnonzero(~np.isfinite(features).all(axis=1)).tolist()]
        if bad:
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            raise UserError(
                f"{self.name}: the features of {', '.join(bad[:5])}{more} are NaN or infinite; "
                "look at these images, and at the weights"
            )
        return features


def is_inception(name: str) -> bool:
    """Return whether a Frechet distance is on Inception-v3's features, whatever its weights."""
    return name.startswith((FID, "fd_inception_"))


def kernel_name(name: str) -> str:
    """Return the name of the kernel distance on the features of a Frechet distance."""
    return "kid" + name[3:] if name.startswith(FID) else "kd_" + name.removeprefix("fd_")


def network_extractor(
    prepare: Callable[[Array], Tensor], network: Callable[[Tensor], Tensor], device: torch.device
) -> Callable[[Sequence[Array] | Array], Floats]:
    """Return ``FeatureExtractor.extract`` of a network.

    Args:
        prepare: an image (H, W, 3) of levels 0 to 255 to the network's input (3, S, S).
        network: inputs (B, 3, S, S) to features (B, D).
        device: where the network is.
    """

    @torch.inference_mode()
    def extract(images: Sequence[Array] | Array) -> Floats:
        step = _AT_ONCE if device.type == "cpu" else len(images)
        return np.concatenate([run(images[i : i + step]) for i in range(0, len(images), step)])

    def run(images: Sequence[Array] | Array) -> Floats:
        inputs = torch.stack([prepare(image) for image in images]).to(device)
        features = network(inputs.contiguous(memory_format=torch.channels_last))
        return np.asarray(features.float().cpu().numpy(), np.float32)

    return extract


def to_levels(image_HWC: Array) -> npt.NDArray[np.uint8]:
    """Return an image of levels 0 to 255 as bytes, for networks whose own resize takes bytes."""
    if image_HWC.dtype == np.uint8:
        return image_HWC
    return np.rint(image_HWC).clip(0, 255).astype(np.uint8)


def inception_extractor(config: EvaluateConfig, resize: Resize = "pytorch") -> FeatureExtractor:
    """Return FID's Inception-v3.

    Raises:
        Unavailable: its weights are not available.
        UserError: the given file is missing or is of another network.
    """
    file = find_weights(INCEPTION, config.inception, config.weights, config.download)
    device = pick_device(config.device)
    network = InceptionV3.from_file(file.path, resize).fused().to(device)
    name = _FID_NAMES[resize] if file.published else f"fd_inception_{file.sha256[:8]}"
    if not file.published:
        logger.warning(
            f"{file.path}: not the published weights of FID (sha256 {file.sha256[:16]}, not "
            f"{INCEPTION.sha256[:16]}): the distance is called {name}"
        )

    def prepare(image: Array) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        return inception_input(pixels.float() / 255, resize, SIZE)[0]

    about = f"Inception-v3 ({ABOUT[resize]}), weights: {file.about}"
    extract = network_extractor(prepare, network.features, device)
    return FeatureExtractor(name, about, extract, file.sha256, resize)


def lite2_extractor(config: EvaluateConfig) -> FeatureExtractor:
    """Return EfficientNet-Lite2, from the package that ``semsynth[features]`` installs.

    Raises:
        Unavailable: the package is not installed.
        UserError: its file is damaged.
    """
    device = pick_device(config.device)
    network = lite2.EfficientNetLite2.from_package()
    digest = tensors_digest(network.state_dict())
    network = network.fused().to(device)
    extract = network_extractor(
        lambda image: lite2.lite2_input(to_levels(image)), network.features, device
    )
    return FeatureExtractor(LITE2, lite2.ABOUT, extract, digest, lite2.RESIZE)


def open_extractors(
    config: EvaluateConfig, resize: Resize = "pytorch"
) -> tuple[list[FeatureExtractor], dict[str, str]]:
    """Return the extractors that are available, and the metrics that are missing, with the reason.

    Args:
        config: which weights and models.
        resize: the protocol's resize for Inception-v3.

    Raises:
        UserError: a file or id that was given cannot be used, or two have the same name.
    """
    from semsynth.evaluation.metrics.backbones import clip_extractor, transformers_extractor

    check_weights_folder(config.weights)
    extractors: list[FeatureExtractor] = []
    missing: dict[str, str] = {}
    for name, opened in (
        (_FID_NAMES[resize], lambda: inception_extractor(config, resize)),
        (LITE2, lambda: lite2_extractor(config)),
    ):
        try:
            extractors.append(opened())
        except Unavailable as reason:
            missing |= {name: str(reason), kernel_name(name): str(reason)}
    for source in config.features:
        extractor = transformers_extractor(source, config.device)
        if any(extractor.name == other.name for other in extractors):
            raise UserError(f"--features {source}: a second {extractor.name}; give one per type")
        extractors.append(extractor)
    if config.cmmd is not None:
        extractors.append(clip_extractor(config.cmmd, config.device))
    return extractors, missing

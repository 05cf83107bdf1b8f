"""Perceptual distances of image pairs: LPIPS and ST-LPIPS, with whatever weights there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semsynth.core.devices import pick_device
from semsynth.core.errors import Unavailable
from semsynth.core.logging import logger
from semsynth.core.safe_load import tensors_digest
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics import stlpips
from semsynth.evaluation.metrics.lpips import MIN_SIDE, NAMES, Lpips, Net, PerceptualNetwork
from semsynth.evaluation.metrics.stlpips import StLpips
from semsynth.evaluation.metrics.weights import (
    ALEXNET,
    LPIPS_ALEX,
    LPIPS_VGG,
    VGG16,
    PublicWeights,
    find_weights,
)

LPIPS = "lpips"
STLPIPS = stlpips.NAME
_FILES: dict[Net, tuple[PublicWeights, PublicWeights]] = {
    "alex": (ALEXNET, LPIPS_ALEX),
    "vgg": (VGG16, LPIPS_VGG),
}


@dataclass(frozen=True)
class PerceptualDistance:
    """A distance of two images.

    Attributes:
        name: ``lpips`` or ``stlpips``; the report's entries start with it.
        about: which network and weights, for the report.
        weights: SHA-256 of the weights.
        min_side: the smallest side of an image in pixels.
        network: the network, on its device.
    """

    name: str
    about: str
    weights: str
    min_side: int
    network: PerceptualNetwork

    @torch.inference_mode()
    def embed(self, image_HWC: npt.NDArray[np.float32]) -> list[Tensor]:
        """Return an image's features by layer, on the network's device.

        Args:
            image_HWC: RGB float32, 0 to 1.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(image_HWC)).to(self.network.shift.device)
        # Rows of whole pixels, as they come: the layout that is fastest on a CPU.
        return self.network.embed(pixels[None].permute(0, 3, 1, 2))

    @torch.inference_mode()
    def distance(self, first: list[Tensor], second: list[Tensor]) -> float:
        """Return the distance of two images of one size, given by ``embed``."""
        return float(self.network.distance(first, second))


def open_perceptual(
    config: EvaluateConfig, net: Net | None = "alex"
) -> tuple[list[PerceptualDistance], dict[str, str]]:
    """Return the distances that are available, and for the others by name the reason.

    Args:
        config: where weights are.
        net: LPIPS' network; None: not part of the protocol.

    Raises:
        UserError: a given file is missing or of another network.
    """
    distances: list[PerceptualDistance] = []
    missing: dict[str, str] = {}
    openers: list[tuple[str, Callable[[], PerceptualDistance]]] = [
        (STLPIPS, lambda: _open_stlpips(config))
    ]
    if net is None:
        missing[LPIPS] = "not part of this protocol"
    else:
        openers.insert(0, (LPIPS, lambda: _open_lpips(config, net)))
    for name, opened in openers:
        try:
            distances.append(opened())
        except Unavailable as reason:
            missing[name] = str(reason)
    return distances, missing


def _open_lpips(config: EvaluateConfig, net: Net) -> PerceptualDistance:
    backbone, heads = _FILES[net]
    body = find_weights(backbone, config.lpips_backbone, config.weights, config.download)
    top = find_weights(heads, config.lpips_heads, config.weights, config.download)
    network = _placed(Lpips.from_files(body.path, top.path, net), config)
    for file, published in ((body, backbone), (top, heads)):
        if not file.published:
            logger.warning(
                f"{file.path}: not the published {published.file} (sha256 {file.sha256[:16]}, not "
                f"{published.sha256[:16]}): its LPIPS can only be compared with values of the "
                "same weights"
            )
    about = f"LPIPS v0.1, {NAMES[net]} ({body.about}; heads: {top.about})"
    digest = f"{body.sha256} {top.sha256}"
    return PerceptualDistance(LPIPS, about, digest, MIN_SIDE[net], network)


def _open_stlpips(config: EvaluateConfig) -> PerceptualDistance:
    network: PerceptualNetwork = StLpips.from_package()
    digest = tensors_digest(network.state_dict())
    network = _placed(network, config)
    about = "ST-LPIPS, AlexNet (weights of stlpips-pytorch)"
    return PerceptualDistance(STLPIPS, about, digest, stlpips.MIN_SIDE, network)


def _placed(network: PerceptualNetwork, config: EvaluateConfig) -> PerceptualNetwork:
    network = network.to(pick_device(config.device))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

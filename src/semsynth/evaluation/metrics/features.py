"""Feature extractors: networks that turn images into the vectors that distances compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel
from transformers.utils import logging

from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError
from semsynth.core.files import sha256_file
from semsynth.core.safe_load import tensors_digest
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics.inception import InceptionV3
from semsynth.evaluation.metrics.weights import INCEPTION, Unavailable, find_weights
from semsynth.segmentation.hub_models import IMAGENET_MEAN, IMAGENET_STD, preprocessing

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
FID = "fid"


@dataclass(frozen=True)
class FeatureExtractor:
    """Images to features.

    Attributes:
        name: name of the distance on these features; only Inception-v3's is called FID.
        about: what the features are, for the report.
        extract: uint8 RGB (B, H, W, 3) to float32 (B, D).
        weights: digest of the network's weights, where ``about`` does not say which they are.
    """

    name: str
    about: str
    extract: Callable[[Array], Floats]
    weights: str = ""


def inception_extractor(config: EvaluateConfig) -> FeatureExtractor:
    """Return FID's Inception-v3.

    Raises:
        Unavailable: its weights are not available.
        UserError: the given file is missing or is not the published one.
    """
    path = find_weights(INCEPTION, config.inception, config.download)
    device = pick_device(config.device)
    network = InceptionV3.from_file(path).to(device)
    about = f"Inception-v3 (pytorch-fid's resize), weights sha256 {sha256_file(path)[:16]}"
    return FeatureExtractor(FID, about, lambda images: _run(network, _to_unit(images, device)))


def transformers_extractor(source: str, device_name: str) -> FeatureExtractor:
    """Return a vision backbone of the Transformers library, from a folder or a Hub id.

    Features are its ``pooler_output``, or else the mean of ``last_hidden_state`` over the image.
    The whole image is resized to the network's input size (antialiased bilinear, not cropped).

    Raises:
        UserError: it cannot be loaded.
    """
    # Without this it warns about the classifier's weights, which are not loaded on purpose.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model = AutoModel.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--features {source}: cannot be loaded ({reason}); give a model folder or a Hub id"
        ) from None
    device = pick_device(device_name)
    network = _Pooled(model, preprocessing(source)).to(device).eval()
    name = f"fd_{model.config.model_type}"
    # Only the folder's name: the report must not contain paths of this machine.
    about = Path(source).name if Path(source).is_dir() else source
    weights = tensors_digest(network.state_dict())

    def extract(images: Array) -> Floats:
        return _run(network, _to_unit(images, device))

    return FeatureExtractor(name, about, extract, weights)


class _Pooled(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, processor: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.size = _input_size(processor)
        mean = processor.get("image_mean") or IMAGENET_MEAN
        std = processor.get("image_std") or IMAGENET_STD
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        x = F.interpolate(images_BCHW, size=self.size, mode="bilinear", antialias=True)
        output = self.model(pixel_values=(x - self.mean) / self.std)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)  # type: ignore[no-any-return]
        hidden = output.last_hidden_state
        return hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1)  # type: ignore[no-any-return]


def _input_size(processor: dict[str, Any]) -> tuple[int, int]:
    size = processor.get("crop_size") if processor.get("do_center_crop") else None
    size = size or processor.get("size") or 224
    if isinstance(size, int):
        return size, size
    side = size.get("shortest_edge", 224)
    return int(size.get("height", side)), int(size.get("width", side))


def _to_unit(images_BHWC: Array, device: torch.device) -> Tensor:
    images = torch.from_numpy(np.ascontiguousarray(images_BHWC)).to(device)
    return images.permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def _run(network: nn.Module, images: Tensor) -> Floats:
    return np.asarray(network(images).float().cpu().numpy(), np.float32)


def open_extractors(config: EvaluateConfig) -> tuple[list[FeatureExtractor], dict[str, str]]:
    """Return the extractors that are available, and the metrics that are missing, with the reason.

    Raises:
        UserError: a file or id that was given cannot be used, or two have the same name.
    """
    extractors: list[FeatureExtractor] = []
    missing: dict[str, str] = {}
    try:
        extractors.append(inception_extractor(config))
    except Unavailable as reason:
        missing = {"fid": str(reason), "kid": str(reason)}
    for source in config.features:
        extractor = transformers_extractor(source, config.device)
        if any(extractor.name == other.name for other in extractors):
            raise UserError(f"--features {source}: a second {extractor.name}; give one per type")
        extractors.append(extractor)
    return extractors, missing

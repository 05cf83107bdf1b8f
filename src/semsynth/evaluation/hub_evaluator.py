"""Semantic segmentation models of the Transformers library as evaluators."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
)
from transformers.utils import logging

from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger
from semsynth.core.safe_load import tensors_digest
from semsynth.segmentation.hub_models import IMAGENET_MEAN, IMAGENET_STD
from semsynth.segmentation.seen import SeenImages

Array = npt.NDArray[Any]
Size = tuple[int, int]
Sees = Literal["own", "generated"] | int | Size
_LOADING = (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError)
# Pixels that the network sees at a time: 8 of 512x512.
_PIXELS = 2_097_152
# A probability at the least: its logarithm is finite.
_LEAST = 1e-12


def input_size(sees: Sees, given: Size) -> Size | None:
    """Return the height and width at which an evaluator sees an image; None: its own input size.

    Args:
        sees: ``own``; ``generated``: as images are; the shorter side; or height and width.
        given: height and width of the image.
    """
    if sees == "own":
        return None
    if sees == "generated":
        return given
    if isinstance(sees, int):
        scale = sees / min(given)
        return round(given[0] * scale), round(given[1] * scale)
    return sees


class HubNetwork:
    """A model from a folder or the Hub, at its own input size; see ``evaluators.Network``."""

    has_features = False

    def __init__(self, source: str, device: str, sees: Sees = "own") -> None:
        """Load the model and its preprocessing, to see images at that size.

        Raises:
            UserError: it cannot be found, is not a semantic segmentation model, or has no trained
                head.
        """
        # It would warn about each part that an evaluator does not need.
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.name = Path(source).name if Path(source).is_dir() else source
        self._model = _load(source).to(pick_device(device)).eval()
        config = self._model.config
        self.names: Sequence[str] = [str(config.id2label[i]) for i in range(config.num_labels)]
        self.sha256 = tensors_digest(self._model.state_dict())
        self.seen: SeenImages | None = None
        self._processor, self._sees = _processor(source, self.name), sees
        own = getattr(self._processor, "size", None)
        size = {k: v for k, v in dict(own).items() if v} if own else None
        self.about = {
            "kind": config.model_type,
            "input_size": size if sees == "own" else sees,
            "trained_on": None,
        }

    @torch.inference_mode()
    def classes(self, images_BHWC: Array, size: Size | None) -> tuple[Array, Array | None]:
        """Return class indices (B, height, width), of logits at that size; no features."""
        size = size or (images_BHWC.shape[1], images_BHWC.shape[2])
        first, _ = self._inputs(images_BHWC[:1])
        step = max(1, _PIXELS // (first.shape[-1] * first.shape[-2]))
        found = []
        for start in range(0, len(images_BHWC), step):
            inputs, valid = self._inputs(images_BHWC[start : start + step])
            # One by one: 150 classes at the size of the mask take 40 MB for 256x256.
            for logits_CHW in self._outputs(inputs)[0]:
                scaled = _scaled(logits_CHW, valid, size)
                found.append(scaled.argmax(0).cpu().numpy())
        return np.stack(found), None

    @torch.inference_mode()
    def log_probabilities(self, image_HWC: Array, size: Size) -> tuple[Array, Array | None]:
        """Return what ``evaluators.Network`` says; no features."""
        inputs, valid = self._inputs(image_HWC[None])
        outputs, are_logits = self._outputs(inputs)
        scaled = _scaled(outputs[0], valid, size)
        if are_logits:
            return scaled.log_softmax(0).cpu().numpy(), None
        shares = scaled / scaled.sum(0).clamp_min(_LEAST)
        return shares.clamp_min(_LEAST).log().cpu().numpy(), None

    def _inputs(self, images_BHWC: Array) -> tuple[Tensor, tuple[float, float]]:
        """Return what the network takes, and the shares of its rows and columns that are image."""
        size = input_size(self._sees, (images_BHWC.shape[1], images_BHWC.shape[2]))
        if size is not None and size != images_BHWC.shape[1:3]:
            images_BHWC = np.stack([_resized(image, size) for image in images_BHWC])
        if self._processor is None:
            x = torch.from_numpy(np.ascontiguousarray(images_BHWC)).permute(0, 3, 1, 2).float()
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
            return ((x / 255 - mean) / std).to(self._model.device), (1.0, 1.0)
        # A crop of the middle is for classifying: predictions of it would not fit the mask.
        options = {"do_center_crop": False} if hasattr(self._processor, "do_center_crop") else {}
        if size is not None:
            options["do_resize"] = False
        inputs = self._processor(
            images=list(images_BHWC),
            return_tensors="pt",
            input_data_format="channels_last",
            **options,
        )
        pixels, mask = inputs["pixel_values"], inputs.get("pixel_mask")
        valid = (1.0, 1.0)
        if mask is not None:
            valid = (float(mask[0].any(1).float().mean()), float(mask[0].any(0).float().mean()))
        return pixels.to(self._model.device), valid

    def _outputs(self, pixels: Tensor) -> tuple[Tensor, bool]:
        """Return (B, classes, h, w): logits, or probabilities up to a factor of each pixel.

        The second value says whether they are logits.
        """
        output = self._model(pixel_values=pixels)
        if (logits := getattr(output, "logits", None)) is not None:
            return torch.as_tensor(logits), True
        # Models of masks and their classes; the last class is "no object".
        classes = output.class_queries_logits.softmax(-1)[..., :-1]
        masks = output.masks_queries_logits.sigmoid()
        return torch.einsum("bqc,bqhw->bchw", classes, masks), False


def _scaled(outputs_CHW: Tensor, valid: tuple[float, float], size: Size) -> Tensor:
    """Return what of an output belongs to the image, at that size."""
    height, width = (
        round(side * share) for side, share in zip(outputs_CHW.shape[1:], valid, strict=True)
    )
    inside = outputs_CHW[None, :, :height, :width].float()
    return F.interpolate(inside, size=size, mode="bilinear")[0]


def _resized(image: Array, size: Size) -> Array:
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def _load(source: str) -> Any:
    remedy = "give a semantic segmentation model of the Transformers library: a folder or a Hub id"
    reasons = []
    for kind in (AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation):
        try:
            model, found = kind.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True
            )
        except _LOADING as error:
            reasons.append(" ".join(str(error).split())[:200])
            continue
        missing = sorted(found["missing_keys"])
        if missing:
            raise UserError(
                f"--segmenter {source}: has no weights for {len(missing)} parts of a "
                f"{type(model).__name__} ({abbreviate(missing, 2)}), so it was not trained to "
                f"segment; {remedy}"
            )
        return model
    raise UserError(f"--segmenter {source}: cannot be loaded ({reasons[0]}); {remedy}")


def _processor(source: str, name: str) -> Any:
    """Return the model's own preprocessing; None, and say so, if it has none."""
    try:
        return AutoImageProcessor.from_pretrained(source)
    except _LOADING:
        logger.warning(
            f"evaluator {name}: has no preprocessor_config.json: it gets images at their own size, "
            "with ImageNet's mean and deviation"
        )
        return None

"""Any vision backbone of the Transformers library as features, and CLIP's for CMMD."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, CLIPVisionModelWithProjection
from transformers.utils import logging

from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError
from semsynth.core.logging import logger
from semsynth.core.safe_load import tensors_digest
from semsynth.evaluation.metrics.features import (
    Array,
    FeatureExtractor,
    network_extractor,
    to_levels,
)
from semsynth.segmentation.hub_models import IMAGENET_MEAN, IMAGENET_STD

CMMD = "cmmd"
# What Transformers raises where a folder or an id does not exist, or is damaged.
_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)
_PILLOW: dict[str, Any] = (
    {"use_fast": False} if transformers.__version__.startswith("4.") else {"backend": "pil"}
)
# Backbones whose CLS token was trained for comparing images.
_CLS = ("dinov2", "dinov2_with_registers", "dinov3_vit")
_CLIP = ("clip", "clip_vision_model")


def transformers_extractor(source: str, device_name: str) -> FeatureExtractor:
    """Return a vision backbone of the Transformers library, from a folder or a Hub id.

    Images are prepared as the model's own ``preprocessor_config.json`` says: size, filter, crop.
    Features are the CLS token of DINOv2 and DINOv3, CLIP's embedding, and else the
    ``pooler_output`` if its weights are in the file, the CLS token, or the mean over the image.

    Raises:
        UserError: it cannot be loaded, or lacks weights.
    """
    _quiet()
    try:
        model, info = AutoModel.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    except _ERRORS as error:
        raise _cannot_load(f"--features {source}", error) from None
    absent = set(info["missing_keys"])
    pooled = not any(".pooler." in f".{name}" for name in absent)
    others = sorted(name for name in absent if ".pooler." not in f".{name}")
    if others:
        raise UserError(
            f"--features {source}: lacks {len(others)} of the network's weights ({others[0]}, ...);"
            " give a complete model"
        )
    kind = model.config.model_type
    prepare, resize = _preprocessing(source, model)
    device = pick_device(device_name)
    embedding = _Embedding(model.to(device).eval(), kind, pooled)
    extract = network_extractor(prepare, embedding, device)
    try:
        extract([np.zeros((64, 64, 3), np.uint8)])
    except Exception as error:  # a network that takes text, sound or video may fail in any way
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--features {source}: {kind} does not take images ({reason}); give a vision model"
        ) from None
    about = f"{_public_name(source)}: {embedding.about}; {resize}"
    digest = tensors_digest(model.state_dict())
    return FeatureExtractor(f"fd_{kind}", about, extract, digest, resize)


def clip_extractor(source: str, device_name: str) -> FeatureExtractor:
    """Return CLIP's image embeddings of unit length, as CMMD compares them (arXiv 2401.09603).

    As in its authors' code, the whole image is brought to the network's size by an antialiased
    bicubic, without the crop of CLIP's own preprocessing.

    Raises:
        UserError: it cannot be loaded, or is not CLIP.
    """
    _quiet()
    try:
        kind = AutoConfig.from_pretrained(source).model_type
        if kind not in _CLIP:
            raise UserError(f"--cmmd {source}: is {kind}, not CLIP; give a CLIP model")
        loader = AutoModel if kind == "clip" else CLIPVisionModelWithProjection
        model = loader.from_pretrained(source, dtype=torch.float32)
        processor = AutoImageProcessor.from_pretrained(source, **_PILLOW)
    except _ERRORS as error:
        raise _cannot_load(f"--cmmd {source}", error) from None
    vision = getattr(model.config, "vision_config", model.config)
    side, device = int(vision.image_size), pick_device(device_name)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (processor.image_mean, processor.image_std))
    model.to(device).eval()

    def prepare(image: Array) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
        x = F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)
        return (x[0] - mean) / std

    def embed(images_BCHW: Tensor) -> Tensor:
        return F.normalize(_clip_embedding(model, images_BCHW), dim=1)

    resize = f"whole image to {side}x{side}, antialiased bicubic"
    about = f"{_public_name(source)}: CLIP's image embeddings of unit length; {resize}"
    extract = network_extractor(prepare, embed, device)
    return FeatureExtractor(CMMD, about, extract, tensors_digest(model.state_dict()), resize)


def _quiet() -> None:
    # Without this it warns about the classifier's weights, which are not loaded on purpose.
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _cannot_load(given: str, error: BaseException) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{given}: cannot be loaded ({reason}); give a model folder or a Hub id")


def _public_name(source: str) -> str:
    """Only a folder's name: the report must not contain paths of this machine."""
    return Path(source).name if Path(source).is_dir() else source


def _clip_embedding(model: nn.Module, images_BCHW: Tensor) -> Tensor:
    pooled = model.vision_model(pixel_values=images_BCHW).pooler_output  # type: ignore[operator]
    embedding: Tensor = model.visual_projection(pooled)  # type: ignore[operator]
    return embedding


class _Embedding:
    """Inputs of a vision model (B, 3, H, W) to features (B, D); ``about`` says which they are."""

    def __init__(self, model: nn.Module, kind: str, pooled: bool) -> None:
        """Take the model, its ``model_type``, and whether the weights of its pooler are known."""
        self.model = model
        self.kind = kind
        self.pooled = pooled
        self.has_cls = any(
            name.endswith(("cls_token", "class_embedding")) for name in model.state_dict()
        )
        self.about = ""

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        value, self.about = self._value(images_BCHW)
        return value

    def _value(self, images_BCHW: Tensor) -> tuple[Tensor, str]:
        if self.kind == "clip":
            return _clip_embedding(self.model, images_BCHW), "image embedding"
        model = self.model.vision_model if hasattr(self.model, "text_model") else self.model
        output = model(pixel_values=images_BCHW)  # type: ignore[operator]
        hidden: Tensor = output.last_hidden_state
        pooler: Tensor | None = getattr(output, "pooler_output", None)
        if hidden.ndim == 3 and self.has_cls and (self.kind in _CLS or not self.pooled):
            return hidden[:, 0], "CLS token"
        if pooler is not None and self.pooled:
            return pooler.flatten(1), "pooler_output"
        if hidden.ndim == 4:
            return hidden.mean((2, 3)), "mean over the image"
        if self.has_cls:
            return hidden[:, 0], "CLS token"
        return hidden.mean(1), "mean over the image"


def _preprocessing(source: str, model: Any) -> tuple[Callable[[Array], Tensor], str]:
    """Return the model's own preprocessing of one image, and it in words."""
    try:
        processor = AutoImageProcessor.from_pretrained(source, **_PILLOW)
    except _ERRORS:
        side = getattr(model.config, "image_size", 224)
        side = int(side) if isinstance(side, int) else 224
        resize = f"whole image to {side}x{side}, bilinear; it has no preprocessor_config.json"
        logger.info(f"--features {source}: no preprocessor_config.json: {resize.split(';')[0]}")
        return lambda image: _plain(to_levels(image), side), resize

    def prepare(image: Array) -> Tensor:
        values = processor(
            images=[to_levels(image)], return_tensors="pt", input_data_format="channels_last"
        )
        pixels: Tensor = values["pixel_values"][0]
        return pixels

    return prepare, _words(processor)


def _plain(image_HWC: npt.NDArray[np.uint8], side: int) -> Tensor:
    resized = Image.fromarray(image_HWC).resize((side, side), Image.Resampling.BILINEAR)
    pixels = (np.array(resized, np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)


def _words(processor: Any) -> str:
    size = getattr(processor, "size", None) or {}
    numbers = "x".join(str(size[key]) for key in ("height", "width") if size.get(key))
    to = numbers or f"shortest side {size.get('shortest_edge')}"
    filters = Image.Resampling(int(getattr(processor, "resample", None) or 2)).name.lower()
    parts = [f"{to}, {filters}"] if getattr(processor, "do_resize", True) else []
    if getattr(processor, "do_center_crop", False):
        crop = processor.crop_size
        parts.append(f"centre {crop['height']}x{crop['width']}")
    return "its own preprocessing: " + (", ".join(parts) or "no resize")

"""Networks of the Transformers library with the interface of ``small_unet.UNet``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSemanticSegmentation,
    PreTrainedModel,
    SegformerConfig,
)
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils import ModelOutput, logging

from semsynth.core.errors import UserError
from semsynth.core.paths import may_be_hub_id
from semsynth.segmentation.encoder_unet import EncoderOptions, EncoderUNet
from semsynth.segmentation.small_unet import Perturb

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
# SegFormer predicts at a quarter of its input size: images smaller than this are enlarged first.
_SMALLEST_SIDE = 128
# Where an encoder returns its feature maps.
_FEATURES = ("feature_maps", "hidden_states", "last_hidden_state")


def segformer_arch(name: str, num_classes: int) -> dict[str, Any]:
    """Return the ``arch`` of an untrained ``segformer-tiny`` or ``segformer-b0`` (as mit-b0)."""
    config = SegformerConfig() if name == "segformer-b0" else _tiny_config()
    return {
        "kind": "segmentation",
        "config": {**config.to_dict(), "num_labels": num_classes},
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }


def _tiny_config() -> SegformerConfig:
    return SegformerConfig(
        hidden_sizes=[16, 32, 64, 96],
        depths=[1, 1, 2, 1],
        num_attention_heads=[1, 2, 4, 4],
        decoder_hidden_size=64,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
    )


def build(arch: dict[str, Any], num_classes: int) -> nn.Module:
    """Build the network of an ``arch``, randomly initialised."""
    values = dict(arch["config"])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    if arch["kind"] == "segmentation":
        model = AutoModelForSemanticSegmentation.from_config(config, dtype=torch.float32)
        return SegmentationNet(model)
    model = AutoModel.from_config(config, dtype=torch.float32)
    return backbone_unet(model, num_classes, int(arch.get("enlarge", 1)))


def from_pretrained(
    source: str, num_classes: int, enlarge: int = 1
) -> tuple[dict[str, Any], nn.Module]:
    """Load a pretrained model from a folder or a Hub id; return its ``arch`` and the network.

    A segmentation model is used whole (a head with another number of classes is replaced by a
    randomly initialised one); any other vision model becomes the encoder of a U-Net, which sees
    images ``enlarge`` times as large.

    Raises:
        UserError: it cannot be found or downloaded, or has no feature maps; or ``enlarge`` is given
            to a segmentation model.
    """
    # Of a path to nothing the message of the hub would be obscure.
    if not (Path(source).exists() or may_be_hub_id(source, owner=False)):
        raise UserError(f"init_from {source}: no such folder; give a model folder or a Hub id")
    logging.set_verbosity_error()  # it would warn about heads that are initialised on purpose
    logging.disable_progress_bar()
    try:
        names = AutoConfig.from_pretrained(source).architectures or [""]
        kind = "segmentation" if "SemanticSegmentation" in names[0] else "backbone"
        if kind == "segmentation":
            model = AutoModelForSemanticSegmentation.from_pretrained(
                source, num_labels=num_classes, ignore_mismatched_sizes=True, dtype=torch.float32
            )
            config = {**model.config.to_dict(), "num_labels": num_classes}
        else:
            model = AutoModel.from_pretrained(source, dtype=torch.float32)
            config = model.config.to_dict()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = shorten(str(error), 200, placeholder=" ...")
        raise UserError(
            f"init_from {source}: cannot be loaded ({reason}); give a model folder or a Hub id"
        ) from None
    if kind == "segmentation" and enlarge > 1:
        raise UserError(
            f"init_from {source}: is a segmentation model, --enlarge is for encoders; drop the flag"
        )
    pixels = preprocessing(source)
    arch: dict[str, Any] = {
        "kind": kind,
        "config": config,
        "mean": list(pixels.get("image_mean") or IMAGENET_MEAN),
        "std": list(pixels.get("image_std") or IMAGENET_STD),
    }
    if kind == "segmentation":
        return arch, SegmentationNet(model)
    if enlarge > 1:
        arch = {**arch, "enlarge": enlarge}
    return arch, backbone_unet(model, num_classes, enlarge)


def preprocessing(source: str) -> dict[str, Any]:
    """Return the ``preprocessor_config.json`` of a folder or a Hub id; empty if it has none."""
    try:
        values: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(source)[0]
    except OSError:
        return {}
    return values


class SegmentationNet(nn.Module):
    """A Transformers semantic segmentation model: images to logits of the same size."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Wrap ``model``."""
        super().__init__()
        self.model = model

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that come from the pretrained model: all but the head's."""
        return list(self.model.base_model.parameters())

    def forward(self, x_BCHW: Tensor, perturb: Perturb | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes, H, W) and features (B, D), the last hidden state's mean.

        ``perturb`` changes what the head gets of the encoder, if the model has one apart.
        """
        height, width = x_BCHW.shape[-2:]
        scale = _SMALLEST_SIDE / min(height, width)
        x = x_BCHW
        if scale > 1:
            size = (round(height * scale), round(width * scale))
            x = F.interpolate(x, size=size, mode="bilinear")
        with _perturbed(self.model, perturb):
            output = self.model(pixel_values=x, output_hidden_states=True)
        logits = F.interpolate(output.logits, size=(height, width), mode="bilinear")
        hidden = output.hidden_states[-1]
        return logits, hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1)


@contextmanager
def _perturbed(model: PreTrainedModel, perturb: Perturb | None) -> Iterator[None]:
    """Change what the encoder of a segmentation model returns, while a block runs."""
    encoder = model.base_model
    if encoder is model:
        encoder = getattr(model, "backbone", None)
    if perturb is None or encoder is None:
        yield
        return

    def change(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        for name, value in output.items() if isinstance(output, ModelOutput) else ():
            if name in _FEATURES and value is not None:
                several = isinstance(value, tuple | list)
                output[name] = tuple(map(perturb, value)) if several else perturb(value)
        return output

    handle = encoder.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def backbone_unet(model: PreTrainedModel, num_classes: int, enlarge: int = 1) -> EncoderUNet:
    """Return a U-Net on any vision model with feature maps at several resolutions.

    The encoder's normalization keeps its pretrained statistics during training: batches are small
    and may mix real and synthetic images.
    """
    options = EncoderOptions(model.config.model_type, fixed_norms=True, enlarge=enlarge)
    return EncoderUNet(model, _hidden_maps, num_classes, options)


def _hidden_maps(model: nn.Module, x: Tensor) -> dict[int, Tensor]:
    """Return the last feature map of each stride from 2 on."""
    states = model(pixel_values=x, output_hidden_states=True).hidden_states
    maps = {x.shape[-1] // h.shape[-1]: h for h in states if h.ndim == 4}
    return {stride: h for stride, h in maps.items() if stride > 1}

"""Segmentation networks of the Transformers library behind the same face as ``UNet``."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    PreTrainedModel,
    SegformerConfig,
)

from semsynth.runtime.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# SegFormer answers at a quarter of its input: smaller pictures than this are enlarged first.
_SMALLEST_SIDE = 128


def segformer_config(arch: str, num_classes: int) -> dict[str, Any]:
    """Return what ``HubNet.from_config`` needs for ``segformer-tiny`` or ``segformer-b0``."""
    config = SegformerConfig() if arch == "segformer-b0" else _tiny_config()
    return {**config.to_dict(), "num_labels": num_classes}


def _tiny_config() -> SegformerConfig:
    return SegformerConfig(
        hidden_sizes=[16, 32, 64, 96],
        depths=[1, 1, 2, 1],
        num_attention_heads=[1, 2, 4, 4],
        decoder_hidden_size=64,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
    )


class HubNet(nn.Module):
    """A Transformers semantic segmentation model: pictures to logits of the same size."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Wrap ``model``."""
        super().__init__()
        self.model = model

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HubNet:
        """Build without weights from ``config_dict()``."""
        values = dict(config)
        return cls(
            AutoModelForSemanticSegmentation.from_config(
                AutoConfig.for_model(values.pop("model_type"), **values)
            )
        )

    @classmethod
    def from_pretrained(cls, source: str, num_classes: int) -> HubNet:
        """Load a folder or an id; a head of another size is replaced by a fresh one.

        Raises:
            UserError: it cannot be found, downloaded or used for segmentation.
        """
        try:
            model = AutoModelForSemanticSegmentation.from_pretrained(
                source, num_labels=num_classes, ignore_mismatched_sizes=True
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"init_from {source}: cannot be loaded ({reason})") from None
        return cls(model)

    def config_dict(self) -> dict[str, Any]:
        """Return what ``from_config`` needs, as JSON values."""
        config: dict[str, Any] = self.model.config.to_dict()
        return {"num_labels": self.model.config.num_labels, **config}

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes, H, W) and features (B, D): the last hidden state's mean."""
        height, width = x_BCHW.shape[-2:]
        scale = _SMALLEST_SIDE / min(height, width)
        x = x_BCHW
        if scale > 1:
            size = (round(height * scale), round(width * scale))
            x = F.interpolate(x, size=size, mode="bilinear")
        output = self.model(pixel_values=x, output_hidden_states=True)
        logits = F.interpolate(output.logits, size=(height, width), mode="bilinear")
        hidden = output.hidden_states[-1]
        return logits, hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1)

"""An untrained model of 16x24 pixels whose last layers are not zero, as a file has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.config import ModelConfig
from semsynth.pipelines.formats.model_file import ModelFile, build_network

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 9: "car"}, ignore_id=0)


def tiny_file(
    metadata: Mapping[str, Any],
    labels: LabelSet = LABELS,
    model: Mapping[str, Any] | None = None,
    **diffusion: Any,
) -> ModelFile:
    """Return the file of a model; ``model`` has what differs, ``diffusion`` its configuration."""
    config = ModelConfig.model_validate({
        "codec": "haar", "haar_levels": 1, "base_channels": 16, "channel_mult": [1, 2],
        "blocks_per_level": 1, "attention_factors": [2], "head_channels": 16, "spade_hidden": 8,
        **(model or {}),
    })  # fmt: skip
    settings = DiffusionConfig.model_validate(diffusion)
    torch.manual_seed(0)
    unet, _ = build_network(config, settings, labels.num_channels)
    for parameter in unet.parameters():  # the last layers of a fresh network are zero
        torch.nn.init.normal_(parameter, std=0.05)
    return ModelFile(config, settings, labels, 16, 24, unet.state_dict(), dict(metadata))

"""The closed-form weights and inputs of the parity figures (tests/parity), as its README says."""

from __future__ import annotations

import json
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from semsynth.models.sdm.condition import one_hot
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.convert.config import ImportConfig
from semsynth.pipelines.convert.import_official import Origin, describe, with_weights
from semsynth.pipelines.formats.model_file import load_network

FOLDER = Path(__file__).parents[1] / "parity"
NAMES = ("paper_tiny", "instance_tiny")


def wave(name: str, shape: tuple[int, ...]) -> np.ndarray:
    i = np.arange(prod(shape), dtype=np.float64)
    phase = (zlib.crc32(name.encode()) % 100003) / 1000
    return (np.sqrt(2) * np.sin(12.9898 * i + phase + 0.37 * np.sin(0.7311 * i))).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    value = wave(name, shape)
    if len(shape) >= 2:
        value = value * 0.8 / np.sqrt(prod(shape[1:]))
    elif name.endswith("weight"):
        value = 1 + 0.1 * value
    else:
        value = 0.1 * value
    return torch.from_numpy(value.astype(np.float32))


def figures(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    description = json.loads((FOLDER / f"{name}.json").read_text())
    return description, load_file(FOLDER / f"{name}.safetensors")


def state(description: dict[str, Any]) -> dict[str, Tensor]:
    """The official state dict."""
    shapes = {name: tuple(shape) for name, shape in description["parameters"].items()}
    return {name: weight(name, shape) for name, shape in shapes.items()}


def network(description: dict[str, Any]) -> SemanticUNet:
    """The network as `semsynth import` makes it: its configuration comes from the shapes."""
    config = description["config"]
    side = config["image_size"]
    flags = ImportConfig(
        Path("figures.pt"),
        Path(),
        instances=not config["no_instance"],
        head_channels=config["num_head_channels"],
        size=str(side),
    )
    official = state(description)
    bundle = with_weights(describe(official, flags, Origin()), official, "figures.pt")
    return load_network(bundle)


def label_map(tensors: dict[str, Tensor], key: str, unet: SemanticUNet) -> Tensor:
    """One-hot labels, and the edge map as the last channel where there is one."""
    edges = tensors.get(f"out/{key}/edges")
    return one_hot(unet, tensors[f"in/{key}"][:, 0], None if edges is None else edges[:, 0])

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

from semsynth.model.official import load_official
from semsynth.model.unet import SemanticUNet

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


def network(description: dict[str, Any]) -> SemanticUNet:
    config = description["config"]
    side = config["image_size"]
    unet = SemanticUNet(
        in_channels=3,
        out_channels=6,
        label_channels=config["num_classes"] + (not config["no_instance"]),
        base_channels=config["num_channels"],
        channel_mult=tuple(int(m) for m in config["channel_mult"].split(",")),
        blocks_per_level=config["num_res_blocks"],
        attention_factors=tuple(side // int(r) for r in config["attention_resolutions"].split(",")),
        head_channels=config["num_head_channels"],
        instance_edges=not config["no_instance"],
    )
    shapes = {name: tuple(shape) for name, shape in description["parameters"].items()}
    load_official(unet, {name: weight(name, shape) for name, shape in shapes.items()})
    return unet.eval()


def label_map(tensors: dict[str, Tensor], key: str, unet: SemanticUNet) -> Tensor:
    """One-hot labels, and the edge map as the last channel where there is one."""
    edges = tensors.get(f"out/{key}/edges")
    return unet.one_hot(tensors[f"in/{key}"][:, 0], None if edges is None else edges[:, 0])

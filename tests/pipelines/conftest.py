"""A small untrained model, and masks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from semsynth.core import devices
from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.config import ModelConfig
from semsynth.pipelines.formats.model_file import ModelFile, build_network
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 9: "car"}, ignore_id=0)
METADATA = {"licence": "CC BY 4.0", "dataset": "toys", "step": 7, "recipe": {"name": "tiny"}}
PAPER = {"prediction": "epsilon", "learn_sigma": True, "schedule": "linear"}


def make_file(codec: str = "haar", edges: bool = False, **diffusion: Any) -> ModelFile:
    model = ModelConfig.model_validate({
        "codec": codec, "haar_levels": 1, "base_channels": 16, "channel_mult": [1, 2],
        "blocks_per_level": 1, "attention_factors": [2], "head_channels": 16, "spade_hidden": 8,
        "instance_edges": edges,
    })  # fmt: skip
    config = DiffusionConfig.model_validate(diffusion)
    torch.manual_seed(0)
    unet, _ = build_network(model, config, LABELS.num_channels)
    for parameter in unet.parameters():  # the last layers of a fresh network are zero
        torch.nn.init.normal_(parameter, std=0.05)
    return ModelFile(model, config, LABELS, 16, 24, unet.state_dict(), dict(METADATA))


def make_pipe(*args: Any, metadata: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    file = make_file(*args, **kwargs)
    pipe = SemanticDiffusionPipeline.from_model_file(
        replace(file, metadata=metadata or file.metadata)
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_masks(count: int, height: int = 16, width: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.choice(np.array([0, 1, 2, 9], np.uint8), (count, height, width))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Diffusers' bars and notes about settings that a scheduler does not use."""
    level = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    yield
    diffusers.utils.logging.set_verbosity(level)
    diffusers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def pipe() -> Any:
    """A pipeline whose metadata, scheduler and network no test changes."""
    return make_pipe()


@pytest.fixture
def new_pipe() -> Callable[..., Any]:
    """Makes pipelines that a test may change: (codec, edges, **diffusion, metadata)."""
    return make_pipe


@pytest.fixture
def new_masks() -> Callable[..., np.ndarray]:
    """Makes (count, height, width) masks of ids 0, 1, 2 and 9."""
    return make_masks


@pytest.fixture(autouse=True)
def no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers on all CPUs; tests of bfloat16 say so."""
    monkeypatch.setattr(devices, "cpu_bfloat16", str)

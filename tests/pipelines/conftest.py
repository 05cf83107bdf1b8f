"""A small untrained model, and masks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
from tiny_model import tiny_file

from semsynth.core import devices
from semsynth.pipelines.formats.model_file import ModelFile
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline

METADATA = {"licence": "CC BY 4.0", "dataset": "toys", "step": 7, "recipe": {"name": "tiny"}}
PAPER = {"prediction": "epsilon", "learn_sigma": True, "schedule": "linear"}


def make_file(codec: str = "haar", edges: bool = False, **diffusion: Any) -> ModelFile:
    model = {"codec": codec, "instance_edges": edges}
    return tiny_file(METADATA, model=model, **diffusion)


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

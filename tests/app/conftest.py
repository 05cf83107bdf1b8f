"""Small untrained models in files, for the studio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes model files: (name, labels or None, recipe or None, **diffusion); 16x24 pixels.

    Labels are 0 void (ignored), 1 road, 2 sky, 9 car by default.
    """
    pytest.importorskip("starlette", reason="needs semsynth[app]")
    pytest.importorskip("uvicorn", reason="needs semsynth[app]")
    import torch

    from semsynth.data.labels import LabelSet
    from semsynth.diffusion.config import DiffusionConfig
    from semsynth.models.config import ModelConfig
    from semsynth.pipelines.formats.model_file import ModelFile, build_network, save_model_file

    folder = tmp_path_factory.mktemp("models")

    def make(
        name: str, labels: Any = None, recipe: dict[str, Any] | None = None, **diffusion: Any
    ) -> Path:
        names = {0: "void", 1: "road", 2: "sky", 9: "car"}
        labels = labels or LabelSet.from_names(names, ignore_id=0)
        model = ModelConfig.model_validate({
            "codec": "haar", "haar_levels": 1, "base_channels": 16, "channel_mult": [1, 2],
            "blocks_per_level": 1, "attention_factors": [2], "head_channels": 16, "spade_hidden": 8,
            "image_channels": diffusion.pop("image_channels", 3),
        })  # fmt: skip
        config = DiffusionConfig.model_validate(diffusion)
        torch.manual_seed(0)
        unet, _ = build_network(model, config, labels.num_channels)
        for parameter in unet.parameters():  # the last layers of a fresh network are zero
            torch.nn.init.normal_(parameter, std=0.05)
        facts = {"licence": "CC BY 4.0", "step": 7, "recipe": recipe or {"name": "tiny"}}
        file = ModelFile(model, config, labels, 16, 24, unet.state_dict(), facts)
        path = folder / f"{name}.pth"
        save_model_file(path, file)
        return path

    return make


@pytest.fixture(scope="session")
def fast_path(model_path: Make) -> Path:
    """A model of one evaluation."""
    return model_path("fast", evaluations=1)


@pytest.fixture(scope="session")
def slow_path(model_path: Make) -> Path:
    """A model of any number of steps."""
    return model_path("slow")

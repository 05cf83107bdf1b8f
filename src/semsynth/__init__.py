"""Photorealistic images from segmentation masks with a SPADE diffusion model.

The names in `__all__` are the public Python API (docs/reference/api.md). They load on first use,
so that `import semsynth` and every `semsynth VERB --help` stay free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from semsynth.core.version import __version__

if TYPE_CHECKING:
    from semsynth.app.launch import launch_app
    from semsynth.core.errors import UserError
    from semsynth.data.config import PrepareConfig
    from semsynth.data.dataset import PreparedDataset
    from semsynth.data.labels import Label, LabelSet
    from semsynth.data.prepare.run import prepare as prepare_dataset
    from semsynth.diffusion.config import SamplerSettings
    from semsynth.evaluation.config import EvaluateConfig
    from semsynth.evaluation.run import evaluate as evaluate_model
    from semsynth.evaluation.run import evaluate_folders
    from semsynth.models.sdm.unet import SemanticUNet
    from semsynth.pipelines.from_image import FromImage
    from semsynth.pipelines.generate.config import GenerateConfig
    from semsynth.pipelines.generate.run import generate as generate_images
    from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
    from semsynth.segmentation.segmenter import Segmenter
    from semsynth.training.loop import train as train_semantic_diffusion
    from semsynth.training.recipe import TrainConfig

# The verbs' functions carry the names of the seed's scripts here: plain `train`, `generate` and
# `evaluate` would be mistaken for packages.
_LAZY = {
    "EvaluateConfig": ("semsynth.evaluation.config", "EvaluateConfig"),
    "FromImage": ("semsynth.pipelines.from_image", "FromImage"),
    "GenerateConfig": ("semsynth.pipelines.generate.config", "GenerateConfig"),
    "Label": ("semsynth.data.labels", "Label"),
    "LabelSet": ("semsynth.data.labels", "LabelSet"),
    "PrepareConfig": ("semsynth.data.config", "PrepareConfig"),
    "PreparedDataset": ("semsynth.data.dataset", "PreparedDataset"),
    "SamplerSettings": ("semsynth.diffusion.config", "SamplerSettings"),
    "Segmenter": ("semsynth.segmentation.segmenter", "Segmenter"),
    "SemanticDiffusionPipeline": ("semsynth.pipelines.pipeline", "SemanticDiffusionPipeline"),
    "SemanticUNet": ("semsynth.models.sdm.unet", "SemanticUNet"),
    "TrainConfig": ("semsynth.training.recipe", "TrainConfig"),
    "UserError": ("semsynth.core.errors", "UserError"),
    "evaluate_folders": ("semsynth.evaluation.run", "evaluate_folders"),
    "evaluate_model": ("semsynth.evaluation.run", "evaluate"),
    "generate_images": ("semsynth.pipelines.generate.run", "generate"),
    "launch_app": ("semsynth.app.launch", "launch_app"),
    "prepare_dataset": ("semsynth.data.prepare.run", "prepare"),
    "train_semantic_diffusion": ("semsynth.training.loop", "train"),
}

__all__ = [
    "EvaluateConfig",
    "FromImage",
    "GenerateConfig",
    "Label",
    "LabelSet",
    "PrepareConfig",
    "PreparedDataset",
    "SamplerSettings",
    "Segmenter",
    "SemanticDiffusionPipeline",
    "SemanticUNet",
    "TrainConfig",
    "UserError",
    "__version__",
    "evaluate_folders",
    "evaluate_model",
    "generate_images",
    "launch_app",
    "prepare_dataset",
    "train_semantic_diffusion",
]


# Where Diffusers loads a folder's `["semsynth", "SemanticUNet"]` it looks here for the base class
# that can do it.
_BASE = "ModelMixin"


def __getattr__(name: str) -> Any:
    """Load the public name on first use; AttributeError for any other."""
    if name == _BASE:
        return getattr(import_module("diffusers"), _BASE)
    if name not in _LAZY:
        raise AttributeError(f"module 'semsynth' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the names that exist, the lazy ones included."""
    return sorted({*globals(), *__all__})

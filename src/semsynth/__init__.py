"""Photorealistic pictures from segmentation masks with a SPADE diffusion model.

The names in `__all__` are the public Python API (docs/api.md). They load on first use, so that
`import semsynth` and every `semsynth VERB --help` stay free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semsynth.data.config import PrepareConfig
    from semsynth.data.labels import Label, LabelSet
    from semsynth.data.prepare import prepare as prepare_dataset
    from semsynth.data.prepared import PreparedDataset
    from semsynth.diffusion.settings import SamplerSettings
    from semsynth.evaluate.config import EvaluateConfig
    from semsynth.evaluate.run import evaluate as evaluate_model
    from semsynth.generate.config import GenerateConfig
    from semsynth.generate.run import generate as generate_images
    from semsynth.pipeline import SemanticDiffusionPipeline
    from semsynth.runtime.errors import SemsynthWarning, UserError
    from semsynth.segment.network import Segmenter
    from semsynth.train.config import TrainConfig
    from semsynth.train.loop import train as train_semantic_diffusion

__version__ = "0.1.0"

# The verbs' functions carry the names of the seed's scripts here: plain `train`, `generate` and
# `evaluate` are the rooms.
_LAZY = {
    "EvaluateConfig": ("semsynth.evaluate.config", "EvaluateConfig"),
    "GenerateConfig": ("semsynth.generate.config", "GenerateConfig"),
    "Label": ("semsynth.data.labels", "Label"),
    "LabelSet": ("semsynth.data.labels", "LabelSet"),
    "PrepareConfig": ("semsynth.data.config", "PrepareConfig"),
    "PreparedDataset": ("semsynth.data.prepared", "PreparedDataset"),
    "SamplerSettings": ("semsynth.diffusion.settings", "SamplerSettings"),
    "Segmenter": ("semsynth.segment.network", "Segmenter"),
    "SemanticDiffusionPipeline": ("semsynth.pipeline", "SemanticDiffusionPipeline"),
    "SemsynthWarning": ("semsynth.runtime.errors", "SemsynthWarning"),
    "TrainConfig": ("semsynth.train.config", "TrainConfig"),
    "UserError": ("semsynth.runtime.errors", "UserError"),
    "evaluate_model": ("semsynth.evaluate.run", "evaluate"),
    "generate_images": ("semsynth.generate.run", "generate"),
    "prepare_dataset": ("semsynth.data.prepare", "prepare"),
    "train_semantic_diffusion": ("semsynth.train.loop", "train"),
}

__all__ = [
    "EvaluateConfig",
    "GenerateConfig",
    "Label",
    "LabelSet",
    "PrepareConfig",
    "PreparedDataset",
    "SamplerSettings",
    "Segmenter",
    "SemanticDiffusionPipeline",
    "SemsynthWarning",
    "TrainConfig",
    "UserError",
    "__version__",
    "evaluate_model",
    "generate_images",
    "prepare_dataset",
    "train_semantic_diffusion",
]


def __getattr__(name: str) -> Any:
    """Load the public name on first use; AttributeError for any other."""
    if name not in _LAZY:
        raise AttributeError(f"module 'semsynth' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the names that exist, the lazy ones included."""
    return sorted({*globals(), *__all__})

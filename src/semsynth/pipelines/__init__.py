"""A trained generator as one object: from a label map to images.

The pipeline loads on first use: command lines read the plain values of this room without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semsynth.pipelines.pipeline import SemanticDiffusionPipeline

__all__ = ["SemanticDiffusionPipeline"]


def __getattr__(name: str) -> Any:
    """Load the pipeline on first use; AttributeError for any other name."""
    if name not in __all__:
        raise AttributeError(f"module 'semsynth.pipelines' has no attribute {name!r}")
    from semsynth.pipelines.pipeline import SemanticDiffusionPipeline

    return SemanticDiffusionPipeline

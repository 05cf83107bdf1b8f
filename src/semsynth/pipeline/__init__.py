"""A trained generator as one object: from a label map to pictures."""

from __future__ import annotations

from semsynth.pipeline.pipeline import SemanticDiffusionPipeline

__all__ = ["SemanticDiffusionPipeline"]

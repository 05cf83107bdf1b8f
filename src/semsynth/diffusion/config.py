"""What is diffused and what the network predicts, as plain values (no torch)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from semsynth.runtime.config import Config


class DiffusionConfig(Config):
    """The forward process and the training target.

    Attributes:
        prediction: ``sample`` (x0; the default) or ``epsilon`` (the noise; the paper).
        schedule: ``cosine`` (Nichol and Dhariwal, arXiv 2102.09672) or ``linear`` (the paper).
        timesteps: number of noise levels.
        shift: the signal-to-noise ratio of ``cosine`` is divided by its square: more than 1 puts
            more training on high noise, as large pictures need (arXiv 2301.11093).
        learn_sigma: the variance is learned with the hybrid loss (only with ``epsilon``).
        loss_sigma_min: with ``sample``, the squared error is divided by max(sigma, this)^2, which
            is the loss of v-prediction, bounded.
    """

    prediction: Literal["sample", "epsilon"] = "sample"
    schedule: Literal["cosine", "linear"] = "cosine"
    timesteps: int = Field(1000, ge=10, le=100_000)
    shift: float = Field(1.0, gt=0)
    learn_sigma: bool = False
    loss_sigma_min: float = Field(0.1, gt=0, le=1)

    @model_validator(mode="after")
    def _learned_variance_belongs_to_epsilon(self) -> Self:
        if self.learn_sigma and self.prediction != "epsilon":
            raise ValueError("learn_sigma needs prediction: epsilon")
        if self.shift != 1.0 and self.schedule != "cosine":
            raise ValueError("shift needs schedule: cosine")
        return self

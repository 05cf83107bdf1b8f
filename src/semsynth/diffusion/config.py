"""What is diffused and what the network predicts, as plain values (no torch)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from semsynth.core.config import Config

Prediction = Literal["sample", "epsilon", "v_prediction", "flow_prediction"]


class DiffusionConfig(Config):
    """The forward process and the training target.

    Attributes:
        prediction: ``sample`` (x0; the default), ``epsilon`` (the noise; the paper),
            ``v_prediction`` (alpha eps - sigma x0, arXiv 2202.00512, section 4) or
            ``flow_prediction`` (eps - x0, the velocity of rectified flow, arXiv 2209.03003, eq. 1;
            from image to noise, as Diffusers has it).
        schedule: ``cosine`` (Nichol and Dhariwal, arXiv 2102.09672), ``linear`` (the paper), or
            ``flow``: x_t = (1 - s) x0 + s eps with s = t / timesteps.
        timesteps: number of noise levels; with ``flow`` only the scale of t.
        shift: the signal-to-noise ratio of ``cosine`` and ``flow`` is divided by its square: more
            than 1 puts more training on high noise, as large images need (arXiv 2301.11093,
            section 2.1; 2403.03206, eq. 23).
        zero_terminal_snr: the last level is pure noise (arXiv 2305.08891, algorithm 1).
        learn_sigma: the variance is learned with the hybrid loss (only with ``epsilon``).
        loss_sigma_min: with ``sample``, the squared error is divided by max(sigma, this)^2, which
            is the loss of v-prediction, SNR + 1, bounded: by 10 as it stands (measured:
            docs/results/objectives.md).
        min_snr_gamma: weight the squared error of x0 by min(SNR, this) instead (arXiv 2303.09556,
            section 3.4; 5 in the paper), and that of the noise or v accordingly.
        times: how training draws noise levels: ``uniform``, or ``logit_normal`` (arXiv 2403.03206,
            eq. 19).
        logit_mean: location of ``logit_normal``: more than 0 is more noise.
        logit_std: its scale.
    """

    prediction: Prediction = "sample"
    schedule: Literal["cosine", "linear", "flow"] = "cosine"
    timesteps: int = Field(1000, ge=10, le=100_000)
    shift: float = Field(1.0, gt=0)
    zero_terminal_snr: bool = False
    learn_sigma: bool = False
    loss_sigma_min: float = Field(0.316, gt=0, le=1)
    min_snr_gamma: float | None = Field(None, gt=0)
    times: Literal["uniform", "logit_normal"] = "uniform"
    logit_mean: float = 0.0
    logit_std: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.learn_sigma and self.prediction != "epsilon":
            raise ValueError("learn_sigma needs prediction: epsilon")
        if (self.prediction == "flow_prediction") != (self.schedule == "flow"):
            raise ValueError("prediction: flow_prediction and schedule: flow need each other")
        if self.shift != 1.0 and self.schedule == "linear":
            raise ValueError("shift needs schedule: cosine or flow")
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError(
                "zero_terminal_snr cannot be with prediction: epsilon (pure noise tells nothing of "
                "the image); use v_prediction or sample"
            )
        if self.schedule == "flow":
            if self.zero_terminal_snr:
                raise ValueError("schedule: flow ends in pure noise anyway; drop zero_terminal_snr")
            if self.min_snr_gamma is not None:
                raise ValueError("min_snr_gamma is not for flow_prediction; use times")
        return self

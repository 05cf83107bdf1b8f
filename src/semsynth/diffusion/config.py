"""The forward process, what a network predicts, and the training loss, as plain values (no torch).

A recipe has the sections ``diffusion`` (``ProcessConfig``) and ``loss`` (``LossConfig``); a model
file keeps of both what sampling needs (``DiffusionConfig``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from semsynth.core.config import Config, is_number, plain_value
from semsynth.core.errors import UserError

Prediction = Literal["sample", "epsilon", "v_prediction", "flow_prediction"]
Weighting = Literal["uniform", "snr_plus_one", "min_snr"]

EVALUATIONS = (1, 2, 4)  # of a distilled model
MIN_SNR_GAMMA = 5.0  # arXiv 2303.09556, section 4
# What model files had before recipes had a section `loss`; sampling does not need it.
_TRAINING_ONLY = ("loss_sigma_min", "min_snr_gamma", "times", "logit_mean", "logit_std")


class ProcessConfig(Config):
    """The forward process.

    Attributes:
        schedule: ``cosine`` (Nichol and Dhariwal, arXiv 2102.09672), ``linear`` (the paper), or
            ``flow``: x_t = (1 - s) x0 + s eps with s = t / timesteps.
        timesteps: number of noise levels; with ``flow`` only the scale of t.
        shift: the signal-to-noise ratio of ``cosine`` and ``flow`` is divided by its square: more
            than 1 puts more training on high noise, as large images need (arXiv 2301.11093,
            section 2.1; 2403.03206, eq. 23).
    """

    schedule: Literal["cosine", "linear", "flow"] = "cosine"
    timesteps: int = Field(1000, ge=10, le=100_000)
    shift: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _shift_has_an_effect(self) -> Self:
        if self.shift != 1.0 and self.schedule == "linear":
            raise ValueError("shift needs schedule: cosine or flow")
        return self


class DiffusionConfig(ProcessConfig):
    """What sampling from a model needs: its forward process and what its network predicts.

    Attributes:
        prediction: see ``LossConfig``.
        learn_sigma: the network predicts the variance too.
        evaluations: of the network for an image, of a distilled model; 0: as many as are asked
            for. In files only where it is not 0, so that other models' files stay what they were.
    """

    prediction: Prediction = "sample"
    learn_sigma: bool = False
    evaluations: Literal[0, 1, 2, 4] = 0

    @model_serializer(mode="wrap")
    def _without_no_evaluations(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        if not self.evaluations:
            values.pop("evaluations", None)
        return values

    @model_validator(mode="before")
    @classmethod
    def _without_training_only_keys(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("zero_terminal_snr"):
            raise ValueError(
                "zero_terminal_snr is no longer supported: train the model again without it"
            )
        removed = (*_TRAINING_ONLY, "zero_terminal_snr")
        return {name: value for name, value in values.items() if name not in removed}

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_learned_variance(self.prediction, self.learn_sigma)
        check_flow(self.prediction, self.schedule)
        if self.evaluations and self.prediction != "sample":
            raise ValueError("evaluations needs prediction: sample")
        return self


class LossConfig(Config):
    """The training loss: what the network predicts, and how much each error counts.

    Attributes:
        prediction: ``sample`` (x0; the default), ``epsilon`` (the noise; the paper),
            ``v_prediction`` (alpha eps - sigma x0, arXiv 2202.00512, section 4) or
            ``flow_prediction`` (eps - x0, the velocity of rectified flow, arXiv 2209.03003, eq. 1;
            from image to noise, as Diffusers has it).
        learn_sigma: the variance is learned with the hybrid loss (only with ``epsilon``;
            arXiv 2102.09672, eq. 16).
        weighting: of the prediction's squared error at each noise level: ``uniform``;
            ``snr_plus_one``, the loss of v-prediction for ``sample``, whose squared error is
            divided by max(sigma, sigma_min)^2; ``min_snr``: min(SNR, min_snr_gamma) on the error of
            x0, whatever is predicted (arXiv 2303.09556, section 3.4). ``auto``: ``snr_plus_one``
            for ``sample``, ``uniform`` for the others.
        sigma_min: bound of ``snr_plus_one``: the weight is at most 10 at its default (measured:
            docs/results/objectives.md).
        min_snr_gamma: bound of ``min_snr`` (not set: 5, as in the paper).
        band_weights: with codec ``haar``, how much the squared errors of its bands count, the
            coarsest first (levels + 1 numbers; empty: all the same, as in pixels).
        timesteps: distribution of the noise levels in training: ``uniform``, or ``logit_normal``
            (arXiv 2403.03206, eq. 19).
        logit_mean: location of ``logit_normal``: more than 0 is more noise.
        logit_std: its scale.
    """

    prediction: Prediction = "sample"
    learn_sigma: bool = False
    weighting: Literal["auto", "uniform", "snr_plus_one", "min_snr"] = "auto"
    sigma_min: float = Field(0.316, gt=0, le=1)
    min_snr_gamma: float | None = Field(None, gt=0)
    band_weights: list[Annotated[float, Field(gt=0)]] = Field(default_factory=list)
    timesteps: Literal["uniform", "logit_normal"] = "uniform"
    logit_mean: float = 0.0
    logit_std: float = Field(1.0, gt=0)

    @property
    def chosen_weighting(self) -> Weighting:
        """Return the weighting, with ``auto`` resolved by the prediction."""
        if self.weighting != "auto":
            return self.weighting
        return "snr_plus_one" if self.prediction == "sample" else "uniform"

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_learned_variance(self.prediction, self.learn_sigma)
        if self.weighting == "snr_plus_one" and self.prediction != "sample":
            raise ValueError("weighting: snr_plus_one needs prediction: sample")
        if self.weighting == "min_snr" and self.prediction == "flow_prediction":
            raise ValueError("weighting: min_snr is not for flow_prediction; use timesteps")
        if self.min_snr_gamma is not None and self.weighting != "min_snr":
            raise ValueError("min_snr_gamma needs weighting: min_snr")
        return self


def check_learned_variance(prediction: Prediction, learn_sigma: bool) -> None:
    """Raise ValueError where a learned variance has no loss."""
    if learn_sigma and prediction != "epsilon":
        raise ValueError("learn_sigma needs prediction: epsilon")


def check_flow(prediction: Prediction, schedule: str) -> None:
    """Raise ValueError where only one of prediction and schedule is of rectified flow."""
    if (prediction == "flow_prediction") != (schedule == "flow"):
        raise ValueError("prediction: flow_prediction and schedule: flow need each other")


SamplerName = Literal["dpm++", "unipc", "euler", "ddim", "ddpm", "lcm"]
FEW_STEP: SamplerName = "lcm"
SAMPLERS = tuple(name for name in get_args(SamplerName) if name != FEW_STEP)
MAX_STEPS = 1000


@dataclass(frozen=True, init=False)
class SamplerSettings:
    """How an image is sampled: all that it depends on beside checkpoint, mask and seed.

    What is not given is ``dpm++``, 20 steps and guidance of 1.5; of a distilled model, what
    ``of_model`` says.

    Attributes:
        sampler: the Diffusers scheduler: ``dpm++`` (DPM-Solver++ 2M), ``unipc``, ``euler``,
            ``ddim`` or ``ddpm`` (ancestral, as the paper samples); ``lcm`` is that of distilled
            models.
        steps: denoising steps, 1 to 1000.
        guidance_scale: s of eps_null + s (eps_mask - eps_null); 1 means no guidance, 0
            ignores the mask.
        guidance_interval: the noise levels with guidance, as shares t / T from 0 (the image) to
            1 (noise); at the others the scale is 1 (arXiv 2404.07724).
        given: the names of those that were given.

    Example:
        >>> SamplerSettings(sampler="ddim", steps=50).guidance_scale
        1.5

    Raises:
        UserError: a value outside these ranges.
    """

    sampler: SamplerName
    steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float]
    given: frozenset[str] = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        sampler: SamplerName | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
    ) -> None:
        """Check the ranges; NumPy's numbers become Python's."""
        asked: dict[str, Any] = {
            "sampler": sampler,
            "steps": steps,
            "guidance_scale": guidance_scale,
            "guidance_interval": guidance_interval,
        }
        for name, value in asked.items():
            chosen = _DEFAULTS[name] if value is None else plain_value(value)
            object.__setattr__(self, name, chosen)
        names = frozenset(name for name, value in asked.items() if value is not None)
        object.__setattr__(self, "given", names)
        self._check_ranges()

    def _check_ranges(self) -> None:
        known = get_args(SamplerName)
        if self.sampler not in known:
            raise UserError(f"sampler is {self.sampler!r}: must be one of {', '.join(known)}")
        if not isinstance(self.steps, int) or isinstance(self.steps, bool):
            raise UserError(f"steps is {self.steps!r}: must be a whole number")
        if not 1 <= self.steps <= MAX_STEPS:
            raise UserError(f"steps is {self.steps}: must be from 1 to {MAX_STEPS}")
        scale = self.guidance_scale
        if not (is_number(scale) and math.isfinite(scale) and scale >= 0):
            raise UserError(f"guidance_scale is {scale!r}: must be a number of at least 0")
        given: Any = self.guidance_interval
        ends: list[Any] = plain_value(list(given)) if isinstance(given, Iterable) else []
        numbers = len(ends) == 2 and all(map(is_number, ends))
        if not numbers or not 0 <= ends[0] <= ends[1] <= 1:
            raise UserError(
                f"guidance_interval is {given!r}: must be two rising numbers from 0 to 1"
            )
        object.__setattr__(self, "guidance_interval", tuple(ends))

    def of_model(self, evaluations: int) -> SamplerSettings:
        """Return what a model samples with: its own values where none were given.

        A distilled model generates by ``lcm`` in its evaluations, without guidance. It takes 1, 2
        or 4 of them, whichever is its own: it was trained at the noise levels of all three.

        Args:
            evaluations: of its ``DiffusionConfig``; 0: it is not distilled.

        Raises:
            UserError: something was given that is not for this model; says what is.
        """
        if not evaluations:
            if self.sampler == FEW_STEP:
                raise UserError(
                    f"sampler is {FEW_STEP}, but this model is not distilled: use one of "
                    f"{', '.join(SAMPLERS)}, or a model with the phase `distill`"
                )
            return self
        for name in ("steps", "sampler", "guidance_scale", "guidance_interval"):
            if name in self.given and (why := self._not_for(name, evaluations)):
                raise UserError(f"this model generates in {count_of(evaluations)} {why}")
        steps = self.steps if "steps" in self.given else evaluations
        return SamplerSettings(FEW_STEP, steps, 1.0)

    def _not_for(self, name: str, evaluations: int) -> str:
        """Return what of a value is not for a distilled model, and what is; empty if it fits."""
        steps, scale = self.steps, self.guidance_scale
        if name == "steps" and steps not in EVALUATIONS:
            return (
                f"of its network, not in {steps} steps: omit the steps, or ask for 1, 2 or 4; "
                f"{steps} need the model from before its phase distill"
            )
        if name == "sampler" and self.sampler != FEW_STEP:
            return f"by sampler {FEW_STEP}, not by {self.sampler}: omit the sampler"
        if name == "guidance_scale" and scale != 1:
            return f"without guidance, not with a scale of {scale:g}: omit it, or use 1"
        if name == "guidance_interval" and self.guidance_interval != (0.0, 1.0):
            return "without guidance: omit the interval"
        return ""


_DEFAULTS: dict[str, Any] = {
    "sampler": "dpm++",
    "steps": 20,
    "guidance_scale": 1.5,
    "guidance_interval": (0.0, 1.0),
}
DEFAULT_GUIDANCE: float = _DEFAULTS["guidance_scale"]


DEFAULT_STRENGTH = 0.5


def check_strength(strength: Any, name: str = "strength") -> float:
    """Return the strength of starting from an image, as a float.

    Args:
        strength: the share of the noise levels to start from.
        name: what to call it.

    Raises:
        UserError: it is not above 0 and at most 1.
    """
    value = plain_value(strength)
    if not is_number(value) or not 0 < value <= 1:
        raise UserError(
            f"{name} is {value!r}: must be above 0 (the image itself) and at most 1 (from noise)"
        )
    return float(value)


def count_of(evaluations: int) -> str:
    """Return ``1 evaluation`` or ``4 evaluations``."""
    return f"{evaluations} evaluation{'s' * (evaluations != 1)}"


def evaluation_times(timesteps: int, evaluations: int, strength: float = 1.0) -> list[int]:
    """Return the timesteps at which a distilled model is evaluated, falling from T - 1.

    Of 4: T - 1, 3 T / 4, T / 2 and T / 4 (rounded down). From an image, with ``strength`` below 1,
    that share of them (rounded down, at least one), the first one exactly at ``strength`` of T.
    """
    later = [timesteps * rest // evaluations for rest in range(evaluations - 1, 0, -1)]
    count = max(1, int(evaluations * strength + 1e-6))
    first = min(max(1, round(strength * timesteps)), timesteps - 1)
    return [first, *later[evaluations - count :]]

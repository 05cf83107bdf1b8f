"""Diffusers' schedulers for our forward processes, and whether one fits a model."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import numpy as np

from semsynth.core.errors import UserError
from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.sampler_settings import SamplerName
from semsynth.diffusion.schedule import Schedule, make_betas

_FLOW_SAMPLERS = ("dpm++", "unipc", "euler")


def make_scheduler(config: DiffusionConfig, name: SamplerName) -> Any:
    """Return the Diffusers scheduler of that name for this forward process.

    Raises:
        UserError: ``ddim`` or ``ddpm`` for rectified flow.
    """
    schedulers: Any = diffusers  # its classes carry no types
    kinds = {
        "ddpm": schedulers.DDPMScheduler,
        "ddim": schedulers.DDIMScheduler,
        "euler": schedulers.EulerDiscreteScheduler,
        "unipc": schedulers.UniPCMultistepScheduler,
        "dpm++": schedulers.DPMSolverMultistepScheduler,
    }
    common: dict[str, Any] = {"num_train_timesteps": config.timesteps}
    if config.schedule == "flow":
        if name not in _FLOW_SAMPLERS:
            raise UserError(
                f"sampler {name} is not for rectified flow: use {', '.join(_FLOW_SAMPLERS)}"
            )
        if name == "euler":
            return schedulers.FlowMatchEulerDiscreteScheduler(**common, shift=config.shift)
        return kinds[name](
            **common,
            prediction_type=config.prediction,
            use_flow_sigmas=True,
            flow_shift=config.shift,
        )
    common["trained_betas"] = make_betas(config).astype(np.float32)
    common["prediction_type"] = config.prediction
    if name == "ddpm":
        common["variance_type"] = "learned_range" if config.learn_sigma else "fixed_small"
    if name in ("ddpm", "ddim"):
        common["clip_sample"] = False  # the denoiser clips, by the codec
    if name == "ddim" and config.schedule == "linear":
        common["timestep_spacing"] = "leading"  # the official code's levels
    elif name in ("ddim", "euler"):
        common["timestep_spacing"] = "trailing"  # from the last level on, whole levels only
    return kinds[name](**common)


def set_timesteps(scheduler: Any, steps: int) -> None:
    """Prepare ``scheduler`` for ``steps`` steps.

    Ancestral sampling gets its timesteps as a list, spaced as the official code spaces them: then
    Diffusers takes the betas between those levels. Given only their number, it takes differences
    of T // steps, which do not fit unless steps divides T.

    Raises:
        UserError: more steps than the scheduler finds levels for, or a setting of its levels that
            cannot be.
    """
    name, config = type(scheduler).__name__, scheduler.config
    levels = config["num_train_timesteps"]
    # Multistep solvers also need a level to end at.
    most = levels - ("solver_order" in config)
    if steps > most and not is_flow(scheduler):
        raise UserError(
            f"steps is {steps}: {name} can take at most {most} with a model of {levels} noise "
            "levels"
        )
    if name == "DDPMScheduler":
        last = levels - 1
        spaced = np.linspace(0, last, steps) if steps > 1 else np.array([last])
        scheduler.set_timesteps(timesteps=[int(t) for t in spaced.round()[::-1]])
        return
    if name == "DDIMScheduler" and config["timestep_spacing"] == "leading" and levels % steps:
        raise UserError(
            f"steps is {steps}: ddim needs a divisor of {levels} with this model; the sampler "
            "euler is the same method and takes any number"
        )
    try:
        scheduler.set_timesteps(steps)
    except (ValueError, KeyError) as error:
        raise UserError(f"{name} cannot take {steps} steps: {str(error).splitlines()[0]}") from None
    if is_flow(scheduler) and float(scheduler.sigmas[0]) > 1:
        raise UserError(
            f"{name} mixes the levels of a flow with those of a diffusion: make it without "
            "use_karras_sigmas and the like"
        )


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler's path is the straight one of rectified flow."""
    kind = type(scheduler)
    if kind.__name__.startswith("FlowMatch"):
        return True
    # `from_config` hands on settings that a class knows nothing of.
    known = "use_flow_sigmas" in inspect.signature(kind.__init__).parameters
    return known and bool(scheduler.config.get("use_flow_sigmas"))


def check_scheduler(config: DiffusionConfig, scheduler: Any) -> None:
    """Check that a scheduler speaks of the same noise levels and prediction as the model.

    Raises:
        UserError: names what is wrong, and what would be right.
    """
    name, settings = type(scheduler).__name__, scheduler.config
    remedy = f"{name}.from_config(pipe.scheduler.config)"
    step = getattr(scheduler, "step", None)
    needed = [] if step is None else list(inspect.signature(step).parameters.values())[3:]
    if step is None or "Inverse" in name or any(p.default is p.empty for p in needed):
        raise UserError(f"{name} does not draw images from noise alone; use another scheduler")
    if config.schedule == "flow":
        if not is_flow(scheduler):
            raise UserError(
                f"{name} is for diffusion, this model is a rectified flow: use "
                "FlowMatchEulerDiscreteScheduler, or a solver with use_flow_sigmas=True and "
                "prediction_type='flow_prediction'"
            )
    elif is_flow(scheduler):
        raise UserError(
            f"{name} is for rectified flow, this model is a diffusion with prediction_type "
            f"'{config.prediction}': use DPMSolverMultistepScheduler, DDIMScheduler or another of "
            "those"
        )
    asked = settings.get("prediction_type", config.prediction)
    if asked != config.prediction:
        raise UserError(
            f"{name} has prediction_type '{asked}', this model predicts '{config.prediction}': "
            f"make it with {remedy}"
        )
    if settings.get("thresholding"):
        raise UserError(f"{name} has thresholding, the pipeline clips x0 itself: switch it off")
    if settings.get("stochastic_sampling"):
        raise UserError(f"{name} with stochastic_sampling takes no generator: switch it off")
    if settings["num_train_timesteps"] != config.timesteps:
        raise UserError(
            f"{name} has {settings['num_train_timesteps']} timesteps, this model "
            f"{config.timesteps}: make it with {remedy}"
        )
    if config.schedule != "flow":
        _check_levels(config, scheduler, remedy)


def _check_levels(config: DiffusionConfig, scheduler: Any, remedy: str) -> None:
    name = type(scheduler).__name__
    if not hasattr(scheduler, "alphas_cumprod"):
        raise UserError(f"{name} is not for variance-preserving diffusion, as this model is")
    signal = np.sqrt(np.asarray(scheduler.alphas_cumprod, dtype=np.float64))
    wrong = np.abs(signal - np.sqrt(Schedule(config).alpha_bar)) > 1e-3
    if wrong.any():
        raise UserError(f"{name} has other noise levels than this model: make it with {remedy}")
    if scheduler.config.get("variance_type") == "learned_range" and not config.learn_sigma:
        raise UserError(
            f"{name} wants a learned variance, this model has none: make it with {remedy}"
        )

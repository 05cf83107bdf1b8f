"""From noise to an image, by Diffusers' schedulers, for any denoiser.

Also which scheduler a sampler's name means for a model, and whether another one fits it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.diffusion.config import (
    DiffusionConfig,
    Prediction,
    SamplerName,
    count_of,
    evaluation_times,
)
from semsynth.diffusion.guidance import DenoiserOutput
from semsynth.diffusion.schedule import (
    NoiseLevel,
    Schedule,
    Start,
    from_x0,
    is_flow,
    level_at,
    make_betas,
    noised,
)

Denoise = Callable[[Tensor, NoiseLevel], DenoiserOutput]
"""(x_BCHW, its noise level) to the clean image; a ``Denoiser``, or another function."""

OnStep = Callable[[int, Any, Tensor], Tensor | None]
"""(number of the step, its timestep, x after it) to another x; None keeps this one."""

# Schedulers that do not take x0 as the prediction; all of them take v.
NO_SAMPLE_PREDICTION = {
    "DPMSolverSDEScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "PNDMScheduler",
}
MAX_SECOND_ORDER_SIGMA = 80.0  # arXiv 2206.00364, table 1
# How far what a scheduler makes of a Gaussian may be from it.
MAX_SPREAD, MAX_SHIFT = 1.25, 0.15
_MEAN, _STD, _ERROR = 0.3, 0.4, 0.05
_results: dict[Any, tuple[float, float]] = {}


@torch.no_grad()
def sample(
    denoise: Denoise,
    scheduler: Any,
    noise_BCHW: Tensor,
    generators: Sequence[torch.Generator],
    on_step: OnStep | None = None,
    start: Start | None = None,
) -> Tensor:
    """Run the reverse process from ``noise_BCHW`` and return x_0, (B, C, H, W).

    Args:
        denoise: a ``Denoiser``.
        scheduler: of Diffusers, just prepared by ``set_timesteps`` (its own or ours), accepted
            by ``check_scheduler``.
        noise_BCHW: standard normal noise, float32.
        generators: one for each image, for schedulers that add noise.
        on_step: called after each step.
        start: of ``start_from``; None: from the noise alone.
    """
    start = start or Start()
    x = noised(scheduler, start, noise_BCHW)
    if start.level is not None:
        x = _clean(denoise(x, start.level), start)
        changed = None if on_step is None else on_step(0, start.level.t, x)
        return x if changed is None else changed
    accepted = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": list(generators)} if "generator" in accepted else {}
    learns = str(scheduler.config.get("variance_type")).startswith("learned")
    keeps_variance = learns and type(scheduler).__name__.startswith("DDPM")
    if hasattr(scheduler, "set_begin_index"):
        # Otherwise it searches for the first timestep, and takes the second of two equal ones.
        scheduler.set_begin_index(start.index)
    with _clean_prediction(scheduler) as prediction:
        for index, t in enumerate(scheduler.timesteps[start.index :]):
            level = level_at(scheduler, start.index + index)
            scaled = scheduler.scale_model_input(x, t) if _scales(scheduler) else x
            denoised = denoise(scaled, level)
            x0 = _clean(denoised, start)
            output = from_x0(prediction, scaled, x0, level.alpha, level.sigma)
            if "order" in accepted:  # LMS: it has as many derivatives as steps were taken
                extra["order"] = min(accepted["order"].default, index + 1)
            if keeps_variance and denoised.variance is not None:
                output = torch.cat([output, denoised.variance], dim=1)
            x = scheduler.step(output, t, x, **extra).prev_sample
            if on_step is not None:
                changed = on_step(index, t, x)
                x = x if changed is None else changed
    return x


def _clean(denoised: DenoiserOutput, start: Start) -> Tensor:
    return denoised.x0 if start.keep is None else start.keep(denoised.x0)


def _scales(scheduler: Any) -> bool:
    return hasattr(scheduler, "scale_model_input")


@contextmanager
def _clean_prediction(scheduler: Any) -> Iterator[Prediction]:
    """Set the scheduler's ``prediction_type`` to the clean image, or v; yield which of the two.

    Whatever the network predicts: from a prediction of the noise a scheduler computes x0 by a
    division by alpha, which is nearly zero close to pure noise, and clips it (if at all) to the
    range of pixels. The denoiser has already clipped x0, by the codec.
    """
    if is_flow(scheduler):
        yield "flow_prediction"
        return
    prediction: Prediction = "sample"
    if type(scheduler).__name__ in NO_SAMPLE_PREDICTION:
        prediction = "v_prediction"
    changes = {"prediction_type": prediction, "clip_sample": False}
    now = scheduler.config
    before = {name: now[name] for name in changes if name in now and now[name] != changes[name]}
    if before:  # Diffusers formats all of it for its log, betas included: 4 ms each time
        scheduler.register_to_config(**{name: changes[name] for name in before})
    try:
        yield prediction
    finally:
        if before:
            scheduler.register_to_config(**before)


_FLOW_SAMPLERS = ("dpm++", "unipc", "euler")
# LCM adds c_skip x to c_out x0; by this scaling of the timesteps c_skip is 0 and c_out 1 at all
# levels but the first: what is sampled is the network's x0 itself (arXiv 2303.01469, algorithm 1).
_NO_SKIP = 1e9


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
        "lcm": schedulers.LCMScheduler,
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
    if name == "lcm":
        common["original_inference_steps"] = config.timesteps  # any level may be one of its own
        common["timestep_scaling"] = _NO_SKIP
    if name in ("ddpm", "ddim"):
        common["clip_sample"] = False  # the denoiser clips, by the codec
    if name == "ddim" and config.schedule == "linear":
        common["timestep_spacing"] = "leading"  # the official code's levels
    elif name in ("ddim", "euler"):
        common["timestep_spacing"] = "trailing"  # from the last level on, whole levels only
    return kinds[name](**common)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Let Diffusers say errors alone."""
    before = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers.logging.set_verbosity(before)


def set_timesteps(scheduler: Any, steps: int, evaluations: int = 0, strength: float = 1.0) -> None:
    """Prepare ``scheduler`` for ``steps`` steps; of a distilled model, at ``evaluation_times``.

    Ancestral sampling gets its timesteps as a list, spaced as the official code spaces them: then
    Diffusers takes the betas between those levels; given only their number, differences of
    T // steps, which do not fit unless steps divides T.

    Solvers with two evaluations in a step (Heun, KDPM2) start at a sigma of at most 80. From the
    20,000 of the cosine schedule their first step multiplies each error of the network.

    Raises:
        UserError: more steps than there are levels, or settings of levels that exclude each other.
    """
    name, config = type(scheduler).__name__, scheduler.config
    levels = config["num_train_timesteps"]
    if evaluations:
        with _without_warnings():  # of starting below the last level, as from an image
            scheduler.set_timesteps(timesteps=evaluation_times(levels, steps, strength))
        return
    # Multistep solvers also need a level to end at.
    maximum = levels - ("solver_order" in config)
    if steps > maximum and not is_flow(scheduler):
        raise UserError(
            f"steps is {steps}: {name} can take at most {maximum} with a model of {levels} noise "
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
    changes = {}
    if "num_train_timesteps" in inspect.signature(scheduler.set_timesteps).parameters:
        alpha_bar = np.asarray(scheduler.alphas_cumprod, dtype=np.float64)
        low = (1 - alpha_bar) / alpha_bar <= MAX_SECOND_ORDER_SIGMA**2
        changes["num_train_timesteps"] = int(low.sum())
    try:
        scheduler.set_timesteps(steps, **changes)
    except (ValueError, KeyError) as error:
        raise UserError(f"{name} cannot take {steps} steps: {str(error).splitlines()[0]}") from None
    if is_flow(scheduler) and float(scheduler.sigmas[0]) > 1:
        raise UserError(
            f"{name} mixes the levels of a flow with those of a diffusion: make it without "
            "use_karras_sigmas and the like"
        )


def check_scheduler(config: DiffusionConfig, scheduler: Any) -> None:
    """Check that a scheduler has the noise levels and the prediction type of the model.

    Raises:
        UserError: says what is wrong, and how to make one that fits.
    """
    name, settings = type(scheduler).__name__, scheduler.config
    remedy = f"{name}.from_config(pipe.scheduler.config)"
    step = getattr(scheduler, "step", None)
    needed = [] if step is None else list(inspect.signature(step).parameters.values())[3:]
    if step is None or "Inverse" in name or any(p.default is p.empty for p in needed):
        raise UserError(f"{name} does not sample images from noise alone; use another scheduler")
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
    if config.evaluations and name != "LCMScheduler":
        raise UserError(
            f"{name} is not for this model, which generates in {count_of(config.evaluations)} of "
            "its network: use LCMScheduler.from_config(pipe.scheduler.config)"
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
            f"{name} needs a learned variance, this model has none: make it with {remedy}"
        )


def check_result(
    config: DiffusionConfig, scheduler: Any, steps: int, start: Start | None = None
) -> None:
    """Check that a scheduler with its timesteps samples rightly, on data that are known exactly.

    The data are a Gaussian; the denoiser is its exact one with errors, as networks make them. The
    result is remembered by the scheduler's class, configuration and timesteps. A distilled model
    is not a denoiser, and is sampled as it was trained: nothing is checked.

    Args:
        config: of the model.
        scheduler: accepted by ``check_scheduler``, after ``set_timesteps``; it stays as it is.
        steps: as given to ``set_timesteps``.
        start: where sampling starts.

    Raises:
        UserError: the spread of what is sampled is more than 1.25 times the true one, the mean is
            off by more than 0.15, or it is not finite.
    """
    if config.evaluations or (start and start.level):
        return
    begin = start.index if start else 0
    settings = {name: scheduler.config[name] for name in scheduler.config if name[0] != "_"}
    settings.pop("trained_betas", None)  # those of ``config``, and long
    times = tuple(scheduler.timesteps.tolist())
    key = (type(scheduler), repr(sorted(settings.items())), times, begin, config)
    if key not in _results:
        _results[key] = _sampled_gaussian(config, scheduler, begin)
    mean, std = _results[key]
    if abs(mean - _MEAN) <= MAX_SHIFT and std <= MAX_SPREAD * _STD:
        return
    name, remedies = type(scheduler).__name__, ["take more steps"]
    if scheduler.config.get("timestep_spacing", "trailing") != "trailing":
        remedies.append("timestep_spacing='trailing'")
    if scheduler.config.get("use_karras_sigmas") is False:
        remedies.append("use_karras_sigmas=True")
    remedies.append("or the sampler dpm++ (DPMSolverMultistepScheduler)")
    raise UserError(
        f"{name} with {steps} step{'s' * (steps != 1)} does not sample what a model has learned (a "
        f"Gaussian of {_MEAN} +- {_STD} becomes {mean:.2f} +- {std:.2f}): {', '.join(remedies)}"
    )


@torch.no_grad()
def _sampled_gaussian(config: DiffusionConfig, scheduler: Any, begin: int) -> tuple[float, float]:
    """Return mean and standard deviation of what a copy of ``scheduler`` samples.

    From timestep ``begin`` on, of data that were noised to it; 0: from noise.
    """
    noise, errors, steps, data = (torch.Generator().manual_seed(seed) for seed in range(4))
    shape = (1, 1, 64, 64)  # 4096 numbers

    def denoise(x: Tensor, level: NoiseLevel) -> DenoiserOutput:
        alpha, sigma = level.alpha, level.sigma
        gain = alpha * _STD**2 / (alpha**2 * _STD**2 + sigma**2)
        x0 = _MEAN + gain * (x - alpha * _MEAN) + _ERROR * torch.randn(shape, generator=errors)
        return DenoiserOutput(x0, torch.zeros_like(x) if config.learn_sigma else None)

    clean = _MEAN + _STD * torch.randn(shape, generator=data) if begin else None
    start = Start(clean, begin)
    x = sample(
        denoise, copy.deepcopy(scheduler), torch.randn(shape, generator=noise), [steps], None, start
    )
    return float(x.mean()), float(x.std())

"""Every Diffusers scheduler generates images; with many steps all give the same one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.models.sdm.unet import UNetOutput

DETERMINISTIC = (
    "DDIMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
ANCESTRAL = (
    "DDPMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler", "SASolverScheduler",
    "TCDScheduler",
)  # fmt: skip
MOST_USED = (
    "DDIMScheduler", "DDPMScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
FLOW = (
    "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler", "UniPCMultistepScheduler",
)  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "sample": {},
    "epsilon": {
        "codec": "pixel", "prediction": "epsilon", "learn_sigma": True, "schedule": "linear",
    },
    "v": {"prediction": "v_prediction"},
    "flow": {"prediction": "flow_prediction", "schedule": "flow"},
}  # fmt: skip


@pytest.fixture(scope="module")
def pipes() -> dict[str, Any]:
    return {}


@pytest.fixture
def get(pipes: dict[str, Any], new_pipe: Any) -> Any:
    def get(model: str, scheduler: str, **changes: Any) -> Any:
        if model not in pipes:
            pipes[model] = new_pipe(**MODELS[model])
            pipes[model].first = pipes[model].scheduler.config
        pipe = pipes[model]
        pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.first, **changes)
        return pipe

    return get


# Those that need more than a few steps: how many, and what else.
SLOW: dict[str, tuple[int, dict[str, Any]]] = {
    "HeunDiscreteScheduler": (20, {"use_karras_sigmas": True}),
    "KDPM2DiscreteScheduler": (20, {"use_karras_sigmas": True}),
    "PNDMScheduler": (10, {}),
    "FlowMatchHeunDiscreteScheduler": (100, {}),
}


def generate_images(pipe: Any, mask: np.ndarray, steps: int = 4, **kwargs: Any) -> np.ndarray:
    kwargs = {"seeds": [1, 2], "output_type": "np", "num_images": 2, **kwargs}
    return pipe(mask, num_inference_steps=steps, **kwargs).images


@pytest.mark.parametrize(
    ("model", "scheduler"),
    [("sample", name) for name in DETERMINISTIC + ANCESTRAL]
    + [(model, name) for model in ("epsilon", "v") for name in MOST_USED],
)
def test_schedulers_generate_images(model: str, scheduler: str, get: Any, new_masks: Any) -> None:
    steps, changes = SLOW.get(scheduler, (4, {}))
    pipe = get(model, scheduler, **changes)
    first = generate_images(pipe, new_masks(1), steps)
    assert np.isfinite(first).all() and first.std() > 0.005
    assert np.array_equal(generate_images(pipe, new_masks(1), steps), first)
    # It is as it was, and an image depends on its own seed alone.
    assert pipe.scheduler.config["prediction_type"] == pipe.first["prediction_type"]
    alone = generate_images(pipe, new_masks(1), steps, num_images=1, seeds=[2])
    assert np.abs(alone[0] - first[1]).max() < 1 / 255


@pytest.mark.parametrize("scheduler", FLOW)
def test_schedulers_of_rectified_flow_generate_images(
    scheduler: str, get: Any, new_masks: Any
) -> None:
    steps, changes = SLOW.get(scheduler, (4, {}))
    first = generate_images(get("flow", scheduler, **changes), new_masks(1), steps)
    assert np.isfinite(first).all() and first.std() > 0.005


class Exact:
    """The exact denoiser of images whose latent pixels are Gaussian with mean 0.1."""

    def __init__(self, pipe: Any) -> None:
        self.alpha_bar = pipe.synthesizer.schedule.alpha_bar

    def __call__(self, x: torch.Tensor, t: torch.Tensor, *_: Any) -> UNetOutput:
        # Schedulers may ask between two levels.
        log_snr = np.log(self.alpha_bar / (1 - self.alpha_bar))
        snr = np.exp(np.interp(float(t[0]), np.arange(len(log_snr)), log_snr))
        alpha, variance = (snr / (1 + snr)) ** 0.5, 1 / (1 + snr)
        gain = alpha * 0.04 / (alpha**2 * 0.04 + variance)
        return UNetOutput(sample=0.1 + gain * (x - alpha * 0.1))


@pytest.mark.parametrize(
    ("scheduler", "changes"),
    [
        ("EulerDiscreteScheduler", {}),
        ("HeunDiscreteScheduler", {}),
        ("UniPCMultistepScheduler", {}),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    ],
)
def test_with_many_steps_all_schedulers_agree(
    scheduler: str, changes: dict[str, Any], new_pipe: Any, new_masks: Any
) -> None:
    """They solve one differential equation."""
    pipe, mask = new_pipe(), new_masks(1)
    pipe.unet.forward = Exact(pipe)
    many = {"steps": 100, "guidance_scale": 1.0}
    reference = generate_images(pipe, mask, **many)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, **changes)
    found = generate_images(pipe, mask, **many)
    spread = np.abs(reference[0] - reference[1]).mean()
    assert spread > 0.05
    assert np.abs(found - reference).mean() < 0.05 * spread


def test_another_scheduler_does_not_change_generate(get: Any, new_masks: Any) -> None:
    before = get("sample", "DPMSolverMultistepScheduler").generate(new_masks(1), [1])
    assert np.array_equal(get("sample", "DDPMScheduler").generate(new_masks(1), [1]), before)


@pytest.mark.parametrize(
    ("model", "scheduler", "changes", "message"),
    [
        ("sample", "DDIMScheduler", {"prediction_type": "epsilon"}, "predicts 'sample'"),
        ("epsilon", "DDIMScheduler", {"prediction_type": "v_prediction"}, "predicts 'epsilon'"),
        ("sample", "DDIMScheduler", {"trained_betas": None}, "other noise levels"),
        ("sample", "DDIMScheduler", {"thresholding": True}, "thresholding"),
        ("sample", "FlowMatchEulerDiscreteScheduler", {}, "is for rectified flow"),
        ("flow", "DDIMScheduler", {}, "is for diffusion"),
        ("sample", "DDIMInverseScheduler", {}, "does not sample images"),
        ("sample", "RePaintScheduler", {}, "does not sample images"),
    ],
)
def test_the_wrong_scheduler_is_refused(
    model: str, scheduler: str, changes: dict[str, Any], message: str, get: Any, new_masks: Any
) -> None:
    with pytest.raises(UserError, match=message) as error:
        generate_images(get(model, scheduler, **changes), new_masks(1))
    assert "\n" not in str(error.value) and scheduler in str(error.value)


@pytest.mark.parametrize(
    ("model", "scheduler", "steps", "advice"),
    [
        ("sample", "HeunDiscreteScheduler", 20, "use_karras_sigmas=True"),
        ("sample", "KDPM2AncestralDiscreteScheduler", 20, "use_karras_sigmas=True"),
        ("sample", "KDPM2AncestralDiscreteScheduler", 4, "take more steps"),
        ("sample", "PNDMScheduler", 4, "take more steps"),
        ("sample", "DDIMScheduler", 1, "timestep_spacing='trailing'"),
        ("sample", "EulerDiscreteScheduler", 1, "timestep_spacing='trailing'"),
        ("flow", "FlowMatchHeunDiscreteScheduler", 20, "take more steps"),
    ],
)
def test_too_few_steps_are_refused_before_sampling(
    model: str, scheduler: str, steps: int, advice: str, get: Any, new_masks: Any
) -> None:
    pipe = get(model, scheduler)
    word = "step" if steps == 1 else "steps"
    with pytest.raises(UserError, match=f"{scheduler} with {steps} {word} .*{advice}") as error:
        generate_images(pipe, new_masks(1), steps)
    assert "\n" not in str(error.value)


class Jumpy(diffusers.EulerDiscreteScheduler):  # type: ignore[misc]
    """A scheduler that nobody knows: its steps are too long."""

    def step(self, output: Any, t: Any, x: Any, generator: Any = None) -> Any:
        found = super().step(output, t, x, generator=generator)
        found.prev_sample = x + 1.2 * (found.prev_sample - x)
        return found


def test_a_scheduler_that_nobody_knows(get: Any, new_masks: Any) -> None:
    pipe = get("sample", "DDIMScheduler")
    pipe.scheduler = Jumpy.from_config(pipe.first)
    with pytest.raises(UserError, match="Jumpy with 20 steps does not sample"):
        generate_images(pipe, new_masks(1), 20)


def test_threads_that_share_a_pipeline(get: Any, new_masks: Any) -> None:
    """Their steps alternate, and the images are those of one call after the other."""
    pipe, mask = get("sample", "DPMSolverMultistepScheduler"), new_masks(1)
    turn = threading.Barrier(2, timeout=60)

    def wait(*_: Any) -> dict[str, Any]:
        turn.wait()
        return {}

    def stop(given: Any, step: int, *_: Any) -> dict[str, Any]:
        given._interrupt = step == 1
        return {}

    calls = [{"steps": 6, "seeds": [seed, 5]} for seed in (1, 2)]
    alone = [generate_images(pipe, mask, **call) for call in calls]
    with ThreadPoolExecutor(2) as pool:
        running = [
            pool.submit(generate_images, pipe, mask, **call, callback_on_step_end=wait)
            for call in calls
        ]
        together = [future.result() for future in running]
    assert all(map(np.array_equal, together, alone))
    generate_images(pipe, mask, 6, callback_on_step_end=stop)
    assert pipe._interrupt is False


def test_values_that_are_not_finite_are_refused(new_pipe: Any, new_masks: Any) -> None:
    """As of float16 that overflows, or of a difference that loses all its digits."""
    pipe = new_pipe()
    pipe.unet.forward = lambda x, *_: UNetOutput(sample=x / 0)
    with pytest.raises(UserError, match="with 4 steps gave values that are not finite"):
        generate_images(pipe, new_masks(1))
    with pytest.raises(UserError, match="with 20 steps gave values that are not finite"):
        pipe.generate(new_masks(1), [1])
    pipe = new_pipe(evaluations=1)
    pipe.unet.forward = lambda x, *_: UNetOutput(sample=x / 0)
    with pytest.raises(UserError, match="are not finite; use bfloat16 in place of float16"):
        pipe.generate(new_masks(1), [1])
    pipe = new_pipe(evaluations=1)
    torch.nn.init.constant_(next(pipe.unet.parameters()), float("nan"))
    with pytest.raises(UserError, match="the model's weights are not finite: use another model"):
        pipe.generate(new_masks(1), [1])

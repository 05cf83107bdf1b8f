"""Conversions, weights, timesteps, and losses whose minimum is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gaussian import CONFIGS, MEAN, STD, Exact, left_over
from pydantic import ValidationError
from torch import Tensor

from semsynth.diffusion.config import DiffusionConfig, LossConfig, Prediction
from semsynth.diffusion.loss import DiffusionLoss, Loss
from semsynth.diffusion.schedule import Schedule, from_x0, target, to_x0

FLOW: dict[str, Any] = {"prediction": "flow_prediction", "schedule": "flow"}
VP: tuple[Prediction, ...] = ("sample", "epsilon", "v_prediction")


def pair() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    shape = (2, 3, 4, 5)
    return torch.randn(shape, generator=g).double(), torch.randn(shape, generator=g).double()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("prediction", [*VP, "flow_prediction"])
def test_predictions_become_each_other_and_back(prediction: Prediction, share: float) -> None:
    x0, noise = pair()
    flow = prediction == "flow_prediction"
    alpha, sigma = (1 - share, share) if flow else ((1 - share) ** 0.5, share**0.5)
    x = alpha * x0 + sigma * noise
    output = target(prediction, x0, noise, alpha, sigma)
    torch.testing.assert_close(to_x0(prediction, x, output, alpha, sigma), x0)
    torch.testing.assert_close(from_x0(prediction, x, x0, alpha, sigma), output)
    for other in () if flow else VP:
        there = from_x0(other, x, to_x0(prediction, x, output, alpha, sigma), alpha, sigma)
        torch.testing.assert_close(there, target(other, x0, noise, alpha, sigma))


def test_targets_in_closed_form() -> None:
    x0, noise = pair()
    assert torch.equal(target("v_prediction", x0, noise, 0.6, 0.8), 0.6 * noise - 0.8 * x0)
    assert torch.equal(target("flow_prediction", x0, noise, 0.3, 0.7), noise - x0)


def test_v_at_pure_noise_and_at_the_image() -> None:
    x0, noise = pair()
    assert torch.equal(to_x0("v_prediction", noise, -x0, 0.0, 1.0), x0)
    assert torch.equal(from_x0("v_prediction", noise, x0, 0.0, 1.0), -x0)
    assert torch.equal(to_x0("v_prediction", x0, noise, 1.0, 0.0), x0)


def loss_of(config: DiffusionConfig, loss: LossConfig | None = None) -> DiffusionLoss:
    return DiffusionLoss(Schedule(config), loss)


def losses(config: DiffusionConfig, loss: LossConfig | None, t: float, off: float = 0.0) -> Loss:
    """The loss of a network that is off by a constant, on 12 x 64 x 64 elements."""
    g = torch.Generator().manual_seed(1)
    x0 = MEAN + STD * torch.randn((4, 3, 64, 64), generator=g)
    noise = torch.randn(x0.shape, generator=g)
    network = Exact(config)
    times = torch.full((4,), t if config.schedule == "flow" else int(t))
    return loss_of(config, loss)(lambda x, t: network(x, t)[0] + off, x0, noise, times)


def min_snr(prediction: Prediction) -> tuple[DiffusionConfig, LossConfig]:
    loss = LossConfig(prediction=prediction, weighting="min_snr", min_snr_gamma=5.0)
    return DiffusionConfig(prediction=prediction), loss


WEIGHTED: dict[str, tuple[DiffusionConfig, LossConfig | None]] = {
    **{name: (config, None) for name, config in CONFIGS.items()},
    "sample_snr": min_snr("sample"),
    "epsilon_snr": min_snr("epsilon"),
    "v_snr": min_snr("v_prediction"),
}


@pytest.mark.parametrize("t", [30.0, 500.0, 930.0])
@pytest.mark.parametrize("name", [name for name in WEIGHTED if name != "paper"])
def test_the_best_denoiser_has_the_least_loss(name: str, t: float) -> None:
    """What is left is the variance of the target given x; off by c costs c^2 more."""
    config, loss = WEIGHTED[name]
    weight = float(loss_of(config, loss).level_weights()[int(t)])
    alpha, sigma = Exact(config).coefficients(t)
    scale = {
        "sample": 1.0,
        "epsilon": alpha / sigma,
        "v_prediction": 1 / sigma,
        "flow_prediction": 1 / sigma,
    }[config.prediction]
    least = weight * scale**2 * left_over(alpha, sigma)
    found = float(losses(config, loss, t).total.mean())
    assert found == pytest.approx(least, rel=0.03)
    off = 3 * least**0.5 / weight**0.5
    for sign in (-1, 1):
        worse = float(losses(config, loss, t, sign * off).total.mean())
        assert worse == pytest.approx(found + weight * off**2, rel=0.03)


def test_min_snr_weights_are_their_formula() -> None:
    """Of arXiv 2303.09556: min(SNR, 5), over SNR for the noise, over SNR + 1 for v."""
    share = Schedule(DiffusionConfig()).alpha_bar
    snr = share / (1 - share)
    clamped = np.where(snr < 5, snr, 5)
    wanted: dict[Prediction, Any] = {
        "sample": clamped, "v_prediction": clamped / (snr + 1), "epsilon": clamped / snr,
    }  # fmt: skip
    for prediction, weights in wanted.items():
        config, loss = min_snr(prediction)
        for gamma in (5.0, None):  # 5 is the default
            given = loss.model_copy(update={"min_snr_gamma": gamma})
            found = loss_of(config, given).level_weights()
            np.testing.assert_allclose(found, weights, rtol=1e-12)


def test_min_snr_is_one_weight_on_x0_whatever_is_predicted() -> None:
    for t in (30.0, 500.0, 930.0):
        found = [
            float(losses(*WEIGHTED[name], t).total.mean())
            for name in ("sample_snr", "epsilon_snr", "v_snr")
        ]
        assert found[1:] == pytest.approx([found[0]] * 2, rel=1e-3)


def test_the_default_weight_of_x0_is_the_loss_of_v() -> None:
    """Where the noise is more than ``sigma_min``."""
    for t in (250.0, 500.0, 998.0):
        x0, v = (float(losses(CONFIGS[name], None, t).total.mean()) for name in ("sample", "v"))
        assert x0 == pytest.approx(v, rel=1e-3)
    weights = loss_of(CONFIGS["sample"]).level_weights()
    assert weights.max() == weights[0] == pytest.approx(10, rel=2e-3)


def test_padding_does_not_count() -> None:
    config, x0 = CONFIGS["flow"], torch.zeros(1, 3, 4, 4)
    weight = torch.zeros(1, 1, 4, 4)
    weight[..., :2] = 1
    x0[..., 2:] = 1e6
    noise, t = torch.zeros_like(x0), torch.tensor([300.0])
    loss = loss_of(config)(lambda x, t: x * 0 + 2, x0, noise, t, weight)
    assert float(loss.total) == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prediction": "v_prediction", "learn_sigma": True}, "learn_sigma needs"),
        ({"prediction": "flow_prediction"}, "need each other"),
        ({"schedule": "flow"}, "need each other"),
        ({"schedule": "linear", "shift": 2.0}, "shift needs"),
        ({"zero_terminal_snr": True}, "train the model again"),
        ({"guidance": 1.0}, "guidance"),
    ],
)
def test_a_process_that_does_not_fit_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DiffusionConfig.model_validate(wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prediction": "v_prediction", "learn_sigma": True}, "learn_sigma needs"),
        ({"prediction": "flow_prediction", "weighting": "min_snr"}, "not for flow_prediction"),
        ({"prediction": "epsilon", "weighting": "snr_plus_one"}, "needs prediction: sample"),
        ({"min_snr_gamma": 5.0}, "needs weighting: min_snr"),
        ({"weighting": "min_snr", "min_snr_gamma": 0.0}, "min_snr_gamma"),
        ({"logit_std": 0.0}, "logit_std"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LossConfig.model_validate(wrong)


def test_a_loss_for_another_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="is not for a network of"):
        loss_of(DiffusionConfig(), LossConfig(prediction="epsilon"))


def test_model_files_of_before_had_training_keys_too() -> None:
    old = {
        "prediction": "sample", "schedule": "cosine", "timesteps": 1000, "shift": 2.0,
        "zero_terminal_snr": False, "learn_sigma": False, "loss_sigma_min": 0.316,
        "min_snr_gamma": None, "times": "uniform", "logit_mean": 0.0, "logit_std": 1.0,
    }  # fmt: skip
    assert DiffusionConfig.model_validate(old) == DiffusionConfig(shift=2.0)


@pytest.mark.parametrize("padded", [False, True])
def test_channels_add_up_to_the_loss(padded: bool) -> None:
    loss_function = loss_of(CONFIGS["sample"])
    g = torch.Generator().manual_seed(0)
    x0, noise, seen = (torch.randn((4, 3, 8, 8), generator=g) for _ in range(3))
    weight = (torch.rand((4, 1, 8, 8), generator=g) < 0.5).float() if padded else None
    loss = loss_function(lambda x, t: seen, x0, noise, torch.arange(4) * 200, weight)
    torch.testing.assert_close(loss.mse_C.sum(), loss.mse.mean())


LOGIT: dict[str, Any] = {"timesteps": "logit_normal", "logit_mean": -0.5, "logit_std": 1.5}
EVEN = ((np.arange(100_000) + 0.5) / 100_000).tolist()


def times(u: list[float], process: dict[str, Any], **loss: Any) -> np.ndarray:
    config = DiffusionConfig.model_validate(process)
    given = LossConfig.model_validate({"prediction": config.prediction, **loss})
    return np.asarray(loss_of(config, given).timesteps(u))


def test_uniform_levels_are_all_there_as_often() -> None:
    found = loss_of(DiffusionConfig(timesteps=10)).timesteps(EVEN)
    assert found.dtype == torch.int64
    assert np.bincount(found.numpy()).tolist() == [10_000] * 10


def test_flow_is_continuous() -> None:
    found = loss_of(DiffusionConfig.model_validate(FLOW)).timesteps(EVEN)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), np.asarray(EVEN) * 1000, rtol=1e-6)


@pytest.mark.parametrize("base", [{}, FLOW])
def test_the_logit_of_logit_normal_times_is_normal(base: dict[str, Any]) -> None:
    share = (times(EVEN, base, **LOGIT) + (0 if base else 0.5)) / 1000
    logit = np.log(share / (1 - share))
    middle = logit[(share > 0.01) & (share < 0.99)]
    assert np.median(logit) == pytest.approx(-0.5, abs=0.01)
    # The density of the normal one, where levels are not too coarse to tell.
    counts, edges = np.histogram(middle, bins=20)
    centres = (edges[1:] + edges[:-1]) / 2
    density = np.exp(-0.5 * ((centres + 0.5) / 1.5) ** 2) / (1.5 * np.sqrt(2 * np.pi))
    found = counts / len(EVEN) / np.diff(edges)
    np.testing.assert_allclose(found, density, atol=0.02)


@pytest.mark.parametrize("shift", [0.5, 3.0])
@pytest.mark.parametrize("more", [{}, LOGIT])
def test_shift_multiplies_noise_over_signal(shift: float, more: dict[str, Any]) -> None:
    plain, shifted = (times(EVEN, {**FLOW, "shift": s}, **more) / 1000 for s in (1.0, shift))
    inside = (plain > 0.01) & (plain < 0.99)
    ratio = (shifted / (1 - shifted))[inside] / (plain / (1 - plain))[inside]
    np.testing.assert_allclose(ratio, shift, rtol=1e-3)


@pytest.mark.parametrize("base", [{}, FLOW])
@pytest.mark.parametrize("more", [{}, LOGIT])
def test_order_and_ends(base: dict[str, Any], more: dict[str, Any]) -> None:
    found = times([0.0, 1e-9, 0.2, 0.7, 1 - 1e-12], base, **more)
    assert np.isfinite(found).all() and (np.diff(found) >= 0).all()
    assert found[0] == 0 and found[-1] <= (1000 if base else 999)

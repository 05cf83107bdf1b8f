"""Conversions, weights, and losses whose minimum is known: normal data, the best denoiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gaussian import CONFIGS, MEAN, STD, Exact, left_over
from pydantic import ValidationError
from torch import Tensor

from semsynth.diffusion.config import DiffusionConfig, Prediction
from semsynth.diffusion.loss import Loss, diffusion_loss, loss_weights
from semsynth.diffusion.parametrization import from_x0, target, to_x0
from semsynth.diffusion.schedule import Schedule

FLOW = {"prediction": "flow_prediction", "schedule": "flow"}
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


def losses(config: DiffusionConfig, t: float, off: float = 0.0) -> Loss:
    """The loss of a network that is off by a constant, on 12 x 64 x 64 elements."""
    g = torch.Generator().manual_seed(1)
    x0 = MEAN + STD * torch.randn((4, 3, 64, 64), generator=g)
    noise = torch.randn(x0.shape, generator=g)
    network = Exact(config)
    times = torch.full((4,), t if config.schedule == "flow" else int(t))
    return diffusion_loss(network.schedule, lambda x, t: network(x, t) + off, x0, noise, times)


def weight(config: DiffusionConfig, t: float) -> float:
    return float(loss_weights(Schedule(config))[int(t)])


WEIGHTED = {
    **CONFIGS,
    "sample_snr": DiffusionConfig(min_snr_gamma=5.0),
    "epsilon_snr": DiffusionConfig(prediction="epsilon", min_snr_gamma=5.0),
    "v_snr": DiffusionConfig(prediction="v_prediction", min_snr_gamma=5.0),
}


@pytest.mark.parametrize("t", [30.0, 500.0, 930.0])
@pytest.mark.parametrize("name", [name for name in WEIGHTED if name != "paper"])
def test_the_best_denoiser_has_the_least_loss(name: str, t: float) -> None:
    """What is left is the variance of the target given x; off by c costs c^2 more."""
    config = WEIGHTED[name]
    alpha, sigma = Exact(config).coefficients(t)
    scale = {
        "sample": 1.0,
        "epsilon": alpha / sigma,
        "v_prediction": 1 / sigma,
        "flow_prediction": 1 / sigma,
    }[config.prediction]
    least = weight(config, t) * scale**2 * left_over(alpha, sigma)
    found = float(losses(config, t).total.mean())
    assert found == pytest.approx(least, rel=0.03)
    off = 3 * least**0.5 / weight(config, t) ** 0.5
    for sign in (-1, 1):
        worse = float(losses(config, t, sign * off).total.mean())
        assert worse == pytest.approx(found + weight(config, t) * off**2, rel=0.03)


def test_min_snr_weights_are_their_formula() -> None:
    """Of arXiv 2303.09556: min(SNR, 5), over SNR for the noise, over SNR + 1 for v."""
    for zero in (False, True):
        made: dict[str, Any] = {"min_snr_gamma": 5.0, "zero_terminal_snr": zero}
        share = Schedule(DiffusionConfig.model_validate(made)).alpha_bar
        snr = share / (1 - share)
        clamped = np.where(snr < 5, snr, 5)
        wanted = {"sample": clamped, "v_prediction": clamped / (snr + 1)}
        if not zero:
            wanted["epsilon"] = clamped / snr
        for prediction, weights in wanted.items():
            config = DiffusionConfig.model_validate({**made, "prediction": prediction})
            found = loss_weights(Schedule(config))
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found, weights, rtol=1e-12)


def test_min_snr_is_one_weight_on_x0_whatever_is_predicted() -> None:
    for t in (30.0, 500.0, 930.0):
        found = [
            float(losses(WEIGHTED[name], t).total.mean())
            for name in ("sample_snr", "epsilon_snr", "v_snr")
        ]
        assert found[1:] == pytest.approx([found[0]] * 2, rel=1e-3)


def test_the_default_weight_of_x0_is_the_loss_of_v() -> None:
    """Where the noise is more than ``loss_sigma_min``."""
    for t in (250.0, 500.0, 998.0):
        x0, v = (float(losses(CONFIGS[name], t).total.mean()) for name in ("sample", "v"))
        assert x0 == pytest.approx(v, rel=1e-3)
    weights = loss_weights(Schedule(CONFIGS["sample"]))
    assert weights.max() == weights[0] == pytest.approx(10, rel=2e-3)


def test_padding_does_not_count() -> None:
    config, x0 = CONFIGS["flow"], torch.zeros(1, 3, 4, 4)
    weight = torch.zeros(1, 1, 4, 4)
    weight[..., :2] = 1
    x0[..., 2:] = 1e6
    noise, t = torch.zeros_like(x0), torch.tensor([300.0])
    loss = diffusion_loss(Schedule(config), lambda x, t: x * 0 + 2, x0, noise, t, weight)
    assert float(loss.total) == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prediction": "v_prediction", "learn_sigma": True}, "learn_sigma needs"),
        ({"prediction": "flow_prediction"}, "need each other"),
        ({"schedule": "flow"}, "need each other"),
        ({"prediction": "epsilon", "zero_terminal_snr": True}, "use v_prediction or sample"),
        ({"schedule": "linear", "shift": 2.0}, "shift needs"),
        ({"prediction": "flow_prediction", "schedule": "flow", "min_snr_gamma": 5.0}, "min_snr"),
        (
            {"prediction": "flow_prediction", "schedule": "flow", "zero_terminal_snr": True},
            "anyway",
        ),
        ({"min_snr_gamma": 0.0}, "min_snr_gamma"),
        ({"logit_std": 0.0}, "logit_std"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DiffusionConfig.model_validate(wrong)


@pytest.mark.parametrize("padded", [False, True])
def test_channels_add_up_to_the_loss(padded: bool) -> None:
    schedule = Schedule(CONFIGS["sample"])
    g = torch.Generator().manual_seed(0)
    x0, noise, seen = (torch.randn((4, 3, 8, 8), generator=g) for _ in range(3))
    weight = (torch.rand((4, 1, 8, 8), generator=g) < 0.5).float() if padded else None
    loss = diffusion_loss(schedule, lambda x, t: seen, x0, noise, torch.arange(4) * 200, weight)
    torch.testing.assert_close(loss.mse_C.sum(), loss.mse.mean())

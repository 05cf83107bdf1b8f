"""The forward process against its closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.schedule import Schedule

SHAPE = (4, 3, 5, 7)


@pytest.mark.parametrize("timesteps", [10, 1000])
def test_cosine_in_closed_form(timesteps: int) -> None:
    schedule = Schedule(DiffusionConfig(timesteps=timesteps))
    angles = np.arange(1, timesteps + 1) / timesteps * np.pi / 2
    # The last beta is capped at 0.999: there the signal is a thousandth of the one before.
    np.testing.assert_allclose(schedule.alpha_bar[:-1], np.cos(angles[:-1]) ** 2, rtol=1e-9)
    assert schedule.alpha_bar[-1] == pytest.approx(schedule.alpha_bar[-2] * 0.001)


@pytest.mark.parametrize("shift", [0.5, 2.0, 4.0])
def test_shift_divides_the_signal_to_noise_ratio(shift: float) -> None:
    def ratio(config: DiffusionConfig) -> np.ndarray:
        alpha_bar = Schedule(config).alpha_bar[:-1]
        return np.asarray(alpha_bar / (1 - alpha_bar))

    plain, shifted = ratio(DiffusionConfig()), ratio(DiffusionConfig(shift=shift))
    capped = Schedule(DiffusionConfig(shift=shift)).betas[:-1] >= 0.999
    assert not capped.any()
    np.testing.assert_allclose(shifted, plain / shift**2, rtol=1e-8)


def test_linear_is_that_of_the_paper() -> None:
    schedule = Schedule(DiffusionConfig(schedule="linear", prediction="epsilon"))
    np.testing.assert_allclose(schedule.betas, np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(schedule.alpha_bar, np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_signal_falls_and_betas_are_shares(name: str) -> None:
    schedule = Schedule(DiffusionConfig.model_validate({"schedule": name}))
    assert schedule.timesteps == 1000
    assert ((schedule.betas > 0) & (schedule.betas < 1)).all()
    assert (np.diff(schedule.alpha_bar) < 0).all()
    assert schedule.alpha_bar[0] > 0.999 and schedule.alpha_bar[-1] < 1e-4


def test_noise_and_signal_are_mixed_and_parted() -> None:
    schedule = Schedule(DiffusionConfig())
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(SHAPE, generator=g), torch.randn(SHAPE, generator=g)
    t = torch.tensor([0, 1, 500, 900])
    x = schedule.noised(x0, noise, t)
    for i, step in enumerate(t.tolist()):
        share = schedule.alpha_bar[step]
        torch.testing.assert_close(x[i], share**0.5 * x0[i] + (1 - share) ** 0.5 * noise[i])


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_posterior_by_bayes(name: str) -> None:
    """q(x_{t-1} | x_t, x_0) is the product of two Gaussians: precisions add."""
    schedule = Schedule(DiffusionConfig.model_validate({"schedule": name}))
    for t in (1, 10, 500, 998):
        before, beta = schedule.alpha_bar[t - 1], schedule.betas[t]
        precision = 1 / (1 - before) + (1 - beta) / beta
        assert schedule.posterior_log_variance[t] == pytest.approx(-np.log(precision), rel=1e-8)
        weight_x0 = np.sqrt(before) / (1 - before) / precision
        weight_xt = np.sqrt(1 - beta) / beta / precision
        assert schedule.posterior_x0[t] == pytest.approx(weight_x0, rel=1e-8)
        assert schedule.posterior_xt[t] == pytest.approx(weight_xt, rel=1e-8)
        x0, x = torch.full((1, 1, 1, 1), 0.3), torch.full((1, 1, 1, 1), -0.8)
        mean = schedule.posterior_mean(x0, x, torch.tensor([t]))
        assert float(mean) == pytest.approx(weight_x0 * 0.3 - weight_xt * 0.8, rel=1e-5)


def test_first_posterior_is_the_image() -> None:
    schedule = Schedule(DiffusionConfig())
    assert schedule.posterior_x0[0] == pytest.approx(1)
    assert schedule.posterior_xt[0] == 0


def test_rectified_flow_is_a_straight_line() -> None:
    schedule = Schedule(DiffusionConfig(prediction="flow_prediction", schedule="flow"))
    x0, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    x = schedule.noised(x0, noise, torch.tensor([0.0, 250.5, 1000.0]))
    assert torch.equal(x[0], x0[0]) and torch.equal(x[2], noise[2])
    torch.testing.assert_close(x[1], 0.7495 * x0[1] + 0.2505 * noise[1])

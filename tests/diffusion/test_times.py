"""Training times against the distributions that they are drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.timesteps import timesteps

FLOW: dict[str, Any] = {"prediction": "flow_prediction", "schedule": "flow"}
LOGIT: dict[str, Any] = {"times": "logit_normal", "logit_mean": -0.5, "logit_std": 1.5}
EVEN = ((np.arange(100_000) + 0.5) / 100_000).tolist()


def times(u: list[float], **config: Any) -> np.ndarray:
    return np.asarray(timesteps(DiffusionConfig.model_validate(config), u))


def test_uniform_levels_are_all_there_as_often() -> None:
    found = timesteps(DiffusionConfig(timesteps=10), EVEN)
    assert found.dtype == torch.int64
    assert np.bincount(found.numpy()).tolist() == [10_000] * 10


def test_flow_is_continuous() -> None:
    found = timesteps(DiffusionConfig.model_validate(FLOW), EVEN)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), np.asarray(EVEN) * 1000, rtol=1e-6)


@pytest.mark.parametrize("base", [{}, FLOW])
def test_the_logit_of_logit_normal_times_is_normal(base: dict[str, Any]) -> None:
    share = (times(EVEN, **base, **LOGIT) + (0 if base else 0.5)) / 1000
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
    plain, shifted = (times(EVEN, **FLOW, **more, shift=s) / 1000 for s in (1.0, shift))
    inside = (plain > 0.01) & (plain < 0.99)
    ratio = (shifted / (1 - shifted))[inside] / (plain / (1 - plain))[inside]
    np.testing.assert_allclose(ratio, shift, rtol=1e-3)


@pytest.mark.parametrize("base", [{}, FLOW])
@pytest.mark.parametrize("more", [{}, LOGIT])
def test_order_and_ends(base: dict[str, Any], more: dict[str, Any]) -> None:
    found = times([0.0, 1e-9, 0.2, 0.7, 1 - 1e-12], **base, **more)
    assert np.isfinite(found).all() and (np.diff(found) >= 0).all()
    assert found[0] == 0 and found[-1] <= (1000 if base else 999)

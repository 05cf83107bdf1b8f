"""At which noise levels guidance acts, its formula, and what the network is given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gaussian import CONFIGS
from torch import Tensor

from semsynth.diffusion.config import SamplerSettings
from semsynth.diffusion.guidance import Denoiser, guide, guide_reference
from semsynth.diffusion.schedule import NoiseLevel, Schedule


class Recorder:
    """Predicts a constant and records its arguments."""

    def __init__(self, channels: int = 3) -> None:
        self.channels = channels
        self.with_null: list[bool] = []
        self.times: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor, with_null: bool) -> tuple[Tensor, Tensor | None]:
        self.with_null.append(with_null)
        self.times.append(t)
        sample = torch.full((len(x), self.channels, *x.shape[2:]), 2.0, dtype=torch.bfloat16)
        return sample, sample - 1 if with_null else None


def test_guidance_acts_inside_its_interval() -> None:
    network = Recorder()
    settings = SamplerSettings(guidance_scale=3.0, guidance_interval=(0.2, 0.8))
    denoise = Denoiser(network, Schedule(CONFIGS["sample"]), None, settings)
    found = []
    for t in (0, 199, 200, 500.5, 800, 801, 999):
        estimate = denoise(torch.zeros(1, 3, 2, 2), NoiseLevel(t, 0.5, 0.75**0.5))
        found.append(float(estimate.x0.mean()))
    assert network.with_null == [False, False, True, True, True, False, False]
    assert found == [2, 2, 4, 4, 4, 2, 2]  # 1 + 3 * (2 - 1)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("guide", [guide, guide_reference])
def test_guidance_in_closed_form(guide: Callable[..., Tensor], scale: float) -> None:
    sample, null = torch.randn(2, 6, 4, 4), torch.randn(2, 6, 4, 4)
    found = guide(sample, null, scale, 3)
    expected = null[:, :3] + scale * (sample[:, :3] - null[:, :3])
    torch.testing.assert_close(found[:, :3], expected)
    assert torch.equal(found[:, 3:], sample[:, 3:])


@pytest.mark.parametrize(("t", "dtype"), [(7.0, torch.int64), (7.5, torch.float32)])
def test_whole_times_are_integers(t: float, dtype: torch.dtype) -> None:
    for name, wanted in (("sample", dtype), ("flow", torch.float32)):
        network = Recorder()
        denoise = Denoiser(network, Schedule(CONFIGS[name]), None, SamplerSettings())
        denoise(torch.zeros(4, 3, 2, 2), NoiseLevel(t, 0.5, 0.5))
        assert network.times[0].dtype == wanted
        assert network.times[0].tolist() == [t] * 4


def test_x0_is_clipped_and_the_variance_is_returned() -> None:
    schedule = Schedule(CONFIGS["paper"])
    denoise = Denoiser(
        Recorder(6), schedule, lambda x: x.clamp(-1, 1), SamplerSettings(guidance_scale=1.0)
    )
    estimate = denoise(torch.zeros(2, 3, 2, 2), NoiseLevel(999, 0.006, 1.0))
    assert estimate.x0.dtype == torch.float32 and float(estimate.x0.max()) == -1
    assert estimate.variance is not None and estimate.variance.shape == (2, 3, 2, 2)
    free = Denoiser(Recorder(3), schedule, None, SamplerSettings(guidance_scale=1.0))
    estimate = free(torch.zeros(2, 3, 2, 2), NoiseLevel(999, 0.5, 0.25))
    assert float(estimate.x0.max()) == -1.0 and estimate.variance is None

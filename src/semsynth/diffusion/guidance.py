"""A network as a denoiser: classifier-free guidance, its interval, and clipping."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from semsynth.diffusion.config import SamplerSettings
from semsynth.diffusion.schedule import NoiseLevel, Schedule, to_x0


class DenoiserOutput(NamedTuple):
    """What a denoiser predicts for x.

    Attributes:
        x0: the clean image, (B, C, H, W).
        variance: the learned variance as the network gives it, None where it has none.
    """

    x0: Tensor
    variance: Tensor | None = None


Network = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]
"""(x_BCHW, t_B, whether guidance needs the null side) to the predictions with and without the mask
(None where it is not needed), each with the learned variance behind it where there is one."""


def guide(sample: Tensor, null_sample: Tensor, scale: float, channels: int) -> Tensor:
    """Return the classifier-free guided prediction, null + scale * (sample - null) (SDM, eq. 9).

    Args:
        sample: the prediction with the mask, (B, C or 2 C, H, W).
        null_sample: the one without, of the same shape.
        scale: 1 means no guidance, 0 ignores the mask.
        channels: C; what comes behind, the learned variance, is that of ``sample``.
    """
    masked, variance = sample[:, :channels], sample[:, channels:]
    return torch.cat([torch.lerp(null_sample[:, :channels], masked, scale), variance], dim=1)


def guide_reference(sample: Tensor, null_sample: Tensor, scale: float, channels: int) -> Tensor:
    """Return ``guide`` by the operations of the official code, which round differently."""
    masked, free = sample[:, :channels], null_sample[:, :channels]
    return torch.cat([free + scale * (masked - free), sample[:, channels:]], dim=1)


class Denoiser:
    """From noisy x and its noise level to the clean image: what ``sample`` calls in each step."""

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        clip: Callable[[Tensor], Tensor] | None,
        settings: SamplerSettings,
        combine: Callable[[Tensor, Tensor, float, int], Tensor] = guide,
    ) -> None:
        """Keep the parts.

        Args:
            network: the trained network with its conditions; x comes in float32.
            schedule: the forward process that it was trained for.
            clip: limits x0 to the range of images (``codec.clip``); None: no limits.
            settings: for the guidance's scale and interval.
            combine: ``guide``, or ``guide_reference``.
        """
        self.network = network
        self.schedule = schedule
        self.clip = clip
        self.settings = settings
        self.combine = combine

    def scale_at(self, t: float) -> float:
        """Return the guidance scale at timestep ``t``: 1 outside the interval.

        arXiv 2404.07724, eq. 6, with the interval in shares of the levels rather than in sigma.
        """
        low, high = self.settings.guidance_interval
        inside = low <= t / self.schedule.timesteps <= high
        return self.settings.guidance_scale if inside else 1.0

    def __call__(self, x_BCHW: Tensor, level: NoiseLevel) -> DenoiserOutput:
        """Predict the clean image, guided and clipped."""
        whole = float(level.t).is_integer() and self.schedule.config.schedule != "flow"
        t_B = torch.full(
            (len(x_BCHW),),
            level.t,
            dtype=torch.int64 if whole else torch.float32,
            device=x_BCHW.device,
        )
        scale, channels = self.scale_at(level.t), x_BCHW.shape[1]
        output, null_output = self.network(x_BCHW, t_B, scale != 1.0)
        if null_output is not None:
            output = self.combine(output, null_output, scale, channels)
        output = output.float()
        prediction, rest = output[:, :channels], output[:, channels:]
        x0 = to_x0(self.schedule.config.prediction, x_BCHW, prediction, level.alpha, level.sigma)
        if self.clip is not None:
            x0 = self.clip(x0)
        return DenoiserOutput(x0, rest if rest.shape[1] else None)

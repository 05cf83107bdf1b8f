"""How an image is drawn from noise, as plain values (no torch: command lines read this)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from semsynth.core.errors import UserError

SamplerName = Literal["dpm++", "unipc", "euler", "ddim", "ddpm"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
MAX_STEPS = 1000


@dataclass(frozen=True)
class SamplerSettings:
    """Everything but checkpoint, mask and seed that decides what an image looks like.

    Attributes:
        sampler: the Diffusers scheduler: ``dpm++`` (DPM-Solver++ 2M), ``unipc``, ``euler``,
            ``ddim`` or ``ddpm`` (ancestral, as the paper samples).
        steps: denoising steps, 1 to 1000.
        guidance_scale: s of eps_null + s (eps_mask - eps_null); 1 is no guidance, 0 ignores the
            mask.
        guidance_interval: the noise levels with guidance, as shares t / T from 0 (the image) to
            1 (noise); the others go without (arXiv 2404.07724).

    Raises:
        UserError: a value outside these ranges.
    """

    sampler: SamplerName = "dpm++"
    steps: int = 20
    guidance_scale: float = 1.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.sampler not in SAMPLERS:
            raise UserError(f"sampler is {self.sampler!r}: must be one of {', '.join(SAMPLERS)}")
        if not 1 <= self.steps <= MAX_STEPS:
            raise UserError(f"steps is {self.steps}: must be from 1 to {MAX_STEPS}")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise UserError(
                f"guidance_scale is {self.guidance_scale}: must be a number of at least 0"
            )
        interval = tuple(self.guidance_interval)
        if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            raise UserError(
                f"guidance_interval is {interval}: must be two rising numbers from 0 to 1"
            )

"""How a picture is drawn from noise, as plain values (no torch: command lines read this)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from semsynth.runtime.errors import UserError

SamplerName = Literal["dpm++", "unipc", "ddim", "ddpm"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
MAX_STEPS = 1000


@dataclass(frozen=True)
class SamplerSettings:
    """Everything but checkpoint, mask and seed that decides what a picture looks like.

    Attributes:
        sampler: the Diffusers scheduler: ``dpm++`` (DPM-Solver++ 2M), ``unipc``, ``ddim``
            or ``ddpm`` (ancestral, as the paper samples).
        steps: denoising steps, 1 to 1000.
        guidance_scale: s of eps_null + s (eps_mask - eps_null); 1 is no guidance, 0 ignores the
            mask.

    Raises:
        UserError: a value outside these ranges.
    """

    sampler: SamplerName = "dpm++"
    steps: int = 25
    guidance_scale: float = 1.5

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

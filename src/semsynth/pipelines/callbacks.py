"""What happens between two steps of a call: the progress bar, the user's callback, stopping."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from semsynth.core.errors import UserError

Callback = Callable[[Any, int, Any, dict[str, Tensor]], Mapping[str, Tensor] | None]
"""(pipeline, step, timestep, {"latents": x}) to what of these is changed; as in Diffusers."""


class Interrupted(Exception):
    """A callback has set ``pipe._interrupt``; ``latents`` are where it stopped."""

    def __init__(self, latents: Tensor) -> None:
        """Keep ``latents``."""
        super().__init__("interrupted")
        self.latents = latents


class StepEnd:
    """To be called after each step: advances the bar and asks the callback.

    Raises:
        UserError: the callback gives back something else than latents of the same shape.
        Interrupted: it has set ``_interrupt`` of the pipeline.
    """

    def __init__(self, pipe: Any, callback: Callback | None, bar: Any) -> None:
        """Keep the parts; an interruption of an earlier call is over."""
        self.pipe, self.callback, self.bar = pipe, callback, bar
        pipe._interrupt = False

    def __call__(self, index: int, t: Any, latents: Tensor) -> Tensor | None:
        """Return other latents, or None to go on with these."""
        self.bar.update(1)
        if self.callback is None:
            return None
        changed = (self.callback(self.pipe, index, t, {"latents": latents}) or {}).get("latents")
        if changed is not None and (
            not isinstance(changed, Tensor) or changed.shape != latents.shape
        ):
            raise UserError(
                f"callback_on_step_end: must give back latents of shape {tuple(latents.shape)}"
            )
        if self.pipe._interrupt:
            raise Interrupted(latents if changed is None else changed)
        return changed


def check_callback(callback: Any, inputs: Sequence[str]) -> None:
    """Check a callback and what it asks for.

    Raises:
        UserError: it cannot be called, or asks for other tensors than ``latents``.
    """
    if callback is not None and not callable(callback):
        raise UserError("callback_on_step_end: must be a function of (pipe, step, t, tensors)")
    asked = getattr(callback, "tensor_inputs", inputs)
    if not set(asked) <= {"latents"}:
        raise UserError(
            f"callback_on_step_end_tensor_inputs: {sorted(asked)}; there are only latents"
        )

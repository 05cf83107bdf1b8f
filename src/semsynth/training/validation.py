"""The validation loss watched: the best so far, and a word when it has been rising for long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from semsynth.core.logging import logger

PATIENCE = 5


def watched(earlier: Iterable[Mapping[str, Any]], step: int, loss: float) -> dict[str, Any]:
    """Return what a run's metrics say of a validation loss: itself, the best, and its step.

    Warns after every ``PATIENCE`` validations in a row that were no better than the best. It does
    not stop: a learning rate that falls may still help, and checkpoints are kept by number.

    Args:
        earlier: the metrics so far, as in ``metrics.jsonl``.
        step: of this loss.
        loss: on the held-out images.
    """
    known = [
        (line["validation_loss"], line["step"])
        for line in earlier
        if "validation_loss" in line and line["step"] < step
    ]
    best, at = min([*known, (loss, step)])
    since = sum(when > at for _, when in known) + (at < step)
    if since and since % PATIENCE == 0:
        logger.warning(
            f"step {step}: the validation loss is {loss:.4f}, and {since} in a row were "
            f"not below the {best:.4f} of step {at}: the images are being learned by heart; "
            "more variation (train.crop, train.color), model.dropout or fewer steps help"
        )
    return {"validation_loss": loss, "best_validation_loss": best, "best_step": at}

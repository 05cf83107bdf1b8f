"""Names of recipe keys: short ones, and those of earlier versions."""

from __future__ import annotations

from typing import Any

from semsynth.core.errors import UserError

SHORT = {"lr": "learning_rate", "bs": "batch_size"}

# Where a key of an earlier recipe is now.
_MOVED = {
    "train.band_weights": "loss.band_weights",
    "diffusion.prediction": "loss.prediction",
    "diffusion.learn_sigma": "loss.learn_sigma",
    "diffusion.loss_sigma_min": "loss.sigma_min",
    "diffusion.min_snr_gamma": "loss.min_snr_gamma, with loss.weighting: min_snr",
    "diffusion.times": "loss.timesteps",
    "diffusion.logit_mean": "loss.logit_mean",
    "diffusion.logit_std": "loss.logit_std",
    "diffusion.zero_terminal_snr": "",
}


def spelled_out(assignment: str) -> str:
    """Return a change with its key in full: `lr=1e-4` is `train.learning_rate=1e-4`.

    `finetune.lr` is `finetune.learning_rate`; other keys stay as they are.
    """
    name, equals, value = assignment.partition("=")
    section, dot, key = name.strip().rpartition(".")
    if key not in SHORT:
        return assignment
    return f"{section if dot else 'train'}.{SHORT[key]}{equals}{value}"


def check_moved(mapping: dict[str, Any], where: str) -> None:
    """Refuse keys of earlier versions; UserError says where each is now."""
    for old, new in _MOVED.items():
        section, key = old.split(".")
        values = mapping.get(section)
        if isinstance(values, dict) and key in values:
            hint = f"is now {new}" if new else "was removed; delete it"
            raise UserError(f"{where}: '{old}' {hint}")

"""Where networks run; apart from the light rooms of ``runtime``, since it needs torch."""

from __future__ import annotations

import torch

from semsynth.runtime.errors import UserError


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {name}: not on this machine; use auto or cpu") from None
    return device

"""Reading PyTorch's files without running what they may carry; needs torch."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from semsynth.core.errors import UserError


def load_torch_file(path: Path, mapped: bool = False) -> Any:
    """Return what ``torch.save`` wrote, on the CPU.

    Args:
        path: the file.
        mapped: leave tensors on the disk until they are read, where the file is a zip, as files of
            PyTorch 1.6 and later are.

    Raises:
        UserError: missing, cut short, a pickle with code in it, or no such file at all.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        mapped = mapped and zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused: a pickle with code in it, or no checkpoint at all (nothing was run)"
        ) from None
    except Exception:
        # Bytes that are no pickle fail in the unpickler in any way that there is (IndexError, ...).
        raise UserError(
            f"{path}: cannot be read: cut short, or not a PyTorch checkpoint; copy it again"
        ) from None

"""The one loader of files that ``torch.save`` wrote: whatever a file holds, no code of it runs."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semsynth.core.errors import Unavailable, UserError


def load_torch_file(path: Path, remedy: str = "copy it again", mapped: bool = False) -> Any:
    """Return what ``torch.save`` wrote, on the CPU.

    Args:
        path: the file.
        remedy: what to do about a file that is missing or damaged; ends the messages.
        mapped: leave tensors on the disk until they are read, where the file is a zip, as files of
            PyTorch 1.6 and later are.

    Raises:
        UserError: missing, a folder, empty, cut short, a pickle with code in it, or something else
            than a file of PyTorch.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a file of weights; {remedy}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    try:
        if not path.stat().st_size:
            raise UserError(f"{path}: is empty (0 bytes); {remedy}")
        mapped = mapped and zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (UserError, MemoryError):
        raise
    except OSError as error:  # a file server that is away, no permission: the file may be good
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be read now ({reason}); see to the disk") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused: a pickle with code in it, or not a PyTorch file at all (nothing was "
            f"run); {remedy}"
        ) from None
    except Exception:
        # Bytes that are not a pickle fail in the unpickler in many ways (IndexError, ...).
        raise UserError(
            f"{path}: cannot be read: cut short, or not a PyTorch file; {remedy}"
        ) from None


def load_state_dict(path: Path, remedy: str = "copy it again") -> dict[str, Tensor]:
    """Return a file's state dict: names and tensors, and nothing else.

    Raises:
        UserError: as of ``load_torch_file``, or the file holds something else.
    """
    state = load_torch_file(path, remedy)
    is_state = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    )
    if not is_state or not state:
        raise UserError(f"{path}: is not a state dict (names and tensors); {remedy}")
    return dict(state)


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (32 digits) of tensors by name, whatever file they are from."""
    sha = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()[:32]


def weights_in_package(package: str, file: str) -> Path:
    """Return a file of weights that an installed package carries; no code of it runs.

    Raises:
        Unavailable: the package is not installed, or lacks the file.
    """
    spec = find_spec(package)
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    for place in places:
        if (path := Path(place) / file).is_file():
            return path
    raise Unavailable(
        f"needs the package {package.replace('_', '-')}: pip install 'semsynth[features]'"
    )

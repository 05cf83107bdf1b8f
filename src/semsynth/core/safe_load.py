"""Files of ``torch.save``: whatever one holds, no code of it runs, and damage is found.

PyTorch reads such a file, a zip, without looking at the checksums in it: a flipped bit of a weight
is another weight. So the files that are written here end with the SHA-256 of all before it, as the
comment of the zip, which other readers pass over. Files without a comment are of others, or of
versions before 2.
"""

from __future__ import annotations

import errno
import hashlib
import pickle
import re
import signal
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from semsynth.core.errors import Unavailable, UserError, is_out_of_memory
from semsynth.core.files import hash_file, named

_COMMENT = b"semsynth sha256 %s"
_COMMENT_SIZE = len(_COMMENT % bytes(64))
# A zip without a comment ends with this record of 22 bytes, the length of the comment last.
_END, _END_SIZE = b"PK\5\6", 22


def save_torch_file(value: Any, path: Path) -> None:
    """Write ``value`` by ``torch.save``, with a digest that ``load_torch_file`` checks.

    The same value makes the same bytes, whatever the file is called.

    Raises:
        OSError: the disk is full, or fails.
        KeyboardInterrupt: Ctrl-C, once the file is written: PyTorch's writer in C++ would make an
            error of the disk of it.
    """
    with _uninterrupted(), named(path), path.open("wb") as file:
        sink = _Sink(file)
        try:
            torch.save(value, sink)  # type: ignore[arg-type]  # `write` is all it asks for
        except RuntimeError as error:
            raise OSError(errno.EIO, str(error).splitlines()[0]) from error
        if sink.error is not None:
            raise sink.error
        file.seek(-2, 2)
        file.write(_COMMENT_SIZE.to_bytes(2, "little"))
        file.write(_COMMENT % sink.digest.hexdigest().encode())


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of what is done inside; only the main thread is told of it."""
    plain = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(plain):
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, plain)
        if came:
            plain(signal.SIGINT, None)


class _Sink:
    """A file for ``torch.save``, which has no other way to say what was wrong with the disk.

    An exception would pass through its writer in C++, whose destructor raises another one.

    Attributes:
        error: the first error of writing; nothing is written after it.
        digest: of what was written.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.error: OSError | None = None
        self.digest = hashlib.sha256()
        self._file = file

    def write(self, data: Any) -> int:
        """Write bytes; return how many there are."""
        if self.error is None:
            try:
                self._file.write(data)
                self.digest.update(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""


def check_digest(path: Path, remedy: str = "copy it again") -> None:
    """Check a file against the digest that ``save_torch_file`` wrote, if it has one.

    Raises:
        UserError: it is not the file that was written.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with named(path), path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
        file.seek(max(0, size - _COMMENT_SIZE - 2))
        end = file.read()
    if not is_zip or (end[-_END_SIZE:].startswith(_END) and end.endswith(b"\0\0")):
        return
    length = re.escape(_COMMENT_SIZE.to_bytes(2, "little"))
    found = re.fullmatch(length + _COMMENT % b"([0-9a-f]{64})", end)
    if found is not None:
        digest = hash_file(path, size - _COMMENT_SIZE - 2)
        digest.update(b"\0\0")
        if digest.hexdigest().encode() == found[1]:
            return
    raise UserError(
        f"{path}: cannot be read: cut short or damaged (its SHA-256 is another than when it was "
        f"written); {remedy}"
    )


def load_torch_file(
    path: Path, remedy: str = "copy it again", mapped: bool = False, check: bool = True
) -> Any:
    """Return what ``torch.save`` wrote, on the CPU.

    Args:
        path: the file.
        remedy: what to do about a file that is missing or damaged; ends the messages.
        mapped: leave tensors on the disk until they are read, where the file is a zip, as files of
            PyTorch 1.6 and later are; its digest is not checked then.
        check: False for a file whose bytes were compared with a digest of them already.

    Raises:
        UserError: missing, a folder, empty, damaged, a pickle with code in it, or something else
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
        if check and not mapped:
            check_digest(path, remedy)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UserError:
        raise
    except OSError as error:
        if is_out_of_memory(error):
            raise
        # A file server that is away, no permission: the file may be good
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be read now ({reason}); see to the disk") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused: a pickle with code in it, or not a PyTorch file at all (nothing was "
            f"run); {remedy}"
        ) from None
    except Exception as error:
        if is_out_of_memory(error):
            raise
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
    try:
        spec = find_spec(package)
    except ImportError:  # of a finder that blocks it
        spec = None
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    for place in places:
        if (path := Path(place) / file).is_file():
            return path
    raise Unavailable(
        f"needs the package {package.replace('_', '-')}: pip install 'semsynth[features]'"
    )

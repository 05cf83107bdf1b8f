"""Public weight files: a local path, or the standard download, checked by their hash."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.core.files import atomic_path, sha256_file
from semsynth.core.progress import progress_bar

_TIMEOUT_S = 15
_CHUNK = 1 << 20


class Unavailable(Exception):
    """Something cannot be computed here; the message is the reason that the report gives."""


@dataclass(frozen=True)
class PublicWeights:
    """A published file of weights.

    Attributes:
        file: its published name.
        url: where it is published.
        sha256: how its SHA-256 begins.
        flag: the flag that takes a local copy.
    """

    file: str
    url: str
    sha256: str
    flag: str


INCEPTION = PublicWeights(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d",
    "--inception",
)
ALEXNET = PublicWeights(
    "alexnet-owt-7be5be79.pth",
    "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "7be5be79",
    "--lpips-backbone",
)
LPIPS_ALEX = PublicWeights(
    "alex.pth",
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
    "082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/alex.pth",
    "df73285e",
    "--lpips-heads",
)


def cache_folder() -> Path:
    """Return where downloads are kept: ``$XDG_CACHE_HOME/semsynth`` or ``~/.cache/semsynth``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "semsynth"


def find(weights: PublicWeights, path: Path | None, download: bool) -> Path:
    """Return a local copy of ``weights``: ``path`` if given, else the cache's, else downloaded.

    Raises:
        UserError: ``path`` is given but does not exist.
        Unavailable: it could not be, or should not be, downloaded.
    """
    if path is not None:
        if not path.is_file():
            raise UserError(f"{weights.flag} {path}: no such file")
        return path
    cached = cache_folder() / weights.file
    if cached.is_file():
        return cached
    if not download:
        raise Unavailable(f"needs {weights.file}: give it with {weights.flag}, or allow --download")
    try:
        _download(weights, cached)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"{weights.file} could not be downloaded ({reason}); give it with {weights.flag}"
        ) from None
    return cached


def _download(weights: PublicWeights, target: Path) -> None:
    with (
        atomic_path(target) as temporary,
        urllib.request.urlopen(weights.url, timeout=_TIMEOUT_S) as answer,
        temporary.open("wb") as file,
        progress_bar(int(answer.headers.get("Content-Length") or 0), weights.file, "B") as bar,
    ):
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        if not sha256_file(temporary).startswith(weights.sha256):
            raise ConnectionError("the file that came has another hash")

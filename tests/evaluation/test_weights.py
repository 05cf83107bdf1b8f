"""Which file is the published one, and where it is looked for."""

from __future__ import annotations

import atexit
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semsynth.core.errors import Unavailable, UserError
from semsynth.core.safe_load import load_state_dict
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics import features, weights
from semsynth.evaluation.metrics.features import inception_extractor, open_extractors
from semsynth.evaluation.metrics.inception import InceptionV3
from semsynth.evaluation.metrics.weights import (
    ALEXNET,
    INCEPTION,
    LPIPS_ALEX,
    LPIPS_VGG,
    PublicWeights,
    check_weights_folder,
    find_weights,
)


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def published(path: Path) -> PublicWeights:
    """Write a file, and return the weights whose published file it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"w": torch.ones(2)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PublicWeights("w.pth", path.as_uri(), digest, "--w", also=("other-name.pth",))


def test_weights_come_from_path_cache_or_download(tmp_path: Path) -> None:
    source = tmp_path / "published.pth"
    file = published(source)
    with pytest.raises(Unavailable, match="--w"):
        find_weights(file, None, None, download=False)
    cached = find_weights(file, None, None, download=True)
    assert cached.published
    assert torch.equal(load_state_dict(cached.path)["w"], torch.ones(2))
    source.unlink()
    assert find_weights(file, None, None, download=False) == cached
    with pytest.raises(UserError, match=r"--w .*no such file"):
        find_weights(file, source, None, download=True)


@pytest.mark.parametrize("name", ["w.pth", "other-name.pth"])
def test_the_cache_of_pytorch_is_looked_at_before_downloading(tmp_path: Path, name: str) -> None:
    path = tmp_path / "torch" / "hub" / "checkpoints" / name
    file = published(path)
    assert find_weights(file, None, None, download=False).path == path


def test_of_two_caches_the_published_file_wins(tmp_path: Path) -> None:
    good = tmp_path / "torch" / "hub" / "checkpoints" / "w.pth"
    file = published(good)
    bad = tmp_path / "cache" / "semsynth" / "w.pth"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(good.read_bytes() + b"more")
    assert find_weights(file, None, None, download=False).path == good
    good.unlink()
    found = find_weights(file, None, None, download=False)
    assert (found.path, found.published) == (bad, False)


def test_a_folder_takes_files_by_their_published_names(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    file = published(folder / "w.pth")
    assert find_weights(file, None, folder, download=False).path == folder / "w.pth"
    assert find_weights(file, folder / "w.pth", None, download=False).published
    with pytest.raises(UserError, match="no such folder"):
        check_weights_folder(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds none of pt_inception"):
        check_weights_folder(folder)
    (folder / INCEPTION.also[0]).touch()
    check_weights_folder(folder)


def test_a_download_with_another_hash_is_not_kept(tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(b"something else")
    file = PublicWeights("w.pth", other.as_uri(), "0" * 64, "--w")
    with pytest.raises(Unavailable, match="another hash"):
        find_weights(file, None, None, download=True)
    assert list((tmp_path / "cache" / "semsynth").iterdir()) == []
    gone = PublicWeights("w.pth", (tmp_path / "gone").as_uri(), ALEXNET.sha256, "--w")
    with pytest.raises(Unavailable, match="could not be downloaded"):
        find_weights(gone, None, None, download=True)


@pytest.mark.parametrize("home", ["a file", "unknown"])
def test_without_a_cache_weights_are_there_for_this_process(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A HOME that is a file; or none, of a user whom the machine does not know."""
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("XDG_CACHE_HOME")
    if home == "a file":
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
    else:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "~").write_text("")  # where a path with ~ in it would lead
    monkeypatch.setattr(atexit, "register", lambda *_args, **_named: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = published(tmp_path / "published.pth")
    with caplog.at_level("WARNING"):
        found = find_weights(file, None, None, download=True)
    assert found.published and found.path.parent.parent == tmp_path
    assert "downloads are not kept" in caplog.text


def test_whole_hashes_agree_with_the_names_of_the_files() -> None:
    """Publishers of PyTorch files put the first eight digits into the name."""
    for file in weights.ALL:
        assert len(file.sha256) == 64
        if file not in (LPIPS_ALEX, LPIPS_VGG):
            assert file.file.removesuffix(".pth").endswith(file.sha256[:8])
    assert {name.split("-")[-1] for name in INCEPTION.names} == {"6726825d.pth"}


def test_the_published_heads_are_those_in_shared(shared: Path) -> None:
    folder = shared / "weights" / "lpips_heads"
    if not folder.exists():
        pytest.skip("needs the LPIPS heads in ../shared/weights")
    for file in (LPIPS_ALEX, LPIPS_VGG):
        assert find_weights(file, None, folder, download=False).published


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the architecture that nobody published, under the published name."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / INCEPTION.file
    torch.save(InceptionV3().state_dict(), path)
    return path


@pytest.mark.parametrize("way", ["flag", "folder", "cache", "torch"])
def test_other_weights_are_never_called_fid(
    random_inception: Path, tmp_path: Path, way: str, logged: Callable[[], str]
) -> None:
    config = EvaluateConfig(download=False, device="cpu")
    if way == "flag":
        config = EvaluateConfig(inception=random_inception, device="cpu")
    elif way == "folder":
        config = EvaluateConfig(weights=random_inception.parent, device="cpu")
    else:
        places = {"cache": "cache/semsynth", "torch": "torch/hub/checkpoints"}
        folder = tmp_path / places[way]
        folder.mkdir(parents=True)
        (folder / INCEPTION.file).symlink_to(random_inception)
    extractor = inception_extractor(config)
    digest = hashlib.sha256(random_inception.read_bytes()).hexdigest()
    assert extractor.name == f"fd_inception_{digest[:8]}"
    assert extractor.kernel_name == f"kd_inception_{digest[:8]}"
    assert extractor.weights == digest
    assert str(tmp_path) not in extractor.about
    assert extractor.name in logged()


@pytest.mark.parametrize(
    ("resize", "name", "kernel"),
    [
        ("pytorch", "fid", "kid"),
        ("tensorflow", "fid_tensorflow", "kid_tensorflow"),
        ("clean", "fid_clean", "kid_clean"),
    ],
)
def test_the_published_file_gives_fid_by_its_resize(
    random_inception: Path, monkeypatch: pytest.MonkeyPatch, resize: str, name: str, kernel: str
) -> None:
    """With the hash of the file at hand as the published one, it is FID, named by the resize."""
    digest = hashlib.sha256(random_inception.read_bytes()).hexdigest()
    known = PublicWeights(INCEPTION.file, INCEPTION.url, digest, "--inception")
    monkeypatch.setattr(features, "INCEPTION", known)
    config = EvaluateConfig(inception=random_inception, device="cpu")
    extractor = inception_extractor(config, resize)
    assert (extractor.name, extractor.kernel_name, extractor.resize) == (name, kernel, resize)
    assert extractor.is_inception


def test_a_file_cut_short_is_refused_in_one_line(random_inception: Path, tmp_path: Path) -> None:
    short = tmp_path / INCEPTION.file
    short.write_bytes(random_inception.read_bytes()[:50_000_000])
    with pytest.raises(UserError, match="cut short") as error:
        open_extractors(EvaluateConfig(weights=tmp_path, device="cpu"))
    assert "\n" not in str(error.value)


def test_what_is_missing_has_its_names_and_a_reason() -> None:
    extractors, missing = open_extractors(EvaluateConfig(download=False, device="cpu"), "clean")
    assert {"fid_clean", "kid_clean"} <= missing.keys()
    assert "--inception or --weights" in missing["fid_clean"]
    assert all(not extractor.is_inception for extractor in extractors)

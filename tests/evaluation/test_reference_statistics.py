"""`evaluate stats`, reports against such a file, and the cache of real images' features."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.evaluation import reference_statistics, run
from semsynth.evaluation.metrics.features import FeatureExtractor
from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from semsynth.evaluation.reference_statistics import ReferenceStatistics
from semsynth.evaluation.run import evaluate_folders


class Means:
    """Features that can be computed by hand, and how often they were."""

    def __init__(self) -> None:
        self.count = 0
        self.weights, self.resize, self.name, self.broken = "a" * 64, "pytorch", "fid", -1

    def extractor(self) -> FeatureExtractor:
        return FeatureExtractor(self.name, "means", self.extract, self.weights, self.resize)

    def extract(self, images: np.ndarray) -> np.ndarray:
        self.count += len(images)
        rows = np.stack([np.asarray(image, np.float32)[::8, ::8].mean((0, 1)) for image in images])
        rows[rows[:, 0] == self.broken] = np.nan
        return rows.astype(np.float32)


@pytest.fixture
def means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Means:
    found = Means()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (reference_statistics, run):
        monkeypatch.setattr(module, "open_extractors", lambda *_: ([found.extractor()], {}))
    return found


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name, n, seed in (("real", 20, 0), ("generated", 20, 1)):
        (tmp_path / name).mkdir()
        rng = np.random.default_rng(seed)
        for i in range(n):
            image = rng.integers(0, 200 + 40 * seed, (16, 24, 3)).astype(np.uint8)
            cv2.imwrite(str(tmp_path / name / f"image{i:02d}.png"), image)
    return tmp_path


def features(folder: Path) -> np.ndarray:
    images = [cv2.imread(str(path))[..., ::-1] for path in sorted(folder.iterdir())]
    return Means().extract(np.stack(images))


def test_a_file_of_statistics_serves_in_place_of_the_images(
    folders: Path, means: Means, capsys: pytest.CaptureFixture[str]
) -> None:
    path, report = folders / "real.npz", folders / "report"
    assert main(["evaluate", "stats", str(folders / "real"), "-o", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n"], said["features"], said["resize"]) == (20, "fid", "pytorch")
    with np.load(path, allow_pickle=False) as file:
        rows = features(folders / "real")
        np.testing.assert_allclose(file["mu"], rows.mean(0, dtype=np.float64))
        np.testing.assert_allclose(file["sigma"], np.cov(rows.astype(np.float64), rowvar=False))
        assert (int(file["n"]), str(file["weights"])) == (20, "a" * 64)
    words = ["--generated", str(folders / "generated"), "--real", str(path)]
    assert main(["evaluate", *words, "--output", str(report)]) == 0
    found = json.loads((report / "report.json").read_text())
    expected = [FeatureStatistics.of(features(folders / x)) for x in ("generated", "real")]
    entry = found["metrics"]["fid"]
    assert entry["value"] == pytest.approx(frechet_distance(*expected), rel=1e-6)
    assert (entry["n_real"], entry["n_generated"]) == (20, 20)
    assert entry["infinity"]["sizes"][0] == 20
    assert "statistics alone" in found["missing"]["kid"]
    page = (report / "report.html").read_text()
    assert "real.npz" in page
    assert "the convention of papers" not in page
    assert "of the same masks" not in " ".join(found["verdict"])
    whole = evaluate_folders(folders / "generated", folders / "real", folders / "whole")
    assert whole["metrics"]["fid"]["value"] == pytest.approx(entry["value"], rel=1e-6)


def test_a_file_of_pytorch_fid_is_read(folders: Path, means: Means) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 2048))
    path = folders / "fid.npz"
    np.savez(path, mu=rows.mean(0), sigma=np.cov(rows, rowvar=False))
    found = ReferenceStatistics.load(path)
    assert (found.n, found.features, found.resize) == (None, "fid", "pytorch")
    np.testing.assert_allclose(found.statistics.covariance, np.cov(rows, rowvar=False))
    assert found.check([means.extractor()], "x").name == "fid"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("resize", "clean", "were resized by 'pytorch', here by 'clean'; give the same --resize"),
        ("weights", "b" * 64, "features are of weights aaaaaaaaaaaaaaaa, here of bbbbbbbbbbbbbbbb"),
        ("name", "fid_clean", "statistics of fid, and fid_clean can be measured here"),
    ],
)
def test_other_features_are_refused(
    folders: Path, means: Means, name: str, value: str, message: str
) -> None:
    path = folders / "real.npz"
    assert main(["evaluate", "stats", str(folders / "real"), "--output", str(path)]) == 0
    setattr(means, name, value)
    with pytest.raises(UserError, match=message):
        evaluate_folders(folders / "generated", path, folders / "report")
    assert not (folders / "report").exists()


def test_what_is_no_file_of_statistics_is_refused_in_one_line(
    folders: Path, means: Means, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folders / "real.npz"
    words = ["evaluate", "stats", str(folders / "real"), "-o"]
    assert main([*words, str(path)]) == 0
    cut = path.read_bytes()[:200]
    cases = {
        "exists already": [*words, str(path)],
        "ends in .npz": [*words, str(folders / "real.npy")],
        "no such folder": ["evaluate", "stats", str(folders / "none"), "-o", str(path) + "2.npz"],
    }
    for name, content in (("cut", cut), ("text", b"x")):
        (folders / f"{name}.npz").write_bytes(content)
    np.savez(folders / "small.npz", mu=np.zeros(7), sigma=np.eye(7))
    np.savez(folders / "nan.npz", mu=np.full(2048, np.nan), sigma=np.eye(2048))
    for name, message in {
        "cut": "not a file of statistics",
        "text": "not a file of statistics",
        "small": "what its 7 features are",
        "nan": "NaN or infinite",
        "gone": "no such file",
    }.items():
        cases[message] = ["evaluate", "--generated", str(folders / "generated"), "--real"]
        cases[message] += [str(folders / f"{name}.npz"), "--output", str(folders / "report")]
    capsys.readouterr()
    for message, argv in cases.items():
        assert main(argv) == 2, argv
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (folders / "report").exists()


def test_images_with_features_that_are_no_numbers_are_named(folders: Path, means: Means) -> None:
    means.broken = float(features(folders / "real")[7, 0])
    with pytest.raises(UserError, match="fid: features of image07 are not finite numbers"):
        main_stats = reference_statistics.write_statistics
        main_stats(reference_statistics.StatsConfig(folders / "real", folders / "real.npz"))
    assert not (folders / "real.npz").exists()


def test_features_of_real_images_are_kept(folders: Path, means: Means, tmp_path: Path) -> None:
    first = evaluate_folders(folders / "generated", folders / "real", folders / "one")
    assert means.count == 40
    again = evaluate_folders(folders / "generated", folders / "real", folders / "two")
    assert means.count == 60  # the generated images alone
    assert again == first
    # Other names, the same bytes; then other bytes, and other weights.
    for which in ("real", "generated"):
        for path in sorted((folders / which).iterdir(), reverse=True):
            path.rename(path.with_stem(f"x{path.stem}"))
    evaluate_folders(folders / "generated", folders / "real", folders / "three")
    assert means.count == 80
    (kept,) = (tmp_path / "cache" / "semsynth" / "features").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    evaluate_folders(folders / "generated", folders / "real", folders / "four")
    assert means.count == 120
    evaluate_folders(folders / "generated", folders / "real", folders / "again")
    assert means.count == 140  # the damaged file was replaced
    image = next((folders / "real").iterdir())
    cv2.imwrite(str(image), 255 - cv2.imread(str(image)))
    evaluate_folders(folders / "generated", folders / "real", folders / "five")
    assert means.count == 180
    means.weights = "c" * 64
    evaluate_folders(folders / "generated", folders / "real", folders / "six")
    assert means.count == 220

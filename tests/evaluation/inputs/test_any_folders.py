"""Somebody else's folders, scored in one command; and what is wrong with them, in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import semsynth
from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.metrics.features import FeatureExtractor
from semsynth.evaluation.run import evaluate

LABELS = "ignore: 0\nlabels: {0: void, 1: road, 2: sky, 7: car}\n"


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither cached weights nor a network: only what the images and the evaluator give."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def folders(data, make_samples, tmp_path: Path) -> Path:
    """Flat folders of plain files: ``real``, ``masks``, ``train``, and ``theirs`` (one a mask)."""
    samples = make_samples("ours")
    root = tmp_path / "plain"
    for name in ("real", "masks", "train", "theirs"):
        (root / name).mkdir(parents=True)
    for stem in data.stems("val"):
        shutil.copyfile(data.image_path("val", stem), root / "real" / f"{stem}.png")
        shutil.copyfile(data.mask_path("val", stem), root / "masks" / f"{stem}.png")
        source = samples.image_path("val", f"{stem}__000")
        shutil.copyfile(source, root / "theirs" / f"{stem}.png")
    for stem in data.stems("train"):
        shutil.copyfile(data.image_path("train", stem), root / "train" / f"{stem}.png")
    (root / "labels.yaml").write_text(LABELS)
    return root


@pytest.fixture
def run(folders: Path, segmenter: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Score ``theirs``; keywords replace or (None) drop what is given."""

    def score(**changes: Any) -> dict[str, Any]:
        given = {
            "generated": folders / "theirs",
            "real": folders / "real",
            "masks": folders / "masks",
            "labels": folders / "labels.yaml",
            "train": folders / "train",
            "segmenter": segmenter,
            "output": tmp_path / "report",
            "download": False,
            "device": "cpu",
            "batch_size": 4,
            "rows": 2,
        } | changes
        return semsynth.evaluate_folders(**{k: v for k, v in given.items() if v is not None})

    return score


def test_a_flat_folder_in_one_command(
    folders: Path, segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--real={folders}/real --masks={folders}/masks --labels={folders}/labels.yaml"
    words += f" --train={folders}/train --segmenter={segmenter} --output={tmp_path}/report"
    command = ["evaluate", f"--generated={folders}/theirs", *words.split(), "--no-download"]
    assert main([*command, "--device=cpu", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["n_masks"], report["n_generated"], report["n_training"]) == (6, 6, 12)
    consistency = report["metrics"]["semantic_consistency"]
    assert consistency["miou"] == pytest.approx(consistency["miou_real"], abs=0.05)
    assert consistency["miou_real"] > 0.8
    distance = report["metrics"]["frechet"]["fd_segmenter"]
    assert distance["to_training"]["n"] == 6 and distance["to_training"]["n_training"] == 12
    assert "real images of the same masks" in report["protocol"]["mean_colours"]
    page = (tmp_path / "report" / "report.html").read_text()
    text = page + (tmp_path / "report" / "report.json").read_text()
    assert str(tmp_path) not in text, "a report has no paths"


def test_plain_folders_score_as_prepared_data(
    run: Callable[..., dict[str, Any]], data, make_samples, segmenter: Path, tmp_path: Path
) -> None:
    ours = make_samples("same", per_mask=1)
    prepared = evaluate(
        EvaluateConfig(
            samples=ours.root, data=data.root, segmenter=segmenter, download=False, device="cpu",
            output=tmp_path / "prepared", batch_size=4, rows=2,
        )
    )  # fmt: skip
    mixed = run(generated=ours.root, real=data.root, masks=None, labels=None, train=None)
    plain = run(output=tmp_path / "again")
    for name in ("semantic_consistency", "frechet"):
        assert mixed["metrics"][name] == prepared["metrics"][name]
    for report in (mixed, plain):
        assert report["metrics"]["semantic_consistency"]["miou"] == pytest.approx(
            prepared["metrics"]["semantic_consistency"]["miou"], abs=1e-9
        )
    assert mixed["dataset"] == "toy" and mixed["made_with"]["sampler"] == "ddim"
    assert mixed["protocol"]["mean_colours"] == "means over 12 training images"


@pytest.mark.parametrize("form", ["{stem}__{k}", "{stem}_{k}", "{k}/{stem}", "samples_{k}"])
def test_several_samples_of_a_mask(
    run: Callable[..., dict[str, Any]], folders: Path, make_samples, form: str
) -> None:
    ours, target = make_samples("two", per_mask=2), folders / "several"
    for stem in ours.stems("val"):
        mask, _, k = stem.rpartition("__")
        if form == "samples_{k}":
            path = target / form.format(k=int(k)) / f"{mask}.png"
        else:
            path = target / f"{form.format(stem=mask, k=int(k))}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ours.image_path("val", stem), path)
    pattern = target / "samples_*" if form == "samples_{k}" else target
    report = run(generated=pattern)
    assert (report["n_masks"], report["n_generated"]) == (6, 12)
    assert report["diversity"]["pixel_std_within_mask"] > 0.01
    # A sample of one mask is missing: what is there counts.
    next(iter(sorted(target.rglob("*_05*.png")))).unlink()
    report = run(generated=pattern, overwrite=True)
    assert (report["n_masks"], report["n_generated"]) == (6, 11)


def test_without_masks_the_images_alone_are_compared(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    report = run(masks=None, labels=None, segmenter=None)
    assert "semantic_consistency" not in report["metrics"] and report["controls"] == {}
    assert "--masks" in report["missing"]["semantic_consistency"]
    assert (tmp_path / "report" / "report.html").exists()
    with pytest.raises(UserError, match="--segmenter is given without masks"):
        run(masks=None, labels=None, output=tmp_path / "other")


def test_at_most_so_many_masks_evenly_spread(run: Callable[..., dict[str, Any]]) -> None:
    report = run(max=3)
    assert (report["n_masks"], report["n_generated"], report["n_training"]) == (3, 3, 3)


def close(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            close(found[key], value)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-6, abs=2e-6)
    elif not isinstance(expected, str):
        assert found == expected


def test_parts_order_and_batches_give_the_same(
    run: Callable[..., dict[str, Any]], folders: Path, tmp_path: Path
) -> None:
    alone = run()
    for k in range(1, 5):
        shared = run(output=tmp_path / "shared", shard=f"{k}/4")
    close(shared["metrics"], alone["metrics"])
    assert not list((tmp_path / "shared").glob(".parts-*"))
    close(run(output=tmp_path / "one", batch_size=1)["metrics"], alone["metrics"])
    close(run(output=tmp_path / "all", batch_size=50)["metrics"], alone["metrics"])


def resized(path: Path, size: tuple[int, int]) -> None:
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), size))


def _cut(root: Path) -> None:
    path = root / "theirs" / "val_03.png"
    path.write_bytes(path.read_bytes()[:200])


def _resize(root: Path) -> None:
    resized(root / "theirs" / "val_02.png", (64, 48))


def _rename(root: Path) -> None:
    for i, path in enumerate(sorted((root / "theirs").iterdir())):
        path.rename(path.with_name(f"out{i}.png"))


def _unknown_id(root: Path) -> None:
    cv2.imwrite(str(root / "masks" / "val_01.png"), np.full((24, 32), 5, np.uint8))


def _copies(root: Path) -> None:
    for path in (root / "real").iterdir():
        shutil.copyfile(path, root / "theirs" / path.name)


def _single(root: Path) -> None:
    for path in sorted((root / "theirs").iterdir())[1:]:
        path.unlink()


def _no_real(root: Path) -> None:
    (root / "real" / "val_04.png").unlink()


def _training_size(root: Path) -> None:
    resized(root / "train" / "train_03.png", (16, 16))


def _no_training(root: Path) -> None:
    for path in (root / "train").iterdir():
        path.unlink()


BAD = {
    "names": (_rename, r"no image matches.*out0, out1, out2, out3, out4 and 1 more beside val_00"),
    "size": (_resize, r"'val_02' is 64x48, 'val_02' in .* is 32x24; .*--protocol"),
    "training size": (_training_size, r"'train_03' is 16x16, .* is 32x24"),
    "cut short": (_cut, r"val_03\.png: cannot be read"),
    "one image": (_single, "1 image that counts; statistics need at least 2"),
    "unknown id": (_unknown_id, r"val_01\.png: ids outside the labels: 5 \(768 pixels\)"),
    "the real ones": (_copies, "its images are the real images"),
    "a mask without image": (_no_real, "has no image of mask 'val_04'"),
    "no training images": (_no_training, "has no images"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(
    case: str, folders: Path, segmenter: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    break_it, message = BAD[case]
    break_it(folders)
    monkeypatch.setattr("semsynth.evaluation.run.measure", None)  # no network runs before
    words = {
        "generated": folders / "theirs", "real": folders / "real", "masks": folders / "masks",
        "labels": folders / "labels.yaml", "train": folders / "train", "segmenter": segmenter,
        "output": tmp_path / "report",
    }  # fmt: skip
    command = [f"--{name}={value}" for name, value in words.items()]
    assert main(["evaluate", *command, "--no-download", "--device=cpu"]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(rf"^error: [^\n]*{message}[^\n]*$", error, re.MULTILINE), error
    assert "Traceback" not in error and not (tmp_path / "report").exists()


def test_what_is_missing_is_named(run: Callable[..., dict[str, Any]], folders: Path) -> None:
    with pytest.raises(
        UserError, match=r"the meaning of the ids in its masks is unknown; .*labels\.yaml"
    ):
        run(labels=None)
    with pytest.raises(UserError, match="--labels is given without --masks"):
        run(masks=None, segmenter=None)
    with pytest.raises(UserError, match=r"theirs_\*: no folder fits this pattern"):
        run(generated=folders / "theirs_*")


def test_features_that_are_not_finite_name_their_images(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from semsynth.segmentation.segmenter import Segmenter

    analyse = Segmenter.analyse

    def broken(self: Segmenter, images: np.ndarray) -> Any:
        ids, features = analyse(self, images)
        features[0] = np.nan
        return ids, features

    monkeypatch.setattr(Segmenter, "analyse", broken)
    with pytest.raises(UserError, match=r"features of val_00 are not finite numbers"):
        run(batch_size=50)
    assert not (tmp_path / "report").exists()


def test_samples_of_other_masks_are_refused(
    run: Callable[..., dict[str, Any]], data, make_samples, make_data
) -> None:
    ours = make_samples("stale")
    other = make_data("redrawn")
    path = other.mask_path("val", "val_02")
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    mask[0, 0] = 1
    cv2.imwrite(str(path), mask)
    plain = {"masks": None, "labels": None, "train": None}
    with pytest.raises(UserError, match="'val_02__000' was generated from another mask"):
        run(generated=ours.root, real=other.root, **plain)
    # The same masks in files of other bytes are the same.
    mask[0, 0] = data.read_mask("val", "val_02")[0, 0]
    cv2.imwrite(str(path), mask, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert run(generated=ours.root, real=other.root, **plain)["n_generated"] == 12


def test_a_protocol_says_to_what_sizes_are_brought(
    run: Callable[..., dict[str, Any]], folders: Path
) -> None:
    """Real images of twice the size: refused, or resized where the protocol does so."""
    for kind, flag in (("real", cv2.INTER_CUBIC), ("masks", cv2.INTER_NEAREST)):
        for path in (folders / kind).iterdir():
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(path), cv2.resize(image, (64, 48), interpolation=flag))
    with pytest.raises(UserError, match=r"is 32x24, .* is 64x48; .*--protocol"):
        run()
    report = run(protocol="spade")
    assert report["protocol"]["name"] == "spade" and "bicubic" in report["protocol"]["sentence"]
    scores = report["metrics"]["semantic_consistency"]
    assert scores["miou"] > 0.75 and scores["miou_real"] > 0.7
    with pytest.raises(UserError, match="protocol oasis needs 256x256 or 256x512"):
        run(protocol="oasis", overwrite=True)
    with pytest.raises(UserError, match=r"--max 3: protocol oasis has all images"):
        run(protocol="oasis", max=3, overwrite=True)


def test_real_images_are_measured_once(
    run: Callable[..., dict[str, Any]], folders: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Features of real and training images are known the second time, of changed ones not."""
    seen: list[int] = []

    def extract(images: Any) -> np.ndarray:
        seen.append(len(images))
        return np.array([np.asarray(x).mean((0, 1)) for x in images], np.float32)

    toy = FeatureExtractor("fd_toy", "means", extract, "w" * 64)
    monkeypatch.setattr("semsynth.evaluation.run.open_extractors", lambda *_: ([toy], {}))
    first = run()
    assert sum(seen) == 6 + 6 + 12 + 6, "generated, real, training and mean-colour images"
    seen.clear()
    again = run(output=tmp_path / "again")
    assert sum(seen) == 6 + 6, "generated and mean-colour images"
    assert again["metrics"]["frechet"] == first["metrics"]["frechet"]
    for k in range(1, 5):
        shared = run(output=tmp_path / "shared", shard=f"{k}/4")
    close(shared["metrics"], first["metrics"])
    path = folders / "train" / "train_00.png"
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    seen.clear()
    changed = run(output=tmp_path / "changed", segmenter=None, masks=None, labels=None)
    assert sum(seen) == 6 + 12
    assert (
        changed["metrics"]["frechet"]["fd_toy"]["to_training"]["real"]
        != (first["metrics"]["frechet"]["fd_toy"]["to_training"]["real"])
    )

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.core.outputs import write_result
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.report.charts import Curve, draw, read_curves
from semsynth.evaluation.report.page import data_uri
from semsynth.evaluation.report.per_mask import GALLERY, PER_MASK
from semsynth.evaluation.report.verdict import warnings
from semsynth.evaluation.run import evaluate
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.train import train_segmenter


@pytest.fixture
def config(data, segmenter, make_samples, tmp_path: Path) -> EvaluateConfig:
    return EvaluateConfig(
        samples=make_samples().root,
        data=data.root,
        segmenter=segmenter,
        output=tmp_path / "report",
        download=False,
        device="cpu",
        rows=3,
    )


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_report_has_the_fixed_names(config: EvaluateConfig) -> None:
    report = evaluate(config)
    assert json.loads((config.output / "report.json").read_text()) == report
    assert (report["format"], report["dataset"], report["checkpoint"]) == (1, "toy", "c" * 64)
    assert (report["n_masks"], report["n_generated"]) == (6, 12)
    consistency = report["metrics"]["semantic_consistency"]
    assert consistency.keys() >= {"miou", "miou_real", "pixel_accuracy", "pixel_accuracy_real"}
    assert set(consistency["per_class"]) == {"road", "sky", "car"}
    assert consistency["per_class"]["car"].keys() >= {
        *("iou", "iou_interval", "iou_real", "accuracy", "precision", "f1", "boundary_f1"),
        *("boundary_f1_real", "target_pixels", "images", "loss", "loss_interval"),
    }
    assert consistency["confusion"]["classes"] == ["road", "sky", "car"]
    assert set(consistency["way"]) == {"value", "interval", "n"}
    assert consistency["evaluator"]["training_images_known"] is True
    assert consistency["evaluator"]["seen"] is None
    assert consistency["evaluator"]["trained_on"]["n_train"] == 12
    frechet = report["metrics"]["frechet"]["fd_segmenter"]
    assert (frechet["n_real"], frechet["n_generated"]) == (6, 12)
    assert set(report["controls"]) == {"shuffled_masks", "mean_colours"}
    assert report["diversity"]["pixel_std_within_mask"] > 0
    assert set(report["missing"]) >= {"fid", "kid", "lpips_diversity", "fd_segmenter_infinity"}
    assert report["metrics"]["kernel"]["kd_segmenter"]["subset_size"] == 3
    assert 0 <= report["metrics"]["prdc"]["fd_segmenter"]["coverage"] <= 1
    assert not {"fid", "kid", "lpips_diversity"} & report["metrics"].keys()


def test_images_as_good_as_real_ones_score_like_real_ones(config: EvaluateConfig) -> None:
    report = evaluate(config)
    consistency = report["metrics"]["semantic_consistency"]
    assert consistency["miou_real"] > 0.8
    assert consistency["miou"] == pytest.approx(consistency["miou_real"], abs=0.05)
    assert report["controls"]["shuffled_masks"]["miou"] < 0.7 * consistency["miou"]


def test_noise_scores_badly(config: EvaluateConfig, make_samples, noise_renderer) -> None:
    good = evaluate(config)
    samples = make_samples("noise", render=noise_renderer)
    bad = evaluate(replace(config, samples=samples.root, output=config.output.with_name("bad")))
    scores = [r["metrics"]["semantic_consistency"]["miou"] for r in (good, bad)]
    distances = [r["metrics"]["frechet"]["fd_segmenter"]["value"] for r in (good, bad)]
    assert scores[1] < scores[0] / 2
    assert distances[1] > 5 * distances[0]


def test_reports_are_reproducible(config: EvaluateConfig) -> None:
    assert evaluate(config) == evaluate(config)


class References(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        self.images += tag == "img"
        self.found += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "xlink:href")]


def test_page_is_self_contained_and_complete(config: EvaluateConfig, tmp_path: Path) -> None:
    arm = {"miou": 0.4, "std": 0.01, "pixel_accuracy": 0.7, "per_class": {"car": 0.2}}
    gain = {"miou": -0.012, "std": 0.02, "trials": [-0.012], "per_class": {"car": -0.01}}
    augmentation = {
        "arms": {"real": arm, "real_and_synthetic": arm},
        "gain": {"real_and_synthetic": gain},
        "n_real": 5,
        "n_synthetic": 9,
        "n_val": 6,
        "trials": [{}],
    }
    (tmp_path / "augmentation.json").write_text(json.dumps(augmentation))
    lines = [{"step": s, "loss": 1 / s, "lr": 0.1} for s in range(1, 9)]
    lines += [{"step": s, "validation_loss": 2 / s} for s in (4, 8)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines) + '{"st')
    report = evaluate(replace(config, augmentation=tmp_path / "augmentation.json", run=tmp_path))
    assert report["augmentation"] == augmentation
    page = (config.output / "report.html").read_text()
    references = References()
    references.feed(page)
    assert all(reference.startswith("data:image/") for reference in references.found)
    assert "url(" not in page
    gallery = page[page.index('id="gallery"') : page.index('id="extremes"')]
    assert gallery.count("<img") == 3 * (3 + 2) < references.images
    consistency = report["metrics"]["semantic_consistency"]
    assert f"{consistency['miou']:.3f}" in page
    assert f"{consistency['miou_real']:.3f}" in page
    assert "\N{MINUS SIGN}1.2" in page
    assert "<polyline" in page
    assert "--inception" in page


def test_each_image_has_a_line_of_its_own(config: EvaluateConfig) -> None:
    report = evaluate(config)
    with (config.output / "per_image.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == report["n_generated"] == 12
    assert [lines[i]["stem"] for i in (0, 1, 11)] == ["val_00__000", "val_00__001", "val_05__001"]
    assert all(line["stem"].startswith(f"{line['mask']}__") for line in lines)
    scores = [float(line["accuracy"]) for line in lines]
    consistency = report["metrics"]["semantic_consistency"]
    assert np.mean(scores) == pytest.approx(consistency["pixel_accuracy"], abs=0.01)
    assert len(report["verdict"]) == 3
    assert f"{consistency['miou']:.3f}" in report["verdict"][0]


def test_names_from_the_data_cannot_break_the_page(config: EvaluateConfig, tmp_path: Path) -> None:
    path = tmp_path / "samples" / "manifest.jsonl"
    path.write_text(path.read_text().replace('"ddim"', '"<script>x</script>"'))
    evaluate(config)
    assert "<script" not in (config.output / "report.html").read_text()


@pytest.mark.parametrize("n", [0, 5])
def test_samples_that_were_made_from_the_real_images_are_told(
    n: int, config: EvaluateConfig, tmp_path: Path, logged: Callable[[], str]
) -> None:
    path = tmp_path / "samples" / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[:n]:
        line |= {"from_image": True, "strength": 0.25, "image_digest": "d" * 64}
    # Of other splits' samples nothing is said.
    lines.append({**lines[0], "stem": "other", "split": "train", "from_image": True})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = evaluate(config)
    page, log = (config.output / "report.html").read_text(), logged()
    told = f"{n} of 12 generated images were made from the real images that they are compared with"
    if n:
        entry = report["made_from_real"]
        assert (entry["n"], entry["of"]) == (n, 12)
        assert entry["warning"].startswith(told) and "LPIPS to real and copies" in entry["warning"]
        assert warnings(report)[0] == entry["warning"]
        assert told in page and log.count(told) == 1
    else:
        assert "made_from_real" not in report
        assert "made from the real images" not in page + log


def test_one_image_has_no_statistics(config: EvaluateConfig, make_data) -> None:
    data = make_data("single", n_val=1)
    with pytest.raises(UserError, match="1 image that counts; statistics need at least 2"):
        evaluate(replace(config, data=data.root, samples=data.root))
    assert not config.output.exists()


def test_distances_of_inception_are_named_after_its_weights(
    config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody published these weights, so the distance is not called FID."""
    from semsynth.evaluation.metrics import features, inception

    for module in (inception, features):
        monkeypatch.setattr(module, "SIZE", 80)  # faster than 299
    torch.manual_seed(0)
    path = tmp_path / "inception.pth"
    torch.save(inception.InceptionV3().state_dict(), path)
    report = evaluate(replace(config, inception=path))
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    name, metrics = f"fd_inception_{digits}", report["metrics"]
    assert metrics[name]["value"] >= 0
    assert metrics[name]["dimensions"] == 2048
    assert "2,000" in metrics[name]["few_images"]
    kernel = metrics[f"kd_inception_{digits}"]
    assert (kernel["subset_size"], kernel["subset_rule"][:4]) == (3, "half")
    assert kernel["standard_error"] is None  # six masks in blocks of two
    assert kernel["to_training"].keys() >= {"generated", "real", "difference", "standard_error"}
    assert "6 images" in report["missing"][f"{name}_infinity"]
    assert name not in metrics["frechet"]
    assert not {"fid", "kid"} & (metrics.keys() | report["missing"].keys())
    assert {"fd_segmenter", name} <= set(report["controls"]["mean_colours"]["frechet"])


def test_a_report_with_the_weights_of_packages(
    config: EvaluateConfig, features_extra: None
) -> None:
    report = evaluate(config)
    metrics = report["metrics"]
    assert metrics["frechet"]["fd_lite2"]["dimensions"] == 1280
    assert metrics["kernel"]["kd_lite2"]["value"] is not None
    assert set(metrics["prdc"]) == {"fd_segmenter", "fd_lite2"}
    spread = metrics["stlpips_diversity"]
    assert 0 < spread["value"] < spread["different_masks"]["value"]
    assert spread["n_pairs"] == 6
    assert metrics["stlpips_to_real"]["n_pairs"] == 12
    assert report["diversity"]["pixel_std_different_masks"] > 0
    assert not {"fd_lite2", "kd_lite2", "stlpips_diversity"} & report["missing"].keys()


def test_user_errors_are_one_line_and_leave_no_report(
    config: EvaluateConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "--samples": tmp_path / "nothing",
        "--segmenter": tmp_path / "nothing.pth",
        "--inception": tmp_path / "nothing.pth",
        "--augmentation": tmp_path / "nothing.json",
        "--run": tmp_path,
        "--split": Path("nowhere"),
    }
    base = {
        "--samples": config.samples,
        "--data": config.data,
        "--segmenter": config.segmenter,
        "--output": config.output,
    }
    for flag, value in cases.items():
        words = [f"{k}={v}" for k, v in (base | {flag: value}).items()]
        assert main(["evaluate", *words, "--no-download", "--device=cpu"]) == 2, flag
        error = capsys.readouterr().err.strip()
        assert re.fullmatch(r"error: [^\n]*(nothing|metrics\.jsonl|nowhere)[^\n]*", error), error
        assert not config.output.exists(), flag


def test_classes_that_the_evaluator_does_not_know_are_left_out_of_both(
    config: EvaluateConfig, tmp_path: Path
) -> None:
    content = torch.load(config.segmenter, weights_only=True)
    content["labels"]["labels"][1]["name"] = "river"
    torch.save(content, tmp_path / "other.pth")
    report = evaluate(replace(config, segmenter=tmp_path / "other.pth"))
    found = report["metrics"]["semantic_consistency"]
    assert found["confusion"]["classes"] == found["confusion_real"]["classes"] == ["sky", "car"]
    assert set(found["per_class"]) == {"sky", "car"}
    labels = found["evaluator"]
    assert (labels["left_out"], labels["without_counterpart"]) == (["road"], ["river"])
    for label in content["labels"]["labels"]:
        label["name"] = f"no {label['name']}"
    torch.save(content, tmp_path / "none.pth")
    none = replace(config, segmenter=tmp_path / "none.pth", output=tmp_path / "none")
    with pytest.raises(UserError, match="has no class of the data"):
        evaluate(none)
    assert not none.output.exists()


def test_a_second_evaluator_stands_beside_the_first(config: EvaluateConfig, tmp_path: Path) -> None:
    content = torch.load(config.segmenter, weights_only=True)
    labels = content["labels"]["labels"]
    labels[1]["name"], labels[2]["name"] = labels[2]["name"], labels[1]["name"]
    torch.save(content, tmp_path / "swapped.pth")
    both = (str(config.segmenter), str(config.segmenter))
    same = evaluate(replace(config, segmenter=both))["metrics"]
    assert same["second_judge"]["agreement"] == {"pixels": 1, "miou": 1}
    assert same["second_judge"]["miou"] == same["semantic_consistency"]["miou"]
    swapped = replace(
        config,
        segmenter=(str(config.segmenter), str(tmp_path / "swapped.pth")),
        output=tmp_path / "swapped",
    )
    metrics = evaluate(swapped)["metrics"]
    assert metrics["second_judge"]["miou"] < 0.5 < metrics["semantic_consistency"]["miou"]
    assert metrics["second_judge"]["agreement"]["pixels"] < 0.5


def test_an_evaluator_that_was_trained_on_what_it_scores_is_refused_or_stamped(
    config: EvaluateConfig, make_samples, capsys, tmp_path: Path
) -> None:
    trained = train_segmenter(
        SegmentTrainConfig(
            data=config.data, split="val", output=tmp_path / "seen", width=8, steps=1,
            batch_size=2, device="cpu",
        )
    )  # fmt: skip
    words = ["evaluate", f"--samples={config.samples}", f"--data={config.data}", "--no-download"]
    words += [f"--segmenter={trained}", f"--output={config.output}", "--device=cpu"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "was trained on 6 of 6 real" in error
    assert not config.output.exists()
    assert main([*words, "--allow-seen"]) == 0
    report = json.loads((config.output / "report.json").read_text())
    assert report["metrics"]["semantic_consistency"]["evaluator"]["seen"] == {
        "real": 6,
        "generated": 0,
    }


def test_a_report_of_other_samples_is_not_overwritten_unasked(
    config: EvaluateConfig, tmp_path: Path
) -> None:
    first = evaluate(config)
    path = config.output / "report.json"
    before = path.read_bytes()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copytree(config.samples, moved / "samples", copy_function=shutil.copyfile)
    shutil.copytree(config.data, moved / "data", copy_function=shutil.copyfile)
    shutil.copytree(config.output, moved / "report")
    there = replace(config, samples=moved / "samples", data=moved / "data", output=moved / "report")
    assert evaluate(there) == first, "the content decides, not the place"

    image = next((moved / "samples" / "images" / "val").iterdir())
    pixels = cv2.imread(str(image))
    pixels[0, 0] += 1
    cv2.imwrite(str(image), pixels)
    said = rf"other samples \(since then: 1 image changed \(val/{image.stem}\)\); choose another"
    with pytest.raises(UserError, match=said):
        evaluate(replace(there, output=config.output))
    with pytest.raises(UserError, match=r"was made with rows=3, now 1; .* or give --overwrite"):
        evaluate(replace(config, rows=1))
    assert path.read_bytes() == before
    evaluate(replace(there, output=config.output, overwrite=True))
    assert path.read_bytes() != before
    assert not list(tmp_path.glob("*.replaced-*"))


def test_a_whole_report_is_not_made_again(
    config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {**evaluate(config), "missing": {}}  # nothing that another try may find
    write_result(config.output, "report.json", whole, (PER_MASK, GALLERY))
    monkeypatch.setattr("semsynth.evaluation.run.measure", None)
    assert evaluate(config) == whole


def test_large_images_are_shrunk() -> None:
    image = np.zeros((600, 1200, 3), np.uint8)
    assert data_uri(image).startswith("data:image/jpeg;base64,")
    assert len(data_uri(image)) < 20_000
    assert data_uri(image[:64, :64]).startswith("data:image/png;base64,")


def test_curves_stay_inside_their_frame(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        read_curves(tmp_path)
    svg = draw([Curve("loss", [0, 50, 100], [10.0, 0.1, 0.001])])
    points = re.search(r'points="([^"]+)"', svg)
    assert points is not None
    for point in points[1].split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= 720
        assert 0 <= y <= 220

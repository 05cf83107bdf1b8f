"""`semsynth evaluate compare`: what is refused, what the files hold, and reports of samples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared import MakeReport, vectors

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.evaluation.compare.differences import RATIOS, SCORES
from semsynth.evaluation.compare.run import compare
from semsynth.evaluation.config import CompareConfig, EvaluateConfig
from semsynth.evaluation.report.per_mask import VALUES
from semsynth.evaluation.run import evaluate

UNLIKE: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"dataset": "another"}, "another"),
    "masks": ({"digests": [f"d{i}" for i in range(20)]}, "20 of 20 masks or real images differ"),
    "no common masks": ({"stems": [f"m{i}" for i in range(20)]}, "other masks"),
    "split": ({"split": "test"}, "split"),
    "protocol": ({"protocol": {"name": "oasis"}}, "oasis"),
}


def evaluated_by(sha256: str) -> dict[str, Any]:
    evaluator = {"sha256": sha256, "kind": "unet"}
    return {"semantic_consistency": {"miou": 0.5, "evaluator": evaluator}}


@pytest.mark.parametrize("case", [*UNLIKE, "evaluator"])
def test_unlike_reports_are_refused_in_a_line_and_shown_anyway(
    case: str, make_report: MakeReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, text = UNLIKE.get(case, ({"metrics": evaluated_by("other")}, "unet other"))
    words = [
        str(make_report("a", vectors(20, 0.6))),
        str(make_report("b", vectors(20, 0.7), **changes)),
    ]
    words += ["--output", str(tmp_path / "out")]
    assert main(["evaluate", "compare", *words]) == 2
    error = capsys.readouterr().err
    assert text in error and "--anyway" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main(["evaluate", "compare", *words, "--anyway"]) == 0
    found = json.loads((tmp_path / "out/compare.json").read_text())
    (what,) = found["differs"]
    assert what in ("data", "split", "protocol", "judge")
    page = (tmp_path / "out/compare.html").read_text(encoding="utf-8")
    assert 'class="differs"' in page and text in page.replace("&#39;", "'")


def test_what_the_files_hold(make_report: MakeReport, tmp_path: Path) -> None:
    folders = tuple(
        make_report(n, vectors(30, r)) for n, r in (("a", 0.6), ("b", 0.65), ("c", 0.5))
    )
    found = compare(CompareConfig(folders, tmp_path / "out"))
    assert json.loads((tmp_path / "out/compare.json").read_text()) == found
    assert [report["name"] for report in found["reports"]] == ["a", "b", "c"]
    assert len(found["metrics"]["miou"]["values"]) == 3 and found["n_masks"] == 30
    assert [(x["first"], x["second"]) for x in found["differences"]] == [("a", "b"), ("a", "c")]
    up, down = (x["metrics"]["miou"] for x in found["differences"])
    assert up["interval"][0] > 0 > down["interval"][1]
    page = (tmp_path / "out/compare.html").read_text(encoding="utf-8")
    assert "points higher than that of a" in page and "points lower" in page
    assert "<script" not in page and "http://" not in page


def test_the_same_folder_name_twice(make_report: MakeReport, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        shutil.move(make_report(f"{name}r", vectors(8, 0.6)), tmp_path / name / "report")
    found = compare(CompareConfig((tmp_path / "x/report", tmp_path / "y/report"), tmp_path / "out"))
    assert [report["name"] for report in found["reports"]] == ["x/report", "y/report"]


def test_seeds_on_the_page(make_report: MakeReport, tmp_path: Path) -> None:
    folders = tuple(
        make_report(f"s{i}", vectors(8, r), made_with={"checkpoint": "c", "generator_seed": i})
        for i, r in enumerate((0.6, 0.65, 0.7))
    )
    found = compare(CompareConfig(folders, tmp_path / "out"))
    (group,) = found["seeds"]
    assert group["reports"] == ["s0", "s1", "s2"]
    assert group["metrics"]["miou"]["interval"] == [
        min(found["metrics"]["miou"]["values"]), max(found["metrics"]["miou"]["values"]),
    ]  # fmt: skip
    page = (tmp_path / "out/compare.html").read_text(encoding="utf-8")
    assert "differ in the seed alone" in page


BAD = {
    "one report": "two or more",
    "no folder": "report.json: no such file",
    "no report": "is not a report",
    "no scores of masks": "per_mask.npz: no such file",
    "damaged scores": "per_mask.npz",
    "output of something else": "not comparison",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(
    case: str, make_report: MakeReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = make_report("good", vectors(8, 0.6)), make_report("bad", vectors(8, 0.6))
    reports, output = [good, bad], tmp_path / "out"
    if case == "one report":
        reports = [good]
    elif case == "no folder":
        reports = [good, tmp_path / "nothing"]
    elif case == "no report":
        (bad / "report.json").write_text("[1]")
    elif case == "no scores of masks":
        (bad / "per_mask.npz").unlink()
    elif case == "damaged scores":
        (bad / "per_mask.npz").write_bytes(b"PK\3\4 and nothing more")
    else:
        output.mkdir()
        (output / ".semsynth.json").write_text('{"kind": "report", "key": {}}')
    words = [*map(str, reports), "--output", str(output)]
    assert main(["evaluate", "compare", *words]) == 2
    error = capsys.readouterr().err
    assert BAD[case] in error and error.count("\n") == 1
    assert not (output / "compare.json").exists()


def test_the_same_again_and_another_comparison(make_report: MakeReport, tmp_path: Path) -> None:
    a, b, c = (make_report(name, vectors(8, r)) for name, r in (("a", 0.6), ("b", 0.7), ("c", 0.8)))
    first = compare(CompareConfig((a, b), tmp_path / "out"))
    assert compare(CompareConfig((a, b), tmp_path / "out")) == first
    with pytest.raises(UserError, match="--overwrite"):
        compare(CompareConfig((a, c), tmp_path / "out"))
    assert compare(CompareConfig((a, c), tmp_path / "out", overwrite=True)) != first


@pytest.fixture
def config(
    data: PreparedDataset, segmenter: Path, make_samples: Callable[..., PreparedDataset],
    tmp_path: Path,
) -> EvaluateConfig:  # fmt: skip
    return EvaluateConfig(
        samples=make_samples().root, data=data.root, segmenter=segmenter, device="cpu",
        output=tmp_path / "first", download=False, rows=3,
    )  # fmt: skip


def test_reports_of_samples(
    config: EvaluateConfig, make_samples: Callable[..., PreparedDataset], noise_renderer: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    """The same samples elsewhere: no difference; noise: worse, and the masks side by side."""
    evaluate(config)
    copy, noise = make_samples("copy").root, make_samples("noise", render=noise_renderer).root
    evaluate(replace(config, samples=copy, output=tmp_path / "again"))
    bad = evaluate(replace(config, samples=noise, output=tmp_path / "noise_report"))
    good = json.loads((tmp_path / "first/report.json").read_text())
    folders = tuple(tmp_path / name for name in ("first", "again", "noise_report"))
    found = compare(CompareConfig(folders, tmp_path / "out"))
    same, worse = found["differences"]
    assert same["same_images"] and not worse["same_images"]
    for name, entry in same["metrics"].items():
        assert (entry["value"], entry["interval"]) == (0, [0, 0]), name
    scores = [r["metrics"]["semantic_consistency"]["miou"] for r in (good, bad)]
    assert worse["metrics"]["miou"]["value"] == pytest.approx(scores[1] - scores[0], abs=2e-6)
    assert worse["metrics"]["miou"]["interval"][1] < 0
    assert worse["metrics"]["ratio"]["interval"][1] < 0
    for name, entry in worse["metrics"].items():  # they are the reports' own
        values = found["metrics"][name]["values"]
        assert entry["value"] == pytest.approx(values[2] - values[0], abs=3e-6), name
        assert entry["paired"] == (name in (*SCORES, *RATIOS, *VALUES)), name
    assert {"miou", "miou_all", "ratio", "way", "pixel_std_within_mask"} <= worse["metrics"].keys()
    means = [name for name in worse["metrics"] if "lpips" in name or name.startswith("pixel_std")]
    assert means and all(worse["metrics"][name]["interval"] for name in means)
    for name, entry in worse["per_class"].items():
        ious = [r["metrics"]["semantic_consistency"]["per_class"][name]["iou"] for r in (good, bad)]
        assert entry["iou"] == pytest.approx(ious, abs=2e-6)
        assert entry["value"] == pytest.approx(ious[1] - ious[0], abs=2e-6)
    assert all(np.isfinite(entry["value"]) for entry in worse["metrics"].values())
    page = (tmp_path / "out/compare.html").read_text(encoding="utf-8")
    # Three masks: mask, real image, and two samples of each report.
    assert page.count("<img") == 3 * (2 + 3 * 2)

"""Differences with known answers: none, a known one, and the spread of seeds."""

from __future__ import annotations

import numpy as np
import pytest
from compared import CLASSES, MakeReport, vectors

from semsynth.evaluation.compare.differences import (
    common_masks,
    difference,
    group_difference,
    seed_groups,
)
from semsynth.evaluation.compare.reports import read_reports
from semsynth.evaluation.metrics.blocks import circular
from semsynth.evaluation.metrics.bootstrap import Resampling
from semsynth.segmentation.metrics import mean_iou


def test_the_same_samples_differ_by_exactly_nothing(make_report: MakeReport) -> None:
    lpips = {"lpips_diversity": np.linspace(0.1, 0.3, 40)}
    distances = {"frechet": {"fd_x": {"value": 3.5, "standard_error": 0.1, "n_generated": 40}}}
    more = {"lpips_diversity": {"value": 0.2}, **distances}
    folders = [
        make_report(
            name, vectors(40, 0.7), values=lpips, metrics=more, inputs={"generated": "the same"}
        )
        for name in ("a", "b")
    ]
    found = difference(*read_reports(folders), seed=0)
    assert found["same_images"] and found["n_masks"] == 40
    assert set(found["metrics"]) == {"miou", "fd_x", "lpips_diversity"}
    for name, entry in found["metrics"].items():
        assert (entry["value"], entry["interval"]) == (0, [0, 0]), name
    for name in CLASSES:
        entry = found["per_class"][name]
        assert (entry["value"], entry["interval"]) == (0, [0, 0])
        assert entry["iou"][0] == entry["iou"][1]


def test_one_report_with_itself(make_report: MakeReport) -> None:
    folder = make_report("a", vectors(12, 0.7))
    first, second = read_reports([folder, folder / "report.json"])
    assert (first.name, second.name) == ("a (1)", "a (2)")
    found = difference(first, second, seed=3)
    assert found["metrics"]["miou"]["interval"] == [0, 0]


def test_the_difference_is_that_of_the_reports_and_its_interval_is_paired(
    make_report: MakeReport,
) -> None:
    """Masks that are hard for one are hard for the other: unpaired intervals are far wider."""
    worse, better = vectors(60, 0.60), vectors(60, 0.65)
    first, second = read_reports([make_report("a", worse), make_report("b", better)])
    found = difference(first, second, seed=0)["metrics"]["miou"]
    miou = [report.metrics["miou"].value for report in (first, second)]
    assert found["value"] == pytest.approx(miou[1] - miou[0], abs=2e-6)
    low, high = found["interval"]
    assert 0 < low < found["value"] < high and found["paired"]
    draws = Resampling.of(circular(60), 0)
    assert draws is not None
    alone = [draws.interval(mean_iou(*draws.sums(x).swapaxes(0, 1))) for x in (worse, better)]
    widths = [ends[1] - ends[0] for ends in alone if ends is not None]
    assert high - low < min(widths) / 3
    assert min(widths) > abs(found["value"])  # apart, nothing could be said


def test_order_of_the_reports(make_report: MakeReport) -> None:
    a, b = read_reports([make_report("a", vectors(30, 0.5)), make_report("b", vectors(30, 0.7))])
    one, other = difference(a, b, 0)["metrics"]["miou"], difference(b, a, 0)["metrics"]["miou"]
    assert one["value"] == -other["value"]
    assert one["interval"] == pytest.approx([-x for x in reversed(other["interval"])], abs=1e-6)


def test_masks_that_both_have_are_compared(make_report: MakeReport) -> None:
    """One report is of the first masks, in another order, and one mask is another of that name."""
    counts = vectors(20, 0.7)
    names = [f"mask{chr(97 + i)}" for i in range(20)]
    digests = [f"d{i}" for i in range(20)]
    all_of_them = make_report("a", counts, stems=names, digests=digests)
    order = list(reversed(range(12)))
    other = [digests[i] if i != 5 else "another" for i in order]
    some = make_report("b", counts[order], stems=[names[i] for i in order], digests=other)
    reports = read_reports([all_of_them, some])
    pair = common_masks(reports)
    assert list(pair[0].stems) == list(pair[1].stems) == [names[i] for i in range(12) if i != 5]
    assert np.array_equal(pair[0].vectors["generated"], pair[1].vectors["generated"])
    found = difference(*reports, seed=0)
    assert found["n_masks"] == 11 and found["metrics"]["miou"]["interval"] == [0, 0]


def test_too_few_masks_have_no_interval(make_report: MakeReport) -> None:
    folders = [make_report(name, vectors(3, r)) for name, r in (("a", 0.5), ("b", 0.6))]
    found = difference(*read_reports(folders), seed=0)["metrics"]["miou"]
    assert found["value"] > 0 and found["interval"] is None


def test_distances_have_the_interval_of_both_standard_errors(make_report: MakeReport) -> None:
    def entry(value: float, error: float, n: int = 40) -> dict[str, dict[str, object]]:
        kd = {"value": value, "standard_error": error, "n_generated": n, "features": "f"}
        return {"kernel": {"kd_x": kd}}

    counts = vectors(40, 0.7)
    a = make_report("a", counts, metrics=entry(1.0, 0.3))
    b = make_report("b", counts, metrics=entry(2.0, 0.4))
    c = make_report("c", counts, metrics=entry(2.0, 0.4, n=80))
    reports = read_reports([a, b, c])
    found = difference(reports[0], reports[1], 0)["metrics"]["kd_x"]
    assert found["value"] == 1 and not found["paired"]
    assert found["interval"] == pytest.approx([1 - 1.959964 * 0.5, 1 + 1.959964 * 0.5])
    # Of another N, or other features: no difference to speak of.
    other = difference(reports[0], reports[2], 0)["metrics"]["kd_x"]
    assert "80 generated" in other["differs"] and other["interval"] is None


def test_runs_that_differ_in_the_seed_alone(make_report: MakeReport) -> None:
    """Seeds of generating, or of training; a run of other settings is not part of the spread."""

    def made(seed: int, **more: object) -> dict[str, object]:
        return {"checkpoint": "c", "generator_seed": seed, "steps": 20, **more}

    shares = (0.60, 0.62, 0.67, 0.64)
    folders = [
        make_report(f"seed{i}", vectors(20, r), made_with=made(i)) for i, r in enumerate(shares)
    ]
    trained = [
        make_report(
            f"trained{i}",
            vectors(20, r),
            made_with=made(0, checkpoint=f"c{i}", training_seed=i, training_key="k"),
        )
        for i, r in enumerate((0.5, 0.52))
    ]
    other = make_report("steps", vectors(20, 0.4), made_with=made(0, steps=10))
    foreign = make_report("foreign", vectors(20, 0.4), made_with={})
    reports = read_reports([*folders, other, *trained, foreign])
    groups = seed_groups(reports)
    assert [group.numbers for group in groups] == [[0, 1, 2, 3], [5, 6]]
    miou = [report.metrics["miou"].value for report in reports[:4]]
    spread = groups[0].metrics["miou"]
    assert spread["interval"] == [min(miou), max(miou)] and spread["values"] == miou
    assert spread["mean"] == pytest.approx(np.mean(miou), abs=1e-6)
    assert spread["std"] == pytest.approx(np.std(miou, ddof=1), abs=1e-6)
    between = group_difference(groups[0], groups[1])["miou"]
    assert between["value"] == pytest.approx(
        groups[1].metrics["miou"]["mean"] - spread["mean"], abs=2e-6
    )
    assert between["interval"][0] < between["value"] < between["interval"][1] < 0


def test_the_same_images_twice_are_no_two_seeds(make_report: MakeReport) -> None:
    made = {"checkpoint": "c", "generator_seed": 0}
    same = {"inputs": {"generated": "x"}, "made_with": made}
    folders = [make_report(name, vectors(8, 0.7), **same) for name in ("a", "b")]
    assert seed_groups(read_reports(folders)) == []

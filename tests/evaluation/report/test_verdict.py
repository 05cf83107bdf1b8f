"""Sentences made from known numbers."""

from __future__ import annotations

from typing import Any

import pytest

from semsynth.evaluation.report.verdict import cards, sentences, warnings

Json = dict[str, Any]


def test_the_verdict_of_a_known_report(report: Json) -> None:
    consistency, distance, variety = sentences(report)
    assert consistency == (
        "The segmenter recognises the classes less well in generated images than in real ones: "
        "mIoU is 0.482 (0.461 to 0.503), where real images of the same masks have 0.601, flat mean "
        "colours 0.300, shuffled masks 0.100; that is 60% (55% to 66%) of the way from mean "
        "colours to real."
    )
    assert distance == (
        "By KID, generated images are farther from the training images than held-out real images "
        "of the same masks: 0.0123 against 0.00984 (difference ± standard error 0.00246 ± 0.00037, "
        "lower is nearer; flat mean colours are at 0.0492)."
    )
    assert variety == (
        "Samples of one mask differ by LPIPS 0.210 (real images of different masks: 0.550); 1.2% "
        "(0.4% to 3.0%) are nearly copies of training images, of held-out real images 1.0%; all "
        "this is measured on 200 images of 100 masks."
    )
    assert warnings(report) == [
        "Only 200 images of 100 masks: Fréchet distances are mostly bias (read a kernel distance)."
    ]


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (0.97, "as well in generated images as in real ones"),
        (0.85, "almost as well in generated images"),
        (0.6, "less well in generated images"),
        (0.1, "far less well in generated images"),
        (-0.2, "no better than in flat mean colours"),
    ],
)
def test_words_follow_the_way_from_mean_colours_to_real(
    report: Json, way: float, words: str
) -> None:
    report["metrics"]["semantic_consistency"]["way"] = {"value": way}
    assert f"The segmenter recognises the classes {words}" in sentences(report)[0]


def test_without_the_way_the_ratio_of_the_ceiling_decides(report: Json) -> None:
    scores = report["metrics"]["semantic_consistency"]
    del scores["way"]
    scores |= {"miou": 0.6, "miou_real": 0.6}
    assert "classes as well in generated images as in real ones" in sentences(report)[0]


def test_a_segmenter_that_prefers_flat_colours_says_little(report: Json) -> None:
    del report["metrics"]["semantic_consistency"]["way"]
    report["controls"]["mean_colours"]["miou"] = 0.65
    assert "its scores say little about the images: mIoU is 0.482" in sentences(report)[0]


def test_nearer_than_real_images_is_a_warning(report: Json) -> None:
    fair = report["metrics"]["kid"]["to_training"]
    fair |= {"generated": 0.001, "real": 0.01, "difference": -0.009, "standard_error": 0.001}
    assert "nearer to the training images than held-out real images" in sentences(report)[1]
    (text,) = [text for text in warnings(report) if "nearer" in text]
    assert "(KID): a sign of copies" in text


def test_a_difference_within_two_standard_errors_is_none(report: Json) -> None:
    report["metrics"]["kid"]["to_training"] |= {"difference": -0.0019, "standard_error": 0.001}
    assert "about as far from the training images as held-out real images" in sentences(report)[1]
    assert not [text for text in warnings(report) if "nearer" in text]


def test_without_a_standard_error_a_difference_must_be_clear(report: Json) -> None:
    fair = report["metrics"]["kid"]["to_training"]
    del fair["standard_error"]
    fair |= {"generated": 1.04, "real": 1.0, "difference": 0.04}
    assert "about as far from the training images" in sentences(report)[1]
    fair |= {"generated": 1.4, "difference": 0.4}
    assert "farther from the training images" in sentences(report)[1]


def test_what_was_found_of_copies_are_the_first_warnings(report: Json) -> None:
    found = ["190 of 200 generated images are copies of training images.", "The split leaks."]
    report["metrics"]["copies"] |= {"share": 0.95, "warnings": found}
    assert warnings(report)[:2] == found
    report["metrics"]["copies"]["warnings"] = []
    assert "copies" not in warnings(report)[0]


def test_many_copies_are_the_number_of_the_last_card(report: Json) -> None:
    assert cards(report)[2].unit.startswith("LPIPS")
    report["metrics"]["copies"]["share"] = 0.5
    assert (cards(report)[2].value, cards(report)[2].unit[:13]) == ("50%", "nearly copies")


def test_a_segmenter_that_has_seen_the_images_is_a_warning(report: Json) -> None:
    report["metrics"]["semantic_consistency"]["evaluator"]["seen"] = {"n": 3}
    assert any("trained on images that it scores" in text for text in warnings(report))


def test_few_masks_are_a_warning(report: Json) -> None:
    report |= {"n_generated": 12, "n_masks": 6}
    assert warnings(report)[-1].startswith("Only 12 images of 6 masks: ")
    assert warnings(report)[-1].endswith("intervals are wide.")


def test_from_2000_images_on_the_distance_is_fid(report: Json) -> None:
    for entry in (report["metrics"]["fid"], report["metrics"]["kid"]):
        entry |= {"n_real": 2000, "n_generated": 2000}
    assert sentences(report)[1].startswith("By FID, ")


def test_what_is_not_measured_is_said_with_its_reason(report: Json) -> None:
    bare = {**report, "metrics": {"frechet": {}}, "controls": {}, "diversity": {}}
    bare["missing"] = {
        "semantic_consistency": "no masks",
        "kid": "no weights",
        "copies": "no training images",
        "lpips_diversity": "no heads",
    }
    consistency, distance, variety = sentences(bare)
    assert consistency == "Consistency was not measured: no masks."
    assert distance == "No distance was measured: no weights."
    assert variety.startswith("Diversity was not measured (no heads); copies of training images")
    assert "(no training images)" in variety
    assert warnings(bare) == []


def test_without_training_images_there_is_no_floor(report: Json) -> None:
    for entry in (report["metrics"]["kid"], report["metrics"]["fid"]):
        del entry["to_training"]
    report["metrics"] |= {"kernel": {}, "frechet": {}}
    assert sentences(report)[1].endswith("there is no fair reference value.")

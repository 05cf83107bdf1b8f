"""What `semsynth evaluate` prints for a person."""

from __future__ import annotations

from semsynth.cli.evaluate import headline


def test_headline_has_the_scores_their_controls_and_what_is_missing() -> None:
    report = {
        "metrics": {
            "semantic_consistency": {"miou": 0.5, "miou_real": 0.6, "per_class": {"road": {}}},
            "kid": {"value": 0.01, "n_real": 3},
            "frechet": {"fd_segmenter": {"value": 2.0}},
        },
        "controls": {"shuffled_masks": {"miou": 0.1}, "mean_colours": {"frechet": {}}},
        "missing": {"fid": "no weights"},
    }
    assert headline(report) == {
        "miou": 0.5,
        "miou_real": 0.6,
        "miou of shuffled masks": 0.1,
        "kid": 0.01,
        "fd_segmenter": 2.0,
        "fid is missing": "no weights",
    }
    empty = {"metrics": {}, "controls": {}, "missing": {"semantic_consistency": "why"}}
    assert headline(empty) == {"semantic_consistency is missing": "why"}


def test_the_fair_pair_comes_before_what_papers_give() -> None:
    fair = {"generated": 3.0, "real": 2.5, "difference": 0.5, "standard_error": 0.1}
    report = {
        "metrics": {"frechet": {"fd_lite2": {"value": 9.0, "to_training": fair}}},
        "controls": {},
        "missing": {},
        "verdict": ["One.", "Two."],
    }
    lines = headline(report)
    assert list(lines) == ["fd_lite2 from the training images", "fd_lite2", "verdict"]
    said = "generated 3, held-out real 2.5, difference +0.5 ± 0.1"
    assert lines["fd_lite2 from the training images"] == said
    assert lines["verdict"] == "One. Two."

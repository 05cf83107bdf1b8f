"""Which labels correspond: by name, by what the user says, and what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from semsynth.core.errors import UserError
from semsynth.data.label_match import match_labels, read_label_map
from semsynth.data.labels import Label, LabelSet
from semsynth.data.sources import preset

OURS = LabelSet.from_names({0: "void", 1: "Road", 2: "traffic-light", 3: "Hat"}, ignore_id=0)
THEIRS = LabelSet.from_names({0: "Traffic Light", 1: "sky", 2: "flat-road", 3: "Cap"})


def test_names_are_compared_without_case_punctuation_and_group() -> None:
    match = match_labels(OURS, THEIRS)
    assert match.channels == ((2,), (0,), ())
    assert match.names == {"Road": ["flat-road"], "traffic-light": ["Traffic Light"]}
    assert match.unmatched == ["Hat"]
    assert match.unused == ["sky", "Cap"] and match.omitted == []


def test_a_label_map_has_precedence_over_names() -> None:
    match = match_labels(
        OURS, THEIRS, {"hat": ["cap", "sky"], "Road": [], "traffic-light": ["sky"]}
    )
    assert match.channels == ((), (1,), (3, 1))
    assert match.unmatched == match.omitted == ["Road"]
    assert match.unused == ["Traffic Light", "flat-road"]


def test_a_full_name_has_precedence_over_one_without_its_group() -> None:
    theirs = LabelSet.from_names({0: "flat-road", 1: "Road"})
    assert match_labels(OURS, theirs).channels[0] == (1,)
    both = LabelSet.from_names({0: "flat-road", 1: "nature-road"})
    assert match_labels(OURS, both).channels[0] == ()


def test_unlabelled_is_unlabelled_whatever_its_name() -> None:
    labels = (Label(0, "nothing", (0, 0, 0), 1), Label(1, "sky", (1, 1, 1), 0))
    ours = LabelSet(labels, ignore_id=0)
    match = match_labels(ours, preset("ade20k").labels)
    assert match.channels == ((2,), (150,))
    assert match.names == {"sky": ["sky"], "nothing": ["other"]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Roda": ["sky"]}, r"map.yaml: 'Roda' is not a label of the data; did you mean 'Road'"),
        ({"Road": ["sjy"]}, r"map.yaml: 'sjy' is not a label of the model.*'sky'"),
    ],
)
def test_a_wrong_name_is_named(given: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        match_labels(OURS, THEIRS, given, "map.yaml")


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("Road: flat-road\nHat: [Cap, sky]\ntraffic-light:\n")
    assert read_label_map(path) == {
        "Road": ["flat-road"],
        "Hat": ["Cap", "sky"],
        "traffic-light": [],
    }
    path.write_text("Road: 3\n")
    with pytest.raises(UserError, match="Road: 3' must be a name, a list of names, or null"):
        read_label_map(path)

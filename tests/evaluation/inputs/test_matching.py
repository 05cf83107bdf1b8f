"""Which sample is of which mask: one rule for all names, and one line in doubt."""

from __future__ import annotations

import pytest

from semsynth.core.errors import UserError
from semsynth.evaluation.inputs.folders import natural
from semsynth.evaluation.inputs.matching import grouped, match

NAMES = ("theirs", "real")


@pytest.mark.parametrize(
    ("samples", "masks", "expected"),
    [
        (["a", "b"], ["a", "b", "c"], {"a": "a", "b": "b"}),
        (["a__0", "a__1", "b__7"], ["a", "b"], {"a__0": "a", "a__1": "a", "b__7": "b"}),
        (["a_0", "a_1"], ["a"], {"a_0": "a", "a_1": "a"}),
        (["run_0/a", "run_1/a"], ["a"], {"run_0/a": "a", "run_1/a": "a"}),
        # Nested folders on both sides, and names that end in numbers themselves.
        (["x/a_1_0", "x/a_2_0"], ["x/a_1", "x/a_2"], {"x/a_1_0": "x/a_1", "x/a_2_0": "x/a_2"}),
        (["0016_0001", "0016_0002"], ["0016_0001", "0016_0002"], None),
        # a and a_1 are both masks.
        (["a", "a_1"], ["a", "a_1"], None),
        (["a_0", "a_1", "a_1_0"], ["a", "a_1"], {"a_0": "a", "a_1": "a", "a_1_0": "a_1"}),
        (["a_1__0", "a__0"], ["a", "a_1"], {"a_1__0": "a_1", "a__0": "a"}),
    ],
)
def test_one_rule_fits_all_names(samples, masks, expected) -> None:
    assert match(samples, masks, NAMES, None)[0] == (expected or {stem: stem for stem in samples})


def test_two_rules_that_differ_are_a_question() -> None:
    samples, masks = ["a_1", "a_2"], ["a", "a_1", "a_2"]
    with pytest.raises(
        UserError, match=r"may be of 'a_1' or of 'a'.*--match STEM or --match STEM_K"
    ):
        match(samples, masks, NAMES, None)
    assert match(samples, masks, NAMES, "STEM") == ({"a_1": "a_1", "a_2": "a_2"}, "STEM")
    assert match(samples, masks, NAMES, "STEM_K") == ({"a_1": "a", "a_2": "a"}, "STEM_K")


def test_what_fits_no_rule_names_five_of_each_side() -> None:
    samples, masks = [f"gen{i}" for i in range(7)], [f"real{i}" for i in range(9)]
    with pytest.raises(UserError) as error:
        match(samples, masks, NAMES, None)
    message = str(error.value)
    assert "no image matches" in message and "tried STEM or STEM__K or STEM_K or K/STEM" in message
    assert "gen0, gen1, gen2, gen3, gen4 and 2 more" in message
    assert "real0, real1, real2, real3, real4 and 4 more" in message
    with pytest.raises(UserError, match=r"1 of 3 images match none of real .*: grid beside b"):
        match(["a", "c", "grid"], ["a", "b", "c"], NAMES, None)


def test_samples_are_in_natural_order() -> None:
    pairs = {f"a__{i}": "a" for i in (10, 2, 1)} | {"b__0": "b"}
    assert grouped(pairs, ["b", "a", "c"]) == {"b": ["b__0"], "a": ["a__1", "a__2", "a__10"]}
    assert sorted(["img10", "img2", "a", "10", "9"], key=natural) == [
        "9",
        "10",
        "a",
        "img2",
        "img10",
    ]

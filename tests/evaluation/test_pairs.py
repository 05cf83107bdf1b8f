from __future__ import annotations

import pytest

from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.inputs import open_inputs


def pairs_of(data, samples):
    return open_inputs(EvaluateConfig(samples=samples.root, data=data.root))


def test_samples_are_matched_by_manifest_or_by_stem(data, make_samples) -> None:
    with_manifest = pairs_of(data, make_samples("a"))
    without = pairs_of(data, make_samples("b", manifest=False))
    assert with_manifest.by_mask == without.by_mask
    assert with_manifest.masks_order == data.stems("val")
    assert with_manifest.settings == {"sampler": "ddim", "steps": 5, "checkpoint": "c" * 64}
    assert without.settings == {}


def test_samples_that_do_not_belong_to_the_data_are_user_errors(
    data, make_samples, make_data, tmp_path
) -> None:
    samples = make_samples()
    with pytest.raises(UserError, match="no such folder"):
        open_inputs(EvaluateConfig(samples=tmp_path / "nothing", data=data.root))
    other = LabelSet.from_names({0: "void", 1: "road", 2: "lake", 7: "car"}, ignore_id=0)
    with pytest.raises(UserError, match="'lake'"):
        pairs_of(make_data("relabelled", labels=other), samples)
    with pytest.raises(UserError, match="does not have"):
        pairs_of(make_data("smaller", n_val=2), samples)
    (samples.root / "manifest.jsonl").write_text("{broken\n")
    with pytest.raises(UserError, match=r"manifest\.jsonl: line 1"):
        pairs_of(data, samples)

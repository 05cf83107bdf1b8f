from __future__ import annotations

from typing import Any

import pytest

from semsynth.augmentation.results import summarise


def scores(miou: float, car: float) -> dict[str, Any]:
    return {"miou": miou, "pixel_accuracy": 0.5, "per_class": {"car": car}}


def test_gains_are_paired_by_trial() -> None:
    trials = [
        {"real": scores(0.40, 0.1), "real_and_synthetic": scores(0.45, 0.3)},
        {"real": scores(0.60, 0.3), "real_and_synthetic": scores(0.63, 0.3)},
    ]
    result = summarise(trials)
    gain = result["gain"]["real_and_synthetic"]
    assert gain["trials"] == [0.05, 0.03]
    assert gain["miou"] == pytest.approx(0.04)
    # The trials differ much, their gains little: that is what pairing is for.
    assert gain["std"] == pytest.approx(0.02 / 2**0.5, abs=1e-6)
    assert result["arms"]["real"]["std"] == pytest.approx(0.2 / 2**0.5, abs=1e-6)
    assert gain["per_class"] == {"car": pytest.approx(0.1)}
    assert "real" not in result["gain"]


def test_a_loss_is_a_negative_gain_and_one_trial_has_no_spread() -> None:
    result = summarise([{"real": scores(0.4, 0.1), "real_and_synthetic": scores(0.3, 0.1)}])
    assert result["gain"]["real_and_synthetic"]["miou"] == pytest.approx(-0.1)
    assert result["gain"]["real_and_synthetic"]["std"] is None

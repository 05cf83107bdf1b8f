"""From the scores of single segmenters to what was gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

REAL = "real"
SYNTHETIC = "real_and_synthetic"
FILTERED = "real_and_filtered"
CEILING = "real_and_more_real"


def summarise(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average over trials, and compare each arm with the real images alone, trial by trial.

    Args:
        trials: for each trial the scores of each arm (miou, pixel_accuracy, per_class).

    Returns:
        ``arms``: name to the means (and the std of the mIoU over the trials, None for one trial);
        ``gain``: name to the differences of mIoU from ``real``, their mean and std;
        ``trials``: the mIoU of each.
    """
    names = list(trials[0])
    return {
        "arms": {name: _means([trial[name] for trial in trials]) for name in names},
        "gain": {name: _gain(trials, name) for name in names if name != REAL},
        "trials": [{name: trial[name]["miou"] for name in names} for trial in trials],
    }


def _means(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mious = [score["miou"] for score in scores]
    classes = scores[0]["per_class"]
    return {
        "miou": _mean(mious),
        "std": _std(mious),
        "pixel_accuracy": _mean([score["pixel_accuracy"] for score in scores]),
        "per_class": {name: _mean([s["per_class"][name] for s in scores]) for name in classes},
    }


def _gain(trials: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    differences = [trial[name]["miou"] - trial[REAL]["miou"] for trial in trials]
    classes = trials[0][REAL]["per_class"]
    return {
        "miou": _mean(differences),
        "std": _std(differences),
        "trials": [round(difference, 6) for difference in differences],
        "per_class": {
            c: _mean([t[name]["per_class"][c] - t[REAL]["per_class"][c] for t in trials])
            for c in classes
        },
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 6)


def _std(values: Sequence[float]) -> float | None:
    return round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else None

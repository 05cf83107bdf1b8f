"""Averages of IoU against mmsegmentation, torchmetrics and UperNet's evaluation code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import synth

from semsynth.segmentation.metrics import ConfusionMatrix

CASES = json.loads((Path(__file__).parent / "miou.json").read_text())["cases"]


@pytest.mark.parametrize("name", CASES)
def test_every_average_is_the_packages(name: str) -> None:
    case = CASES[name]
    target = synth.label_maps(4, 40, 52, case["asked"], name, "target").astype(np.int64)
    pred = synth.label_maps(4, 40, 52, case["seen"], name, "pred").astype(np.int64)
    pred = np.where(synth.uniform(target.shape, name, "keep") < 0.6, target, pred)
    if case["ignore"] is not None:
        target[synth.uniform(target.shape, name, "ignore") < 0.1] = case["ignore"]
    matrix = ConfusionMatrix(case["classes"])
    matrix.add(pred, target, case["ignore"])
    assert matrix.counts.tolist() == case["confusion"]
    found = {
        "miou_mmseg": matrix.miou,
        "miou_masks_only": matrix.miou_of_masks,
        "miou_csail": matrix.miou_all,
        "accuracy": matrix.pixel_accuracy,
        "class_accuracy": matrix.mean_class_accuracy,
        "fwiou": matrix.frequency_weighted_iou,
    }
    assert found == pytest.approx({key: case[key] for key in found}, abs=1e-9)
    # torchmetrics rounds to float32.
    assert matrix.miou == pytest.approx(case["jaccard_macro_torchmetrics"], abs=1e-6)

"""Reports that were not measured: their numbers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared import CLASSES, MakeReport, vectors

from semsynth.evaluation.report.per_mask import PerMask
from semsynth.segmentation.metrics import mean_iou


@pytest.fixture
def make_report(tmp_path: Path) -> MakeReport:
    """Writes report.json and per_mask.npz: ``make_report("a", vectors(40, 0.7))``."""

    def make(
        name: str,
        counts: np.ndarray,
        *,
        stems: list[str] | None = None,
        digests: list[str] | None = None,
        values: dict[str, np.ndarray] | None = None,
        metrics: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        stems = stems or [f"{chr(97 + i % 26)}{'z' * (i // 26)}x" for i in range(len(counts))]
        real = vectors(len(counts), 0.9)
        masks = PerMask(
            stems,
            digests or [f"digest of {stem}" for stem in stems],
            classes=CLASSES,
            vectors={"generated": counts, "real": real, "mean_colours": vectors(len(counts), 0.3)},
            values=values or {},
        )
        masks.save(folder)
        miou = float(mean_iou(*counts.sum(0)))
        report = {
            "format": 1,
            "dataset": "toy",
            "split": "val",
            "n_masks": len(counts),
            "n_generated": len(counts),
            "inputs": {"generated": f"images of {name}"},
            "made_with": {"checkpoint": f"checkpoint of {name}", "sampler": "dpm++"},
            "protocol": {"name": "semsynth"},
            "metrics": {
                "semantic_consistency": {
                    "miou": round(miou, 6),
                    "evaluator": {"sha256": "own", "kind": "unet"},
                },
                **(metrics or {}),
            },
            **changes,
        }
        (folder / "report.json").write_text(json.dumps(report))
        return folder

    return make

"""`semsynth evaluate`: scores of generated pictures, and a report."""

from __future__ import annotations

from typing import Any

from semsynth.cli.common import finish, parse
from semsynth.evaluate.config import EvaluateConfig


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(EvaluateConfig, argv, "evaluate")
    from semsynth.evaluate.run import evaluate

    report = evaluate(config)
    if as_json:
        return finish(report, as_json)
    return finish({**headline(report), "page": str(config.output / "report.html")}, as_json)


def headline(report: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a report that a person looks for first, and why others are missing."""
    metrics, controls = report["metrics"], report["controls"]
    consistency = metrics.get("semantic_consistency", {})
    names = ("miou", "miou_real", "pixel_accuracy", "pixel_accuracy_real")
    lines = {name: consistency[name] for name in names if name in consistency}
    for name, control in controls.items():
        if "miou" in control:
            lines[f"miou of {name.replace('_', ' ')}"] = control["miou"]
    measured = {
        name: metrics[name] for name in ("fid", "kid", "lpips_diversity") if name in metrics
    }
    for name, metric in {**measured, **metrics.get("frechet", {})}.items():
        lines[name] = metric["value"]
    return {**lines, **{f"{name} is missing": why for name, why in report["missing"].items()}}

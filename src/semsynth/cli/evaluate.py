"""`semsynth evaluate`: scores of generated images, and a report."""

from __future__ import annotations

from typing import Any

from semsynth.cli.common import finish, parse
from semsynth.evaluation.config import EvaluateConfig

WORST_CLASSES = 5


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(EvaluateConfig, argv, "evaluate")
    from semsynth.evaluation.run import evaluate

    report = evaluate(config)
    if as_json or not report.get("finished", True):
        return finish(report, as_json)
    lines = codec_headline(report) if config.codec_only else headline(report)
    return finish({**lines, "page": str(config.output / "report.html")}, as_json)


def headline(report: dict[str, Any]) -> dict[str, Any]:
    """Return the main numbers of a report, and why others are missing."""
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


def codec_headline(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a codec loses: over all classes, in the classes that lose most, and in pixels."""
    consistency = report["metrics"]["semantic_consistency"]
    reconstruction = report["metrics"]["reconstruction"]
    lines = {name: consistency[name] for name in ("miou", "miou_real")}
    for name, entry in list(consistency["per_class"].items())[:WORST_CLASSES]:
        if entry["cost"] > 0:
            lines[f"iou of {name}"] = f"{entry['iou']:.3f} (real {entry['iou_real']:.3f})"
    if "psnr" in reconstruction:
        lines["psnr"] = f"{reconstruction['psnr']:.2f} dB"
    lines["largest error of 255"] = reconstruction["largest_error"]
    return {**lines, **{f"{name} is missing": why for name, why in report["missing"].items()}}

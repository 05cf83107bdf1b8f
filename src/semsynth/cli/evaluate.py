"""`semsynth evaluate`: scores of generated images, and a report."""

from __future__ import annotations

from typing import Any

from semsynth.cli.common import finish, parse
from semsynth.evaluation.config import CompareConfig, EvaluateConfig

WORST_CLASSES = 5


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(EvaluateConfig, argv, "evaluate")
    from semsynth.evaluation.run import evaluate

    report = evaluate(config)
    if as_json or not report.get("finished", True):
        return finish(report, as_json)
    if config.sweep:
        lines = sweep_headline(report["sweep"])
    else:
        lines = codec_headline(report) if config.codec_only else headline(report)
    return finish({**lines, "page": str(config.output / "report.html")}, as_json)


def main_of_compare(argv: list[str]) -> int:
    """Run `semsynth evaluate compare` with its flags and return the exit status."""
    config, as_json = parse(CompareConfig, argv, "evaluate compare")
    from semsynth.evaluation.compare.run import COMPARE_HTML, compare

    found = compare(config)
    if as_json:
        return finish(found, as_json)
    return finish({**_differences(found), "page": str(config.output / COMPARE_HTML)}, as_json)


def _differences(found: dict[str, Any]) -> dict[str, Any]:
    """Return each report's mIoU, and the differences whose intervals are known."""
    names = [report["name"] for report in found["reports"]]
    lines: dict[str, Any] = {}
    miou = found["metrics"].get("miou")
    if miou is not None:
        lines = {f"miou of {name}": v for name, v in zip(names, miou["values"], strict=True)}
    for entry in found["differences"]:
        pair = f"{entry['second']} less {entry['first']}"
        for name, values in entry["metrics"].items():
            if values["value"] is not None and values["interval"] is not None:
                low, high = values["interval"]
                lines[f"{name}, {pair}"] = f"{values['value']:+.4g} ({low:+.4g} to {high:+.4g})"
    for group in found["seeds"]:
        for name, spread in group["metrics"].items():
            if name == "miou":
                low, high = spread["interval"]
                lines[f"miou of {len(group['reports'])} seeds"] = f"{low:.4g} to {high:.4g}"
    differs = {f"differs: {what}": "; ".join(v) for what, v in found["differs"].items()}
    return {**differs, **lines}


def headline(report: dict[str, Any]) -> dict[str, Any]:
    """Return the main numbers of a report, and why others are missing."""
    metrics, controls = report["metrics"], report["controls"]
    consistency = metrics.get("semantic_consistency", {})
    names = ("miou", "miou_real", "pixel_accuracy", "pixel_accuracy_real")
    lines = {name: consistency[name] for name in names if name in consistency}
    for key, name in (("way", "way from mean colours to real"), ("ratio", "share of the ceiling")):
        entry = consistency.get(key) or {}
        if entry.get("value") is not None:
            ends = entry["interval"]
            bounds = "" if ends is None else f" (95%: {ends[0]:.3f} to {ends[1]:.3f})"
            lines[name] = f"{entry['value']:.3f}{bounds}"
    if "second_judge" in metrics:
        second = metrics["second_judge"]
        lines |= {f"{name} of the second evaluator": second[name] for name in names[:2]}
    for name, control in controls.items():
        if "miou" in control:
            lines[f"miou of {name.replace('_', ' ')}"] = control["miou"]
    lines |= _distances(metrics)
    if "lpips_diversity" in metrics:
        lines["lpips_diversity"] = metrics["lpips_diversity"]["value"]
    said = " ".join(report.get("verdict", ()))
    lines |= {"verdict": said} if said else {}
    return {**lines, **{f"{name} is missing": why for name, why in report["missing"].items()}}


def _distances(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return each distance: the fair pair if there is one, what papers give, with endless images.

    With fewer than 2,000 images the kernel distances come first.
    """
    found = metrics | metrics.get("kernel", {}) | metrics.get("frechet", {})
    names = [name for name in found if name.startswith(("fid", "kid", "fd_", "kd_", "cmmd"))]
    few = any("few_images" in found[name] for name in names)
    kernel = ("kid", "kd_", "cmmd")
    lines: dict[str, Any] = {}
    for name in sorted(names, key=lambda name: name.startswith(kernel) != few):
        entry = found[name]
        fair = entry.get("to_training")
        if fair:
            lines[f"{name} from the training images"] = (
                f"generated {fair['generated']:.4g}, held-out real {fair['real']:.4g}, "
                f"difference {fair['difference']:+.3g}{_plus_minus(fair)}"
            )
        uncertain = entry.get("standard_error") is not None
        value = entry["value"]
        lines[name] = f"{value:.4g}{_plus_minus(entry)}" if uncertain else value
        if "infinity" in entry:
            line = entry["infinity"]
            text = f"{line['value']:.4g}{_plus_minus(line)}, slope {line['slope']:.4g}"
            lines[f"{name}_infinity"] = text
    return lines


def _plus_minus(entry: dict[str, Any]) -> str:
    error = entry.get("standard_error")
    return "" if error is None else f" ± {error:.2g}"


def sweep_headline(sweep: dict[str, Any]) -> dict[str, Any]:
    """Return mIoU and distance of each setting, and which has the highest mIoU."""
    lines = {}
    for point in sweep["points"]:
        text = f"miou {point['miou']:.4g}"
        if sweep["distance"] is not None:
            text += f", {sweep['distance']} {point['distance']:.4g}"
        lines[point["report"]] = text
    return {**lines, "highest miou": sweep["points"][sweep["chosen"]]["report"]}


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

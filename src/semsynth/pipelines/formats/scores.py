"""The numbers of `semsynth evaluate` as facts of a model, for its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import read_json

Json = Mapping[str, Any]
_DISTANCES = {"fid": "FID (lower is better)", "kid": "KID (lower is better)"}


def read_scores(path: str | Path, checkpoint_sha256: str) -> dict[str, Any]:
    """Return what a card says of a ``report.json``.

    Args:
        path: the report, or its folder.
        checkpoint_sha256: of the model that the report must be of.

    Returns:
        dataset, split, n_masks, n_generated, and rows of name, images and real.

    Raises:
        UserError: no report, or one of another checkpoint.
    """
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    report = read_json(path)
    if not isinstance(report, dict) or not isinstance(report.get("metrics"), dict):
        raise UserError(f"{path}: is no report of semsynth evaluate")
    if not checkpoint_sha256 or report.get("checkpoint") != checkpoint_sha256:
        raise UserError(
            f"{path}: is of checkpoint {report.get('checkpoint')}, not of this one "
            f"({checkpoint_sha256 or 'not loaded by from_checkpoint'})"
        )
    kept = ("dataset", "split", "n_masks", "n_generated")
    return {**{key: report.get(key) for key in kept}, "rows": list(_rows(report["metrics"]))}


def _rows(metrics: Json) -> Iterator[dict[str, str]]:
    seen = metrics.get("semantic_consistency") or {}
    for key, name in (("miou", "mIoU of a segmenter"), ("pixel_accuracy", "pixel accuracy")):
        if seen.get(key) is not None:
            yield _row(name, f"{seen[key]:.1%}", seen.get(f"{key}_real"), "{:.1%}")
    for key, name in _DISTANCES.items():
        if key in metrics:
            yield _distance(name, metrics[key])
    for key, value in (metrics.get("frechet") or {}).items():
        yield _distance(f"Fréchet distance of {key} features (lower is better)", value)
    if "lpips_diversity" in metrics:
        value = metrics["lpips_diversity"]["value"]
        yield _row("LPIPS between images of a mask", f"{value:.3f}", None, "{}")


def _distance(name: str, entry: Json) -> dict[str, str]:
    floor = (entry.get("real_training_pictures") or {}).get("value")
    return _row(name, f"{entry['value']:.4g}", floor, "{:.4g}")


def _row(name: str, images: str, real: float | None, form: str) -> dict[str, str]:
    return {"name": name, "pictures": images, "real": "" if real is None else form.format(real)}

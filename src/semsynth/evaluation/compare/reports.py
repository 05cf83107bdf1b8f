"""Reports that are compared: what each holds, and whether they may stand side by side."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import read_json
from semsynth.core.outputs import read_result
from semsynth.data.content import digest_json
from semsynth.evaluation.report.per_mask import GALLERY, PER_MASK, PerMask

REPORT_JSON = "report.json"
Json = dict[str, Any]
# Of a protocol: explanations, which decide no number.
_PROSE = ("sentence", "sources", "not_reproduced")


@dataclass(frozen=True)
class Metric:
    """A number of a report.

    Attributes:
        name: as it is called in the comparison.
        title: as people call it.
        better: ``higher``, ``lower``, ``zero`` (the nearest to it) or empty: neither.
        value: the number.
        interval: its 95% interval, if it has one.
        standard_error: of the number, if it has one.
        made_with: what another report's must be equal to for the two to be compared.
    """

    name: str
    title: str
    better: str
    value: float
    interval: list[float] | None = None
    standard_error: float | None = None
    made_with: str = ""


@dataclass(frozen=True)
class ComparedReport:
    """A report, and the scores of each of its masks.

    Attributes:
        name: what it is called in the comparison: its folder, or as much of the path as is needed.
        folder: where it is.
        content: of ``report.json``.
        masks: of ``per_mask.npz``.
    """

    name: str
    folder: Path
    content: Json
    masks: PerMask

    @property
    def evaluator(self) -> Json:
        """What the report says of its evaluator; empty without one."""
        found = self.content["metrics"].get("semantic_consistency", {}).get("evaluator")
        return dict(found or {})

    @property
    def protocol(self) -> Json:
        """What decides how images are resized and scored."""
        return {k: v for k, v in self.content.get("protocol", {}).items() if k != "intervals"}

    @property
    def made_with(self) -> Json:
        """What the manifest says of the generator: checkpoint, sampler, steps, seeds."""
        return dict(self.content.get("made_with", {}))

    @property
    def generated(self) -> str | None:
        """Digest of the generated images."""
        found = self.content.get("inputs", {}).get("generated")
        return None if found is None else str(found)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The report's numbers by their names, in the order in which they are shown."""
        return {metric.name: metric for metric in _metrics(self.content)}

    @cached_property
    def gallery(self) -> dict[str, list[Json]]:
        """Images of some masks by the mask's stem, as data URIs; empty: the report has none."""
        path = self.folder / GALLERY
        rows = read_json(path) if path.is_file() else []
        return {row["title"]: row["images"] for row in rows}

    @property
    def seedless(self) -> str:
        """A key that runs share which differ in nothing but the seed; empty: that is not known.

        Such are samples of one checkpoint with another ``--seed``, and samples of models that were
        trained by the same recipe on the same data with another seed.
        """
        made = self.made_with
        for seed in ("generator_seed", "training_seed"):
            made.pop(seed, None)
        checkpoint = made.pop("checkpoint", None)
        if checkpoint is None:
            return ""
        return digest_json([made, None if "training_key" in made else checkpoint])


_CONSISTENCY = (
    ("miou", "mIoU", "higher"),
    ("miou_of_masks", "mIoU over the masks' classes", "higher"),
    ("miou_all", "mIoU, absent classes count 0", "higher"),
    ("pixel_accuracy", "pixel accuracy", "higher"),
    ("mean_class_accuracy", "mean class accuracy", "higher"),
    ("frequency_weighted_iou", "frequency-weighted IoU", "higher"),
)
_PLAIN = (
    ("lpips_diversity", "LPIPS between samples of a mask", "higher"),
    ("stlpips_diversity", "ST-LPIPS between samples of a mask", "higher"),
    ("lpips_to_real", "LPIPS to the real image", ""),
    ("stlpips_to_real", "ST-LPIPS to the real image", ""),
    ("cmmd", "CMMD", "lower"),
)


def _metrics(report: Json) -> Iterator[Metric]:
    metrics = report["metrics"]
    seen = metrics.get("semantic_consistency") or {}
    for name, title, better in _CONSISTENCY:
        if seen.get(name) is not None:
            yield Metric(name, title, better, seen[name], seen.get(f"{name}_interval"))
    for name, title in (
        ("way", "way from mean colours to real"),
        ("ratio", "share of the ceiling"),
    ):
        found = seen.get(name) or {}
        if found.get("value") is not None:
            yield Metric(name, title, "higher", found["value"], found.get("interval"))
    yield from _distances(metrics)
    for name, title, better in _PLAIN:
        found = metrics.get(name) or {}
        if found.get("value") is not None:
            pairs = f"{found.get('features', '')}"
            interval, error = found.get("interval"), found.get("standard_error")
            yield Metric(name, title, better, found["value"], interval, error, pairs)
    spread = report.get("diversity", {}).get("pixel_std_within_mask")
    if spread is not None:
        yield Metric("pixel_std_within_mask", "pixel deviation within a mask", "higher", spread)
    copies = metrics.get("copies") or {}
    if copies.get("share") is not None:
        yield Metric("copies", "copies", "lower", copies["share"], copies.get("interval"))


def _distances(metrics: Json) -> Iterator[Metric]:
    """Yield each distance to the real images of the same masks, kernels first, and what is of it.

    That is the fair pair (``..._to_training``: how much farther generated images are from training
    images than held-out real ones; copies are below 0), the extrapolation to infinitely many
    images, and precision, recall, density and coverage.
    """
    top = {k: v for k, v in metrics.items() if k.startswith(("kid", "kd_", "fid", "fd_"))}
    named = {**top, **metrics.get("kernel", {}), **metrics.get("frechet", {})}
    for name in sorted(named, key=lambda name: not name.startswith("k")):
        entry = named[name]
        features = str(entry.get("features", ""))
        counts = f"{entry.get('n_generated')} generated and {entry.get('n_real')} real images"
        made = f"{features}, {counts}"
        yield Metric(name, name, "lower", entry["value"], None, entry.get("standard_error"), made)
        fair = entry.get("to_training") or {}
        if fair.get("difference") is not None:
            title = f"{name} to training images, less that of held-out real ones"
            error, of = fair.get("standard_error"), f"{made}, {fair.get('n_training')} training"
            yield Metric(f"{name}_to_training", title, "zero", fair["difference"], None, error, of)
        far = entry.get("infinity") or {}
        if far.get("value") is not None:
            title = f"{name} of infinitely many images"
            error = far.get("standard_error")
            yield Metric(f"{name}_infinity", title, "lower", far["value"], None, error, features)
        shares = metrics.get("prdc", {}).get(name, {})
        for share in ("precision", "recall", "density", "coverage"):
            if shares.get(share) is not None:
                title = f"{share}, {name}"
                yield Metric(f"{share}_{name}", title, "higher", shares[share], None, None, made)


def read_reports(paths: Sequence[Path]) -> list[ComparedReport]:
    """Read reports: report.json, or the folder that holds one.

    Raises:
        UserError: fewer than two, or one that is missing, damaged or not a report.
    """
    if len(paths) < 2:
        raise UserError(f"{len(paths)} report is given; give two or more to compare")
    folders = [path.parent if path.name == REPORT_JSON else path for path in paths]
    found = []
    for folder, name in zip(folders, _names(folders), strict=True):
        file = folder / REPORT_JSON
        if not file.is_file():
            raise UserError(f"{file}: no such file; give the --output of semsynth evaluate")
        content = read_result(file, (PER_MASK, GALLERY))
        if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict):
            raise UserError(f"{file}: is not a report of semsynth evaluate")
        try:
            masks = PerMask.load(folder)
        except zipfile.BadZipFile as error:
            raise UserError(f"{folder}: per_mask.npz is damaged ({error})") from None
        found.append(ComparedReport(name, folder, content, masks))
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ; of the same folder numbered ones."""
    parts = [folder.absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    again = {name for name in names if names.count(name) > 1}
    return [f"{name} ({i + 1})" if name in again else name for i, name in enumerate(names)]


def differing(reports: Sequence[ComparedReport]) -> dict[str, list[str]]:
    """Return in what reports differ that must be the same: for each, what it is in each report.

    Masks may be more in one report than in another; those that both have must be equal.
    """
    first, found = reports[0], {}
    for what in ("data", "split", "protocol", "evaluator"):
        values = [_value(what, report, first) for report in reports]
        if len(set(values)) > 1:
            found[what] = values
    return found


def _value(what: str, report: ComparedReport, first: ComparedReport) -> str:
    content = report.content
    if what == "split":
        return str(content.get("split"))
    if what == "evaluator":
        evaluator = report.evaluator
        kind = evaluator.get("name") or evaluator.get("kind") or "segmenter"
        return f"{kind} {str(evaluator.get('sha256'))[:8]}" if evaluator else "none"
    if what == "protocol":
        values = {k: v for k, v in report.protocol.items() if k not in _PROSE}
        return f"{values.get('name', '')} {digest_json(values)[:8]}".strip()
    theirs = dict(zip(first.masks.stems, first.masks.digests, strict=True))
    ours = zip(report.masks.stems, report.masks.digests, strict=True)
    common = [(stem, digest) for stem, digest in ours if stem in theirs]
    name = str(content.get("dataset"))
    if not common:
        return f"{name}, other masks"
    other = sum(theirs[stem] != digest for stem, digest in common)
    return f"{name}, {other} of {len(common)} masks or real images differ" if other else name


def check_alike(reports: Sequence[ComparedReport], anyway: bool) -> dict[str, list[str]]:
    """Return in what reports differ, as ``differing``; only ``anyway`` lets them.

    Raises:
        UserError: in one line, what differs and how to see them side by side all the same.
    """
    found = differing(reports)
    if found and not anyway:
        parts = [
            f"{what} ({'; '.join(f'{r.name}: {v}' for r, v in zip(reports, values, strict=True))})"
            for what, values in found.items()
        ]
        raise UserError(
            f"the reports differ in {' and in '.join(parts)}, so their numbers do not compare; to "
            "see them side by side anyway, give --anyway"
        )
    return found

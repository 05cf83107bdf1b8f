"""`semsynth evaluate --sweep`: generate and score with several settings of the sampler."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import read_text, write_text
from semsynth.core.logging import logger
from semsynth.core.outputs import Output, write_result
from semsynth.data.dataset import PreparedDataset
from semsynth.diffusion.config import SamplerSettings
from semsynth.evaluation.compare.differences import difference
from semsynth.evaluation.compare.page import same_masks
from semsynth.evaluation.compare.reports import ComparedReport, read_reports
from semsynth.evaluation.config import DEFAULT_SEGMENTER, EvaluateConfig, Setting, parse_sweeps
from semsynth.evaluation.evaluators import check_unseen, open_evaluators
from semsynth.evaluation.inputs.image_set import PreparedImages
from semsynth.evaluation.report.album import encode
from semsynth.evaluation.report.experiments import label_of, sweep_part
from semsynth.evaluation.report.page import REPORT_HTML, REPORT_JSON, fill_template
from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256
from semsynth.pipelines.formats.model_file import read_diffusion
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate
from semsynth.pipelines.generate.sample_store import spread

Json = dict[str, Any]
PER_MASK = 2  # so that diversity, which guidance costs, can be measured
SAMPLES = "samples"
SWEEP_PLACE = "<!-- sweep -->"  # in a report's page
_FIELDS = {"guidance": "guidance_scale", "steps": "steps", "sampler": "sampler"}
# The distance of the curve: the first one that all points have; kernels first, which small sets do
# not bias, and the evaluator's own features last.
_ORDER = ("kd_lite2", "kid", "fd_lite2", "fid")


@dataclass(frozen=True)
class Point:
    """One setting of the sampler.

    Attributes:
        values: by the name of the sweep.
    """

    values: Mapping[str, Setting]

    @property
    def name(self) -> str:
        """Name of its folders: ``guidance=1.5,steps=20``."""
        return ",".join(f"{name}={_text(value)}" for name, value in self.values.items())


def sweep(config: EvaluateConfig) -> Json:
    """Generate images with each setting, score them, and write the curve.

    Each setting has its samples (``OUTPUT/samples/NAME``) and its report (``OUTPUT/NAME``); what
    is there already is not made again, so a sweep may be interrupted and extended. Several
    processes share the generating.

    Returns:
        The content of ``report.json``: the report of the setting with the highest mIoU, with
        ``sweep``. While images of other processes are missing: ``finished`` (False) and ``output``.

    Raises:
        UserError: model, data or evaluator are missing or do not fit; nothing is generated then. Or
            the output belongs to something else.
    """
    points = _points(config)
    checkpoint = _check(config, points)
    key = {"format": 1, "checkpoint": checkpoint, "split": config.split, "seed": config.seed}
    output = Output(config.output, "sweep", key, {}, config.overwrite)
    output.claim()
    missing = [point for point in points if not _generate(config, point)]
    if missing:
        logger.info(f"{config.output}: the last process to finish writes the report")
        return {"finished": False, "output": str(config.output)}
    for point in points:
        _evaluate(config, point)
    reports = read_reports([config.output / point.name for point in points])
    found = curve(points, reports, config.seed)
    report = {**reports[found["chosen"]].content, "sweep": found}
    chosen = read_text(config.output / points[found["chosen"]].name / REPORT_HTML)
    write_text(config.output / REPORT_HTML, chosen.replace(SWEEP_PLACE, _section(found, reports)))
    write_result(config.output, REPORT_JSON, report)
    output.complete()
    return report


def _points(config: EvaluateConfig) -> list[Point]:
    sweeps = parse_sweeps(config.sweep)
    values = itertools.product(*sweeps.values())
    return [Point(dict(zip(sweeps, found, strict=True))) for found in values]


def _check(config: EvaluateConfig, points: Sequence[Point]) -> str:
    """Check that model, settings, data and evaluator exist and fit; return the model's digest."""
    assert config.model is not None and config.data is not None  # EvaluateConfig asks for them
    data = PreparedDataset.open(config.data)
    if config.split not in data.splits() or not data.has_images(config.split):
        raise UserError(
            f"{data.root}: split '{config.split}' has no real images to compare with; choose "
            "another --split"
        )
    checkpoint = checkpoint_sha256(config.model)
    evaluations = read_diffusion(config.model).evaluations
    for point in points:
        try:
            SamplerSettings(**_fields(point)).of_model(evaluations)
        except UserError as error:
            raise UserError(f"--sweep {point.name}: {error}") from None
    sources = config.segmenters or ((str(DEFAULT_SEGMENTER),) if DEFAULT_SEGMENTER.exists() else ())
    if not sources:
        raise UserError(
            "--sweep: needs a segmenter for its curve: --segmenter (semsynth segment train makes "
            "one)"
        )
    real = PreparedImages.open(config.data, config.split)
    real = real.of(spread(real.stems, config.max))
    for evaluator in open_evaluators(sources, data.labels, config.label_map, config.device):
        check_unseen(evaluator, real, real.of([]), config.allow_seen)
    return checkpoint


def _fields(point: Point) -> dict[str, Any]:
    """Return a setting's values as ``SamplerSettings`` and `semsynth generate` name them."""
    return {_FIELDS[name]: value for name, value in point.values.items()}


def _generate(config: EvaluateConfig, point: Point) -> bool:
    """Generate a setting's images; return whether all are there."""
    assert config.model is not None and config.data is not None
    logger.info(f"sweep: {point.name}")
    made = generate(
        GenerateConfig(
            model=config.model,
            data=config.data,
            output=config.output / SAMPLES / point.name,
            overwrite=config.overwrite,
            split=config.split,
            per_mask=config.per_mask or PER_MASK,
            limit=config.max,
            seed=config.seed,
            shard=config.shard,
            device=config.device,
            **_fields(point),
        )
    )
    return bool(made["finished"])


def _evaluate(config: EvaluateConfig, point: Point) -> None:
    from semsynth.evaluation.run import evaluate

    evaluate(
        replace(
            config,
            generated=(str(config.output / SAMPLES / point.name),),
            output=config.output / point.name,
            model=None,
            sweep=(),
            per_mask=None,
            # Whoever finds all images measures them: others may be gone by then.
            shard="1/1",
        )
    )


def curve(points: Sequence[Point], reports: Sequence[ComparedReport], seed: int) -> Json:
    """Return the entry ``sweep`` of the report.

    Args:
        points: the settings.
        reports: their reports.
        seed: of the intervals.
    """
    names = list(points[0].values)
    distance = _distance(reports)
    miou = [report.metrics["miou"].value for report in reports]
    chosen = max(range(len(points)), key=miou.__getitem__)
    rows = []
    for point, report in zip(points, reports, strict=True):
        consistency = report.content["metrics"]["semantic_consistency"]
        less = difference(reports[chosen], report, seed)["metrics"]
        row: Json = {
            "values": dict(point.values),
            "miou": consistency["miou"],
            "miou_interval": consistency.get("miou_interval"),
            "miou_real": consistency.get("miou_real"),
            "less_chosen": {name: less[name] for name in ("miou", distance) if name in less},
            "metrics": {name: metric.value for name, metric in report.metrics.items()},
            "report": point.name,
        }
        if distance is not None:
            row["distance"] = report.metrics[distance].value
        if len(names) == 1:
            row["value"] = point.values[names[0]]
        rows.append(row)
    parameter = {"parameter": names[0]} if len(names) == 1 else {}
    return {**parameter, "parameters": names, "distance": distance, "points": rows,
            "chosen": chosen}  # fmt: skip


def _section(sweep: Json, reports: Sequence[ComparedReport]) -> str:
    """Return the part of the page on the sweep, with the same masks in each setting."""
    gallery = same_masks(reports)
    encode([shown for strip in gallery for shown in strip.images])
    return fill_template(
        "sweep.html.j2",
        sweep=sweep_part(sweep),
        links=[(label_of(point), f"{point['report']}/{REPORT_HTML}") for point in sweep["points"]],
        gallery=gallery,
    )


def _distance(reports: Sequence[ComparedReport]) -> str | None:
    """Return the name of the distance that the curve shows; None: there is none in all reports."""
    common = [
        name
        for name in reports[0].metrics
        if name.startswith(("kd_", "kid", "fd_", "fid"))
        and not name.endswith(("_to_training", "_infinity"))
        and all(name in report.metrics for report in reports)
    ]
    known = [name for name in _ORDER if name in common]
    others = [name for name in common if not name.endswith("_segmenter")]
    return next(iter([*known, *others, *common]), None)


def _text(value: Setting) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

"""`semsynth evaluate compare`: reports side by side, as JSON and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semsynth.core.files import sha256_file, write_json, write_text
from semsynth.core.outputs import Output
from semsynth.core.version import __version__
from semsynth.evaluation.compare.differences import (
    SeedGroup,
    common_masks,
    difference,
    group_difference,
    seed_groups,
)
from semsynth.evaluation.compare.page import render
from semsynth.evaluation.compare.reports import (
    REPORT_JSON,
    ComparedReport,
    check_alike,
    read_reports,
)
from semsynth.evaluation.config import CompareConfig
from semsynth.evaluation.report.per_mask import PER_MASK

FORMAT = 1
# What the file calls it, an older name.
_KEYS = {"evaluator": "judge"}
COMPARE_JSON, COMPARE_HTML = "compare.json", "compare.html"
Json = dict[str, Any]


def compare(config: CompareConfig) -> Json:
    """Run `semsynth evaluate compare`.

    Returns:
        The content of compare.json.

    Raises:
        UserError: fewer than two reports, one that cannot be read, reports of other data, split,
            protocol or evaluator without ``anyway``, or an output that belongs to something else.
    """
    reports = read_reports(config.reports)
    differences = check_alike(reports, config.anyway)
    output = Output(config.output, "comparison", _key(config, reports), {}, config.overwrite)
    found = comparison(reports, differences, config.seed)
    page = render(reports, found)
    output.claim()
    write_text(config.output / COMPARE_HTML, page)
    write_json(config.output / COMPARE_JSON, found)
    output.complete()
    return found


def _key(config: CompareConfig, reports: Sequence[ComparedReport]) -> Json:
    files = [
        [sha256_file(report.folder / name) for name in (REPORT_JSON, PER_MASK)]
        for report in reports
    ]
    names = [report.name for report in reports]
    return {"format": 1, "semsynth": __version__, "reports": files, "names": names,
            "anyway": config.anyway, "seed": config.seed}  # fmt: skip


def comparison(
    reports: Sequence[ComparedReport], differences: dict[str, list[str]], seed: int
) -> Json:
    """Return what compare.json holds.

    Args:
        reports: the first one is what the others are compared with.
        differences: in what they differ, of ``check_alike``.
        seed: of the draws of masks.
    """
    groups = seed_groups(reports)
    return {
        "format": FORMAT,
        "semsynth": __version__,
        "reports": [_about(report) for report in reports],
        "differs": {_KEYS.get(what, what): found for what, found in differences.items()},
        "n_masks": len(common_masks(reports)[0].stems),
        "metrics": _metrics(reports),
        "differences": [difference(reports[0], other, seed) for other in reports[1:]],
        "seeds": [
            {"reports": [reports[i].name for i in group.numbers], "metrics": group.metrics}
            for group in groups
        ],
        "seed_differences": _between(reports, groups),
        "about": {
            "difference": "the report named second less the one named first",
            "interval": "95%: of scores of masks by drawing blocks of masks, the same in both "
            "reports; of distances by the standard errors of both, if they are known",
            "seeds": "runs that differ in the seed alone: interval is the lowest and the highest",
        },
    }


def _about(report: ComparedReport) -> Json:
    content = report.content
    names = ("dataset", "split", "n_masks", "n_generated", "checkpoint", "semsynth")
    return {
        "name": report.name,
        **{name: content[name] for name in names if name in content},
        "made_with": report.made_with,
        "protocol": report.protocol,
        "judge": report.evaluator,
        "generated_sha256": report.generated,
    }


def _metrics(reports: Sequence[ComparedReport]) -> Json:
    names = list(dict.fromkeys(name for report in reports for name in report.metrics))
    found: Json = {}
    for name in names:
        entries = [report.metrics.get(name) for report in reports]
        known = [entry for entry in entries if entry is not None]
        made = {entry.made_with for entry in known}
        found[name] = {
            "title": known[0].title,
            "better": known[0].better,
            "values": [None if entry is None else entry.value for entry in entries],
            "intervals": [None if entry is None else entry.interval for entry in entries],
            "standard_errors": [
                None if entry is None else entry.standard_error for entry in entries
            ],
            "comparable": len(made) == 1,
        }
    return found


def _between(reports: Sequence[ComparedReport], groups: Sequence[SeedGroup]) -> list[Json]:
    """Return the differences of the means of groups of seeds, to the first group."""
    return [
        {
            "first": [reports[i].name for i in groups[0].numbers],
            "second": [reports[i].name for i in group.numbers],
            "metrics": group_difference(groups[0], group),
        }
        for group in groups[1:]
    ]

"""`semsynth filter`: a table of what happened to each class."""

from __future__ import annotations

from typing import Any

from semsynth.augmentation.filter.config import FilterConfig
from semsynth.cli.common import finish, parse


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(FilterConfig, argv, "filter")
    from semsynth.augmentation.filter.run import PREVIEW, filter_samples

    result = filter_samples(config)
    if as_json or not result.get("finished", True):
        return finish(result, as_json)
    print(table(result["classes"]))
    copies = result["copies"]
    shares = {f"{name} of the pixels": f"{x:.2%}" for name, x in result["shares"].items()}
    lines = {"kept": f"{result['n_kept']} of {result['n_samples']} images", **shares}
    for stem, why in list(result["dropped"].items())[:_SHOWN]:
        lines[f"left out {stem}"] = why
    if len(result["dropped"]) > _SHOWN:
        lines["left out"] = f"{len(result['dropped'])} in all; filter.json has the others"
    found = []
    if "share" in copies:
        low, high = copies["interval"]
        found.append(f"{copies['n_copies']} of {copies['n']} (95%: {low:.1%} to {high:.1%})")
    if "not_applicable" in copies:
        found.append(f"not applicable: {copies['not_applicable']}")
    if found:
        lines["copies"] = "; ".join(found)
    if config.preview:
        lines["preview"] = str(config.output / PREVIEW)
    return finish({"output": result["output"], **lines}, as_json)


_SHOWN = 3
_COLUMNS = {
    "pixels": "pixels",
    "kept_share": "kept",
    "border": "border",
    "ignored": "ignored",
    "relabelled": "relabelled",
    "gained": "gained",
    "mean_loss": "mean loss",
    "tolerance": "tolerance",
}


def table(classes: dict[str, dict[str, Any]]) -> str:
    """Return what happened to each class, a line each; what nothing happened to is a dash."""
    rows = [["class", *_COLUMNS.values()]]
    for name, entry in classes.items():
        rows.append([name, *(_cell(key, entry) for key in _COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _cell(key: str, entry: dict[str, Any]) -> str:
    value = entry[key]
    if value is None:
        return "-"
    if key in ("mean_loss", "tolerance"):
        return f"{value:.3g}"
    if key in ("pixels", "gained"):
        return f"{value:,}" if value else "-"
    share = value if key == "kept_share" else value / max(entry["pixels"], 1)
    return f"{share:.1%}" if share else "-"

"""What a pipeline is, for `print(pipe)` and for a notebook."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from html import escape
from typing import Any

from semsynth.core.errors import abbreviate
from semsynth.data.labels import Label, LabelSet, hex_color
from semsynth.diffusion.config import count_of
from semsynth.pipelines.formats.model_file import licence

_NAMES = 40  # labels that a terminal shows; a notebook shows all
_WIDTH = 88
_SWATCH = (
    "display:inline-block;width:1em;height:1em;margin-right:.4em;vertical-align:-.15em;"
    "border:1px solid #8888;background:{color}"
)
_ITEM = "display:inline-block;width:12em;overflow:hidden;white-space:nowrap;text-overflow:ellipsis"


def in_lines(pipe: Any) -> str:
    """Return a pipeline's summary as plain text of less than 30 lines."""
    lines = [type(pipe).__name__]
    for name, text in _facts(pipe):
        lines += _entry(name, text)
    names = [f"{label.id}\N{NO-BREAK SPACE}{label.name}" for label in pipe.labels.labels]
    lines += _entry("labels", abbreviate(names, _NAMES))
    return "\n".join(lines[:29]).replace("\N{NO-BREAK SPACE}", " ")


def in_html(pipe: Any) -> str:
    """Return a pipeline's summary as HTML, each label beside its colour."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in _facts(pipe)
    )
    labels: LabelSet = pipe.labels
    items = "".join(_item(label, labels) for label in labels.labels)
    title = escape(type(pipe).__name__)
    return f"<div><b>{title}</b><table>{rows}</table><div>{items}</div></div>"


def _entry(name: str, text: str) -> list[str]:
    blanks = " " * 14
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"  {name:<12}",
        subsequent_indent=blanks,
        break_on_hyphens=False,
    ) or [f"  {name}"]


def _facts(pipe: Any) -> Iterator[tuple[str, str]]:
    metadata, model, diffusion = pipe.metadata, pipe.config["model"], pipe.config["diffusion"]
    labels: LabelSet = pipe.labels
    classes = f"{len(labels.trainable)} classes"
    yield "data", f"{metadata.get('dataset', 'unknown')}, {classes}, licence {licence(metadata)}"
    edges = ", with the edges of instances" if pipe.instance_edges else ""
    yield "images", f"{pipe.height}x{pipe.width} (height x width){edges}"
    count = sum(parameter.numel() for parameter in pipe.unet.parameters())
    kind = str(pipe.dtype).removeprefix("torch.")
    yield "network", f"{count:,} parameters, codec {model['codec']}, {kind} on {pipe.device}"
    if pipe.vae is not None:
        yield "vae", type(pipe.vae).__name__
    yield "predicts", f"{diffusion['prediction']}, schedule {diffusion['schedule']}"
    if pipe.evaluations:
        yield "images in", f"{count_of(pipe.evaluations)} of the network, without guidance"
    yield "scheduler", type(pipe.scheduler).__name__
    recipe = (metadata.get("recipe") or {}).get("name")
    made = [f"recipe {recipe}"] if recipe else []
    made += [f"step {metadata['step']:,}"] if "step" in metadata else []
    made += [f"semsynth {metadata['semsynth']}"] if "semsynth" in metadata else []
    if made:
        yield "trained", ", ".join(made)


def _item(label: Label, labels: LabelSet) -> str:
    color = hex_color(label.color)
    note = " (unlabelled)" if label.id == labels.ignore_id else ""
    name = escape(f"{label.id} {label.name}{note}")
    swatch = f"<span style='{_SWATCH.format(color=color)}'></span>"
    return f"<span style='{_ITEM}' title='{escape(label.name, quote=True)}'>{swatch}{name}</span>"

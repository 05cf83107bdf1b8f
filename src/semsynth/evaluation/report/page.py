"""report.html: one page that explains the numbers and shows images, and the files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2

from semsynth.core.files import write_json, write_text
from semsynth.core.outputs import write_result
from semsynth.data.labels import LabelSet, hex_color
from semsynth.evaluation.baselines import MeanColorBaseline
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.image_set import ImageSet
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.report import about, classes, distances, verdict
from semsynth.evaluation.report.album import Shown, data_uri, encode
from semsynth.evaluation.report.charts import Curve, training_figures
from semsynth.evaluation.report.experiments import augmentation_table
from semsynth.evaluation.report.figures import Axes, Series, histogram
from semsynth.evaluation.report.figures import legend as lines_legend
from semsynth.evaluation.report.formats import STYLES, look
from semsynth.evaluation.report.gallery import (
    EvaluatorScores,
    Strip,
    extremes,
    nearest_pairs,
    random_rows,
    strips,
)
from semsynth.evaluation.report.per_image import PER_IMAGE_CSV, ImageScores, write_per_image
from semsynth.evaluation.report.per_mask import GALLERY, PER_MASK
from semsynth.evaluation.report.summary import summary_table

__all__ = ["REPORT_HTML", "REPORT_JSON", "Album", "Sources", "data_uri", "fill_template", "render"]
REPORT_JSON, REPORT_HTML = "report.json", "report.html"
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Sources:
    """Where the page takes its images and curves from.

    Attributes:
        inputs: the images and masks.
        scores: of all generated images, in their order.
        baseline: the mean-colour baseline, if there is one.
        scored: what the segmenter finds, if there is one.
        curves: of the training, if its run was given.
        training: the training images, if they are known.
    """

    inputs: Inputs
    scores: Sequence[ImageScores]
    baseline: MeanColorBaseline | None = None
    scored: EvaluatorScores | None = None
    curves: Sequence[Curve] = ()
    training: ImageSet | None = None


@dataclass(frozen=True)
class Album:
    """All images of a page, each list a part of it; and name and colour of the classes."""

    rows: Sequence[Strip] = ()
    extremes: Sequence[Strip] = ()
    strips: Sequence[Strip] = ()
    pairs: Sequence[Strip] = ()
    legend: Sequence[tuple[str, str]] = ()

    @property
    def images(self) -> Iterator[Shown]:
        """All images in the order of the page."""
        for part in (self.rows, self.extremes, self.strips, self.pairs):
            for strip in part:
                yield from strip.images


def write_report(report: Json, sources: Sources, config: EvaluateConfig) -> None:
    """Write all files; report.json comes last, the sign of a finished report."""
    album = choose_images(report, sources, config.rows, config.seed)
    write_per_image(config.output / PER_IMAGE_CSV, sources.scores)
    shown = [
        {"title": strip.title, "images": [_saved(image) for image in strip.images]}
        for strip in album.rows
    ]
    write_json(config.output / GALLERY, shown)
    write_text(config.output / REPORT_HTML, render(report, album, sources.curves))
    write_result(config.output, REPORT_JSON, report, (PER_MASK, GALLERY))


def _saved(image: Shown) -> dict[str, str]:
    """Return what a comparison of reports needs to show an image again."""
    return {"caption": image.caption, "alt": image.alt, "uri": image.uri}


def choose_images(report: Json, sources: Sources, rows: int, seed: int) -> Album:
    """Return the images of the page, encoded.

    Args:
        report: the content of report.json.
        sources: where the images are.
        rows: number of masks of the random choice.
        seed: seed of the choice.
    """
    inputs = sources.inputs
    closest = look(report, "metrics.copies.closest") or []
    album = Album(
        random_rows(inputs, sources.baseline, rows, seed),
        () if sources.scored is None else extremes(inputs, sources.scored),
        strips(inputs, seed),
        () if sources.training is None else nearest_pairs(inputs, sources.training, closest),
        [] if inputs.labels is None else legend(inputs.labels),
    )
    encode(list(album.images))
    return album


def legend(labels: LabelSet) -> list[tuple[str, str]]:
    """Return name and colour of each class, the colour as in CSS."""
    return [(label.name, hex_color(label.color)) for label in labels.labels]


def render(report: Json, album: Album, curves: Sequence[Curve] = ()) -> str:
    """Return the page; it is self-contained, without scripts or references.

    Args:
        report: the content of report.json.
        album: its images.
        curves: of the training.
    """
    consistency = look(report, "metrics.semantic_consistency")
    colours = dict(album.legend)
    return fill_template(
        "report.html.j2",
        title=f"semsynth report: {report['dataset']}",
        report=report,
        lead=about.lead(report),
        warnings=verdict.warnings(report),
        cards=verdict.cards(report),
        summary=summary_table(report),
        few=distances.note_on_few(report),
        protocol_sentence=about.protocol_sentence(report),
        protocol=about.protocol_entries(report),
        has_masks=bool(album.legend),
        gallery=album,
        extremes=album.extremes,
        classes=classes.class_table(consistency, colours) if consistency else None,
        confusion=classes.confusion_table(consistency, colours) if consistency else None,
        strips=album.strips,
        copies=_copies(report, album),
        fair=distances.fair_table(report),
        same_masks=distances.same_masks_table(report),
        manifold=distances.manifold_table(report),
        infinity=distances.infinity_part(report),
        augmentation=augmentation_table(report),
        curves=training_figures(curves),
        provenance=about.provenance(report),
    )


def _copies(report: Json, album: Album) -> dict[str, Any] | None:
    """Return the part on nearest training images, None where they were not looked for."""
    copies = look(report, "metrics.copies")
    if not copies:
        return None
    part: dict[str, Any] = {"sentence": about.copies_sentence(copies), "pairs": album.pairs}
    part["histogram"] = None
    bins = look(copies, "histogram.distance")
    if bins:
        names = (("held_out", "held-out real images"), ("generated", "generated images"))
        lines = [(name, _shares(bins[key])) for key, name in names if bins.get(key)]
        x = "distance to the nearest training image, larger is newer"
        axes = Axes(x, "share of images", from_zero=True, y_from_zero=True)
        title = "Distances of generated and held-out real images to their nearest training image"
        part["histogram"] = histogram(bins["edges"], lines, axes, title)
        part["legend"] = lines_legend([Series(name, ()) for name, _ in lines])
    return part


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts) or 1
    return [value / total for value in counts]


def fill_template(name: str, **values: Any) -> str:
    """Return the page of a template of this folder."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda file: (
                files("semsynth.evaluation.report").joinpath(file).read_text(encoding="utf-8")
            )
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {**STYLES, "width": lambda share: f"{100 * min(max(share, 0), 1):.1f}%"}
    return environment.get_template(name).render(**values)

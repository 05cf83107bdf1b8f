"""The page: self-contained, in order, accessible, and small with many images."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from semsynth.evaluation.report.album import Shown, encode
from semsynth.evaluation.report.page import Sources, choose_images, render

Json = dict[str, Any]
ORDER = [
    "verdict",
    "summary",
    "protocol",
    "gallery",
    "extremes",
    "classes",
    "confusion",
    "diversity",
    "copies",
    "distances",
    "sweep",
    "augmentation",
    "training",
    "missing",
    "provenance",
]
VOID = {"meta", "img", "br", "line", "polyline", "circle"}
ARM = {"miou": 0.4, "std": 0.01, "pixel_accuracy": 0.7, "per_class": {}}
AUGMENTATION = {
    "arms": {"real": ARM, "real_and_synthetic": ARM},
    "gain": {"real_and_synthetic": {"miou": -0.012, "std": 0.02, "trials": [-0.012]}},
    "n_real": 5,
    "n_synthetic": 9,
    "n_val": 6,
    "trials": [{}],
}


class Outline(HTMLParser):
    """Collects the structure of a page and checks that its tags are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.sections: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[Counter[str]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags[tag] += 1
        self.attributes.append((tag, values))
        if tag == "section":
            self.sections.append(values["id"] or "")
        if tag == "table":
            self.tables.append(Counter())
        if "table" in self.open:
            self.tables[-1][tag] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def page(report: Json, sources: Sources) -> str:
    whole = {**report, "augmentation": AUGMENTATION}
    return render(whole, choose_images(whole, sources, 3, 0), sources.curves)


def test_the_parts_are_in_order(page: str) -> None:
    sections = Outline(page).sections
    assert sections == [name for name in ORDER if name in sections]
    assert set(ORDER) - set(sections) == {"sweep"}


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    outline = Outline(page)
    assert not {"script", "link", "iframe", "object", "a", "base"} & outline.tags.keys()
    for tag, values in outline.attributes:
        assert not [name for name in values if name.startswith("on")], tag
        for name in ("src", "href", "srcset", "xlink:href"):
            assert (values.get(name) or "data:image/").startswith("data:image/")
    assert "url(" not in page and "@import" not in page


def test_it_can_be_used_without_seeing_it(page: str) -> None:
    outline = Outline(page)
    assert outline.tags["img"] > 20
    for tag, values in outline.attributes:
        if tag == "img":
            assert len(values["alt"] or "") > 5
        if tag == "svg":
            assert values["role"] == "img" and values["aria-label"]
        if "scroll" in (values.get("class") or "").split():
            assert values["tabindex"] == "0" and values["aria-label"]
    assert len(outline.tables) >= 6
    for table in outline.tables:
        assert table["caption"] == 1 and table["thead"] == 1
        assert table["tr"] > 1
    assert 'lang="en"' in page and 'content="light dark"' in page


def test_every_row_has_a_heading_and_as_many_cells_as_columns(page: str) -> None:
    for table in re.findall(r"<table.*?</table>", page, flags=re.S):
        columns = len(re.findall(r'<th scope="col"', table))
        for line in re.findall(r"<tr.*?</tr>", table, flags=re.S)[1:]:
            assert len(re.findall(r'<th scope="row">', line)) == 1
            assert len(re.findall(r"<td", line)) == columns - 1


def test_every_summary_line_has_a_unit_and_a_direction(page: str) -> None:
    summary = page[page.index('id="summary"') : page.index('id="protocol"')]
    units = re.findall(r'<td class="unit">(.*?)</td>', summary)
    assert len(units) > 20
    assert [unit for unit in units if "better" not in unit and "varied" not in unit] == []


def test_scores_controls_and_intervals_are_shown(page: str) -> None:
    for text in ("0.482", "0.461 to 0.503", "0.601", "0.300", "0.100", "\N{MINUS SIGN}1.2 ± 2.0"):
        assert text in page, text
    assert page.index(">KID") < page.index(">FID")
    assert "Fréchet distances are grey" in page
    assert "no CLIP model was given (--cmmd)" in page


def test_precision_is_shown_beside_held_out_real_images(page: str) -> None:
    summary = page[page.index('id="summary"') : page.index('id="protocol"')]
    (line,) = re.findall(r"<tr>(<th[^>]*>precision, Inception.*?)</tr>", summary)
    assert re.findall(r"<td[^>]*>([^<]*)</td>", line)[:2] == ["0.6", "0.8"]
    assert "among training images" in line


def test_the_line_to_infinitely_many_images_is_drawn(page: str) -> None:
    part = page[page.index('id="distances"') :]
    assert "20.1 ± 1.2" in part and 'aria-label="FID of fewer images, against 1/N"' in part


def test_frechet_distances_of_many_images_are_not_grey(report: Json, sources: Sources) -> None:
    metrics = report["metrics"]
    for entry in (metrics["fid"], *metrics["frechet"].values()):
        entry |= {"n_real": 5000, "n_generated": 5000}
    page = render(report, choose_images(report, sources, 1, 0))
    assert "Fréchet distances are grey" not in page
    assert page.index(">FID") < page.index(">KID")


def test_classes_are_sorted_by_loss_and_rare_ones_are_grey(page: str) -> None:
    part = page[page.index('id="classes"') : page.index('id="confusion"')]
    losses = [float(x) for x in re.findall(r"<td>\+([\d.]+)<small>", part)]
    assert losses == sorted(losses, reverse=True) and len(losses) == 12
    grey = re.findall(r'<tr class="faint"><th scope="row">.*?</span>([\w-]+)', part)
    assert grey[0] == "object-trafficsign" and "flat-road" not in grey


def test_small_images_and_masks_have_hard_pixels(
    page: str, report: Json, large_sources: Sources
) -> None:
    assert all('class="pixels"' in image for image in re.findall(r"<img[^>]*>", page))
    large = render(report, choose_images(report, replace(large_sources, scored=None), 1, 0))
    for image in re.findall(r"<img[^>]*>", large):
        assert ('class="pixels"' in image) == ('alt="mask' in image)


def test_names_cannot_break_the_page(report: Json, sources: Sources) -> None:
    bad = "<script>x</script>"
    report |= {"dataset": bad, "missing": {bad: bad}, "made_with": {bad: bad}}
    names = report["metrics"]["semantic_consistency"]["per_class"]
    names[bad] = names.pop("sky")
    assert "<script" not in render(report, choose_images(report, sources, 1, 0))


def test_a_report_of_two_folders_without_masks(report: Json, sources: Sources) -> None:
    del report["metrics"]["semantic_consistency"], report["metrics"]["second_judge"]
    report |= {"controls": {}, "image_size": None, "split": None, "checkpoint": None}
    folders = replace(sources.inputs, masks=None, training=None)
    alone = replace(sources, inputs=folders, scored=None)
    page = render(report, choose_images(report, alone, 2, 0))
    sections = Outline(page).sections
    assert not {"extremes", "classes", "confusion"} & set(sections)
    assert {"gallery", "diversity", "distances"} <= set(sections)


def test_nothing_but_the_verdict_is_needed(sources: Sources, report: Json) -> None:
    keys = ("dataset", "n_generated", "n_masks", "seed")
    bare = {key: report[key] for key in keys} | {"metrics": {}, "missing": {"fid": "too few"}}
    page = render(bare, choose_images(bare, replace(sources, scored=None), 1, 0))
    assert {"verdict", "summary", "gallery", "missing"} <= set(Outline(page).sections)


def test_the_page_of_2000_samples_is_small(report: Json, large_sources: Sources) -> None:
    report |= {"n_generated": 2000, "n_masks": 200}
    classes = [f"class {i}" for i in range(150)]
    consistency = report["metrics"]["semantic_consistency"]
    entry = next(iter(consistency["per_class"].values()))
    consistency["per_class"] = dict.fromkeys(classes, entry)
    counts = [[(i * j) % 97 for j in range(150)] for i in range(150)]
    consistency["confusion"] = {"classes": classes, "counts": counts}
    page = render(report, choose_images(report, large_sources, 8, 0))
    assert len(page.encode()) < 5_000_000
    assert page.count("<img") > 100
    assert "all others" in page


def test_images_fit_into_their_budget_with_the_best_quality(large_sources: Sources) -> None:
    pixels = [large_sources.inputs.real.read_rgb(str(i)) for i in range(6)]
    images = [Shown("noise", image, "noise") for image in pixels]
    sizes = []
    for budget in (10_000_000, 300_000, 60_000):
        encode(images, budget)
        sizes.append(sum(len(image.uri) for image in images))
        assert sizes[-1] <= budget
    assert sizes == sorted(sizes, reverse=True)

"""The colours of the page: readable in both schemes, and all named in one place."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

CSS = files("semsynth.evaluation.report").joinpath("style.css").read_text(encoding="utf-8")
LEAST = 4.5  # WCAG 2, level AA, text of any size
# Text colours and the backgrounds that they stand on.
PAIRS = [
    *((text, back) for text in ("ink", "soft", "faint") for back in ("paper", "wash")),
    *((text, back) for text in ("ink", "soft") for back in ("ours", "mark")),
    *(("ink", back) for back in ("heat", "paper")),
    ("alarm", "alarm-wash"),
    ("alarm", "paper"),
]
# Lines and bars are graphics: 3 to 1.
GRAPHICS = [(f"line-{i}", "paper") for i in range(4)] + [("accent", "track"), ("accent", "pale")]


def colours(scheme: str) -> dict[str, str]:
    """The named colours of a scheme: the dark one replaces those of the light one."""
    light, _, rest = CSS.partition("@media screen and (prefers-color-scheme: dark)")
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", light))
    if scheme == "dark":
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", rest.partition("} }")[0]))
    return found


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_in_closed_form() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme: str) -> None:
    named = colours(scheme)
    values = {pair: contrast(named[pair[0]], named[pair[1]]) for pair in PAIRS}
    assert {pair: value for pair, value in values.items() if value < LEAST} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_on_any_share_of_a_heat_map_can_be_read(scheme: str) -> None:
    named = colours(scheme)
    heat, paper = (
        [int(named[name][i : i + 2], 16) for i in (1, 3, 5)] for name in ("heat", "paper")
    )
    for share in range(0, 101, 5):
        mixed = [
            round((share * a + (100 - share) * b) / 100) for a, b in zip(heat, paper, strict=True)
        ]
        assert contrast(named["ink"], "#" + bytes(mixed).hex()) >= LEAST, share


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_bars_can_be_seen(scheme: str) -> None:
    named = colours(scheme)
    least = {("accent", "pale"): 2.0}  # a bar on a bar: the edge and the height differ, too
    values = {pair: contrast(named[pair[0]], named[pair[1]]) for pair in GRAPHICS}
    assert {pair: x for pair, x in values.items() if x < least.get(pair, 3.0)} == {}


def test_the_dark_scheme_replaces_every_colour() -> None:
    light, dark = colours("light"), colours("dark")
    assert light.keys() == dark.keys()
    assert [name for name in light if light[name] == dark[name]] == []


def test_rules_name_no_colour_themselves() -> None:
    rules = re.sub(r"--[\w-]+: #[0-9a-f]+;", "", re.sub(r"/\*.*?\*/", "", CSS, flags=re.S))
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\(", rules) == []
    used, known = set(re.findall(r"var\(--([\w-]+)\)", CSS)), colours("light").keys()
    assert used - known == {"columns", "share"}


def test_both_schemes_are_declared() -> None:
    assert "color-scheme: light dark" in CSS
    assert "@media print" in CSS and "url(" not in CSS and "@import" not in CSS

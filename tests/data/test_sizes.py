"""The size that is chosen where none is given, and what is said of every image."""

from __future__ import annotations

from pathlib import Path

import pytest

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.prepare.sizes import plan_size, size_notes
from semsynth.data.resize import content_box

OWN = {"source": "folder", "data": Path("raw")}


@pytest.mark.parametrize(
    ("sizes", "flags", "size", "resize"),
    [
        ({(256, 256): 3}, {}, (256, 256), "stretch"),
        ({(360, 480): 9}, {}, (352, 480), "pad"),
        ({(256, 256): 3, (512, 512): 2}, {}, (256, 256), "stretch"),
        ({(256, 256): 3, (256, 320): 2}, {}, (256, 256), "pad"),
        ({(100, 100): 1, (200, 200): 1, (300, 300): 1}, {}, (192, 192), "stretch"),
        ({(3024, 4032): 5}, {}, (768, 1024), "stretch"),
        ({(4032, 3024): 5}, {}, (1024, 768), "stretch"),
        ({(12, 20): 2}, {}, (32, 32), "pad"),
        ({(360, 480): 9}, {"height": 90}, (90, 128), "pad"),
        ({(360, 480): 9}, {"width": 96}, (64, 96), "pad"),
        ({(360, 480): 9}, {"height": 90, "width": 120}, (90, 120), "stretch"),
        ({(360, 480): 9}, {"height": 90, "width": 90}, (90, 90), "pad"),
        ({(360, 480): 9}, {"resize": "stretch"}, (352, 480), "stretch"),
        ({(360, 480): 9}, {"resize": "crop"}, (352, 480), "crop"),
        (None, {}, (1024, 1024), "stretch"),
    ],
)
def test_the_median_decides_and_nothing_is_stretched_unasked(
    sizes: dict[tuple[int, int], int] | None,
    flags: dict[str, int],
    size: tuple[int, int],
    resize: str,
) -> None:
    plan = plan_size(PrepareConfig(**OWN, **flags), sizes)  # type: ignore[arg-type]
    assert (plan.config.size, plan.config.resize_rule) == (size, resize)
    if "resize" not in flags and sizes:
        shapes = [content_box("pad", original, size) for original in sizes]
        assert (resize == "stretch") == all(box == (0, 0, *size) for box in shapes)


def test_published_sets_keep_their_sizes() -> None:
    for source, size in (("sidewalk", (1024, 1024)), ("camvid", (352, 480))):
        config = PrepareConfig(source=source)  # type: ignore[arg-type]
        assert plan_size(config, {(1080, 1920): 4}).config == config
        assert config.size == size


def test_what_happens_to_the_images_is_counted() -> None:
    lines = plan_size(PrepareConfig(**OWN), {(64, 96): 5, (32, 48): 2, (96, 96): 1}).lines  # type: ignore[arg-type]
    assert lines[0] == "size: 96x64 (width x height): the median of the images, 96x64, as it is"
    assert lines[1] == "of 8 images 2 enlarged, 1 shrunk, 1 padded (another shape)"


def test_the_words_for_one_image() -> None:
    assert size_notes("pad", (64, 96), (64, 96)) == ()
    assert size_notes("pad", (32, 48), (64, 96)) == ("enlarged",)
    assert size_notes("pad", (64, 64), (64, 96)) == ("padded (another shape)",)
    assert size_notes("stretch", (128, 128), (64, 96)) == ("shrunk", "stretched (another shape)")
    assert size_notes("crop", (64, 128), (64, 96)) == ("cropped (another shape)",)


def test_a_side_that_does_not_fit_is_one_line() -> None:
    with pytest.raises(UserError, match=r"--width .* \(the median of the images is 9000x10\)"):
        plan_size(PrepareConfig(**OWN, height=64), {(10, 9000): 1})  # type: ignore[arg-type]

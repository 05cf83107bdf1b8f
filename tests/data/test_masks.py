"""Every fact of a mask times every decision: its ids, or one line; the same from any source."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.image_files.masks import decide_masks, mask_ids
from semsynth.data.image_files.raw_masks import open_mask, raw_mask
from semsynth.data.labels import LabelSet
from semsynth.data.prepare.run import prepare
from semsynth.data.sources.sidewalk import LABELS as SIDEWALK
from semsynth.pipelines.inputs import read_masks

COLORS = {0: (0, 0, 0), 1: (128, 64, 128), 2: (70, 130, 180), 3: (0, 0, 142)}
LABELS = LabelSet.from_names({i: f"c{i}" for i in COLORS}, ignore_id=0, colors=COLORS)
IDS = np.random.default_rng(0).integers(0, 4, (8, 12), np.uint8)
IDS[0, :4] = range(4)
ORDER = [2, 1, 3, 0]  # of the colours in a palette that a tool made
INDEX = np.array([ORDER.index(i) for i in range(4)], np.uint8)[IDS]


def layers(*channels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack(channels))


def with_palette(indices: np.ndarray, colors: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(indices).convert("P")
    image.putpalette([part for color in colors for part in color])
    return image


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def opaque(value: int = 255) -> np.ndarray:
    alpha = np.full(IDS.shape, 255, np.uint8)
    alpha[2, 3:5] = value
    return alpha


def deep_rgb() -> bytes:
    return cv2.imencode(".png", np.repeat(IDS[..., None].astype(np.uint16), 3, -1))[1].tobytes()


COLORED = LABELS.colorize(IDS)
GREYS = (IDS > 1).astype(np.uint8) * 255
GREY_LABELS = LabelSet.from_names({0: "dark", 1: "light"}, colors={0: (0, 0, 0), 1: (255,) * 3})
NO_COLOR = r"colour \(.*\) .* belongs to no label"
OFF = [(70, 130, 180), (128, 64, 129), (1, 1, 1), (1, 1, 1)]
PAGES = {"save_all": True, "append_images": [Image.new("L", (12, 8))]}
Facts = dict[str, tuple[Callable[[], bytes], str, str, str]]
# The file of a fact, and what ids, colors and auto give: "" its ids, "note: …" its ids and a note,
# else the refusal.
FACTS: Facts = {
    "grey": (lambda: saved(Image.fromarray(IDS), "PNG"), "", "note: read as ids", ""),
    "16 bits": (
        lambda: saved(Image.fromarray(IDS.astype(np.uint16)), "PNG"), "", "note: read as ids", "",
    ),
    "own palette": (lambda: saved(with_palette(IDS, list(COLORS.values())), "PNG"), "", "", ""),
    "palette that says nothing": (
        lambda: saved(with_palette(IDS, [(i, 9, 9) for i in range(4)]), "PNG"),
        "", f"{NO_COLOR}.*--masks-as ids if those of all", "",
    ),
    "quantised palette": (
        lambda: saved(with_palette(INDEX, [COLORS[i] for i in ORDER]), "PNG"),
        "indices", "", "",
    ),
    "quantised palette, a colour off": (
        lambda: saved(with_palette(INDEX, OFF), "PNG"),
        "indices", NO_COLOR, "gives index 0 the colour of 'c2'.*--masks-as ids if",
    ),
    "colours": (
        lambda: saved(Image.fromarray(COLORED), "PNG"), "is coloured.*--masks-as auto", "", "",
    ),
    "opaque alpha": (
        lambda: saved(layers(COLORED, opaque()), "PNG"), "is coloured.*--masks-as auto", "", "",
    ),
    "erased colours": (lambda: saved(layers(COLORED, opaque(0)), "PNG"), *["2 pixels are tr"] * 3),
    "half erased": (lambda: saved(layers(COLORED, opaque(99)), "PNG"), *["2 pixels are tr"] * 3),
    "grey, opaque alpha": (
        lambda: saved(layers(IDS, opaque()), "PNG"), "", "note: read as ids", "",
    ),
    "grey, erased": (lambda: saved(layers(IDS, opaque(0)), "PNG"), *["2 pixels are tr"] * 3),
    "three equal channels": (
        lambda: saved(layers(IDS, IDS, IDS), "PNG"),
        "note: three equal", f"{NO_COLOR}.*--masks-as ids", "note: three equal",
    ),
    "four, three equal": (
        lambda: saved(layers(IDS, IDS, IDS, opaque()), "PNG"),
        "note: three equal", f"{NO_COLOR}.*--masks-as ids", "note: three equal",
    ),
    "ids in red": (
        lambda: saved(layers(IDS, IDS * 0, IDS * 0), "PNG"),
        "note: one channel", f"{NO_COLOR}.*--masks-as ids", "note: one channel",
    ),
    "16 bits, three channels": (deep_rgb, *["16 bits in each of several channels"] * 3),
    "JPEG": (lambda: saved(Image.fromarray(IDS), "JPEG"), *["is a JPEG"] * 3),
    "coloured JPEG": (lambda: saved(Image.fromarray(COLORED), "JPEG"), *["is a JPEG"] * 3),
    "lossy WebP": (lambda: saved(Image.fromarray(COLORED), "WEBP"), *["is a lossy WebP"] * 3),
    "lossless WebP": (
        lambda: saved(Image.fromarray(COLORED), "WEBP", lossless=True), "is coloured", "", "",
    ),
    "JPEG in a TIFF": (
        lambda: saved(Image.fromarray(COLORED), "TIFF", compression="jpeg"),
        *["is a TIFF with jpeg inside"] * 3,
    ),
    "TIFF": (lambda: saved(Image.fromarray(IDS), "TIFF"), "", "note: read as ids", ""),
    "lossy JPEG 2000": (
        lambda: saved(Image.fromarray(COLORED), "JPEG2000", irreversible=True),
        *["is a lossy JPEG 2000"] * 3,
    ),
    "JPEG 2000": (lambda: saved(Image.fromarray(COLORED), "JPEG2000"), "is coloured", "", ""),
    "pages": (
        lambda: saved(Image.fromarray(IDS), "TIFF", **PAGES),
        *["has 2 frames"] * 3,
    ),
    "animation": (
        lambda: saved(Image.fromarray(IDS), "PNG", **PAGES),
        *["has 2 frames"] * 3,
    ),
    "float": (lambda: saved(Image.fromarray(IDS.astype(np.float32)), "TIFF"), *["has mode F"] * 3),
    "CMYK": (lambda: saved(Image.fromarray(COLORED).convert("CMYK"), "TIFF"), *["mode CMYK"] * 3),
    "an id of no label": (
        lambda: saved(Image.fromarray(IDS + np.uint8(1)), "PNG"),
        "ids outside the labels: 4", NO_COLOR, "ids outside the labels: 4",
    ),
    "colour profile": (
        lambda: saved(Image.fromarray(IDS), "PNG", icc_profile=b"x" * 200),
        "", "note: read as ids", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fact", "decision"), list(product(FACTS, ("ids", "colors", "auto"))))
def test_every_fact_times_every_decision(tmp_path: Path, fact: str, decision: Any) -> None:
    make, *outcomes = FACTS[fact]
    expected = outcomes[("ids", "colors", "auto").index(decision)]
    path = tmp_path / "m.png"
    path.write_bytes(make())
    with Image.open(path) as image:
        for source in (open_mask(path, "m"), open_mask(make(), "m"), raw_mask(image, "m")):
            if expected in ("", "indices") or expected.startswith("note: "):
                ids, note = mask_ids(source, LABELS, decide_masks([source], LABELS, decision))
                assert (ids == (INDEX if expected == "indices" else IDS)).all()
                assert expected.removeprefix("note: ").replace("indices", "palette") in note
            else:
                with pytest.raises(UserError, match=rf"^m: .*{expected}") as caught:
                    mask_ids(source, LABELS, decide_masks([source], LABELS, decision))
                assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fact", [f for f in FACTS if FACTS[f][3] == "" or "note" in FACTS[f][3]])
def test_the_pipeline_reads_the_same(tmp_path: Path, fact: str) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(FACTS[fact][0]())
    with Image.open(path) as image:
        assert (read_masks([image, str(path)], LABELS) == IDS).all()
        if image.mode not in ("P", "LA"):
            assert (read_masks(np.array(image), LABELS) == IDS).all()


def read_all(masks: list[np.ndarray | Image.Image], labels: LabelSet = LABELS) -> list[np.ndarray]:
    raw = [raw_mask(mask, f"m{k}") for k, mask in enumerate(masks)]
    decision = decide_masks(raw, labels)
    return [mask_ids(mask, labels, decision)[0] for mask in raw]


def test_the_masks_of_a_set_decide_together() -> None:
    black = np.zeros_like(IDS)
    found = read_all([np.dstack([black] * 3), black, COLORED, IDS])
    assert all((a == b).all() for a, b in zip(found, [black, black, IDS, IDS], strict=True))
    # Black and white by the colours of the labels, if somebody chose these.
    raw = [raw_mask(mask, "m") for mask in (GREYS * 0, GREYS)]
    decision = decide_masks(raw, GREY_LABELS, colors_given=True)
    assert (mask_ids(raw[1], GREY_LABELS, decision)[0] == (GREYS > 0)).all()
    with pytest.raises(UserError, match=r"outside the labels: 255 [^;]*; [^;]*$"):
        read_all([GREYS * 0, GREYS], GREY_LABELS)
    assert (read_masks(GREYS, GREY_LABELS, "colors") == (GREYS > 0)).all()
    assert (read_all([GREYS > 0], GREY_LABELS)[0] == (GREYS > 0)).all()


def test_two_readings_are_one_line_that_names_both_flags() -> None:
    labels = LabelSet.from_names({0: "sky", 1: "b"}, colors={0: (9, 9, 9), 1: (0, 0, 0)})
    black = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UserError, match=r"'sky' as an id is 'b' as a colour.*ids or --masks-as c"):
        read_all([black], labels)
    for masks_as, expected in (("ids", 0), ("colors", 1)):
        assert (read_masks(black, labels, masks_as) == expected).all()
    # Another mask of the call is coloured, so this one is, too; a grey one is in doubt.
    assert (read_all([black, black + np.uint8(9)], labels)[0] == 1).all()
    with pytest.raises(UserError, match="m1: its values are ids and colours"):
        read_all([black + np.uint8(9), black[..., 0]], labels)
    with pytest.raises(UserError, match="masks_as is 'rgb': must be one of ids, colors, auto"):
        read_masks(black, labels, "rgb")  # type: ignore[arg-type]


def test_palettes_that_contradict_each_other() -> None:
    first, second = (with_palette(IDS, [(i * k, 9, 9) for i in range(4)]) for k in (1, 2))
    with pytest.raises(UserError, match=r"m1: index 1 is \(2, 9, 9\), in m0 it is \(1, 9, 9\)"):
        read_all([first, second])
    assert (read_masks([first, second], LABELS, "ids") == IDS).all()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_one_hot_maps_are_refused(dtype: type) -> None:
    hot = np.eye(4)[IDS].astype(dtype)
    for array in (hot, hot.transpose(2, 0, 1), hot[None], hot.transpose(2, 0, 1)[None]):
        with pytest.raises(UserError, match=r"looks like one-hot maps of 4 labels.*argmax\("):
            read_masks(array, LABELS)
    without = hot.copy()
    without[IDS == 0] = 0  # unlabelled pixels may be zero everywhere
    with pytest.raises(UserError, match="looks like one-hot"):
        read_masks(without.transpose(2, 0, 1), LABELS)
    separate = list(hot.transpose(2, 0, 1))
    assert (read_masks(separate, LABELS) == np.stack(separate)).all()
    assert len(read_masks(np.stack([IDS == 9, IDS < 9]), LABELS)) == 2
    with pytest.raises(UserError, match="looks like one-hot maps of 2 labels"):
        read_masks(np.stack([IDS == 1, IDS != 1]), LABELS)


def test_arrays_of_colours_and_of_equal_channels() -> None:
    for array in (COLORED, COLORED.astype(np.int64), np.dstack([COLORED, opaque()])):
        assert (read_masks(array, LABELS) == IDS).all()
        assert (read_masks(np.stack([array] * 2), LABELS) == IDS).all()
    assert (read_masks(np.dstack([IDS] * 3), LABELS) == IDS).all()
    assert (read_masks(np.dstack([IDS, opaque()]), LABELS) == IDS).all()
    with pytest.raises(UserError, match=r"has shape \(\)"):
        read_masks(np.array(3), LABELS)
    with pytest.raises(UserError, match="2 pixels are transparent"):
        read_masks(np.dstack([COLORED, opaque(0)]), LABELS)


def test_rows_of_coloured_masks(hub_copy: Callable[..., Path], tmp_path: Path) -> None:
    names = list(SIDEWALK.names.values())
    masks = [np.full((24, 32), k, np.uint8) for k in range(4)]
    images = [np.zeros((24, 32, 3), np.uint8)] * 4
    root = hub_copy(images, [masks[0], *map(SIDEWALK.colorize, masks[1:])], names)
    settings = {"height": 24, "width": 32, "val_share": 0.0, "near_duplicates": -1}
    data = prepare(PrepareConfig(data=root, output=tmp_path / "o", workers=1, **settings))
    for k, mask in enumerate(masks):
        assert (data.read_mask("train", f"row_{k:06d}") == mask).all()
    with pytest.raises(UserError, match=r"row 1, label: is coloured.*--masks-as auto"):
        prepare(PrepareConfig(data=root, output=tmp_path / "i", masks_as="ids", **settings))

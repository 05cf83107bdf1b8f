"""Objects with their own pixels: pasted where they are seen, and made part of the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs semsynth[app]")

from studio_page import make, pipeline

from semsynth.app.code import python_lines
from semsynth.app.studio import Studio
from semsynth.app.transplants import OBJECT_STRENGTH, Transplant
from semsynth.augmentation.edits.pair import Cutout, footprint
from semsynth.core.errors import UserError


def disc(image: Any, number: int, place: tuple[int, int], label: int = 9) -> Transplant:
    """An object of 5x5 pixels without its corners."""
    parts = np.ones((5, 5), np.int64)
    parts[[0, 0, 4, 4], [0, 4, 0, 4]] = 0
    cutout = Cutout(image, parts, (label,), image.reshape(-1, 3).mean(0))
    return Transplant(number, place, cutout, f"d{number}", {"class": "car", "stem": f"s{number}"})


def canvas_of(*placed: Transplant) -> tuple[Any, Any]:
    """A road with these objects, later ones over earlier ones: ids and numbers."""
    mask, numbers = np.ones((16, 24), np.uint8), np.zeros((16, 24), np.uint8)
    for one in placed:
        seen = footprint(one.cutout, one.place, (16, 24))
        mask[seen], numbers[seen] = 9, one.number
    return mask, numbers


RED = np.full((5, 5, 3), (200, 20, 20), np.uint8)
BLUE = np.full((5, 5, 3), (20, 20, 200), np.uint8)


@pytest.mark.parametrize("model", ["m0", "m1"])
def test_the_pixels_of_objects_are_pasted_and_made_part_of_the_image(
    studio: Studio, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second cuts into the first; of the first something was painted over."""
    first, second = disc(RED, 1, (4, 6)), disc(BLUE, 2, (4, 9))
    mask, numbers = canvas_of(first, second)
    mask[8, 8], numbers[7, 7] = 1, 0  # painted in another class, and in its own
    asked: dict[str, Any] = {"seed": 3, "instances": numbers, "object_strength": 0.3}
    made = make(studio, model, mask, placed=(first, second), **asked)
    plain = make(studio, model, mask, seed=3)
    assert made.real is not None and made.real.strength == 0.3
    # What sampling starts from is the image without them, and on it their pixels where seen.
    start, red, blue = made.real.images_BHWC[0], numbers == 1, numbers == 2
    red[8, 8] = False
    assert (start[red] == RED[0, 0]).all() and (start[blue] == BLUE[0, 0]).all()
    assert np.array_equal(start[~red & ~blue], plain.image_HWC[~red & ~blue])
    region = made.real.regions_BHW
    assert region is not None and region[0][red | blue].all() and not region[0][:, 18:].any()
    # Far from them nothing changes, and there they are nearer to their own colour than without.
    assert np.array_equal(made.image_HWC[:, 22:], plain.image_HWC[:, 22:])
    own = np.abs(made.image_HWC[red].astype(int) - RED[0, 0]).mean()
    assert own < np.abs(plain.image_HWC[red].astype(int) - RED[0, 0]).mean()
    again = pipeline(studio, model).generate(mask[None], [3], real=made.real)[0]
    assert np.array_equal(made.image_HWC, again)
    monkeypatch.chdir(tmp_path)
    exec(compile(python_lines(made, studio.model(model)), "copied", "exec"), {})
    assert np.array_equal(np.asarray(Image.open("image.png")), made.image_HWC)
    assert made.items == ("d1", "d2")
    assert made.begun == {
        "objects": [
            {"class": "car", "stem": "s1", "pixels": int(red.sum())},
            {"class": "car", "stem": "s2", "pixels": int(blue.sum())},
        ],
        "object_strength": 0.3,
    }


def test_while_drawing_objects_are_pasted_and_the_network_runs_once(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The final image goes on from the image that is there; undo shows what was there before."""
    model = studio.model("m0")
    runs, generate = [], model.synthesizer.generate

    def counted(*args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return generate(*args, **kwargs)

    monkeypatch.setattr(model.synthesizer, "generate", counted)
    one = disc(RED, 1, (4, 6))
    mask, numbers = canvas_of(one)
    mask[:2] = 2
    asked: dict[str, Any] = {"seed": 41, "instances": numbers, "placed": (one,)}
    live = make(studio, "m0", mask, quality="live", **asked)
    assert len(runs) == 1 and "pasted as they are" in live.note
    seen = numbers == 1
    assert live.real is None and (live.image_HWC[seen] == RED[0, 0]).all()
    plain = make(studio, "m0", mask, seed=41, quality="live")
    assert len(runs) == 1  # it is the image that they were pasted into
    assert np.array_equal(live.image_HWC[~seen], plain.image_HWC[~seen])
    assert live.begun["object_strength"] == 0 and live.items == ("d1",)
    final = make(studio, "m0", mask, **asked)
    assert len(runs) == 2 and final.real is not None and final.pasted is None
    assert np.array_equal(final.real.images_BHWC[0], live.image_HWC)
    assert final.begun["object_strength"] == OBJECT_STRENGTH
    mask[:2] = 1
    make(studio, "m0", mask, quality="live", **asked)
    mask[:2] = 2  # undo
    again = make(studio, "m0", mask, quality="live", **asked)
    assert len(runs) == 3 and np.array_equal(again.image_HWC, live.image_HWC)
    make(studio, "m0", mask, quality="live", **{**asked, "seed": 42})
    assert len(runs) == 4
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    exec(compile(python_lines(live, model), "copied", "exec"), {})
    assert np.array_equal(np.asarray(Image.open("image.png")), live.image_HWC)


def test_objects_that_are_not_seen_change_nothing(studio: Studio) -> None:
    mask, numbers = canvas_of(disc(RED, 1, (4, 6)))
    plain = make(studio, mask=mask, seed=3)
    for placed in (disc(RED, 2, (4, 6)), disc(RED, 1, (-5, 6)), disc(RED, 1, (4, 6), label=2)):
        made = make(studio, mask=mask, seed=3, instances=numbers, placed=(placed,))
        assert np.array_equal(made.image_HWC, plain.image_HWC)
        assert made.real is None and made.begun == {} and made.items == ()
    # One that the border cuts is seen in part.
    cut = disc(RED, 1, (-2, 21))
    mask, numbers = canvas_of(cut)
    made = make(studio, mask=mask, instances=numbers, placed=(cut,))
    assert made.real is not None and made.begun["objects"][0]["pixels"] == (numbers == 1).sum() == 8
    assert made.real.strength == OBJECT_STRENGTH


def test_of_what_is_kept_no_object_takes_anything(studio: Studio) -> None:
    """With "keep the rest", only objects that were placed since are pasted."""
    start = make(studio, seed=1).image_HWC
    old, new = disc(RED, 1, (2, 2)), disc(BLUE, 2, (8, 15))
    mask, numbers = canvas_of(old, new)
    region = numbers == 2
    asked: dict[str, Any] = {"instances": numbers, "placed": (old, new), "keep": True, "seed": 2}
    made = make(studio, "m0", mask, region, start, **asked)
    assert made.real is not None and made.real.regions_BHW is not None
    assert np.array_equal(made.real.regions_BHW[0], region)
    assert (made.real.images_BHWC[0][region] == BLUE[0, 0]).all()
    assert np.array_equal(made.image_HWC[:, :8], start[:, :8])
    assert [x["stem"] for x in made.begun["objects"]] == ["s2"]
    assert made.begun["from_image"] and made.begun["keep"] == "outside"


def test_objects_on_a_canvas_of_another_size(studio: Studio) -> None:
    one = disc(RED.repeat(4, 0).repeat(4, 1), 1, (8, 12))
    one = replace(one, cutout=replace(one.cutout, parts=np.ones((20, 20), np.int64)))
    mask, numbers = np.ones((32, 48), np.uint8), np.zeros((32, 48), np.uint16)
    mask[8:28, 12:32], numbers[8:28, 12:32] = 9, 1
    made = make(studio, mask=mask, instances=numbers, placed=(one,))
    assert made.instances_HW is not None and made.real is not None
    assert (made.instances_HW[4:14, 6:16] == 1).all() and made.instances_HW.sum() == 100
    assert (made.real.images_BHWC[0][5:13, 7:15] == RED[0, 0]).all()


@pytest.mark.parametrize(
    ("instances", "strength", "says"),
    [
        (None, None, "needs the part instances"),
        (np.zeros((4, 5), np.uint8), None, "instances: is 5x4 .*, the mask 24x16"),
        (np.zeros((16, 24), np.uint8), 0.0, "object_strength is 0.0: must be above 0"),
    ],
)
def test_objects_that_make_no_sense_are_one_line(
    studio: Studio, instances: Any, strength: float | None, says: str
) -> None:
    placed = (disc(RED, 1, (4, 6)),)
    with pytest.raises(UserError, match=says):
        make(studio, instances=instances, placed=placed, object_strength=strength)

"""From requests to images: the same as the pipeline's; masks, unlabelled pixels, sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs semsynth[app]")

from studio_page import MASK, make, pipeline

from semsynth import FromImage, SamplerSettings
from semsynth.app.code import python_lines
from semsynth.app.config import AppConfig
from semsynth.app.models import open_models
from semsynth.app.refused import Refused
from semsynth.app.render import Canvas, Order, prepare
from semsynth.app.results import Result, ResultStore, Upload
from semsynth.app.studio import Studio
from semsynth.core.errors import UserError
from semsynth.data.instances import instance_edges
from semsynth.data.labels import LabelSet

PARTIAL = {"train": {"steps": 7, "region_dropout": 0.2}}


@pytest.mark.parametrize("model", ["m0", "m1", "m2"])
def test_an_image_is_that_of_the_pipeline_to_the_bit(studio: Studio, model: str) -> None:
    pipe = pipeline(studio, model)
    final = make(studio, model, seed=5)
    assert np.array_equal(final.image_HWC, np.asarray(pipe(MASK, seeds=[5]).images[0]))
    # What a result says of itself makes it again.
    turned = make(studio, model, seed=5, variation={"seed": 9, "amount": 0.25})
    again = pipe.synthesizer.generate(
        turned.mask_HW[None], [turned.seed], turned.settings, variation=turned.variation
    )
    assert np.array_equal(turned.image_HWC, again[0])
    assert not np.array_equal(turned.image_HWC, final.image_HWC)


def test_steps_guidance_and_scheduler_are_the_pipelines(studio: Studio) -> None:
    asked = SamplerSettings("euler", 6, 2.0)
    made = make(studio, "m1", seed=1, steps=6, guidance=2.0, scheduler="euler")
    assert made.settings == asked
    again = pipeline(studio, "m1").generate(MASK[None], [1], asked)[0]
    assert np.array_equal(made.image_HWC, again)


def test_live_is_the_cheapest_sampler_of_each_model(studio: Studio) -> None:
    steps = {
        model: make(studio, model, quality="live", steps=2).settings for model in studio.models
    }
    assert {model: chosen.steps for model, chosen in steps.items()} == {
        "m0": 1, "m1": 4, "m2": 1, "m3": 1,
    }  # fmt: skip
    assert all(chosen.guidance_scale == 1 for chosen in steps.values())
    facts = {model: studio.model(model).facts() for model in studio.models}
    assert [facts[model]["refines"] for model in ("m0", "m1", "m2")] == [False, True, True]
    assert "final" in facts["m0"]["why_not_refined"]
    assert facts["m0"]["schedulers"] == [] and "1 evaluation" in facts["m0"]["why_no_scheduler"]
    assert "dpm++" in facts["m1"]["schedulers"] and facts["m1"]["why_no_scheduler"] is None


@pytest.mark.parametrize(
    ("model", "asked", "says"),
    [
        ("m0", {"steps": 20}, "1 evaluation"),
        ("m0", {"scheduler": "ddim"}, "omit the sampler"),
        ("m1", {"steps": 0}, "steps is 0"),
        ("m1", {"guidance": -1.0}, "at least 0"),
        ("m1", {"scheduler": "lcm"}, "not distilled"),
        ("m0", {"strength": 0.5}, "source"),
        ("m0", {"keep": True}, "source"),
    ],
    ids=str,
)
def test_what_is_not_for_a_model_is_one_line(
    studio: Studio, model: str, asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        make(studio, model, **asked)


def test_a_mask_of_another_size_is_scaled_and_said(studio: Studio) -> None:
    large = MASK.repeat(3, 0).repeat(2, 1)
    made = make(studio, mask=large)
    assert made.note == "mask scaled from 48x48 to 24x16"
    assert np.array_equal(made.mask_HW, MASK)
    assert np.array_equal(made.image_HWC, make(studio).image_HWC)


def test_ids_that_the_model_does_not_know_are_one_line(studio: Studio) -> None:
    mask = MASK.copy()
    mask[0, :3] = 77
    with pytest.raises(UserError, match=r"77 \(3 pixels\)"):
        make(studio, mask=mask)


def test_unlabelled_pixels_where_whole_masks_were_trained(studio: Studio, model_path: Any) -> None:
    ignored, other = MASK.copy(), MASK.copy()
    ignored[:8], other[:8] = 0, 255
    one, two = make(studio, mask=ignored), make(studio, mask=other)
    assert np.array_equal(one.image_HWC, two.image_HWC) and (two.mask_HW[:8] == 0).all()
    assert "50 % of the mask is unlabelled" in one.note and "arbitrary" in one.note
    without = LabelSet.from_names({0: "road", 1: "car"})
    (model,) = open_models((str(model_path("whole", without, evaluations=1)),), "cpu")
    order = Order(client="c", lane="l", number=0)
    with pytest.raises(Refused, match="has no label for that"):
        prepare(model, order, Canvas(np.full((16, 24), 255, np.uint8)))


def test_unlabelled_pixels_where_partial_masks_were_trained(model_path: Any) -> None:
    without = LabelSet.from_names({0: "road", 255: "car"})
    path = model_path("partial", without, PARTIAL, evaluations=1)
    studio = Studio(AppConfig(model=(str(path),), device="cpu"))
    model = studio.default
    facts = model.facts()
    assert facts["partial"] and facts["why_not_partial"] is None
    assert model.unlabelled == 254 == facts["unlabelled"]  # 255 is the car
    mask = np.full((16, 24), 255, np.uint8)
    mask[:5] = 254
    made = make(studio, mask=mask)
    assert made.note == ""
    pipe = pipeline(studio, "m0")
    with pytest.raises(UserError, match="254"):
        pipe(mask, seeds=[0])
    assert pipe.synthesizer.allow_unlabelled() == 254
    assert np.array_equal(np.asarray(pipe(mask, seeds=[0]).images[0]), made.image_HWC)
    studio.close()


def test_the_rest_is_kept_exactly_and_strength_is_the_pipelines(studio: Studio) -> None:
    start = make(studio, seed=1).image_HWC
    mask, region = MASK.copy(), np.zeros(MASK.shape, bool)
    region[4:8, 6:10] = True
    mask[region] = 9
    for model in ("m0", "m1"):
        kept = make(studio, model, mask, region, start, seed=2, keep=True)
        assert kept.real is not None and kept.real.strength == 1
        far = np.ones(MASK.shape, bool)
        far[:12, 2:14] = False  # the region, and the blended edge
        assert np.array_equal(kept.image_HWC[far], start[far])
        assert not np.array_equal(kept.image_HWC[region], start[region])
        made = make(studio, model, mask, source=start, seed=2, strength=0.4)
        real = FromImage(start[None], 0.4)
        again = pipeline(studio, model).generate(mask[None], [2], real=real)[0]
        assert np.array_equal(made.image_HWC, again)
    with pytest.raises(Refused, match="part region"):
        make(studio, "m0", mask, None, start, keep=True)


@pytest.mark.parametrize("things", [(), ("car",)], ids=["all", "things"])
def test_objects_that_touch_have_a_border_between_them(
    things: tuple[str, ...], model_path: Any
) -> None:
    labels = LabelSet.from_names({1: "road", 2: "sky", 9: "car"}, things=things)
    path = model_path(f"touching {len(things)}", labels, evaluations=1, instance_edges=True)
    (model,) = open_models((str(path),), "cpu")
    mask, numbers = np.full((16, 24), 1, np.uint8), np.zeros((16, 24), np.uint16)
    mask[:4], mask[6:12, 4:16], mask[13:15, 20:22] = 2, 9, 9
    assert not model.edges(mask)[8, 6:14].any()
    numbers[6:12, 4:9], numbers[6:12, 9:12] = 40000, 3  # two of them; the rest is a third
    edges = model.edges(mask, numbers)
    assert edges[8].nonzero()[0].tolist() == [3, 4, 8, 9, 11, 12, 15, 16]
    objects = model.objects(mask, numbers)
    assert objects.dtype == np.uint16
    assert np.array_equal(instance_edges(objects), edges)
    cars = [set(np.unique(objects[6:12, x])) for x in (slice(4, 9), slice(9, 12), slice(12, 16))]
    assert all(len(one) == 1 for one in cars) and len(set.union(*cars)) == 3
    assert bool(objects[0, 0]) == (not things)
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([1, 2, 9], np.uint8), (16, 24))
    numbers = rng.integers(0, 3, (16, 24))
    assert np.array_equal(instance_edges(model.objects(mask, numbers)), model.edges(mask, numbers))


@pytest.mark.parametrize("things", [(), ("car",)], ids=["all", "things"])
def test_a_model_that_knows_edges_gets_those_of_the_drawn_objects(
    things: tuple[str, ...], model_path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = LabelSet.from_names({1: "road", 2: "sky", 9: "car"}, things=things)
    path = model_path(f"edges {len(things)}", labels, evaluations=1, instance_edges=True)
    studio = Studio(AppConfig(model=(str(path),), device="cpu"))
    mask = np.full((16, 24), 1, np.uint8)
    mask[:4], mask[8:12, 4:9] = 2, 9
    made = make(studio, mask=mask)
    assert made.edges_HW is not None
    assert bool(made.edges_HW[3:5].all()) == (not things)  # where the sky ends
    assert made.edges_HW[8, 4:9].all() and not made.edges_HW[9:11, 5:8].any()
    # The same as with instance maps that number things alone.
    instances = (mask == 9).astype(np.uint8) if things else mask
    image = pipeline(studio, "m0")(mask, instances=instances, seeds=[0]).images[0]
    assert np.array_equal(np.asarray(image), made.image_HWC)
    monkeypatch.chdir(tmp_path)
    exec(compile(python_lines(made, studio.default), "copied", "exec"), {})
    assert np.array_equal(np.asarray(Image.open("image.png")), made.image_HWC)
    studio.close()


def test_sources_of_another_size_or_form(studio: Studio) -> None:
    photo = np.full((32, 48, 3), 90, np.uint8)
    made = make(studio, source=photo, strength=0.5)
    assert "image scaled from 48x32 to 24x16" in made.note
    grey = make(studio, "m3", source=photo, strength=0.5)
    assert grey.image_HWC.shape == (16, 24, 1)
    assert make(studio, source=grey.image_HWC, strength=0.5).image_HWC.shape == (16, 24, 3)
    with pytest.raises(Refused, match="cannot start from"):
        make(studio, source=np.zeros((16, 24, 5), np.uint16), strength=0.5)


def test_a_model_that_is_deleted_while_open_goes_on(model_path: Any) -> None:
    path = model_path("deleted", evaluations=1)
    studio = Studio(AppConfig(model=(str(path),), device="cpu"))
    before = make(studio).image_HWC
    path.unlink()
    assert np.array_equal(make(studio).image_HWC, before)
    studio.close()


def test_a_cancelled_image_ends_between_two_steps(studio: Studio) -> None:
    order = Order(client="c", lane="cancelled", number=1, model="m1", steps=500)
    rendering = prepare(studio.model("m1"), order, Canvas(MASK))
    turn = studio.submit(rendering.run, "c", "cancelled", 1)
    while not turn.step:
        assert not turn.done.done()
    assert studio.queue.cancel("c", "cancelled")
    with pytest.raises(Refused):
        turn.done.result(60)
    make(studio)  # the worker goes on
    assert turn.step < 500


def test_models_have_names_and_ids_of_their_own(fast_path: Path, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    run.mkdir()
    (run / "final_model.pth").write_bytes(fast_path.read_bytes())
    found = open_models((str(run / "final_model.pth"), str(run), str(fast_path)), "cpu")
    assert [model.name for model in found] == ["my run", "my run (2)", "fast"]
    assert [model.id for model in found] == ["m0", "m1", "m2"]
    with pytest.raises(UserError, match="no such"):
        open_models((str(tmp_path / "no.pth"),), "cpu")


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    store = ResultStore(limit=1000)
    results = [
        Result("m0", image[..., 0], image, bytes(100), 0, SamplerSettings()) for _ in range(3)
    ]
    for result in results[:2]:
        store.add(result)
    assert store.get(results[0].id) is results[0]  # used again, so no longer the oldest
    store.add(results[2])
    assert len(store) == 2
    with pytest.raises(Refused, match="no longer kept") as refused:
        store.get(results[1].id)
    assert refused.value.http == 404
    huge = Upload(np.zeros((100, 100, 3), np.uint8), b"")
    store.add(huge)
    assert store.find(huge.id) is huge and len(store) == 1
    with pytest.raises(Refused):
        store.get(huge.id)  # not an image that was made


@pytest.mark.parametrize("count", [1, 300])
def test_one_class_and_many(count: int, model_path: Any) -> None:
    labels = LabelSet.from_names({index: f"class {index}" for index in range(count)})
    path = model_path(f"of {count}", labels, evaluations=1)
    studio = Studio(AppConfig(model=(str(path),), device="cpu"))
    shown = studio.default.facts()["labels"]
    assert len({tuple(label["color"]) for label in shown}) == count
    mask = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) % count
    made = make(studio, mask=mask, seed=3)
    assert np.array_equal(made.mask_HW, mask) and made.note == ""
    image = pipeline(studio, "m0").synthesizer.generate(mask[None], [3])[0]
    assert np.array_equal(made.image_HWC, image)
    studio.close()

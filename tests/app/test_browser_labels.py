"""Models of other labels in Chromium: a mask's ids are never taken for those of another model."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from drawn_page import Drawn

import semsynth
from semsynth.data.labels import LabelSet

pytestmark = pytest.mark.xdist_group("chromium")

ROAD, SKY, CAR = 1, 2, 9
# The same classes with other ids, without a sky; and classes of something else.
FEW = LabelSet.from_names({0: "car", 1: "tree", 5: "road", 7: "void"}, ignore_id=7)
CELLS = LabelSet.from_names({0: "dish", 1: "cell"})


@pytest.fixture(scope="module")
def three(model_path: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A studio of three models, 24x16: streets, few, cells."""
    if find_spec("python_multipart") is None:
        pytest.skip("needs semsynth[app]")
    made = [("streets", None), ("few", FEW), ("cells", CELLS)]
    models = [model_path(f"labels {name}", labels, evaluations=1) for name, labels in made]
    folder = tmp_path_factory.mktemp("three") / "saved"
    with semsynth.launch_app(models, port=0, device="cpu", save_to=folder) as app:
        yield app


@pytest.fixture
def page(browser: Any, three: Any) -> Iterator[Drawn]:
    """A page with a mask of road, sky and a car."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    drawn = Drawn(context.new_page(), three.url)
    drawn.live(False)
    drawn.put(mask())
    yield drawn
    context.close()


def mask() -> Any:
    ids = np.full((16, 24), ROAD)
    ids[:6], ids[8:11, 4:10] = SKY, CAR
    return ids


def choose(page: Drawn, model: str) -> None:
    page.page.select_option("#model", model)
    page.until("!studio.masks.opening")
    page.run("await 0;")


def test_a_model_without_these_classes_has_a_mask_of_its_own(page: Drawn) -> None:
    page.keys("r", "1")
    page.drag((12, 12), (14, 14))
    page.run("studio.settings.set({ classId: 9 });")
    drawn = page.ids()
    choose(page, "m2")
    assert set(np.unique(page.ids())) == {0, 1}  # dish and cell, of that model
    assert page.run("return studio.settings.classId;") == 0
    assert page.page.is_disabled("#undo")
    page.page.focus("#mask")
    page.keys("Enter")
    result = page.settled()
    assert set(np.unique(page.on_server(result))) == {0, 1}
    choose(page, "m0")
    np.testing.assert_array_equal(page.ids(), drawn)
    assert page.run("return studio.settings.classId;") == 9
    page.run("studio.undo();")
    np.testing.assert_array_equal(page.ids(), mask())
    assert page.errors == []


def test_classes_of_the_same_name_stay_in_another_model(page: Drawn) -> None:
    page.run("studio.settings.set({ classId: 9 });")
    choose(page, "m1")
    ids = page.ids()
    assert (ids[mask() == ROAD] == 5).all() and (ids[mask() == CAR] == 0).all()
    assert (ids[mask() == SKY] == page.run("return studio.labels.unlabelled;")).all()
    assert "no sky in labels few" in page.page.inner_text("#mask-note")
    assert page.run("return studio.labels.name(studio.settings.classId);") == "car"
    choose(page, "m0")  # nothing was drawn: nothing is lost
    np.testing.assert_array_equal(page.ids(), mask())
    choose(page, "m1")
    page.keys("r", "2")
    page.drag((0, 15), (3, 15))
    choose(page, "m0")  # what was drawn comes along
    ids = page.ids()
    assert (ids[mask() == CAR] == CAR).all() and (ids[12, 8:20] == ROAD).all()
    assert page.run("return studio.labels.isUnlabelled(studio.document.map.get(1, 15));")
    assert page.errors == []


def test_what_is_compared_is_the_same_mask(page: Drawn) -> None:
    options = page.page.locator("#compare option")
    texts = options.all_inner_texts()
    assert texts[3] == "labels cells: no class in common" and options.nth(3).is_disabled()
    assert options.nth(2).is_enabled()
    page.page.select_option("#compare", "m1")
    page.until("studio.layers.compared")
    sent = page.on_server(page.run("return studio.layers.compared.result;"))
    assert (sent[mask() == ROAD] == 5).all() and (sent[mask() == CAR] == 0).all()
    assert not np.isin(sent[mask() == SKY], [0, 1, 5]).any()
    note = page.page.inner_text("#compare-note")
    assert "unlabelled for it: sky" in note
    choose(page, "m2")
    assert page.run("return studio.settings.compare;") == ""
    assert page.page.is_hidden("#compared")


def test_an_image_of_the_session_comes_back_with_its_model_and_mask(page: Drawn) -> None:
    page.page.focus("#mask")
    page.keys("Enter")
    page.settled()
    page.page.wait_for_selector("#strip button")
    choose(page, "m2")
    page.page.locator("#strip button").last.click()
    page.until("studio.settings.model === 'm0' && studio.result?.request.model === 'm0'")
    np.testing.assert_array_equal(page.ids(), mask())
    assert page.errors == []


def test_a_reload_gives_back_a_mask_in_its_own_labels(page: Drawn) -> None:
    """Where the server has other models now, ids become those of the same names."""
    labels = "[{ id: 1, name: 'sky' }, { id: 2, name: 'car' }]"
    page.run(
        "await studio.session.save('settings', { ...studio.settings.values(), modelName: 'gone',"
        f" unlabelled: 255, labels: {labels} }});"
    )
    page.page.reload()
    page.ready()
    ids = page.ids()
    assert (ids[mask() == ROAD] == SKY).all() and (ids[mask() == SKY] == CAR).all()


def test_a_mask_is_scaled_to_the_models_size(page: Drawn) -> None:
    assert page.page.is_hidden("#rescale")
    large = mask().repeat(2, 0).repeat(3, 1)
    page.put(large)
    note = page.page.inner_text("#mask-note")
    assert note.startswith("72") and "scaled for the model (24" in note
    page.page.click("#rescale")
    np.testing.assert_array_equal(page.ids(), mask())
    assert page.page.is_hidden("#rescale")
    page.run("studio.undo();")
    np.testing.assert_array_equal(page.ids(), large)
    assert page.errors == []

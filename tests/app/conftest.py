"""Small untrained models in files; a real server with the package's model, and Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_page import Drawn

import semsynth
from semsynth.data.config import PrepareConfig
from semsynth.data.prepare.run import prepare
from semsynth.pipelines.formats.pretrained import FOLDER, pretrained_names

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes model files: (name, labels or None, recipe or None, **diffusion); 16x24 pixels.

    Labels are 0 void (ignored), 1 road, 2 sky, 9 car by default.
    """
    pytest.importorskip("starlette", reason="needs semsynth[app]")
    pytest.importorskip("uvicorn", reason="needs semsynth[app]")
    from tiny_model import LABELS, tiny_file

    from semsynth.pipelines.formats.model_file import save_model_file

    folder = tmp_path_factory.mktemp("models")

    def make(
        name: str, labels: Any = None, recipe: dict[str, Any] | None = None, **diffusion: Any
    ) -> Path:
        facts = {"licence": "CC BY 4.0", "step": 7, "recipe": recipe or {"name": "tiny"}}
        of_model = ("image_channels", "instance_edges")
        model = {key: diffusion.pop(key) for key in of_model if key in diffusion}
        file = tiny_file(facts, labels or LABELS, model, **diffusion)
        path = folder / f"{name}.pth"
        save_model_file(path, file)
        return path

    return make


@pytest.fixture(scope="session")
def fast_path(model_path: Make) -> Path:
    """A model of one evaluation."""
    return model_path("fast", evaluations=1)


@pytest.fixture(scope="session")
def slow_path(model_path: Make) -> Path:
    """A model of any number of steps."""
    return model_path("slow")


@pytest.fixture(scope="module")
def studio(fast_path: Path, slow_path: Path, model_path: Any) -> Iterator[Any]:
    """Models m0 (one evaluation), m1 (any steps), m2 (four evaluations), m3 (grey images)."""
    from semsynth.app.config import AppConfig
    from semsynth.app.studio import Studio

    paths = [fast_path, slow_path, model_path("four", evaluations=4)]
    paths.append(model_path("grey", evaluations=1, image_channels=1))
    opened = Studio(AppConfig(model=tuple(map(str, paths)), device="cpu"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import edit_scenes

    return edit_scenes.write(tmp_path_factory.mktemp("studio") / "streets", "street", 6, 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from studio_page import STREET, write_model

    return write_model(tmp_path_factory.mktemp("models") / "toy.pth", STREET)


@pytest.fixture
def open_page(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens studios that are closed at the end."""
    from starlette.testclient import TestClient
    from studio_page import Page

    from semsynth.app.config import AppConfig
    from semsynth.app.server import build
    from semsynth.app.studio import Studio

    studios: list[Studio] = []

    def make(*models: Path, **flags: Any) -> Page:
        names = tuple(str(path) for path in models)
        config = AppConfig(
            model=names, token=False, device="cpu", save_to=tmp_path / "pairs", **flags
        )
        studios.append(Studio(config))
        app = build(studios[-1])
        return Page(studios[-1], TestClient(app, base_url="http://127.0.0.1:7860"))

    yield make
    for studio in studios:
        studio.close()


@pytest.fixture
def page(open_page: Callable[..., Any], model: Path, data: Any) -> Any:
    return open_page(model, data=data.root)


@pytest.fixture(scope="session")
def aerial_prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's towns from above, prepared."""
    output = tmp_path_factory.mktemp("aerial") / "prepared"
    data = FOLDER.parent / "examples" / "aerial"
    prepare(
        PrepareConfig(source="auto", data=data, output=output, height=256, width=256, workers=1)
    )
    return output


@pytest.fixture(scope="session")
def running(aerial_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A studio of the package's model on real data; ``url`` has the token."""
    for package in ("starlette", "uvicorn", "python_multipart"):
        if find_spec(package) is None:
            pytest.skip(f"needs semsynth[app]: {package} is not installed")
    if "aerial" not in pretrained_names():
        pytest.skip("no models in src/semsynth/pretrained")
    folder = tmp_path_factory.mktemp("studio") / "saved"
    with semsynth.launch_app("aerial", data=aerial_prepared, save_to=folder, port=0) as app:
        app.saved = folder
        yield app


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window. For a module: Playwright's loop is the thread's while it runs."""
    if find_spec("playwright") is None:
        pytest.skip("needs Playwright (pip install 'semsynth[test]')")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, running: Any) -> Iterator[Callable[..., Drawn]]:
    """Open pages: each in a profile of its own, unless one is given."""
    contexts = []

    def open_page(context: Any = None, url: str | None = None, **options: Any) -> Drawn:
        if context is None:
            sizes = {"viewport": {"width": 1280, "height": 800}, **options}
            context = browser.new_context(**sizes)
            contexts.append(context)
        return Drawn(context.new_page(), url or running.url)

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def drawn(opened: Callable[..., Drawn]) -> Drawn:
    """A page with a mask of one class (land) that generates only when it is asked to."""
    page = opened()
    page.live(False)
    page.put(np.full((256, 256), 2))
    return page

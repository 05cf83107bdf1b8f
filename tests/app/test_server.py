"""The endpoints: what a page sends and gets, and what it may not send."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs semsynth[app]")

import httpx2 as httpx
from starlette.testclient import TestClient

import semsynth
from semsynth import SemanticDiffusionPipeline
from semsynth.app.config import AppConfig
from semsynth.app.queue import Turn
from semsynth.app.server import build
from semsynth.app.studio import Studio
from semsynth.data.image_files.channels import encode_image
from semsynth.data.labels import LabelSet

MASK = np.random.default_rng(0).choice(np.array([1, 2, 9], np.uint8), (16, 24))


@pytest.fixture(scope="module")
def studio(fast_path: Path, slow_path: Path) -> Iterator[Studio]:
    opened = Studio(AppConfig(model=(str(fast_path), str(slow_path)), device="cpu"))
    yield opened
    opened.close()


@pytest.fixture
def page(studio: Studio) -> Any:
    headers = {"X-Semsynth-Token": str(studio.token)}
    return TestClient(build(studio), base_url="http://127.0.0.1:7860", headers=headers)


NUMBERS = iter(range(1_000_000))


def parts(mask: Any = MASK, region: Any = None, **asked: Any) -> dict[str, Any]:
    """The arguments of a post to /api/generate."""
    asked = {"client": "c", "lane": "image", "number": next(NUMBERS), **asked}
    files = {
        "mask": ("../../x.png", mask if isinstance(mask, bytes) else encode_image(mask, "png"))
    }
    if region is not None:
        files["region"] = ("region.png", encode_image(region, "png"))
    return {"files": files, "data": {"request": json.dumps(asked)}}


def pixels(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_state_says_what_is_open(page: Any, studio: Studio) -> None:
    state = page.get("/api/state").json()
    fast, slow = state["models"]
    assert state["version"] == semsynth.__version__
    assert state["limits"] == {"upload_bytes": 20 << 20, "side": 4096}
    assert (fast["default"], slow["default"]) == (True, False)
    assert (fast["evaluations"], slow["evaluations"], slow["steps"]) == (1, None, 20)
    assert fast["size"] == [16, 24] and fast["unlabelled"] == 0
    assert [label["name"] for label in fast["labels"]] == ["void", "road", "sky", "car"]
    assert fast["labels"][0]["ignored"] and fast["labels"][0]["color"] == [0, 0, 0]
    assert not fast["partial"] and "region dropout" in fast["why_not_partial"]


def test_a_model_of_the_packages_labels_has_an_example(page: Any, model_path: Any) -> None:
    none = page.get("/api/example")
    assert none.status_code == 404 and "example" in none.json()["error"]
    assert not page.get("/api/state").json()["models"][0]["example"]
    # Its ids are not those of the example's files.
    names = {0: "unlabelled", 11: "building", 12: "land", 13: "road", 14: "vegetation", 5: "water"}
    labels = LabelSet.from_names(names, ignore_id=0)
    path = model_path("of the examples", labels, evaluations=1)
    other = Studio(AppConfig(model=(str(path),), device="cpu", token=False))
    answer = TestClient(build(other), base_url="http://localhost").get("/api/example?model=m0")
    mask = pixels(answer)
    assert mask.shape == (16, 24) and set(np.unique(mask)) <= names.keys()
    assert len(np.unique(mask)) >= 3
    assert other.state()["models"][0]["example"]
    other.close()


def test_an_image_has_the_bytes_of_the_pipeline(page: Any, studio: Studio) -> None:
    answer = page.post("/api/generate", **parts(seed=4))
    pipe = SemanticDiffusionPipeline.from_checkpoint(studio.default.path, device="cpu")
    assert np.array_equal(pixels(answer), np.asarray(pipe(MASK, seeds=[4]).images[0]))
    kept = studio.results.get(answer.headers["X-Semsynth-Result"])
    assert np.array_equal(kept.mask_HW, MASK)  # the server has the canvas to the pixel
    assert float(answer.headers["X-Semsynth-Seconds"]) == pytest.approx(kept.seconds, abs=1e-3)
    assert answer.headers["X-Semsynth-Note"] == ""
    live = page.post("/api/generate", **parts(seed=4, quality="live"))
    assert live.content == answer.content  # the fast model's only sampler
    deep = page.post("/api/generate", **parts(MASK.astype(np.uint16), seed=4))
    assert deep.content == answer.content


def test_a_note_is_one_encoded_line(page: Any) -> None:
    answer = page.post("/api/generate", **parts(MASK.repeat(2, 0)))
    assert unquote(answer.headers["X-Semsynth-Note"]) == "mask scaled from 24x32 to 24x16"


def test_from_a_result_with_the_rest_kept(page: Any) -> None:
    first = page.post("/api/generate", **parts(seed=1))
    region = np.zeros(MASK.shape, np.uint8)
    region[:, :4] = 255
    source = first.headers["X-Semsynth-Result"]
    kept = page.post("/api/generate", **parts(MASK, region, seed=2, source=source, keep=True))
    assert np.array_equal(pixels(kept)[:, 12:], pixels(first)[:, 12:])
    gone = page.post("/api/generate", **parts(seed=2, source="no-such-result", strength=0.5))
    assert gone.status_code == 404 and "no longer kept" in gone.json()["error"]


def test_an_uploaded_image_can_be_started_from(page: Any) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((32, 48, 3), 120, np.uint8)).save(file, "JPEG")
    answer = page.post("/api/upload", files={"file": ("c:\\x.jpg", file.getvalue())})
    given = answer.json()
    assert given["size"] == [32, 48]
    assert pixels(page.get(f"/api/uploads/{given['id']}/image")).shape == (32, 48, 3)
    started = page.post("/api/generate", **parts(source=given["id"], strength=0.5))
    assert "image scaled" in unquote(started.headers["X-Semsynth-Note"])
    assert page.get("/api/uploads/nothing/image").status_code == 404
    bad = page.post("/api/upload", files={"file": ("x.gif", b"GIF89a")})
    assert bad.status_code == 400 and "is not a PNG, JPEG, WebP" in bad.json()["error"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"sead": 1}, "did you mean 'seed'"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": "1"}, "whole number"),
        ({"number": None}, "number"),
        ({"quality": "best"}, "quality"),
        ({"client": ""}, "client"),
        ({"lane": "x" * 65}, "lane"),
        ({"variation": {"seed": 1, "amount": 2}}, "amount"),
        ({"strength": 0.5}, "source"),
        ({"steps": 20}, "1 evaluation"),
        ({"keep": True}, "region"),
    ],
    ids=str,
)
def test_wrong_requests_are_one_line(page: Any, asked: dict[str, Any], says: str) -> None:
    answer = page.post("/api/generate", **parts(**asked))
    assert answer.status_code == 400
    assert says in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_wrong_bodies_are_one_line(page: Any) -> None:
    good = parts()
    cases = [
        (page.post("/api/generate"), "the part request is missing"),
        (page.post("/api/generate", data=good["data"]), "the part mask is missing"),
        (page.post("/api/generate", files=good["files"]), "the part request is missing"),
        (page.post("/api/generate", files=good["files"], data={"request": "{"}), "not JSON"),
        (page.post("/api/generate", files=good["files"], data={"request": "[]"}), "JSON object"),
        (page.post("/api/generate", **parts(b"no image")), "is not a PNG"),
        (page.post("/api/cancel", content=b"\xff"), "not JSON"),
        (page.post("/api/cancel", json={"client": "c"}), "lane"),
    ]
    for answer, says in cases:
        assert answer.status_code == 400 and says in answer.json()["error"], answer.text
    assert page.post("/api/generate", **parts(model="m7")).status_code == 404
    assert page.get("/api/generate").status_code == 405
    large = np.zeros((4097, 4), np.uint8)
    assert page.post("/api/generate", **parts(large)).status_code == 413


@pytest.mark.parametrize(
    "path",
    ["/static/../config.py", "/static/%2e%2e/config.py", "/static//etc/passwd", "/..%2fetc/passwd"],
)
def test_no_other_file_is_readable(page: Any, path: str) -> None:
    answer = page.get(path)
    assert answer.status_code == 404 and "error" in answer.json()


def held(studio: Studio) -> Event:
    """Keep the worker busy until the event is set."""
    begun, go = Event(), Event()

    def hold(turn: Turn) -> None:
        begun.set()
        assert go.wait(60)

    studio.submit(hold, "test", "hold")
    assert begun.wait(20)
    return go


def test_a_newer_request_wins_and_positions_are_seen(page: Any, studio: Studio) -> None:
    go = held(studio)
    answers: dict[str, Any] = {}

    def post(name: str, lane: str) -> threading.Thread:
        arguments = parts(lane=lane)

        def run() -> None:
            answers[name] = page.post("/api/generate", **arguments)

        thread = threading.Thread(target=run)
        thread.start()
        while lane not in page.get("/api/queue?client=c").json()["lanes"]:
            assert name not in answers
        return thread

    threads = [post("older", "image"), post("other", "compare")]
    lanes = page.get("/api/queue?client=c").json()["lanes"]
    assert {lane: found["position"] for lane, found in lanes.items()} == {"image": 1, "compare": 2}
    assert page.get("/api/queue?client=somebody").json() == {"lanes": {}}
    threads.append(post("newer", "image"))
    threads[0].join(20)
    assert answers["older"].status_code == 409
    cancelled = page.post("/api/cancel", json={"client": "c", "lane": "compare"})
    assert cancelled.json() == {"cancelled": True}
    go.set()
    for thread in threads:
        thread.join(60)
    assert answers["other"].status_code == 409 and answers["newer"].status_code == 200


def test_a_full_queue_is_said(page: Any, studio: Studio) -> None:
    go = held(studio)
    turns = [studio.submit(lambda turn: None, "test", f"wait {index}") for index in range(8)]
    answer = page.post("/api/generate", **parts(lane="one more"))
    assert answer.status_code == 429 and "8 images wait" in answer.json()["error"]
    go.set()
    for turn in turns:
        turn.done.result(20)


def test_in_a_notebook_it_runs_beside_the_cells(fast_path: Path) -> None:
    with semsynth.launch_app(fast_path, port=0, device="cpu") as app:
        base, _, token = app.url.partition("?token=")
        shown = app._repr_html_()
        assert f'src="{app.url}"' in shown and shown.startswith("<iframe")
        assert token in repr(app)
        headers = {"X-Semsynth-Token": token}
        with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
            state = client.get("/api/state")
            assert state.json()["models"][0]["name"] == "fast"
            # Notebooks show it in a frame, from wherever they are.
            assert "frame-ancestors" not in state.headers["Content-Security-Policy"]
            assert pixels(client.post("/api/generate", **parts(seed=4))).shape == (16, 24, 3)
            assert client.get("/api/state", headers={"X-Semsynth-Token": "x"}).status_code == 401
    with pytest.raises(httpx.ConnectError):
        httpx.get(base)


def test_a_notebook_behind_a_proxy_shows_the_proxys_path(fast_path: Path) -> None:
    root = "/user/me/proxy/7860"
    with semsynth.launch_app(fast_path, port=0, device="cpu", root_path=root) as app:
        assert f'src="{root}/?token=' in app._repr_html_()

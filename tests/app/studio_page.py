"""What a page does, and images as the server makes them for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import edit_scenes
import numpy as np
import torch
from starlette.testclient import TestClient

from semsynth import SemanticDiffusionPipeline
from semsynth.app.render import Canvas, Order, Source, check_source, prepare
from semsynth.app.results import Result
from semsynth.app.studio import Studio
from semsynth.app.transplants import Transplant
from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.config import ModelConfig
from semsynth.pipelines.formats.model_file import ModelFile, build_network, save_model_file

HEIGHT, WIDTH = edit_scenes.SIZE
STREET = edit_scenes.STREET


def write_model(path: Path, labels: LabelSet, edges: bool = False, **metadata: Any) -> Path:
    """An untrained network whose images depend on all of its inputs."""
    model = ModelConfig.model_validate({
        "codec": "haar", "haar_levels": 1, "base_channels": 16, "channel_mult": [1, 2],
        "blocks_per_level": 1, "attention_factors": [2], "head_channels": 16, "spade_hidden": 8,
        "instance_edges": edges,
    })  # fmt: skip
    config = DiffusionConfig.model_validate({})
    torch.manual_seed(0)
    unet, _ = build_network(model, config, labels.num_channels)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    facts = {"licence": "CC BY 4.0", "dataset": "toys", "step": 7, **metadata}
    save_model_file(path, ModelFile(model, config, labels, HEIGHT, WIDTH, unet.state_dict(), facts))
    return path


class Page:
    """What a page does."""

    def __init__(self, studio: Studio, client: TestClient) -> None:
        self.studio, self.client, self.number = studio, client, 0

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(path, params=query)

    def png(self, path: str, **query: Any) -> np.ndarray:
        answer = self.get(path, **query)
        assert answer.status_code == 200, answer.text
        return decoded(answer.content)

    def ask(self, mask: np.ndarray, region: Any = None, instances: Any = None, **order: Any) -> Any:
        self.number += 1
        fixed = {"client": "test", "lane": "image", "number": self.number, "steps": 2}
        maps = {"mask": mask, "region": region, "instances": instances}
        files = {
            name: (f"{name}.png", encoded(values), "image/png")
            for name, values in maps.items()
            if values is not None
        }
        request = {"request": json.dumps({**fixed, **order})}
        return self.client.post("/api/generate", data=request, files=files)

    def generate(self, mask: np.ndarray, **order: Any) -> str:
        answer = self.ask(mask, **order)
        assert answer.status_code == 200, answer.text
        return answer.headers["X-Semsynth-Result"]

    def with_mask(self, path: str, mask: np.ndarray, **request: Any) -> Any:
        files = {"mask": ("mask.png", encoded(mask), "image/png")}
        return self.client.post(path, data={"request": json.dumps(request)}, files=files)

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(path, json=body)


def encoded(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def decoded(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 else pixels


def error(answer: Any) -> str:
    line = answer.json()["error"]
    assert "\n" not in line
    return f"{answer.status_code} {line}"


def assert_same_bytes_again(page: Page, result: str) -> str:
    shown = page.get(f"/api/results/{result}/image").content
    text: str = page.post("/api/python", result=result).text
    exec(compile(text, "copied", "exec"), {})
    assert np.array_equal(cv2.imread("image.png")[..., ::-1], decoded(shown))
    Path("image.png").unlink()
    return text


def wait_for_index(page: Page) -> None:
    while (found := page.get("/api/data", limit=0).json())["indexed"] < found["of"]:
        pass


MASK = np.random.default_rng(0).choice(np.array([1, 2, 9], np.uint8), (16, 24))


def make(
    studio: Studio,
    model: str = "m0",
    mask: Any = MASK,
    region: Any = None,
    source: Any = None,
    instances: Any = None,
    placed: tuple[Transplant, ...] = (),
    **asked: Any,
) -> Result:
    chosen = studio.model(model)
    given = None if source is None else Source(check_source(source, chosen))
    order = Order(client="c", lane="l", number=0, model=model, **asked)
    rendering = prepare(chosen, order, Canvas(mask, region, instances, placed), given)
    turn = studio.submit(rendering.run, "c", "l")
    result: Result = turn.done.result(60)
    assert turn.step == turn.steps or order.strength
    return result


def pipeline(studio: Studio, model: str) -> SemanticDiffusionPipeline:
    return SemanticDiffusionPipeline.from_checkpoint(studio.model(model).path, device="cpu")

"""Small raw data sets in the forms that sources take."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_folders import Made

from semsynth.cli import main

LABELS = """
name: blocks
licence: CC0-1.0
ignore: 0
labels:
  0: {name: nothing, color: [0, 0, 0]}
  1: {name: road, color: [128, 64, 128]}
  2: {name: sky, color: [70, 130, 180]}
  5: {name: car, color: [0, 0, 142], thing: true}
"""
IDS = np.array([0, 1, 2, 5], np.uint8)


def image(seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """An image of coloured blocks, (H, W, 3) uint8."""
    blocks = np.random.default_rng(seed).integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8)
    return blocks.repeat(4, 0).repeat(4, 1)


def mask(seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """A mask of blocks, (H, W) uint8."""
    blocks = np.random.default_rng(seed).integers(0, 4, (size[0] // 4, size[1] // 4))
    return IDS[blocks].repeat(4, 0).repeat(4, 1)


@dataclass
class RawSet:
    """A folder with images/, masks/ and labels.yaml."""

    root: Path

    def add(self, stem: str, image: np.ndarray, ids: np.ndarray, split: str = "") -> None:
        self.save(f"images/{split}/{stem}.png", image)
        self.save(f"masks/{split}/{stem}.png", ids)

    def save(self, name: str, pixels: np.ndarray | Image.Image, **options: Any) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        opened.save(path, **options)
        return path


@pytest.fixture
def raw(tmp_path: Path) -> RawSet:
    """Six images of 32x24 with masks and labels."""
    made = RawSet(tmp_path / "raw")
    for number in range(6):
        made.add(f"walk{number // 2}_{number}", image(number), mask(number))
    (made.root / "labels.yaml").write_text(LABELS)
    return made


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command line; gives its status and the only line on stderr."""

    def run(*words: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) <= 1, lines
        return status, lines[0] if lines else ""

    return run


def encode(pixels: np.ndarray, kind: str) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return {"bytes": stream.getvalue(), "path": None}


@pytest.fixture
def hub_copy(tmp_path: Path) -> Callable[..., Path]:
    """Write a local data set with the schema of segments/sidewalk-semantic."""

    def write(images: list[np.ndarray], masks: list[np.ndarray], names: list[str]) -> Path:
        import datasets

        root = tmp_path / "hub"
        (root / "data").mkdir(parents=True)
        features = datasets.Features({"pixel_values": datasets.Image(), "label": datasets.Image()})
        rows = {
            "pixel_values": [encode(image, "JPEG") for image in images],
            "label": [encode(ids, "PNG") for ids in masks],
        }
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(root / "data" / "train-00000-of-00001.parquet")
        stored = {str(i): name for i, name in enumerate(names)}
        (root / "id2label.json").write_text(json.dumps(stored))
        return root

    return write


@pytest.fixture
def blocks() -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
    """The functions that make images and masks from a seed."""
    return image, mask


@pytest.fixture
def made(tmp_path: Path, blocks: Any) -> Made:
    """A folder of raw data of any layout."""
    return Made(tmp_path / "data", blocks)

"""Made-up trees of the published data sets that are cut into tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.prepare.run import prepare
from semsynth.data.raw.tiles import TiledSource
from semsynth.data.sources import open_source

SIDE = 32


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def run(root: Path, source: Any, output: str = "prepared", **flags: Any) -> PreparedDataset:
    values = {"height": SIDE, "width": SIDE, "workers": 1, **flags}
    return prepare(PrepareConfig(source=source, data=root, output=root.parent / output, **values))


def source_of(root: Path, source: Any, **flags: Any) -> TiledSource:
    found = open_source(PrepareConfig(source=source, data=root, height=SIDE, width=SIDE, **flags))
    assert isinstance(found, TiledSource)
    return found


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Return smooth noise (height, width) from 0 to 1: its neighbouring rows are alike."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 5)
    return (smooth - smooth.min()) / np.ptp(smooth)

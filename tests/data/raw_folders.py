"""What tests of layouts need: raw folders whose content is known, and what was read of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semsynth.data.config import PrepareConfig
from semsynth.data.raw.source import Source
from semsynth.data.sources import open_source

LAYOUTS = Path(__file__).parent / "layouts"
COLORS = {0: (0, 0, 0), 1: (128, 64, 128), 2: (70, 130, 180), 5: (0, 0, 142)}
LABELS = "labels: {0: nothing, 1: road, 2: sky, 5: car}\n"
Blocks = tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]


def opened(path: Path, **flags: Any) -> Source:
    return open_source(PrepareConfig(path=path, height=24, width=32, **flags))


def stems(source: Source) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in source.records():
        found.setdefault(record.split, set()).add(record.stem)
    return found


def left_out(source: Source) -> dict[str, str]:
    assert source.tree is not None
    return {name: reason for name, reason in source.tree.inventory().items() if reason}


def notes(source: Source) -> str:
    assert source.layout is not None
    return " | ".join(source.layout.notes)


class Made:
    """A folder of raw data; what is saved under a seed is known."""

    def __init__(self, root: Path, blocks: Blocks) -> None:
        self.root, self.image, self.mask = root, *blocks

    def save(self, name: str, pixels: np.ndarray | Image.Image, **options: Any) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(path, **options)

    def text(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def pairs(self, image: str, mask: str, seeds: Any = range(6)) -> None:
        for seed in seeds:
            self.save(image.format(seed), self.image(seed))
            self.save(mask.format(seed), self.mask(seed))

    def colored(self, seed: int) -> np.ndarray:
        lut = np.zeros((6, 3), np.uint8)
        for i, color in COLORS.items():
            lut[i] = color
        return lut[self.mask(seed)]

    def palette(self, seed: int, colors: dict[int, tuple[int, int, int]] = COLORS) -> Image.Image:
        image = Image.fromarray(self.mask(seed), mode="P")
        table = np.zeros((256, 3), np.uint8)
        for i, color in colors.items():
            table[i] = color
        image.putpalette(table.ravel().tolist())
        return image

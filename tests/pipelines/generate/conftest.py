from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import RGB, PixelForm
from semsynth.data.labels import Array, LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter
from semsynth.diffusion.config import SamplerSettings

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 7: "car"}, ignore_id=0)
HEIGHT, WIDTH = 16, 24


def write_prepared(
    folder: Path,
    n: int = 3,
    split: str = "val",
    *,
    images: bool = True,
    labels: LabelSet = LABELS,
    original_sizes: Sequence[tuple[int, int]] = ((32, 48),),
) -> PreparedDataset:
    """Write ``n`` images: sky above road, a car, a column of void; each class in its colour."""
    writer = PreparedWriter(folder, PreparedFormat(labels, HEIGHT, WIDTH), "prepared", {"n": n})
    ids = list(labels.by_id)
    for i in range(n):
        mask = np.full((HEIGHT, WIDTH), ids[2], np.uint8)
        mask[6 + i :] = ids[1]
        mask[8:12, 4 + i : 10 + i] = ids[3]
        mask[:, -2:] = ids[0]
        image = draw_image(mask, seed=i) if images else None
        size = original_sizes[i % len(original_sizes)]
        writer.write_pair(split, f"street_{i}", image, mask, size)
    return writer.finish("toy", "made here", "CC BY-NC 4.0")


def draw_image(mask: Array, seed: int) -> Array:
    noise = np.random.default_rng(seed).integers(0, 40, (*mask.shape, 3))
    return (mask[..., None] * np.array([25, 20, 10]) + noise).astype(np.uint8)


@dataclass
class FakeGenerator:
    """Gives each id a colour of its own, with noise that depends on the seed alone."""

    labels: LabelSet = LABELS
    height: int = HEIGHT
    width: int = WIDTH
    checkpoint_sha256: str = "c" * 64
    licence: str = "CC BY-NC 4.0"
    instance_edges: bool = False
    pixels: PixelForm = RGB
    stop_after: int | None = None
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def generate(
        self,
        mask_BHW: Array,
        seeds: Sequence[int],
        settings: SamplerSettings,
        edges_BHW: Array | None = None,
    ) -> Array:
        if self.stop_after is not None and len(self.shapes) >= self.stop_after:
            raise KeyboardInterrupt
        self.shapes.append(mask_BHW.shape)
        self.seeds += list(seeds)
        images = [draw_image(mask, seed) for mask, seed in zip(mask_BHW, seeds, strict=True)]
        return np.stack(images)


@pytest.fixture
def write_toy() -> Callable[..., PreparedDataset]:
    """Writes a small prepared data set of 24x16 images."""
    return write_prepared


@pytest.fixture
def fake() -> type[FakeGenerator]:
    """Makes generators that need no network."""
    return FakeGenerator

"""Peak memory and time of generating one image with a recipe's network, its weights random.

    python benchmarks/memory.py --recipe sidewalk_1024 --steps 2

`semsynth generate --batch-size 1` runs in a process of its own, whose largest resident set counts:
Python and libraries, weights, conditions and activations. Random weights take the memory of
trained ones; the images are noise.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter
from semsynth.pipelines.formats.model_file import ModelFile, fresh_network, save_model_file
from semsynth.training.recipe import load_recipe


@dataclass(frozen=True)
class MemoryConfig:
    """Measure the peak memory of generating one image."""

    recipe: str = "sidewalk_1024"
    """Recipe of the network."""
    height: int | None = None
    """Height of the image; the recipe's by default."""
    width: int | None = None
    """Width of the image; the recipe's by default."""
    classes: int = 34
    """Condition channels (sidewalk-semantic: 34)."""
    steps: int = 2
    """Denoising steps; the peak is reached in the first."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Of semsynth generate."""
    cache: Literal["auto", "full", "off"] = "auto"
    """Of semsynth generate."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.steps < 1:
            raise UserError(f"--steps is {self.steps}: must be at least 1")


def main(argv: list[str]) -> int:
    """Run the benchmark and print its numbers."""
    config, as_json = parse(MemoryConfig, argv, "memory bench")
    with TemporaryDirectory() as folder:
        return finish(measure(config, Path(folder)), as_json)


def measure(config: MemoryConfig, folder: Path) -> dict[str, Any]:
    """Return peak memory in GB (1e9 bytes), and seconds."""
    recipe = load_recipe(config.recipe)
    size = (config.height or recipe.height, config.width or recipe.width)
    names = {i: f"class {i}" for i in range(config.classes + 1)}
    labels = LabelSet.from_names(names, ignore_id=config.classes)
    unet = fresh_network(recipe.model, recipe.diffusion_config, labels.num_channels)
    for parameter in unet.parameters():  # the last layers of a fresh network are zero
        torch.nn.init.normal_(parameter, std=0.01)
    bundle = ModelFile(
        recipe.model,
        recipe.diffusion_config,
        labels,
        recipe.height,
        recipe.width,
        unet.state_dict(),
    )
    save_model_file(folder / "final_model.pth", bundle)
    parameters = sum(p.numel() for p in unet.parameters())
    del unet, bundle
    writer = PreparedWriter(folder / "masks", PreparedFormat(labels, *size))
    writer.write_pair("val", "one", None, _mask(size, config.classes))
    writer.finish("blocks", "made here", "CC0-1.0")
    words = {"model": folder / "final_model.pth", "data": folder / "masks", "per-mask": 1}
    words |= {"output": folder / "samples", "batch-size": 1, "steps": config.steps}
    words |= {"precision": config.precision, "cache": config.cache, "device": "cpu"}
    flags = [f"--{name}={value}" for name, value in words.items()]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "semsynth", "generate", *flags], check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise UserError(f"semsynth generate ended with status {done.returncode}")
    # Linux counts kilobytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return {
        "recipe": config.recipe,
        "image": f"{size[0]}x{size[1]}",
        "parameters": parameters,
        "steps": config.steps,
        "precision": config.precision,
        "cache": config.cache,
        "threads": torch.get_num_threads(),
        "peak_GB": round(peak / 1e9, 2),
        "seconds": round(seconds, 1),
    }


def _mask(size: tuple[int, int], classes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return blocks of all classes, with thin lines between them."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    mask = (rows // 97 * 7 + columns // 61 * 3) % classes
    mask[:, ::61] = classes - 1
    ids: np.ndarray[Any, np.dtype[np.uint8]] = mask.astype(np.uint8)
    return ids


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

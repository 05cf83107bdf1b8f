"""Speed of rendering streets, training a recipe and generating images (`make bench`)."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.prepare.run import prepare
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig, load_recipe

LOG_EVERY = 10


@dataclass(frozen=True)
class BenchConfig:
    """Measure images per second of each stage, without start-up."""

    recipe: str = "streets_demo"
    """Recipe whose size and network are measured."""
    steps: int = 40
    """Training steps, 20 or more; the first 10 are not measured."""
    images: int = 32
    """Number of streets to render, and of images to generate."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.steps < 2 * LOG_EVERY:
            raise UserError(f"--steps is {self.steps}: must be at least {2 * LOG_EVERY}")
        if self.images < 1:
            raise UserError(f"--images is {self.images}: must be at least 1")


def main(argv: list[str]) -> int:
    """Run the benchmark and print the results."""
    config, as_json = parse(BenchConfig, argv, "bench")
    with tempfile.TemporaryDirectory(prefix="semsynth-bench-") as folder:
        return finish(measure(config, Path(folder)), as_json)


def measure(config: BenchConfig, folder: Path) -> dict[str, float | str]:
    """Return images per second of rendering (all cores), training and sampling (20 steps)."""
    recipe = load_recipe(config.recipe)
    data, run = folder / "data", folder / "run"
    street = PrepareConfig(
        source="streets",
        output=data,
        height=recipe.height,
        width=recipe.width,
        train_count=config.images,
        val_count=config.images,
    )
    start = time.perf_counter()
    prepare(street)
    rendering = 2 * config.images / (time.perf_counter() - start)
    changes = (f"train.steps={config.steps}", "finetune.steps=0", f"train.log_every={LOG_EVERY}")
    train(TrainConfig(config.recipe, data, run, set=changes))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    speeds = [line["images_per_second"] for line in lines if "images_per_second" in line][1:]
    # The first call, of one image, loads and compiles everything.
    warm_up = GenerateConfig(run / "final_model.pth", data, folder / "warm", per_mask=1, limit=1)
    generate(warm_up)
    start = time.perf_counter()
    generate(GenerateConfig(run / "final_model.pth", data, folder / "samples", per_mask=1))
    sampling = config.images / (time.perf_counter() - start)
    return {
        "recipe": config.recipe,
        "size": f"{recipe.width}x{recipe.height}",
        "rendering": round(rendering, 2),
        "training": round(sum(speeds) / len(speeds), 2),
        "sampling": round(sampling, 2),
    }


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

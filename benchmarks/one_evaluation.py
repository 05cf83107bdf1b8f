"""One image of a distilled model on one core: encoding the mask, the network, decoding to pixels.

Only the file's number of evaluations matters, not its weights: a model that is not distilled is
measured as if it were. The median of CPU time, warm: other work on the machine does not count.

    python benchmarks/one_evaluation.py --model run/final_model.pth
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import UserError


@dataclass(frozen=True)
class BenchConfig:
    """Measure one image in a few evaluations."""

    model: Path
    """A trained model: its file, folder or name."""
    evaluations: Literal[1, 2, 4] = 1
    """Evaluations of the network for an image."""
    height: int | None = None
    """Height of the image; the model's by default."""
    width: int | None = None
    """Width of it."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """What is computed in."""
    repeats: int = 20
    """The median of so many images."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.repeats < 1:
            raise UserError("--repeats must be at least 1")


def main(argv: list[str]) -> int:
    """Run the benchmark and print milliseconds."""
    config, as_json = parse(BenchConfig, argv, "bench")
    return finish(measure(config), as_json)


def measure(config: BenchConfig) -> dict[str, Any]:
    """Return the milliseconds of an image and of its parts."""
    import numpy as np
    import torch

    from semsynth.diffusion.config import DiffusionConfig, SamplerSettings
    from semsynth.diffusion.schedule import NoiseLevel
    from semsynth.pipelines.formats.model_file import load_checkpoint
    from semsynth.pipelines.synthesizer import Synthesizer

    torch.set_num_threads(1)
    file = load_checkpoint(config.model)
    values = {**file.diffusion.model_dump(), "evaluations": config.evaluations}
    file = replace(file, diffusion=DiffusionConfig.model_validate(values))
    parts = Synthesizer.from_model_file(file)
    precision = parts.set_precision(config.precision)
    size = (config.height or file.height, config.width or file.width)
    ids = np.array([label.id for label in file.labels.trainable])
    mask = np.random.default_rng(0).choice(ids, (1, size[0] // 8, size[1] // 8))
    mask = mask.repeat(8, 1).repeat(8, 2)  # blocks of 8 pixels
    edges = np.zeros_like(mask) if file.model.instance_edges else None
    size = (mask.shape[1], mask.shape[2])
    condition = parts.encode(mask, edges)
    settings = SamplerSettings().of_model(config.evaluations)
    noise = parts.noise(size, [torch.Generator().manual_seed(0)], None)
    denoise = parts.denoiser(condition, parts.latent_size(size), settings)
    runs: dict[str, Callable[[], Any]] = {
        "image": lambda: parts.generate(mask, [0], None, edges),
        "encoding the mask": lambda: parts.encode(mask, edges),
        "an evaluation": lambda: denoise(noise, NoiseLevel(999.0, 0.0, 1.0)),
        "decoding": lambda: parts.decode(noise, size),
    }
    with torch.no_grad():
        found = {name: _milliseconds(run, config.repeats) for name, run in runs.items()}
    return {"size": list(size), "precision": precision, "evaluations": config.evaluations,
            "milliseconds": found}  # fmt: skip


def _milliseconds(run: Callable[[], Any], repeats: int) -> float:
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        before = time.process_time()
        run()
        times.append(time.process_time() - before)
    return round(1e3 * median(times), 1)


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

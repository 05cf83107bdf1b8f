"""Compare training objectives at equal compute: same network, data, steps, seed and sampler steps.

    python benchmarks/objectives.py --data prepared --segmenter segmenter --output out

Colour drift is measured against the real images of the same masks, in 8-bit levels:
``drift``: distance of the mean colour of all generated images from that of all real ones;
``spread``: standard deviation of the images' mean colours, divided by that of the real ones (above
1: single images drift; below 1: they are too similar); ``class_drift``: mean over the classes of
the distance of their mean colours.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.run import evaluate
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate
from semsynth.training.loop import train
from semsynth.training.recipe import TrainConfig

FLOW = ("loss.prediction=flow_prediction", "diffusion.schedule=flow")
ARMS: dict[str, tuple[str, ...]] = {
    "epsilon, linear": ("loss.prediction=epsilon", "diffusion.schedule=linear"),
    "epsilon, cosine": ("loss.prediction=epsilon",),
    "epsilon, cosine, min-SNR": ("loss.prediction=epsilon", "loss.weighting=min_snr"),
    "v, cosine": ("loss.prediction=v_prediction",),
    "x0, cosine, min-SNR": ("loss.weighting=min_snr",),
    # The weight of x0's error in the loss of v, SNR + 1, with an upper limit.
    "x0, cosine, at most 100": ("loss.sigma_min=0.1",),
    "x0, cosine, at most 10": ("loss.sigma_min=0.316",),
    "x0, cosine, at most 5": ("loss.sigma_min=0.447",),
    "x0, cosine, at most 100, shift 2": ("diffusion.shift=2.0", "loss.sigma_min=0.1"),
    "x0, linear, at most 100": ("diffusion.schedule=linear", "loss.sigma_min=0.1"),
    "flow, logit-normal": (
        *FLOW, "loss.timesteps=logit_normal",
    ),
    "flow, uniform": FLOW,
}  # fmt: skip


@dataclass(frozen=True)
class ObjectivesConfig:
    """Train the same network with each objective and score its images."""

    data: Path
    """Prepared data set with train and val."""
    segmenter: Path
    """The evaluator: a segmenter trained on real images."""
    output: Path
    """Folder of runs, samples and results; finished arms are skipped."""
    recipe: str = "streets_demo"
    """Recipe whose network and steps are used."""
    arms: tuple[str, ...] = tuple(ARMS)
    """Which objectives."""
    set: tuple[str, ...] = ()
    """Changes of the recipe, as section.key=value."""
    sampler: str = "dpm++"
    """Sampler (dpm++, unipc and euler work with all objectives)."""
    steps: int = 20
    """Sampler steps."""
    guidance_scale: float = 1.5
    """Guidance scale."""
    per_mask: int = 2
    """Images for each mask."""


def main(argv: list[str]) -> int:
    """Run the arms that are not finished and print the table."""
    config, as_json = parse(ObjectivesConfig, argv, "objectives")
    unknown = sorted(set(config.arms) - set(ARMS))
    if unknown:
        raise UserError(f"--arms {unknown[0]}: unknown; known are {'; '.join(ARMS)}")
    rows = {arm: run_arm(config, arm) for arm in config.arms}
    print(f"{'objective':28} {'mIoU':>6} {'distance':>9} {'drift':>6} {'spread':>7} {'class':>6}")
    for arm, row in rows.items():
        numbers = [row[k] for k in ("miou", "fd_segmenter", "drift", "spread", "class_drift")]
        print(f"{arm:28} {numbers[0]:6.3f} {numbers[1]:9.2f} " + "".join(
            f" {number:6.2f}" for number in numbers[2:]))  # fmt: skip
    return finish({"arms": rows}, as_json)


def run_arm(config: ObjectivesConfig, arm: str) -> dict[str, float]:
    """Train with one objective, generate and score images; return the scores."""
    folder = config.output / arm.replace(", ", "_").replace(" ", "-")
    result = folder / "result.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    changes = ARMS[arm] + config.set
    train(TrainConfig(config.recipe, config.data, folder / "run", set=changes))
    generation = GenerateConfig(
        folder / "run" / "final_model.pth", config.data, folder / "samples",
        per_mask=config.per_mask, sampler=config.sampler, steps=config.steps,  # type: ignore[arg-type]
        guidance_scale=config.guidance_scale,
    )  # fmt: skip
    generate(generation)
    report = evaluate(
        EvaluateConfig(
            samples=generation.output, data=config.data, output=folder / "report",
            segmenter=config.segmenter, download=False,
        )
    )  # fmt: skip
    metrics = report["metrics"]
    row = {
        "miou": metrics["semantic_consistency"]["miou"],
        "fd_segmenter": metrics["frechet"]["fd_segmenter"]["value"],
        **colour_drift(PreparedDataset.open(generation.output), PreparedDataset.open(config.data)),
    }
    result.write_text(json.dumps(row))
    return row


def colour_drift(samples: PreparedDataset, data: PreparedDataset) -> dict[str, float]:
    """Return drift, spread and class_drift of generated images; see the module."""
    generated, real = _colours(samples), _colours(data)
    spread = generated[0].std(0).mean() / real[0].std(0).mean()
    both = (generated[2] > 0) & (real[2] > 0)
    means = [sums[both] / counts[both, None] for _, sums, counts in (generated, real)]
    return {
        "drift": float(np.linalg.norm(generated[0].mean(0) - real[0].mean(0))),
        "spread": float(spread),
        "class_drift": float(np.linalg.norm(means[0] - means[1], axis=1).mean()),
    }


def _colours(data: PreparedDataset) -> tuple[npt.NDArray[np.float64], ...]:
    """Mean colour of each image (N, 3); sum of colours (K, 3) and pixels (K,) of each class."""
    size = data.labels.max_id + 1
    images, sums, counts = [], np.zeros((size, 3)), np.zeros(size)
    for stem in data.stems("val"):
        image = data.read_image("val", stem).reshape(-1, 3).astype(np.float64)
        mask = data.read_mask("val", stem).reshape(-1)
        images.append(image.mean(0))
        counts += np.bincount(mask, minlength=size)
        sums += np.stack([np.bincount(mask, image[:, c], size) for c in range(3)], axis=1)
    return np.stack(images), sums, counts


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

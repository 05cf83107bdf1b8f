"""`semsynth demo`: the whole pipeline on the built-in streets, ending with a page of scores.

Every stage is the command of the same name with smaller numbers. Every stage resumes, and so does
the demo. Budgets are counted in steps and images, never in seconds: the results do not depend on
the speed of the machine. Nothing here imports torch before a stage runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from semsynth.core.files import read_json
from semsynth.core.logging import logger
from semsynth.core.outputs import claim_output_dir

# The Fréchet distance without a download: on the features of our own segmenter.
_FEATURES = "fd_segmenter"
_FILE_KEYS = {"real_images": "real_pictures"}


@dataclass(frozen=True)
class DemoBudget:
    """Sizes of the stages; the defaults fit ten minutes on two cores."""

    train_count: int = 1200
    """Streets to train on."""
    val_count: int = 100
    """Streets held out, for whose masks images are generated."""
    evaluator_steps: int = 1400
    """Training steps of the segmenter that evaluates."""
    train_steps: int | None = None
    """Training steps of the generator; the recipe's by default."""
    finetune_steps: int | None = None
    """Steps of its fine-tuning for guidance; the recipe's by default."""
    per_mask: int = 3
    """Images for each held-out mask."""
    sampler_steps: int = 10
    """Denoising steps of an image."""
    guidance_scale: float = 2.0
    """Classifier-free guidance; docs/log.md has the comparison that led to these two."""
    synthetic_count: int = 160
    """Images generated for the augmentation, one for each of so many training masks."""
    real_images: int = 20
    """Real images of the small-data experiment."""
    trials: int = 2
    """Its repetitions."""
    augment_steps: int = 250
    """Training steps of each of its segmenters."""


@dataclass(frozen=True)
class DemoConfig:
    """Run the whole pipeline on the built-in data set; about ten minutes on two cores."""

    output: Path = Path("./demo_output")
    """Folder of all results; run the same command again to resume."""
    recipe: str = "streets_demo"
    """Recipe of the generator."""
    seed: int = 0
    """Decides the streets, the images and the choices of the experiment."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""
    budget: DemoBudget = field(default_factory=DemoBudget)


@dataclass
class Demo:
    """A running demo: its folders, and the seconds that its stages took."""

    config: DemoConfig
    seconds: dict[str, float] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.config.output / name

    @property
    def model(self) -> Path:
        """The trained generator."""
        return self.folder("run") / "final_model.pth"


def run_demo(config: DemoConfig) -> dict[str, Any]:
    """Prepare, train, generate, evaluate, and measure what the images add to a segmenter.

    Writes ``prepared/``, ``segmenter/`` (for the evaluation), ``run/`` (the generator),
    ``samples/``, ``augment/`` and ``report/`` in ``config.output``. Finished stages are skipped.

    Returns:
        JSON values: page, output, numbers (the main ones; None if one could not be computed),
        seconds by stage, peak_memory_gb.

    Raises:
        UserError: from any stage, or the output folder belongs to something else.
    """
    key = {k: v for k, v in asdict(config).items() if k not in ("output", "device")}
    # Keys in files keep their names.
    key["budget"] = {_FILE_KEYS.get(k, k): v for k, v in key["budget"].items()}
    claim_output_dir(config.output, "demo", key)
    demo = Demo(config)
    logger.info(f"semsynth demo: street scenes from masks; everything goes to {config.output}/")
    logger.info("(if it is interrupted, the same command resumes)")
    stages: list[tuple[str, str, Callable[[Demo], None]]] = [
        ("prepare", "Streets: render images and masks", _prepare),
        ("evaluator", "Segmenter for evaluation: train on the real images", _evaluator),
        ("train", "Generator: train, then fine-tune for guidance", _train),
        ("generate", "Images: generate from held-out masks", _generate),
        ("augment", "Augmentation: few real images, with and without synthetic ones", _augment),
        ("evaluate", "Scores and page", _evaluate),
    ]
    for number, (name, title, run) in enumerate(stages, 1):
        with _stage(demo, name, f"[{number}/{len(stages)}] {title}"):
            run(demo)
    report = read_json(demo.folder("report") / "report.json")
    gain = read_json(demo.folder("augment") / "result" / "augmentation.json")
    numbers = headline(report, gain)
    memory = _peak_memory_gb()
    for line in _closing_lines(numbers, gain, sum(demo.seconds.values()), memory):
        logger.info(line)
    return {
        "output": str(config.output),
        "page": str(demo.folder("report") / "report.html"),
        "numbers": numbers,
        "seconds": demo.seconds,
        "peak_memory_gb": round(memory, 2),
    }


@contextmanager
def _stage(demo: Demo, name: str, title: str) -> Iterator[None]:
    logger.info(f"\n{title}")
    start = time.monotonic()
    yield
    demo.seconds[name] = round(time.monotonic() - start, 1)
    logger.info(f"      done in {_duration(demo.seconds[name])}")


def _prepare(demo: Demo) -> None:
    from semsynth.data.config import PrepareConfig
    from semsynth.data.prepare import prepare
    from semsynth.training.recipe import load_recipe

    recipe, budget = load_recipe(demo.config.recipe), demo.config.budget
    prepare(
        PrepareConfig(
            source="streets",
            output=demo.folder("prepared"),
            height=recipe.height,
            width=recipe.width,
            train_count=budget.train_count,
            val_count=budget.val_count,
            seed=demo.config.seed,
        )
    )


def _evaluator(demo: Demo) -> None:
    from semsynth.segmentation.config import SEGMENTER_FILE, SegmentTrainConfig

    # Written last and moved into place: if it exists, the training is finished.
    if (demo.folder("segmenter") / SEGMENTER_FILE).exists():
        return
    from semsynth.segmentation.train import train_segmenter

    train_segmenter(
        SegmentTrainConfig(
            data=demo.folder("prepared"),
            output=demo.folder("segmenter"),
            steps=demo.config.budget.evaluator_steps,
            seed=demo.config.seed,
            device=demo.config.device,
        )
    )


def _train(demo: Demo) -> None:
    from semsynth.training.loop import train
    from semsynth.training.recipe import TrainConfig

    budget = demo.config.budget
    steps = {"train.steps": budget.train_steps, "finetune.steps": budget.finetune_steps}
    train(
        TrainConfig(
            recipe=demo.config.recipe,
            data=demo.folder("prepared"),
            output=demo.folder("run"),
            set=tuple(f"{name}={value}" for name, value in steps.items() if value is not None),
            device=demo.config.device,
        )
    )


def _generate(demo: Demo) -> None:
    _generate_split(demo, "val", demo.folder("samples"), None, demo.config.budget.per_mask)


def _generate_split(demo: Demo, split: str, output: Path, limit: int | None, per_mask: int) -> None:
    from semsynth.pipelines.generate.config import GenerateConfig
    from semsynth.pipelines.generate.run import generate

    generate(
        GenerateConfig(
            model=demo.model,
            data=demo.folder("prepared"),
            output=output,
            split=split,
            per_mask=per_mask,
            limit=limit,
            seed=demo.config.seed,
            steps=demo.config.budget.sampler_steps,
            guidance_scale=demo.config.budget.guidance_scale,
            batch_size=16,
            device=demo.config.device,
        )
    )


def _augment(demo: Demo) -> None:
    from semsynth.augmentation.config import AugmentConfig
    from semsynth.augmentation.experiment import run_experiment

    budget, samples = demo.config.budget, demo.folder("augment") / "samples"
    _generate_split(demo, "train", samples, budget.synthetic_count, per_mask=1)
    run_experiment(
        AugmentConfig(
            data=demo.folder("prepared"),
            samples=samples,
            output=demo.folder("augment") / "result",
            real_images=budget.real_images,
            trials=budget.trials,
            steps=budget.augment_steps,
            width=16,
            seed=demo.config.seed,
            device=demo.config.device,
        )
    )


def _evaluate(demo: Demo) -> None:
    report = demo.folder("report")
    if (report / "report.json").exists() and (report / "report.html").exists():
        return
    from semsynth.evaluation.config import EvaluateConfig
    from semsynth.evaluation.run import evaluate

    evaluate(
        EvaluateConfig(
            data=demo.folder("prepared"),
            samples=demo.folder("samples"),
            segmenter=demo.folder("segmenter"),
            output=report,
            augmentation=demo.folder("augment") / "result" / "augmentation.json",
            run=demo.folder("run"),
            download=False,  # nothing of the demo needs a network
            seed=demo.config.seed,
            device=demo.config.device,
        )
    )


def headline(report: dict[str, Any], augmentation: dict[str, Any]) -> dict[str, float | None]:
    """Return the main numbers.

    Args:
        report: the content of ``report.json``.
        augmentation: the content of ``augmentation.json``.

    Returns:
        Shares of 1 and distances; None if one could not be computed.
    """
    consistency = report["metrics"].get("semantic_consistency", {})
    baselines = report["controls"]
    mean_color = baselines.get("mean_colours", {})
    distance = report["metrics"].get("frechet", {}).get(_FEATURES, {}).get("to_training", {})
    miou, ceiling = consistency.get("miou"), consistency.get("miou_real")
    return {
        "miou_generated": miou,
        "miou_real": ceiling,
        "miou_share_of_real": round(miou / ceiling, 4) if miou is not None and ceiling else None,
        "miou_shuffled_masks": baselines.get("shuffled_masks", {}).get("miou"),
        "miou_mean_colours": mean_color.get("miou"),
        "frechet": distance.get("generated"),
        "frechet_real": distance.get("real"),
        "frechet_mean_colours": distance.get("mean_colours"),
        "augmentation_gain": augmentation["gain"]["real_and_synthetic"]["miou"],
    }


def _closing_lines(
    numbers: dict[str, float | None], augmentation: dict[str, Any], seconds: float, memory: float
) -> list[str]:
    n = {name: "-" if value is None else f"{value:.2f}" for name, value in numbers.items()}
    arms, gain = augmentation["arms"], augmentation["gain"]["real_and_synthetic"]
    wins = sum(difference > 0 for difference in gain["trials"])
    lines = [
        "",
        "Do the images match their masks? (mIoU of the segmenter, on held-out masks)",
        f"  generated {n['miou_generated']}, real {n['miou_real']}: "
        f"{n['miou_share_of_real']} of the real images",
        f"  to compare: shuffled masks {n['miou_shuffled_masks']}, "
        f"each class in its mean colour {n['miou_mean_colours']}",
        "Do they look real? (Fréchet distance from the training images; lower is closer)",
        f"  generated {n['frechet']}",
        f"  to compare: held-out real images {n['frechet_real']}, "
        f"each class in its mean colour {n['frechet_mean_colours']}",
        f"Do they help another segmenter with {augmentation['n_real']} real images? (mIoU)",
        f"  without {arms['real']['miou']:.3f}, with {arms['real_and_synthetic']['miou']:.3f}: "
        f"{gain['miou']:+.3f}, better in {wins} of {len(gain['trials'])} trials",
    ]
    if "real_and_more_real" in arms:
        more = arms["real_and_more_real"]["miou"]
        lines.append(f"  with more real images instead of synthetic ones: {more:.3f}")
    return [*lines, f"All in {_duration(seconds)}, {memory:.1f} GB of memory at most.", ""]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _peak_memory_gb() -> float:
    """Return the peak memory of this process, or of one that it started (not on Windows)."""
    try:
        import resource
    except ImportError:
        return float(psutil.Process().memory_info().peak_wset) / 1e9
    largest = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    # Kilobytes on Linux, bytes on macOS.
    return float(largest) / (1e9 if sys.platform == "darwin" else 1e6)

"""The whole pipeline on the built-in streets: from nothing to a page with scores (no torch here).

Every stage is the command of the same name with smaller numbers, and every one goes on where it
stopped; so does the demo. All budgets are counted in steps and images, never in seconds: the
results do not depend on how fast the machine is.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from semsynth.core.files import claim_output_dir, read_json
from semsynth.core.logging import logger

# The Fréchet distance that needs no download: on the features of the judge.
_FEATURES = "fd_segmenter"


@dataclass(frozen=True)
class DemoBudget:
    """How much of everything; the defaults fit ten minutes on two cores."""

    train_count: int = 1200
    """Streets to train on."""
    val_count: int = 100
    """Streets held out, whose masks are painted."""
    evaluator_steps: int = 1400
    """Training steps of the segmenter that judges."""
    train_steps: int | None = None
    """Training steps of the generator; the recipe's by default."""
    finetune_steps: int | None = None
    """Steps of its fine-tuning for guidance; the recipe's by default."""
    per_mask: int = 3
    """Images for each held-out mask."""
    sampler_steps: int = 10
    """Denoising steps of an image."""
    guidance_scale: float = 2.0
    """Classifier-free guidance; docs/log.md has the comparison that chose these two."""
    synthetic_count: int = 160
    """Images painted for the augmentation, one for each of so many training masks."""
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
    """Folder of everything that is made; run again to go on where it stopped."""
    recipe: str = "streets_demo"
    """Recipe of the generator."""
    seed: int = 0
    """Decides the streets, the images and the choices of the experiment."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""
    budget: DemoBudget = field(default_factory=DemoBudget)


@dataclass
class Demo:
    """A demo under way: its folders, and the seconds that its stages took."""

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
    """Prepare, train, paint, score, and measure what the images add to a segmenter.

    Leaves ``prepared/``, ``segmenter/`` (the judge), ``run/`` (the generator), ``samples/``,
    ``augment/`` and ``report/`` in ``config.output``. Stages that are finished are skipped.

    Returns:
        JSON values: page, output, numbers (the few that matter; None where one could not be
        computed), seconds by stage, peak_memory_gb.

    Raises:
        UserError: from any stage, or the output belongs to something else.
    """
    key = {k: v for k, v in asdict(config).items() if k not in ("output", "device")}
    claim_output_dir(config.output, "demo", key)
    demo = Demo(config)
    logger.info(f"semsynth demo: street scenes from masks; everything goes to {config.output}/")
    logger.info("(stopped half-way? the same command goes on where it was)")
    stages: list[tuple[str, str, Callable[[Demo], None]]] = [
        ("prepare", "Streets: render images and masks", _prepare),
        ("evaluator", "Judge: train a segmenter on the real images", _evaluator),
        ("train", "Generator: train, then fine-tune for guidance", _train),
        ("generate", "Images: paint held-out masks", _generate),
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

    # Written last and moved into place: a segmenter that is there is finished.
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
    _paint(demo, "val", demo.folder("samples"), None, demo.config.budget.per_mask)


def _paint(demo: Demo, split: str, output: Path, limit: int | None, per_mask: int) -> None:
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
    _paint(demo, "train", samples, budget.synthetic_count, per_mask=1)
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
    """Return the few numbers that matter.

    Args:
        report: the content of ``report.json``.
        augmentation: the content of ``augmentation.json``.

    Returns:
        Shares of 1 and distances; None where one could not be computed.
    """
    consistency = report["metrics"].get("semantic_consistency", {})
    controls = report["controls"]
    colours = controls.get("mean_colours", {})
    distance = report["metrics"].get("frechet", {}).get(_FEATURES, {})
    miou, ceiling = consistency.get("miou"), consistency.get("miou_real")
    return {
        "miou_generated": miou,
        "miou_real": ceiling,
        "miou_share_of_real": round(miou / ceiling, 4) if miou is not None and ceiling else None,
        "miou_shuffled_masks": controls.get("shuffled_masks", {}).get("miou"),
        "miou_mean_colours": colours.get("miou"),
        "frechet": distance.get("value"),
        "frechet_real": distance.get("real_training_pictures", {}).get("value"),
        "frechet_mean_colours": colours.get("frechet", {}).get(_FEATURES, {}).get("value"),
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
        "Do the images show what their masks say? (mIoU of the judge, masks not trained on)",
        f"  generated {n['miou_generated']}, real {n['miou_real']}: "
        f"{n['miou_share_of_real']} of the real images",
        f"  to compare: masks shuffled {n['miou_shuffled_masks']}, "
        f"each class in its mean colour {n['miou_mean_colours']}",
        "Do they look like real ones? (Fréchet distance of the judge's features, less is closer)",
        f"  generated {n['frechet']}",
        f"  to compare: other real images {n['frechet_real']}, "
        f"each class in its mean colour {n['frechet_mean_colours']}",
        f"Do they help another segmenter that has {augmentation['n_real']} real images? (mIoU)",
        f"  without {arms['real']['miou']:.3f}, with {arms['real_and_synthetic']['miou']:.3f}: "
        f"{gain['miou']:+.3f}, better in {wins} of {len(gain['trials'])} trials",
    ]
    if "real_and_more_real" in arms:
        more = arms["real_and_more_real"]["miou"]
        lines.append(f"  with real images in place of the synthetic ones: {more:.3f}")
    return [*lines, f"All in {_duration(seconds)}, {memory:.1f} GB of memory at most.", ""]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _peak_memory_gb() -> float:
    """Return the largest memory of this process (or of one it started) so far."""
    largest = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    # Kilobytes on Linux, bytes on macOS.
    return float(largest) / (1e9 if sys.platform == "darwin" else 1e6)

"""The stages of the demo: commands of semsynth with the demo's sizes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from semsynth.cli.demo import DemoBudget, DemoConfig
from semsynth.core.durations import duration
from semsynth.core.logging import logger

# Name, title, and what runs it.
Stage = tuple[str, str, Callable[[], None]]


@dataclass(frozen=True)
class Demo:
    """A data set on its way through the stages.

    Attributes:
        config: of the demo.
        root: folder of all that is made of the data set.
    """

    config: DemoConfig
    root: Path

    @property
    def sizes(self) -> DemoBudget:
        """The sizes of the stages."""
        return self.config.sizes

    def folder(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.root / name

    @property
    def gain(self) -> Path:
        """The result of ``augment``."""
        return self.folder("augment") / "result" / "augmentation.json"

    def number(self, name: str) -> Any:
        """Return a size that the source has for sure."""
        value = getattr(self.sizes, name)
        assert value is not None, name
        return value


def run_stages(stages: Sequence[Stage]) -> dict[str, float]:
    """Run stages one after another; return the seconds that each took, by name."""
    seconds = {}
    for number, (name, title, run) in enumerate(stages, 1):
        logger.info(f"\n[{number}/{len(stages)}] {title}")
        start = time.monotonic()
        run()
        seconds[name] = round(time.monotonic() - start, 1)
        logger.info(f"      done in {duration(seconds[name])}")
    return seconds


def train_evaluator(demo: Demo, **settings: Any) -> None:
    """Train the segmenter that evaluates on the real training images: ``segmenter/``."""
    from semsynth.segmentation.config import SEGMENTER_FILE, SegmentTrainConfig

    # Written last and moved into place: if it exists, the training is finished.
    if (demo.folder("segmenter") / SEGMENTER_FILE).exists():
        return
    from semsynth.segmentation.train import train_segmenter

    train_segmenter(
        SegmentTrainConfig(
            data=demo.folder("prepared"),
            output=demo.folder("segmenter"),
            steps=demo.number("evaluator_steps"),
            seed=demo.config.seed,
            device=demo.config.device,
            **settings,
        )
    )


def generate_images(demo: Demo, model: Path, output: Path, **settings: Any) -> None:
    """Generate images of the masks of ``prepared/``; ``settings`` has at least split, per_mask."""
    from semsynth.pipelines.generate.config import GenerateConfig
    from semsynth.pipelines.generate.run import generate

    # What is not given is the model's own: some want a single evaluation and no guidance.
    names = {"steps": "sampler_steps", "guidance_scale": "guidance_scale"}
    sampling = {name: getattr(demo.sizes, size) for name, size in names.items()}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    generate(
        GenerateConfig(
            model=model,
            data=demo.folder("prepared"),
            output=output,
            seed=demo.config.seed,
            device=demo.config.device,
            **sampling,
            **settings,
        )
    )


def measure_gain(demo: Demo, **settings: Any) -> None:
    """Train segmenters with and without the images of ``augment/samples/``, and compare."""
    from semsynth.augmentation.compare import run_experiment
    from semsynth.augmentation.config import AugmentConfig

    run_experiment(
        AugmentConfig(
            data=demo.folder("prepared"),
            samples=demo.folder("augment") / "samples",
            output=demo.gain.parent,
            real_images=demo.number("real_images"),
            trials=demo.number("trials"),
            steps=demo.number("augment_steps"),
            width=16,
            seed=demo.config.seed,
            device=demo.config.device,
            **settings,
        )
    )


def write_report(demo: Demo, samples: Path, run: Path | None, report: Path) -> None:
    """Score samples and write their page, with the gain and the curves of a training."""
    if (report / "report.json").exists() and (report / "report.html").exists():
        return
    from semsynth.evaluation.config import EvaluateConfig
    from semsynth.evaluation.run import evaluate

    evaluate(
        EvaluateConfig(
            data=demo.folder("prepared"),
            samples=samples,
            segmenter=demo.folder("segmenter"),
            output=report,
            augmentation=demo.gain,
            run=run,
            download=False,  # nothing of the demo needs a network
            seed=demo.config.seed,
            device=demo.config.device,
        )
    )


def peak_memory_gb() -> float:
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

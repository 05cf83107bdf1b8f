"""How long a step takes on this machine, as busy as it is: short trainings of different length."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from semsynth.augmentation.experiment.arms import ARMS, BASELINE
from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.draws import Made
from semsynth.augmentation.experiment.score import EvaluationImages
from semsynth.augmentation.experiment.settings import segment_settings
from semsynth.augmentation.experiment.stages import Stages
from semsynth.core.files import write_json
from semsynth.core.logging import logger
from semsynth.core.outputs import read_cache
from semsynth.data.content import digest_json
from semsynth.segmentation.segmenter import Segmenter

SPEEDS = "speeds.json"
What = Literal["segmenter", "generator", "distill"]
# Trainings that are timed; the first of them, which loads everything, does not count.
_CALIBRATION = (1, 2, 12)
# Images that are generated and scored.
_IMAGES = 16


@dataclass(frozen=True)
class Speeds:
    """Seconds of the clock; 0: there is no such thing in this experiment.

    Attributes:
        segmenter: of a segmenter's step, with the settings of ``strong``.
        generator: of a generator's step.
        distill: of a step of its last phase.
        image: of a generated image.
        scored: of an evaluation image.
    """

    segmenter: float
    generator: float = 0.0
    distill: float = 0.0
    image: float = 0.0
    scored: float = 0.0


def measured_speeds(stages: Stages, eval_images: EvaluationImages, generates: bool) -> Speeds:
    """Measure once for these settings, this machine and device; then read what was measured.

    Args:
        stages: of any draw.
        eval_images: those that segmenters are scored on.
        generates: whether generators are trained.
    """
    path = stages.config.output / SPEEDS
    key = digest_json([_settings(stages), os.cpu_count()])
    found = read_cache(path)
    if found.get("key") == key:
        speeds = Speeds(**found["speeds"])
        if speeds.generator or not generates:
            return speeds
    logger.info("measuring the speed of this machine, which takes a minute or two")
    folder = stages.config.output / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with _without_lines():
            speeds = _measure(stages, eval_images, generates, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_json(path, {"key": key, "speeds": asdict(speeds)}, seal=True)
    return speeds


def _settings(stages: Stages) -> Any:
    config, data = stages.config, stages.data
    strong = segment_settings(config, ARMS[BASELINE], False)
    values = {name: str(value) for name, value in sorted(strong.items())}
    return [config.recipe, list(config.set), values, config.device, data.height, data.width]


def _measure(
    stages: Stages, eval_images: EvaluationImages, generates: bool, folder: Path
) -> Speeds:
    few = replace(eval_images, stems=eval_images.stems[:_IMAGES])
    step = seconds_per_step(stages, "segmenter", folder)
    # The last one that was timed is there.
    segmenter = Segmenter.load(_last(stages, "segmenter", folder).make(), stages.config.device)
    speeds = Speeds(step, scored=_seconds(lambda: few.score(segmenter)) / len(few.stems))
    if not generates:
        return speeds
    distills = stages.recipe.distill.steps > 0
    speeds = replace(speeds, generator=seconds_per_step(stages, "generator", folder))
    if distills:
        speeds = replace(speeds, distill=seconds_per_step(stages, "distill", folder))
    trial = _trial(stages, "distill" if distills else "generator", _CALIBRATION[-1], folder)
    count = min(_IMAGES, len(stages.draw.stems))
    trial = replace(trial, config=replace(trial.config, images_per_real=1))
    samples = trial.samples("own", "noise", limit=count)
    return replace(speeds, image=_seconds(samples.make) / count)


def seconds_per_step(stages: Stages, what: What, folder: Path) -> float:
    """Measure a step by short trainings of different length.

    Args:
        stages: of a draw.
        what: is trained: a segmenter, a generator, or its last phase.
        folder: for what is trained.
    """
    seconds = []
    for steps in _CALIBRATION:
        trial = _trial(stages, what, steps, folder)
        trial.real().make()
        seconds.append(_seconds(_made(trial, what).make))
    _, fewer, more = _CALIBRATION
    # On a busy machine the shorter one may have taken longer: at least a quarter of the mean.
    return max((seconds[2] - seconds[1]) / (more - fewer), seconds[2] / more / 4, 1e-4)


def _trial(stages: Stages, what: What, steps: int, folder: Path) -> Stages:
    """Return what trains so few steps, in a folder of its own.

    On the draw's images alone: others change no step, but take time to be read and predicted.
    """
    trained = {"segmenter": 1, "generator": steps, "distill": 2}[what]
    config = with_steps(stages.config, steps, trained, steps if what == "distill" else 0)
    draw = replace(stages.draw, folder=folder / f"{what}-{steps}")
    config = replace(config, output=folder, generator_unlabelled=False)
    return replace(stages, config=config, draw=draw, others=None)


def _made(trial: Stages, what: What) -> Made:
    return trial.segmenter(ARMS[BASELINE], 0) if what == "segmenter" else trial.generator()


def _last(stages: Stages, what: What, folder: Path) -> Made:
    return _made(_trial(stages, what, _CALIBRATION[-1], folder), what)


def with_steps(
    config: ExperimentConfig, segmenter: int, generator: int, distill: int = 0
) -> ExperimentConfig:
    """Return the experiment with other numbers of steps; without previews and validation.

    Args:
        config: of the experiment.
        segmenter: steps of each segmenter.
        generator: steps of the first phase of each generator; it has no second one.
        distill: steps of its last phase.
    """
    words = [
        *("finetune.steps=0", "train.validate_every=0", "train.preview_every=0"),
        *(f"train.steps={generator}", f"train.warmup_steps={max(1, generator // 20)}"),
        f"distill.steps={distill}",
    ]
    if distill:
        words.append(f"distill.warmup_steps={max(1, distill // 20)}")
    return replace(
        config,
        set=(*config.set, *words),
        segment=(*config.segment, f"steps={segmenter}"),
    )


def _seconds(work: Callable[[], Any]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


@contextmanager
def _without_lines() -> Iterator[None]:
    """Hide what a trial says of itself: it is not a result."""
    # A training sets the logger's level: the handlers that are there now let errors alone through.
    handlers = list(logger.handlers)
    for handler in handlers:
        handler.addFilter(_is_error)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR

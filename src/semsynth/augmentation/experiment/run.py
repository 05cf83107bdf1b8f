"""`semsynth experiment`: tasks, one arm of a draw each; the result when all of them are done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semsynth.augmentation.experiment.arms import Arm, chosen_arms
from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.draws import (
    Part,
    check_same_form,
    claim_experiment,
    groups_of,
    make_draw,
    pool_stems,
)
from semsynth.augmentation.experiment.gallery import galleries_of
from semsynth.augmentation.experiment.overlap import find_overlap, other_images
from semsynth.augmentation.experiment.page import write_page
from semsynth.augmentation.experiment.plan import LEAST_STEPS, Left, in_words
from semsynth.augmentation.experiment.result import RESULT_HTML, RESULT_JSON, result_of
from semsynth.augmentation.experiment.score import ArmScore, EvaluationImages, is_scored, score_arm
from semsynth.augmentation.experiment.settings import (
    all_settings,
    check_frozen,
    check_settings,
    freeze,
)
from semsynth.augmentation.experiment.speeds import Speeds, measured_speeds
from semsynth.augmentation.experiment.stages import Stages
from semsynth.augmentation.experiment.unlabelled import open_unlabelled
from semsynth.core.distributed.shards import parse_shard
from semsynth.core.durations import duration
from semsynth.core.errors import UserError
from semsynth.core.files import read_text, write_json, write_text
from semsynth.core.logging import logger, progress_bar
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import check_extra_labels
from semsynth.evaluation.report.formats import plural

TRIES = "tries.jsonl"


@dataclass(frozen=True)
class Task:
    """One arm of a draw: what one process of a job array does."""

    n: int
    draw: int
    arm: Arm

    def __str__(self) -> str:
        """Return its name, as ``--list`` prints it."""
        return f"n={self.n} draw={self.draw} {self.arm.name}"


@dataclass(frozen=True)
class Experiment:
    """The draws and arms of an experiment, on checked data.

    Attributes:
        config: the flags.
        data: the pool, and the evaluation images.
        others: the generator's other data (``--generator-data``).
        overlap: evaluation images that were used in a training, in sentences.
    """

    config: ExperimentConfig
    data: PreparedDataset
    others: Part | None = None
    overlap: tuple[str, ...] = ()

    @cached_property
    def arms(self) -> list[Arm]:
        """The arms, in their order."""
        return chosen_arms(self.config.arms)

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks: of each n draw by draw, arms in their order."""
        return [
            Task(n, draw, arm)
            for n in self.config.n
            for draw in self.config.draws_of_stage
            for arm in self.arms
        ]

    @cached_property
    def eval_images(self) -> EvaluationImages:
        """The real images on which all segmenters are scored."""
        config = self.config
        stems = pool_stems(self.data, config.eval_split, config.kind)
        return EvaluationImages(self.data, config.eval_split, tuple(stems))

    @cached_property
    def _pool(self) -> tuple[list[str], list[str]]:
        stems = pool_stems(self.data, self.config.split, self.config.kind)
        if self.config.draw_by == "image":
            return stems, stems
        return stems, groups_of(self.data, self.config.split, stems)

    def stages(self, n: int, draw: int) -> Stages:
        """Return what makes the images of a draw."""
        folder = self.config.output / f"n{n}" / f"draw_{draw}"
        made = make_draw(folder, self._pool, n, self.config.seed, draw)
        return Stages(self.config, self.data, tuple(self._pool[0]), made, self.others)

    def run(self, task: Task) -> ArmScore:
        """Make what a task needs, train its segmenters and score them."""
        return score_arm(self.stages(task.n, task.draw), task.arm, self.eval_images)

    def is_done(self, task: Task) -> bool:
        """Return whether the scores of a task are there."""
        return is_scored(self.stages(task.n, task.draw), task.arm, self.eval_images)

    def check(self) -> None:
        """Check everything that can be known before the long work.

        Raises:
            UserError: what is wrong, in a line.
        """
        config, pool = self.config, self._pool[0]
        for n in config.n:
            if n > len(pool):
                kind = "" if config.kind is None else f" of kind {config.kind}"
                raise UserError(
                    f"{self.data.root}: split '{config.split}' has {len(pool)} images{kind}, --n "
                    f"asks for {n}; ask for fewer"
                )
        for split in (config.split, config.eval_split):
            if not self.data.has_images(split):
                raise UserError(
                    f"{self.data.root}: split '{split}' has masks without images; choose another"
                )
        self._check_others()
        self._check_classes()
        check_settings(config, self.arms, self.data)
        for n in config.n:
            self.stages(n, config.draws_of_stage[0]).check(self.arms)

    def _check_others(self) -> None:
        """Refuse other data of the generator with other labels, or of which nothing is left."""
        if self.others is None:
            return
        flag, other = f"--generator-data {self.config.generator_data}", self.others.data
        # As where they are joined: one of the two may have an ignored id alone.
        one, two = sorted((self.data, other), key=lambda data: data.labels.ignore_id is None)
        check_extra_labels(one.labels, two.labels, str(one.root), str(two.root))
        if not self.others.stems:
            raise UserError(
                f"{flag}: has no image in split '{self.others.split}' that the pool does not have; "
                "give other data, or drop the flag"
            )

    def _check_classes(self) -> None:
        """Refuse evaluation images if no class is in enough of them to be averaged."""
        found: Counter[int] = Counter()
        for stem in self.eval_images.stems:
            found.update(np.unique(self.data.read_mask(self.eval_images.split, stem)).tolist())
        most = max((found[label.id] for label in self.data.labels.trainable), default=0)
        least = self.config.min_class_images
        if most < least:
            raise UserError(
                f"{self.data.root}: no class is in {least} images of '{self.eval_images.split}' "
                f"(most: {most}), so that no score is averaged; score on more images, or give a "
                "smaller --min-class-images"
            )


def open_experiment(config: ExperimentConfig) -> Experiment:
    """Open the data and check all that can be checked before the long work.

    Raises:
        UserError: as ``Experiment.check``; evaluation images were used in a training; for
            ``--stage final`` nothing is frozen, or other settings are.
    """
    data = PreparedDataset.open(config.data)
    data.say_what_is_shown()
    # Once for all draws and arms: the pixels of each of these images are read.
    others = other_images(config, data)
    experiment = Experiment(config, data, others)
    experiment.check()
    if config.stage == "final" and not config.freeze:
        check_frozen(config, all_settings(config, data))
    return replace(experiment, overlap=tuple(find_overlap(config, data, others)))


def run_experiment(config: ExperimentConfig) -> dict[str, Any]:
    """Run the tasks that are not done yet; write the result when none is left.

    Returns:
        JSON values: with ``list`` the tasks; with ``plan`` what is left: seconds (of the clock) and
        steps; with ``freeze`` the file; otherwise done and tasks,
        and, when all are done, the paths of result and page, and a line for each n.

    Raises:
        UserError: something does not fit, said before the long work.
    """
    experiment = open_experiment(config)
    if experiment.others is not None:  # those of a probe may have any size: it scales them
        check_same_form(experiment.others.data, experiment.data)
    predicted = any(arm.masks == "predicted" for arm in experiment.arms)
    if config.unlabelled is not None and (predicted or config.generator_unlabelled):
        check_same_form(open_unlabelled(config, experiment.data), experiment.data)
    settings = all_settings(config, experiment.data)
    claim_experiment(config.output, settings["data"])
    if config.freeze:
        return {"frozen": str(freeze(config, settings))}
    if config.list_:
        return _listed(experiment)
    mine = _mine(experiment.tasks, config.task)
    left = None if config.task is not None else _plan(experiment)
    if config.plan:
        assert left is not None
        return {"seconds": round(left.total), "steps": round(left.steps)}
    _run(experiment, mine, left)
    done = [task for task in experiment.tasks if experiment.is_done(task)]
    summary: dict[str, Any] = {"tasks": len(experiment.tasks), "done": len(done)}
    if len(done) < len(experiment.tasks):
        return {**summary, "next": "the remaining tasks; any of them, or none, writes the result"}
    return {**summary, **write_result(experiment, settings)}


def _plan(experiment: Experiment) -> Left | None:
    """Say what is left to do and how long it takes; None if it is not long.

    Speeds are measured once, and kept in the folder.
    """
    config, tasks = experiment.config, experiment.tasks
    n_done = sum(experiment.is_done(task) for task in tasks)
    of = ", ".join(f"n = {n}" for n in config.n)
    what = f"{plural(len(config.draws_of_stage), 'draw')} of {plural(len(experiment.arms), 'arm')}"
    each = f"{plural(config.seeds, 'segmenter')} each"
    logger.info(f"{of}: {what}, {each}: {len(tasks)} tasks, {n_done} done")
    work = [(experiment.stages(task.n, task.draw), task.arm) for task in tasks]
    eval_images, nothing = experiment.eval_images, Speeds(0.0)
    if not config.plan and Left.of(work, eval_images, nothing).steps < LEAST_STEPS:
        return None
    generates = any(arm.synthetic or arm.longer for arm in experiment.arms)
    speeds = measured_speeds(work[0][0], eval_images, generates)
    left = Left.of(work, eval_images, speeds)
    for line in in_words(left, speeds):
        logger.info(line)
    return left


def _run(experiment: Experiment, tasks: Sequence[Task], left: Left | None) -> None:
    """Run tasks; with a plan the bar counts its seconds, as tasks take very different times."""
    costs = [1] * len(tasks) if left is None else [round(cost) for cost in left.of_task]
    unit = "task" if left is None else "s planned"
    with progress_bar(sum(costs), "experiment", unit) as bar:
        for i, (task, cost) in enumerate(zip(tasks, costs, strict=True)):
            bar.set_postfix_str(str(task))
            of = f"task {experiment.tasks.index(task) + 1} of {len(experiment.tasks)}: {task}"
            if left is not None and cost:
                of += f"; about {duration(sum(costs[i:]))} left"
            logger.info(of)
            experiment.run(task)
            bar.update(cost)


def write_result(experiment: Experiment, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write experiment.json and experiment.html from the scores of all tasks; return a summary."""
    config = experiment.config
    scores = {
        n: {
            arm: [experiment.run(Task(n, draw, arm)) for draw in config.draws_of_stage]
            for arm in experiment.arms
        }
        for n in config.n
    }
    result = result_of(experiment, scores, settings)
    path = config.output / RESULT_JSON
    page = write_page(config.output / RESULT_HTML, result, galleries_of(experiment, result))
    write_json(path, result)
    _keep_try(config.output / TRIES, result)
    lines = {
        f"n = {n}, {name}": text
        for n, of in result["n"].items()
        for name, text in of["lines"].items()
    }
    return {"result": str(path), "page": str(page), **lines}


def _keep_try(path: Path, result: Mapping[str, Any]) -> None:
    """Add a line on what was tried: whatever is frozen later is the best of so many."""
    gains = {
        n: {name: arm["gain"]["miou"] for name, arm in of["arms"].items() if "gain" in arm}
        for n, of in result["n"].items()
    }
    line = {name: result[name] for name in ("stage", "draws", "seeds", "settings")}
    text = json.dumps({**line, "gains": gains}, sort_keys=True)
    known = read_text(path).splitlines() if path.exists() else []
    if text not in known:
        write_text(path, "\n".join([*known, text, ""]))


def _listed(experiment: Experiment) -> dict[str, Any]:
    tasks = {
        str(number): f"{task}{' (done)' if experiment.is_done(task) else ''}"
        for number, task in enumerate(experiment.tasks, 1)
    }
    return {**tasks, "array": f"1-{len(tasks)}"}


def _mine(tasks: Sequence[Task], flag: str | None) -> list[Task]:
    """Return the tasks that ``--task`` asks for.

    Raises:
        UserError: it is neither the number of a task nor K/N.
    """
    if flag is None:
        return list(tasks)
    if "/" in flag:
        try:
            return parse_shard(flag).of(tasks)
        except UserError:
            raise UserError(
                f"--task is '{flag}': must be K or K/N, K from 1 to N, as in 3 or 1/4"
            ) from None
    if not flag.isdigit() or not 1 <= int(flag) <= len(tasks):
        raise UserError(
            f"--task is '{flag}': must be from 1 to {len(tasks)}, the tasks that --list prints"
        )
    return [tasks[int(flag) - 1]]

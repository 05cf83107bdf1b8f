"""Where a run's numbers and previews go besides its folder: Accelerate's experiment trackers."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from PIL import Image

from semsynth.core.distributed.job import Job
from semsynth.core.errors import UserError
from semsynth.core.files import read_json, write_json
from semsynth.core.logging import logger
from semsynth.training.recipe import Recipe

PROJECT = "semsynth"
# What --track takes, and the package that it needs.
PACKAGES = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}
_IDS = "trackers.json"  # in the run's folder: a resumed run goes on in the same places


def tracker_names(words: Sequence[str]) -> list[str]:
    """Return the trackers that ``--track`` names, each once; commas or blanks are between them.

    Raises:
        UserError: one that there is not, or whose package is not installed.
    """
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    for name in names:
        if name not in PACKAGES:
            raise UserError(f"--track {name}: must be one of {', '.join(PACKAGES)}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(
                f"--track {name}: its package is missing; install it (pip install "
                f"{PACKAGES[name]}), or omit it: {name} only shows what is in the run's folder too"
            )
    return list(dict.fromkeys(names))


def open_trackers(words: Sequence[str], recipe: Recipe, step: int, job: Job) -> Trackers | None:
    """Open what ``--track`` names on rank 0; all ranks get the error of one that does not open."""
    opened: list[Trackers] = []
    if names := tracker_names(words):
        job.run_on_rank0(lambda: opened.append(Trackers(names, job.folder, recipe, step)))
    return opened[0] if opened else None


class Trackers:
    """The trackers of one run; one that fails is left out, and the training goes on."""

    def __init__(self, names: Sequence[str], run: Path, recipe: Recipe, start_step: int) -> None:
        """Open them for the steps after ``start_step``.

        Args:
            names: as of ``tracker_names``.
            run: folder of the run, whose name is the run's in all trackers.
            recipe: its settings are shown with the run.
            start_step: of a run that is resumed, 0 of a new one.

        Raises:
            UserError: one cannot be opened, such as for want of an account or a server.
        """
        self._trackers: dict[str, Any] = {}
        path = run / _IDS
        ids: dict[str, str] = read_json(path) if path.is_file() else {}
        for name in names:
            is_new = name not in ids
            try:
                tracker = _open(name, run, ids.get(name), start_step)
                ids[name] = _id_of(name, tracker)
                if is_new:
                    tracker.store_init_configuration(dict(_settings(recipe)))
            except Exception as error:  # any of a foreign library and its server
                raise UserError(
                    f"--track {name}: cannot be opened ({_reason(error)}); set it up, or omit it"
                ) from error
            self._trackers[name] = tracker
        if ids:
            write_json(path, ids)

    def log(self, step: int, values: dict[str, float | int]) -> None:
        """Send the numbers of a step."""
        for name, tracker in self._working():
            with _Leaving(self._trackers, name):
                tracker.log(values, step=step)

    def log_preview(self, step: int, path: Path) -> None:
        """Send a preview as an image."""
        for name, tracker in self._working():
            with _Leaving(self._trackers, name):
                _send_image(name, tracker, path, step)

    def close(self) -> None:
        """Wait until everything has been sent."""
        for name, tracker in self._working():
            with _Leaving(self._trackers, name):
                tracker.finish()

    def _working(self) -> list[tuple[str, Any]]:
        return list(self._trackers.items())


class _Leaving:
    """Leaves a tracker out when it fails: a server that is down stops no training."""

    def __init__(self, trackers: dict[str, Any], name: str) -> None:
        self._trackers, self._name = trackers, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        del self._trackers[self._name]
        logger.warning(
            f"--track {self._name}: stopped ({_reason(error)}); the training goes on, and its "
            "numbers are in metrics.jsonl"
        )
        return True


def _open(name: str, run: Path, known_id: str | None, start_step: int) -> GeneralTracker:
    kind, title = LOGGER_TYPE_TO_CLASS[name], run.resolve().name
    if name == "tensorboard":
        # What a stopped run wrote after its last checkpoint is not shown.
        tracker = kind("tensorboard", run, purge_step=start_step + 1)
    elif name == "wandb":
        again = {} if known_id is None else {"id": known_id, "resume": "allow"}
        tracker = kind(PROJECT, name=title, dir=str(run), **again)
    elif name == "mlflow":
        tracker = kind(PROJECT, run_name=title, run_id=known_id)
    else:
        tracker = kind(PROJECT, name=known_id or f"{title}-{int(time.time())}", resume="allow")
    tracker.start()
    return tracker


def _id_of(name: str, tracker: Any) -> str:
    """Return by what a resumed run finds its place again."""
    if name == "mlflow":
        return str(tracker.tracker.info.run_id)
    if name == "wandb":
        return str(tracker.tracker.id)
    return str(tracker.tracker.name) if name == "trackio" else name


def _send_image(name: str, tracker: Any, path: Path, step: int) -> None:
    if name == "mlflow":
        tracker.log_artifact(str(path), "previews")
        return
    if name == "trackio":
        # Accelerate's class has no images; the package is not a dependency of ours.
        image = importlib.import_module("trackio").Image(str(path))
        tracker.log({"preview": image}, step=step)
        return
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB"))[None]
    more = {"dataformats": "NHWC"} if name == "tensorboard" else {}
    tracker.log_images({"preview": pixels}, step=step, **more)


def _settings(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Yield the recipe's keys with their dots, and values that all trackers take."""

    def flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, part in value.items():
                yield from flat(part, f"{name}.{key}".lstrip("."))
        elif isinstance(value, bool | int | float | str):
            yield name, value
        else:
            yield name, yaml.safe_dump(value, default_flow_style=True).split("\n")[0]

    yield from flat(recipe.model_dump(mode="json"), "")


def _reason(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]

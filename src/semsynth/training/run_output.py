"""Whose run a folder is: its recipe, its start, and the content of its data; to make it ours."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from semsynth.core.distributed.job import Job
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import names_in, read_json, write_json, write_text
from semsynth.core.logging import logger
from semsynth.core.outputs import INPUTS, MARKER, Output, difference
from semsynth.core.strict import sealed
from semsynth.data.content import KINDS
from semsynth.data.dataset import PreparedDataset
from semsynth.data.large import kinds_read
from semsynth.pipelines.formats.diffusers_folder import FINAL
from semsynth.training.checkpoints.store import complete_checkpoints
from semsynth.training.init.from_model import SAVED_INIT, Initialization, starting_point
from semsynth.training.recipe import Recipe, TrainConfig

DATA_CHANGES = "data_changes.json"
TRAINED, HELD_OUT = "content", "held_out"
# Settings that may change when a run is resumed: they do not affect the weights, or only by
# rounding. Not `precision`, to whose rounding the weights adapt, nor `cache_latents` (float16).
_FREE = (
    *("accumulation", "gradient_checkpointing", "checkpoint_levels", "sharding"),
    *("channels_last", "compile", "workers", "stall_minutes"),
    *("log_every", "validate_every", "preview_every", "checkpoint_every"),
    *("keep_checkpoints", "keep_every", "score_every", "evaluator"),
)


DataChanged = Literal["ask", "continue"]


def claim_folder(
    config: TrainConfig, recipe: Recipe, data: PreparedDataset, job: Job
) -> Initialization | None:
    """Make the folder this run's and this job's; return what the run starts from."""
    job.wait_until_free()
    if config.fork is not None:
        from semsynth.training.init.fork import fork

        job.run_on_rank0(lambda: fork(config, job.folder, recipe, data))
    start = None
    if config.from_checkpoint is not None or (job.folder / SAVED_INIT).exists():
        start = starting_point(config, job.folder, recipe, data)
    resume = config.resume or config.fork is not None  # then the new folder has a checkpoint
    job.run_on_rank0(lambda: claim(job.folder, recipe, data, resume, start, config.data_changed))
    job.acquire()
    return start


def claim(
    folder: Path,
    recipe: Recipe,
    data: PreparedDataset,
    resume: bool,
    start: Initialization | None,
    data_changed: DataChanged = "ask",
) -> None:
    """Mark the folder as this run's, or check that it is.

    Raises:
        UserError: it is another run's, or the data changed since: says what differs.
    """
    if not resume and any(name.startswith("step_") for name in names_in(folder)):
        raise UserError(f"{folder}: holds a run; omit --no-resume to resume it, or remove it")
    run = RunOutput(folder, recipe, data, start)
    run.check(data_changed)
    run.accept()
    run.output.claim()
    if start is not None:
        start.save(folder)
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    write_text(folder / "config.yaml", text)


class RunOutput:
    """The folder of a run, and what the run is made from.

    Attributes:
        output: folder and key; the images that are trained on are in the key, held-out ones are
            not: they decide no weights.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, data: PreparedDataset, start: Initialization | None
    ) -> None:
        """Take the folder and what the run would be made from; files newer than the data's
        ``dataset.json`` are read.
        """
        held_out = data.digests([split for split in data.splits() if split == "val"])
        kinds = trained_kinds(recipe, data)
        inputs = {TRAINED: data.digests(["train"], kinds), HELD_OUT: held_out}
        key: dict[str, Any] = {
            "recipe": _settings(recipe),
            TRAINED: data.digest_of(["train"], kinds, inputs[TRAINED]),
            "labels": data.labels.to_json(),
        }
        if start is not None:
            key["from"] = start.key
        self.output = Output(folder, "run", key, inputs)
        self._data = data

    def check(self, data_changed: DataChanged = "ask") -> None:
        """Check that the folder is empty or this run's, without changing it.

        Args:
            data_changed: "continue": go on with data that have changed.

        Raises:
            UserError: it is another run's, or its data changed: says what differs.
        """
        self._check_version()
        folder, found = self.output.folder, self._found
        taken = None
        if found is not None:
            what, theirs = self._data_change(found["key"]), found["key"].get("labels", {})
            if what and not (data_changed == "continue" and self._same_channels(theirs)):
                raise self._changed(what, theirs)
            taken = self._with_our_data(found)  # colours of labels, and names of data, may differ
        try:
            self.output.check(taken)
        except UserError as error:
            raise UserError(f"{error}{_alternatives(folder)}") from None

    def accept(self) -> None:
        """Record that the run goes on with the data as they are now; ``check`` has allowed it."""
        folder, found = self.output.folder, self._found
        if found is None:
            return
        what, step = self._data_change(found["key"]), self._step
        if what:
            logger.warning(
                f"{folder}: the data changed since step {step}: {what}; training goes on"
            )
            path = folder / DATA_CHANGES
            changes = read_json(path) if path.exists() else []
            write_json(path, [*changes, {"step": step, "what": what}])
        elif TRAINED not in found["key"]:
            logger.info(
                f"{folder}: was begun by a version that did not record its images; from now on a "
                "change of them is noticed"
            )
        before = self.output.recorded(HELD_OUT)
        held_out = difference(before, self.output.inputs[HELD_OUT]) if before is not None else ""
        if held_out:
            logger.warning(
                f"{folder}: the validation images changed since step {step}: {held_out}; later "
                "validation losses are of other images than those before"
            )
        if what or held_out or TRAINED not in found["key"]:
            write_json(folder / INPUTS, sealed(self.output.inputs))
        if found != self._with_our_data(found):
            write_json(folder / MARKER, self._with_our_data(found))

    @cached_property
    def _step(self) -> int:
        """The step of the newest checkpoint."""
        folders = complete_checkpoints(self.output.folder)
        return int(folders[-1].name.removeprefix("step_")) if folders else 0

    @property
    def _found(self) -> dict[str, Any] | None:
        """What the marker says; None: the folder is not a run yet."""
        marker = self.output.folder / MARKER
        found = read_json(marker) if marker.is_file() else None
        return found if isinstance(found, dict) and found.get("kind") == "run" else None

    def _data_change(self, key: dict[str, Any]) -> str:
        """Say how the data differ from those of a run's key; empty if they do not."""
        labels = _label_changes(key.get("labels", {}), self.output.key["labels"])
        if TRAINED not in key:
            # Of the version before, which kept the names of the images alone.
            names = hashlib.sha256("\n".join(self._data.stems("train")).encode()).hexdigest()[:12]
            images = "" if key.get("pictures") == names else "images added, removed or renamed"
        elif key[TRAINED] == self.output.key[TRAINED]:
            return ""
        else:
            before = self.output.recorded(TRAINED)
            images = "other images"
            if before is not None:
                images = difference(before, self.output.inputs[TRAINED])
                images = images or ("" if labels else "another size or ignored id")
        return "; ".join(filter(None, (images, labels)))

    def _with_our_data(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return a marker with the data and labels as they are now."""
        key = {k: v for k, v in found["key"].items() if k not in ("data", "pictures")}
        now = {name: self.output.key[name] for name in (TRAINED, "labels")}
        return {**found, "key": {**key, **now}}

    def _changed(self, what: str, theirs: dict[str, Any]) -> UserError:
        folder = self.output.folder
        more = "start another run: --output ANOTHER"
        if self._same_channels(theirs):
            more = f"to go on with them, add --data-changed continue; or {more}"
        return UserError(
            f"{folder}: the data changed since step {self._step}: {what}; {more}"
            + (f" --fork {folder}" if complete_checkpoints(folder) else "")
        )

    def _same_channels(self, theirs: dict[str, Any]) -> bool:
        """Return whether the network's condition means the same ids as before."""
        mine = self.output.key["labels"]
        old, new = ([(x["id"], x["channel"]) for x in y.get("labels", [])] for y in (theirs, mine))
        return old == new

    def _check_version(self) -> None:
        """Refuse a run whose recipe this version cannot read."""
        found, folder = self._found, self.output.folder
        if found is None:
            return
        try:
            Recipe.model_validate(found["key"]["recipe"])
        except (ValidationError, KeyError, TypeError):
            hint = f"start another from its model: --from {folder} --output ANOTHER"
            if not (folder / FINAL).exists():
                hint = "finish it with that version, or choose another --output"
            raise UserError(f"{folder}: is a run of another version of semsynth; {hint}") from None


def trained_kinds(recipe: Recipe, data: PreparedDataset) -> tuple[str, ...]:
    """Return the folders whose files decide what is trained on: larger copies too, for crops."""
    return kinds_read(data, recipe.train.crop) if recipe.train.crop < 1 else KINDS


def _settings(recipe: Recipe) -> dict[str, Any]:
    values = recipe.model_dump(mode="json", exclude={"about", "run"})
    for name in _FREE:
        values["train"].pop(name, None)
    return values


def _alternatives(folder: Path) -> str:
    if complete_checkpoints(folder):
        return f"; or start another from its newest checkpoint: --fork {folder} --output ANOTHER"
    hint = f"; or start another from its model: --from {folder} --output ANOTHER"
    return hint * (folder / FINAL).exists()


def _label_changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Say which labels differ in their names, channels or countability."""
    fields = ("name", "channel", "thing")
    before, now = (
        {x["id"]: tuple(x.get(name) for name in fields) for x in labels.get("labels", [])}
        for labels in (old, new)
    )
    changed = [
        f"label {i} ({(before.get(i) or ['new'])[0]}, now {(now.get(i) or ['gone'])[0]})"
        for i in sorted(before.keys() | now.keys())
        if before.get(i) != now.get(i)
    ]
    if old.get("ignore_id") != new.get("ignore_id"):
        changed.append(f"ignored id {old.get('ignore_id')}, now {new.get('ignore_id')}")
    return abbreviate(changed, 3)

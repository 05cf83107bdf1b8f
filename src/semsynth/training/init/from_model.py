"""``--from``, ``--fork``: the model that a run starts from, and its record in the run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import read_json, write_json
from semsynth.core.logging import logger
from semsynth.data.dataset import PreparedDataset
from semsynth.data.label_match import LabelMapping, match_labels, read_label_map
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.diffusers_folder import MODEL_INDEX, checkpoint_sha256
from semsynth.pipelines.formats.model_file import (
    Metadata,
    ModelFile,
    joint_licence,
    licence,
    load_checkpoint,
    load_model_file,
)
from semsynth.pipelines.formats.pretrained import find_model, is_of_package, pretrained_names
from semsynth.training.init.transfer import check_body, transfer_weights
from semsynth.training.recipe import Recipe, TrainConfig

SAVED_INIT = "from.json"


@dataclass(frozen=True)
class Initialization:
    """A run's starting point.

    Attributes:
        path: where it was found; not part of the run's key.
        sha256: of ``checkpoint_sha256``.
        labels: ours to theirs; labels without a counterpart are absent.
        facts: its metadata, for that of the run's models.
        fork: of ``--fork``: the run has a checkpoint of step 0, and ``path`` is a run's folder.
    """

    path: str
    sha256: str
    labels: dict[str, list[str]]
    facts: dict[str, Any]
    fork: bool = False

    @property
    def key(self) -> dict[str, Any]:
        """Return what decides the first weights, besides recipe and labels; JSON values."""
        return {"sha256": self.sha256, "labels": self.labels}

    def save(self, run: Path) -> None:
        """Record it in the run's folder, so that the run resumes without ``--from``."""
        write_json(run / SAVED_INIT, asdict(self), seal=True)

    def initialize(self, unet: SemanticUNet, recipe: Recipe, data: PreparedDataset) -> None:
        """Give a fresh network the weights, and log which were transferred and which were not.

        Raises:
            UserError: the file is missing now, or is another one.
        """
        path = Path(self.path)
        if not self.fork and self.path in pretrained_names():
            path = find_model(path)
        if self.fork:
            raise UserError(
                f"the run was forked from {path} and has no intact checkpoint left; remove "
                "its folder and fork again"
            )
        if not path.exists() or checkpoint_sha256(path) != self.sha256:
            raise UserError(
                f"{path}: the model that this run starts from is missing or has changed (SHA-256 "
                f"{self.sha256[:12]} is expected); give the path of the same file with --from"
            )
        source = _load(path)
        match = match_labels(data.labels, source.labels, self._map(data))
        warn_of_undoing(path, source.diffusion, recipe)
        report = transfer_weights(unet, source, recipe.model, recipe.diffusion_config, match)
        lines = _description(self, source, match, recipe)
        lines.append(f"{report.parameters:,} parameters transferred")
        lines += [f"fresh: {name} ({why})" for name, why in _by_layer(report.fresh).items()]
        if report.dropped:
            lines.append(f"not used: {', '.join(report.dropped)}")
        logger.info(f"from {path}: " + "\n  ".join(lines))

    def _map(self, data: PreparedDataset) -> dict[str, list[str]]:
        return {name: self.labels.get(name, []) for name in data.labels.channels}

    def with_licence(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return a model's facts with this start, under the terms of both data sets."""
        both = joint_licence(licence(facts), licence(self.facts))
        return {**facts, "licence": both, "from": self.facts}


def starting_point(
    config: TrainConfig, run: Path, recipe: Recipe, data: PreparedDataset
) -> Initialization | None:
    """Return what the run starts from, by the options or by the record in its folder.

    Raises:
        UserError: not a model of ours, another network, or a wrong label map.
    """
    if config.from_checkpoint is None:
        return read_saved_init(run)
    try:
        path = find_model(config.from_checkpoint)
    except UserError as error:
        raise UserError(f"--from {error}") from None
    # One of the package keeps its name: where the package is differs between machines.
    named = config.from_checkpoint if is_of_package(path) else path
    source = _load(path)
    hint = f" (--recipe {named} is its own)" if named != path else ""
    check_body(source.model, recipe.model, f"{named}{hint}")
    given = None if config.label_map is None else read_label_map(config.label_map)
    match = match_labels(data.labels, source.labels, given, str(config.label_map))
    digest = checkpoint_sha256(path)
    facts = source_metadata(
        source.metadata,
        file=named.name,
        sha256=digest,
        height=source.height,
        width=source.width,
        labels=match.names,
        averaged=match.unmatched,
    )
    place = named if is_of_package(path) else path.resolve()
    return Initialization(str(place), digest, match.names, facts)


def source_metadata(theirs: Metadata, **more: Any) -> dict[str, Any]:
    """Return what a run records of the model that it starts from: ``theirs``, and ``more``.

    Data and licence are "unknown" where they are missing; what that model started from is kept.
    """
    facts = {**more, "dataset": theirs.get("dataset", "unknown"), "licence": licence(theirs)}
    return {**facts, "from": theirs["from"]} if "from" in theirs else facts


def read_saved_init(run: Path) -> Initialization | None:
    """Return what the run in ``run`` started from, by its folder; None: from scratch.

    Raises:
        UserError: the file is damaged.
    """
    path = run / SAVED_INIT
    if not path.exists():
        return None
    try:
        return Initialization(**read_json(path))
    except TypeError:
        raise UserError(
            f"{path}: was not written by 'semsynth train --from'; give --from"
        ) from None


def _load(path: Path) -> ModelFile:
    if (path / MODEL_INDEX).is_file():
        return load_checkpoint(path)
    try:
        return load_model_file(path)
    except UserError as error:
        hint = ""
        if path.suffix in (".pt", ".pth") and "is not a final_model.pth" in str(error):
            hint = "; convert a checkpoint of the official code with `semsynth import` first"
        raise UserError(f"--from {error}{hint}") from None


def _description(
    start: Initialization, source: ModelFile, match: LabelMapping, recipe: Recipe
) -> list[str]:
    steps = f", {source.metadata['step']:,} steps" if "step" in source.metadata else ""
    size = f"{source.height}x{source.width}"
    lines = [f"a model of {start.facts['dataset']}, {size}{steps}; {start.facts['licence']}"]
    pairs = [
        mine if theirs == [mine] else f"{mine} < {' + '.join(theirs)}"
        for mine, theirs in match.names.items()
    ]
    lines.append(f"labels transferred: {', '.join(pairs) or 'none'}")
    if match.unmatched:
        lines.append(
            f"labels that start from the mean of all labels there: {', '.join(match.unmatched)}"
        )
    if match.unused:
        lines.append(f"labels there that are not used: {', '.join(match.unused)}")
    return lines + noise_levels(source.diffusion, recipe.diffusion_config)


def warn_of_undoing(path: Path, theirs: DiffusionConfig, recipe: Recipe) -> None:
    """Warn where a distilled model is trained with the losses of the phases before."""
    if theirs.evaluations and recipe.diffusion_steps:
        logger.warning(
            f"{path}: is a distilled model, which the phases train and finetune "
            f"(steps: {recipe.diffusion_steps:,}) undo; to go on with distill alone: --set "
            "train.steps=0 finetune.steps=0"
        )


def noise_levels(theirs: DiffusionConfig, ours: DiffusionConfig) -> list[str]:
    """Return a line where timesteps have other noise levels than before; weights adapt to that."""
    if (theirs.schedule, theirs.shift) == (ours.schedule, ours.shift):
        return []
    return [
        f"another noise level at each timestep: schedule {theirs.schedule}, shift "
        f"{theirs.shift:g} there, {ours.schedule}, {ours.shift:g} here"
    ]


def _by_layer(fresh: dict[str, str]) -> dict[str, str]:
    return {name.rsplit(".", 1)[0]: reason for name, reason in fresh.items()}

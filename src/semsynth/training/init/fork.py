"""How a run begins with ``--fork``: from the newest checkpoint of another run."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import atomic_folder, read_json, require_space
from semsynth.core.logging import logger
from semsynth.core.outputs import MARKER
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.pipelines.formats.model_file import has_licence
from semsynth.training.checkpoints.store import (
    complete_checkpoints,
    each_tensor,
    newest_of_another,
    save_state,
)
from semsynth.training.init.from_model import (
    Initialization,
    noise_levels,
    read_saved_init,
    source_metadata,
    warn_of_undoing,
)
from semsynth.training.init.transfer import another_network, attention_levels, codec_name
from semsynth.training.recipe import Recipe, TrainConfig
from semsynth.training.run_output import claim
from semsynth.training.state import forked


def fork(config: TrainConfig, folder: Path, recipe: Recipe, data: PreparedDataset) -> None:
    """Make ``folder`` a run whose checkpoint of step 0 has the weights of another run.

    Those of its newest intact checkpoint, with their EMA; the other run is only read. The folder is
    complete or absent. One that was forked from the same run before stays as it is, however far
    that run has trained since.

    Raises:
        UserError: not a run, no checkpoint, another network or other labels (says what differs), or
            an output folder that holds something else.
    """
    fits = check_fork(config, folder, recipe, data)
    if config.fork is None or fits is None:
        return
    (theirs, names), source, where = fits, config.fork, f"--fork {config.fork}"
    found = newest_of_another(source)
    if found is None:
        raise _no_checkpoint(where)
    name, digest, saved = found
    state, metadata = forked(saved)
    start = _start(source.resolve(), name, digest, metadata, theirs, names)
    sizes: list[int] = []
    each_tensor(state, lambda part: sizes.append(part.nbytes))
    require_space(folder, sum(sizes), "a fork")
    with atomic_folder(folder) as temporary:
        claim(temporary, recipe, data, True, start)
        save_state(temporary, 0, state, keep=1)
    lines = [f"{folder}: forked from {source} at step {metadata['step']}; {start.facts['licence']}"]
    if not has_licence(start.facts):
        lines.append("its checkpoint does not say the licence of its data: that of both is unknown")
    logger.info("\n  ".join(lines + noise_levels(theirs.diffusion_config, recipe.diffusion_config)))
    warn_of_undoing(source, theirs.diffusion_at(metadata["step"]), recipe)


def check_fork(
    config: TrainConfig, folder: Path, recipe: Recipe, data: PreparedDataset
) -> tuple[Recipe, list[str]] | None:
    """Check what can be checked without reading weights; raises as ``fork``, changes nothing.

    Returns:
        The other run's recipe and the names of the labels by channel; None: there is nothing to do.
    """
    source = config.fork
    if source is None:
        return None
    where, run = f"--fork {source}", source.resolve()
    if folder.resolve() == run:
        raise UserError(f"{where}: is the output folder itself; choose another with --output")
    if folder.is_dir() and any(folder.iterdir()):
        before = read_saved_init(folder)
        if config.resume and before is not None and before.fork and before.path == str(run):
            return None
        raise UserError(
            f"{folder}: is not empty, so nothing is forked into it; choose another with --output "
            "(or omit --fork, to resume the run in it)"
        )
    theirs, labels = _of_run(where, source)
    _check_same(where, theirs, recipe)
    names = _check_labels(where, labels, data.labels)
    if not complete_checkpoints(source):
        raise _no_checkpoint(where)
    return theirs, names


def _no_checkpoint(where: str) -> UserError:
    return UserError(f"{where}: has no complete checkpoint yet; wait for its first one")


def _of_run(where: str, source: Path) -> tuple[Recipe, LabelSet]:
    marker = source / MARKER
    found = read_json(marker) if marker.is_file() else {}
    if not isinstance(found, dict) or found.get("kind") != "run":
        raise UserError(f"{where}: is not a run folder; to start from a model alone use --from")
    try:
        key = found["key"]
        recipe = Recipe.model_validate(key["recipe"])
        return recipe, LabelSet.from_json(key["labels"], str(marker))
    except (ValidationError, KeyError, TypeError):
        raise UserError(
            f"{where}: is a run of another version of semsynth; "
            f"start from its model: --from {source}"
        ) from None


def _check_same(where: str, theirs: Recipe, ours: Recipe) -> None:
    same_codec = codec_name(theirs.model) == codec_name(ours.model)
    old, new = _network_settings(theirs, not same_codec), _network_settings(ours, not same_codec)
    differs = {name: (old[name], new[name]) for name in old if old[name] != new[name]}
    if differs:
        raise another_network(where, differs)


def _network_settings(recipe: Recipe, codec: bool) -> dict[str, Any]:
    """Return all settings that decide the shapes of weights, or their meaning."""
    model = recipe.model.model_dump(exclude={"dropout", "codec", "haar_levels", "vae"})
    model["attention_factors"] = attention_levels(recipe.model)
    if codec:
        model["codec"] = recipe.model.codec
        model["haar_levels"] = recipe.model.haar_levels
        model["vae"] = None if recipe.model.vae is None else recipe.model.vae.source
    model["image_channels"] = recipe.model.image_channels
    model["image_bits"] = recipe.model.image_bits
    settings = {f"model.{name}": value for name, value in model.items()}
    for name in ("prediction", "learn_sigma"):
        settings[f"loss.{name}"] = getattr(recipe.loss, name)
    return settings


def _check_labels(where: str, theirs: LabelSet, ours: LabelSet) -> list[str]:
    """Return the names by channel, which are the same in both."""
    old, new = list(theirs.channels), list(ours.channels)
    pairs = enumerate(zip_longest(old, new, fillvalue="nothing"))
    other = [f"channel {i} is {a} there, {b} here" for i, (a, b) in pairs if a != b]
    if other:
        raise UserError(
            f"{where}: has other labels: {abbreviate(other, 3, '; ')}; --from starts from a "
            "finished model of other labels"
        )
    return new


def _start(
    run: Path, name: str, digest: str, metadata: dict[str, Any], recipe: Recipe, names: list[str]
) -> Initialization:
    labels = {name: [name] for name in names}
    facts = source_metadata(
        metadata,
        file=name,
        sha256=digest,
        step=metadata["step"],
        height=recipe.height,
        width=recipe.width,
        labels=labels,
        averaged=[],
    )
    return Initialization(str(run), digest, labels, facts, fork=True)

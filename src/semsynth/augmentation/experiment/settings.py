"""Settings of the stages of an experiment: its own, changed by `flag=value`; what is frozen."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from semsynth.augmentation.edits.config import EditConfig
from semsynth.augmentation.experiment.arms import ARMS, BASELINE, MASK_TEACHERS, TEACHERS, Arm
from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.unlabelled import open_unlabelled
from semsynth.augmentation.filter.config import FilterConfig
from semsynth.core.config import parse_yaml
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_json, write_json
from semsynth.core.version import __version__
from semsynth.data.content import digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256
from semsynth.pipelines.formats.pretrained import find_model
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.segmentation.config import STRONG as STRONG_FLAGS
from semsynth.segmentation.config import UNLABELLED, SegmentTrainConfig
from semsynth.training.recipe import Recipe, load_recipe

FROZEN = "frozen.json"
STRONG: dict[str, Any] = {
    "arch": "lite2",
    "augment": "strong",
    "balanced_crops": True,
    "classmix": 0.5,
    "copy_paste": 0.5,
    "ema": 0.99,
    "steps": 800,
    "batch_size": 8,
    "lr": 3e-3,
    "pretrained_lr_share": 0.5,
    "weight_decay": 0.01,
    "class_balance": 0.5,
}
"""The baseline's settings, of ``SegmentTrainConfig``: those of every arm; `real` is without the
strong augmentation."""
MIXED: dict[str, Any] = {"mix_share": 0.5, "mix_share_end": 0.0}
"""How extra images are mixed in: their share of a batch falls."""
EDITS: dict[str, Any] = {"kinds": "transplant,move,remove"}
"""Edits whose images are right without synthesis: geometry and edits have the same ones."""
# What the experiment decides itself.
_OURS = ("data", "output", "overwrite", "device", "seed", "split", "val_split", "shard", "preview")
_OF_SEGMENT = (*_OURS, "extra", "extra_split", "fresh", "unlabelled", "unlabelled_split")
_OF_GENERATE: tuple[str, ...] = (
    *_OURS,
    "model",
    "masks",
    "masks_as",
    "label_map",
    "per_mask",
    "limit",
    "strength",
)
_OF_GENERATE += ("from_image", "keep", "native_size")
_OF_EDIT = (*_OURS, "donors", "count", "hard")
_OF_FILTER = (*_OURS, "samples", "segmenter", "real")
# Settings of segmenters that only extra images know.
_MIXED = ("mix_share", "mix_share_end", "extra_weight")
# Settings of edits that are for masks of other data alone.
_FOREIGN = ("donor_split", "donor_kind", "to_kind", "label_map")
# Of the flags: where things are, and what is run now; they decide no number.
_FREE = (
    "data",
    "output",
    "stage",
    "freeze",
    "draws",
    "list_",
    "plan",
    "task",
    "device",
    "allow_overlap",
)
OLD_NAMES = {"eval_split": "judge_split"}
"""Settings whose name in files and digests is an older one."""


def changes(words: Sequence[str], config: type, flag: str, ours: Sequence[str]) -> dict[str, Any]:
    """Return settings that are given as ``flag=value``, values as in YAML.

    Args:
        words: as given.
        config: the dataclass that has these flags.
        flag: what the words were given to, for messages.
        ours: fields that the experiment decides.

    Raises:
        UserError: not of this form, or no such flag; says which is near.
    """
    hints = get_type_hints(config)
    known = {field.name for field in dataclasses.fields(config)} - set(ours)
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not equals:
            raise UserError(f"{flag} {word}: must be flag=value, as in {flag} steps=800")
        if name in ours:
            raise UserError(f"{flag} {name}: is decided by the experiment; drop it")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            raise UserError(f"{flag} {name}: no such flag; {hint}")
        value = parse_yaml(text.encode(), f"{flag} {name}")
        if isinstance(value, list):
            value = tuple(value)
        if isinstance(value, int) and not isinstance(value, bool) and hints[name] is float:
            value = float(value)
        if isinstance(value, str) and "Path" in str(hints[name]):
            value = Path(value)
        _check_type(value, hints[name], f"{flag} {name}")
        found[name] = value
    return found


def _check_type(value: Any, hint: Any, where: str) -> None:
    if not _fits(value, hint):
        raise UserError(f"{where} is {_shown(value)}: must be {_wanted(hint)}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type: what tyro checks of flags on the command line."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in inner
    if kind in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is tuple:
        if not isinstance(value, tuple):
            return False
        each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        fit = (_fits(one, wanted) for one, wanted in zip(value, each, strict=False))
        return len(value) == len(each) and all(fit)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _wanted(hint: Any) -> str:
    """Say what fits, in words."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return " or ".join(map(str, inner))
    if kind in (Union, UnionType):
        return " or ".join(_wanted(one) for one in inner)
    if kind is tuple and inner[-1] is Ellipsis:
        return "a list, as in [a, b]"
    if kind is tuple:
        return f"a list of {len(inner)}, each {_wanted(inner[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint, "a path" if hint is Path else "null")


def _shown(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def segment_settings(config: ExperimentConfig, arm: Arm, mixed: bool) -> dict[str, Any]:
    """Return the settings of an arm's segmenters, without data, seed and steps of ``longer``.

    Args:
        config: its ``segment`` changes those of all arms alike.
        arm: ``plain`` counts.
        mixed: whether it has extra images.
    """
    given = changes(config.segment, SegmentTrainConfig, "--segment", _OF_SEGMENT)
    if arm.larger:
        given |= changes(config.larger, SegmentTrainConfig, "--larger", _OF_SEGMENT)
    own = {**STRONG, **(MIXED if mixed else {})}
    if "init_from" in given:  # encoders whose norms are fixed: not as fast as lite2's
        own["pretrained_lr_share"] = SegmentTrainConfig.pretrained_lr_share
    # Without what has no effect in an arm: its trainings are the same whatever is tried elsewhere.
    unknown = {*(() if mixed else _MIXED), *(() if arm.unlabelled else UNLABELLED)}
    own |= {name: value for name, value in given.items() if name not in unknown}
    if arm.plain:
        own = {name: value for name, value in own.items() if name not in STRONG_FLAGS}
        own["augment"] = "plain"
    return own


def generate_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings of `semsynth generate` that were given."""
    return changes(config.generate, GenerateConfig, "--generate", _OF_GENERATE)


def edit_settings(config: ExperimentConfig, foreign: bool) -> dict[str, Any]:
    """Return the settings of `semsynth edit`: of masks of other data, or of the draw's own pairs.

    Raises:
        UserError: a kind that is an arm of its own.
    """
    given = changes(config.edit, EditConfig, "--edit", _OF_EDIT)
    if "foreign" in EditConfig(kinds=str(given.get("kinds", ""))).chosen:
        raise UserError(
            "--edit kinds=foreign: is an arm of its own (--arms foreign); drop the kind"
        )
    if foreign:
        return {**given, "kinds": "foreign"}
    return {**EDITS, **{name: value for name, value in given.items() if name not in _FOREIGN}}


def filter_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings of `semsynth filter` that were given."""
    return changes(config.filter, FilterConfig, "--filter", _OF_FILTER)


def check_settings(config: ExperimentConfig, arms: Sequence[Arm], data: PreparedDataset) -> None:
    """Make each configuration and a segmenter once: what is wrong is said before the work.

    Raises:
        UserError: a setting out of its range, an encoder that is not installed, or masks with
            unlabelled pixels for a generator that knows none.
    """
    from semsynth.segmentation.train import build_segmenter

    for arm in arms:
        if arm.real == "next" and config.seeds < 2:
            raise UserError(
                f"--arms {arm.name}: one segmenter alone cannot disagree; give --seeds 2 or more, "
                "or drop the arm"
            )
        given = segment_settings(config, arm, arm.masks is not None)
        unlabelled = data.root if arm.unlabelled else None
        settings = SegmentTrainConfig(unlabelled=unlabelled, **given)
        if arm.larger or arm.name == BASELINE:
            build_segmenter(settings, data.labels, (data.height, data.width))
        knows_none = data.labels.ignore_id is None and not config.generator_unlabelled
        if arm.masks == "predicted" and arm.synthetic and knows_none:
            raise UserError(
                f"--arms {arm.name}: leaves pixels of its masks unlabelled, and the labels of "
                f"{data.root} have no id for that; add --generator-unlabelled, whose generator "
                "learns such pixels, or drop the arm"
            )
    GenerateConfig(**generate_settings(config))
    EditConfig(**edit_settings(config, foreign=False))
    EditConfig(**edit_settings(config, foreign=True))
    FilterConfig(**filter_settings(config))


def all_settings(config: ExperimentConfig, data: PreparedDataset) -> dict[str, Any]:
    """Return everything that decides the numbers, as JSON values: no paths, content instead."""
    values: dict[str, Any] = {
        OLD_NAMES.get(k, k): v for k, v in asdict(config).items() if k not in _FREE
    }
    values["recipe"] = recipe_settings(load_recipe(config.recipe, config.set))
    del values["set"]
    start = values.pop("from_checkpoint")
    values["from"] = None if start is None else checkpoint_sha256(find_model(start))
    if config.generator_data is not None:
        values["generator_data"] = PreparedDataset.open(config.generator_data).digest
    if config.unlabelled is not None:
        values["unlabelled"] = open_unlabelled(config, data).digest
    if (teacher := config.teacher_file) is not None:
        values["teacher"] = checkpoint_sha256(teacher)
    values["data"] = data.digest_of([config.split, config.eval_split])
    values["baseline"] = {k: _json(v) for k, v in {**STRONG, **MIXED, **EDITS}.items()}
    values["semsynth"] = __version__
    return {k: _json(v) for k, v in values.items()}


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """Return what decides the numbers of a recipe, as JSON values; digests are of its keys."""
    values = recipe.model_dump(mode="json", exclude={"about", "run"})
    values["train"]["judge"] = values["train"].pop("evaluator", None)  # its name in files
    return values


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings in order, as JSON values."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in sorted(settings.items())}


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def freeze(config: ExperimentConfig, settings: dict[str, Any]) -> Path:
    """Write the settings that ``--stage final`` runs with; return the file.

    Raises:
        UserError: others are frozen already.
    """
    path = config.output / FROZEN
    if path.exists():
        different = _differences(read_json(path)["settings"], settings)
        if different:
            raise UserError(
                f"{path}: other settings are frozen ({different}); choose another --output for "
                "another experiment"
            )
        return path
    frozen = {"format": 1, "digest": digest_json(settings), "settings": settings}
    write_json(path, frozen, seal=True)
    return path


def check_frozen(config: ExperimentConfig, settings: dict[str, Any]) -> None:
    """Check that the settings are those that were frozen.

    Raises:
        UserError: nothing is frozen yet, or something differs; says what.
    """
    path = config.output / FROZEN
    if not path.exists():
        raise UserError(
            f"--stage final: {path} does not exist; run --stage development, then freeze its "
            "settings with --freeze"
        )
    different = _differences(read_json(path)["settings"], settings)
    if different:
        raise UserError(
            f"--stage final: settings differ from those frozen in {path}: {different}; give the "
            "frozen ones"
        )


def _differences(old: Any, new: Any, name: str = "") -> str:
    """Say in which values two settings differ; empty if they do not."""
    found = list(_different(old, new, name))
    return abbreviate(found, 3, "; ")


def _different(old: Any, new: Any, name: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            text
            for key in sorted(old.keys() | new.keys())
            for text in _different(old.get(key), new.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if old == new else [f"{name} was {old!r}, now {new!r}"]


def teachers_of(config: ExperimentConfig, arm: Arm) -> Iterator[Arm]:
    """Yield the arms whose first segmenter of a draw an arm needs: for its masks, for its labels.

    Args:
        config: of the experiment.
        arm: the arm; its generator counts, too.
    """
    generates = arm.synthetic or arm.longer
    if arm.masks == "predicted" or (generates and config.generator_unlabelled):
        yield from (ARMS[name] for name in MASK_TEACHERS)
    if arm.filtered and config.teacher is None:
        yield ARMS[TEACHERS[config.teacher_part]]

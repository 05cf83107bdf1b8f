"""`semsynth plan`: what a recipe will take, before it is queued."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from semsynth.cli.common import finish, parse
from semsynth.core.errors import UserError
from semsynth.diffusion.config import SamplerSettings
from semsynth.training.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from semsynth.planning.memory import Hardware

# Recipes that are not named after the data set that they are for.
_DATA = {"paper": "ade20k"}
# GB of a GPU that is not on this machine, unless --memory says otherwise.
_MEMORY = 80.0


@dataclass(frozen=True)
class PlanConfig:
    """Say what a recipe takes: memory, batch that fits, hours, disk; and what to change.

    On a machine with a GPU for such GPUs, with some real steps timed on it. Elsewhere for the CPU,
    or with --gpus or --memory for such GPUs: then hours are not known.

    Raises:
        UserError: a value outside its range.
    """

    recipe: str = "sidewalk_1024"
    """Name of a recipe, or a YAML file."""
    gpus: int | None = None
    """Processes, one a GPU."""
    memory: float | None = None
    """GB (1e9 bytes) of a GPU; by default what this machine's has, or 80."""
    data: Path | None = None
    """Prepared data set, which says how many classes and training images there are."""
    classes: int | None = None
    """Classes with a condition channel, without --data; known for the recipes of the package."""
    images: int = 1000
    """Images to generate afterwards."""
    steps: int | None = None
    """Denoising steps of an image; 20 by default, or the evaluations of a recipe with the phase
    distill."""
    measure: bool = True
    """Time some real steps on this machine, where the plan is for it."""
    set: tuple[str, ...] = ()
    """Changes of the recipe, as section.key=value; lr and bs are train.learning_rate and
    train.batch_size."""
    device: str = "auto"
    """auto, cpu, cuda: this machine's."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("gpus", "classes", "images", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}: must be at least 1")
        if self.memory is not None and self.memory <= 0:
            raise UserError(f"--memory is {self.memory:g}: must be more than 0 GB")


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(PlanConfig, argv, "plan")
    recipe = load_recipe(config.recipe, config.set)
    channels = label_channels(config, recipe)
    soft = ""
    if config.data is not None:
        from semsynth.data.dataset import PreparedDataset
        from semsynth.data.large import blur_note
        from semsynth.training.build import with_images_of

        data = PreparedDataset.open(config.data)
        recipe, soft = with_images_of(recipe, data), blur_note(data, recipe.train.crop)
    from semsynth.planning.plan import InferenceWorkload, make_plan
    from semsynth.planning.text import text
    from semsynth.training.build import memorised_from

    evaluations = recipe.diffusion_config.evaluations
    steps = SamplerSettings(steps=config.steps).of_model(evaluations).steps
    inference = InferenceWorkload(config.images, steps, guided=not evaluations)
    images = training_images(config)
    plan = make_plan(recipe, channels, hardware_of(config), inference, images)
    plan["advice"] += [soft] if soft else []
    if known := memorised_from(recipe, images or 0):
        plan["memorised_from"] = known
    if as_json:
        return finish(plan, as_json)
    print(text(plan))
    return 0


def label_channels(config: PlanConfig, recipe: Recipe) -> int:
    """Return the condition channels of the data: of --data, --classes, or the recipe's data set.

    Raises:
        UserError: nothing says how many there are.
    """
    if config.data is not None:
        from semsynth.data.dataset import PreparedDataset

        return PreparedDataset.open(config.data).labels.num_channels
    if config.classes is not None:
        return config.classes
    from semsynth.data.sources import SOURCES

    first = recipe.name.split("_")[0]
    labels = getattr(import_module(SOURCES.get(_DATA.get(first, first), __name__)), "LABELS", None)
    if labels is None:
        raise UserError(
            f"recipe '{recipe.name}' does not say how many classes its data have: give --data "
            "PREPARED or --classes N"
        )
    channels: int = labels.num_channels
    return channels


def training_images(config: PlanConfig) -> int | None:
    """Return how many training images --data has; None without it."""
    if config.data is None:
        return None
    from semsynth.data.dataset import PreparedDataset

    data = PreparedDataset.open(config.data)
    return len(data.stems("train")) if "train" in data.splits() else 0


def hardware_of(config: PlanConfig) -> Hardware:
    """Return what to plan for: named GPUs, those of this machine, or its CPU."""
    import torch

    from semsynth.core.devices import free_bytes, pick_device
    from semsynth.planning.memory import Hardware

    device = pick_device(config.device)
    measured = device if config.measure else None
    if device.type == "cuda":
        memory = config.memory or torch.cuda.get_device_properties(device).total_memory / 1e9
        return Hardware(True, config.gpus or 1, memory * 1e9, measured)
    if config.memory is None and config.gpus is None:
        return Hardware(False, 1, float(free_bytes(device)), measured)
    memory = config.memory or _MEMORY
    return Hardware(True, config.gpus or 1, memory * 1e9, None, "no such GPU is on this machine")

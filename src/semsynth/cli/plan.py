"""`semsynth plan`: what a recipe will take, before it is queued."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from semsynth.cli.common import finish, parse
from semsynth.core.errors import UserError
from semsynth.core.gpu_specs import PEAKS, Peak, find_peak
from semsynth.training.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from semsynth.planning.hardware import Hardware

# Recipes that are not named after the data set that they are for.
_DATA = {"paper": "ade20k"}
# For those who do not name a card.
_USUAL = ("H100", "A100", "L40S", "RTX 4090", "V100", "T4")
_MEMORY = 80.0


@dataclass(frozen=True)
class PlanConfig:
    """Say what a recipe takes: memory, batch that fits, hours, disk; and what to change.

    Without --gpus, --gpu and --memory for this machine, by some real steps where it can; with one
    of them for such GPUs.

    Raises:
        UserError: a value outside its range.
    """

    recipe: str = "sidewalk_1024"
    """Name of a recipe, or a YAML file."""
    gpus: int | None = None
    """Processes, one a GPU."""
    memory: float | None = None
    """GB (1e9 bytes) of a GPU; by default what the card has, or 80."""
    gpu: str | None = None
    """A card, such as "H100" or "RTX 4090": its peak and its memory; by default the usual ones."""
    utilisation: float = 0.25
    """For a card that is not at hand: the share of its peak that is taken as reached."""
    data: Path | None = None
    """Prepared data set, which says how many classes and training images there are."""
    classes: int | None = None
    """Classes with a condition channel, without --data; known for the recipes that are shipped."""
    images: int = 1000
    """Images to be painted afterwards."""
    steps: int = 20
    """Denoising steps of a painted image."""
    measure: bool = True
    """Time some real steps on this machine, where the plan is for it."""
    set: tuple[str, ...] = ()
    """Changes of the recipe, as section.key=value."""
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
        if not 0 < self.utilisation <= 1:
            raise UserError(f"--utilisation is {self.utilisation:g}: must be over 0, at most 1")
        if self.gpu is not None and find_peak(self.gpu) is None:
            known = ", ".join(peak.name for peak in PEAKS)
            raise UserError(f"--gpu {self.gpu}: not in the table; known: {known}")


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(PlanConfig, argv, "plan")
    recipe = load_recipe(config.recipe, config.set)
    channels = label_channels(config, recipe)
    from semsynth.planning.hardware import SCALING
    from semsynth.planning.plan import make_plan
    from semsynth.planning.text import text
    from semsynth.planning.timing import Painting

    hardware = hardware_of(config)
    painting = Painting(config.images, config.steps)
    plan = make_plan(recipe, channels, hardware, painting, training_images(config))
    plan["painting"] = {"images": config.images, "steps": config.steps}
    plan["assumed"] = {"utilisation": config.utilisation, "scaling": SCALING}
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
    from semsynth.planning.hardware import Hardware

    device = pick_device(config.device)
    named = config.gpu is not None or config.memory is not None or config.gpus is not None
    if device.type == "cuda" and config.gpu is None:
        here = torch.cuda.get_device_properties(device)
        memory = config.memory * 1e9 if config.memory else float(here.total_memory)
        found = find_peak(here.name)
        cards: tuple[Peak, ...] = (found,) if found else ()
        measured = device if config.measure else None
        return Hardware(True, config.gpus or 1, memory, cards, config.utilisation, measured)
    if not named:
        measured = device if config.measure else None
        return Hardware(False, 1, float(free_bytes(device)), (), config.utilisation, measured)
    cards = _cards(config)
    gigabytes = config.memory or (cards[0].memory_gb if config.gpu else _MEMORY)
    why_not = "no such GPU is at hand"
    return Hardware(
        True, config.gpus or 1, gigabytes * 1e9, cards, config.utilisation, None, why_not
    )


def _cards(config: PlanConfig) -> tuple[Peak, ...]:
    names = (config.gpu,) if config.gpu else _USUAL
    return tuple(peak for peak in map(find_peak, names) if peak is not None)

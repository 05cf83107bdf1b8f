"""Recipes and the options of ``semsynth train``, as plain values (no torch)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tyro.conf
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from semsynth.core.config import Config, load_yaml, parse, set_value
from semsynth.core.errors import UserError
from semsynth.core.paths import path_name
from semsynth.diffusion.config import DiffusionConfig, LossConfig, ProcessConfig, check_flow
from semsynth.models.config import ModelConfig, whole_size
from semsynth.pipelines.formats.pretrained import FOLDER, RECIPE, pretrained_names
from semsynth.training.phases import (
    DistillSection,
    FinetuneSection,
    PhaseConfig,
    TrainSection,
    check_moved,
    spelled_out,
)


class Recipe(Config):
    """Everything that decides the weights, except the data.

    Attributes:
        name: name of the recipe.
        about: a line or two about what it is for and what it costs.
        run: name of the run's folder under checkpoints/ (empty: the recipe's name).
        height: height of the images in pixels; the prepared data must have this size.
        width: width of the images in pixels.
        seed: seed of everything random: initial weights, order, noise, dropout.
    """

    name: str
    about: str = ""
    run: str = ""
    height: int = Field(ge=8)
    width: int = Field(ge=8)
    seed: int = Field(0, ge=0)
    model: ModelConfig
    diffusion: ProcessConfig
    loss: LossConfig = Field(default_factory=lambda: LossConfig.model_validate({}))
    train: TrainSection
    finetune: FinetuneSection = Field(default_factory=lambda: FinetuneSection.model_validate({}))
    distill: DistillSection = Field(default_factory=lambda: DistillSection.model_validate({}))

    @model_serializer(mode="wrap")
    def _without_no_distill(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        if not self.distill.steps:  # so that the keys of runs without it are what they were
            values.pop("distill", None)
        return values

    @property
    def diffusion_config(self) -> DiffusionConfig:
        """Return what sampling from the finished model needs."""
        return self.diffusion_at(self.total_steps)

    def diffusion_at(self, step: int) -> DiffusionConfig:
        """Return what sampling needs, of the average after ``step`` steps.

        Its ``evaluations`` are 0 until the phase ``distill`` has begun.
        """
        predicted = self.loss.model_dump(include={"prediction", "learn_sigma"})
        values = {**self.diffusion.model_dump(), **predicted}
        if step > self.diffusion_steps:
            values["evaluations"] = self.distill.evaluations
        return DiffusionConfig.model_validate(values)

    @property
    def diffusion_steps(self) -> int:
        """Return the steps of the phases ``train`` and ``finetune``."""
        return self.train.steps + self.finetune.steps

    @property
    def total_steps(self) -> int:
        """Return the steps of all phases."""
        return self.diffusion_steps + self.distill.steps

    @property
    def phases(self) -> tuple[PhaseConfig, ...]:
        """Return the phases in their order."""
        return self.train, self.finetune, self.distill

    @property
    def step_size(self) -> tuple[int, int]:
        """Return height and width of what a step sees of an image."""
        return self.train.crop_size or (self.height, self.width)

    @model_validator(mode="after")
    def _size_can_be_halved(self) -> Self:
        if self.train.crop_size is not None:
            return self  # the network sees crops alone; sampling pads whole images
        height, width = self.model.nearest_size(self.height, self.width)
        if (height, width) != (self.height, self.width):
            raise ValueError(
                f"{self.height}x{self.width} (height x width) cannot be halved as often as the "
                f"network does: it wants multiples of {self.model.size_multiple}; the nearest size "
                f"is {height}x{width}"
            )
        return self

    @model_validator(mode="after")
    def _crops_fit(self) -> Self:
        train = self.train
        low, high = train.scale
        if not 0 < low <= high:
            raise ValueError(f"train.scale is [{low}, {high}]: least and most, both above 0")
        if train.crop_size is None:
            if (low, high) != (1, 1):
                raise ValueError("train.scale needs train.crop_size (or use train.crop)")
            return self
        if train.crop < 1:
            raise ValueError("train.crop and train.crop_size exclude each other: set crop to 1")
        multiple = self.model.size_multiple
        for crop, side, name in zip(
            train.crop_size, (self.height, self.width), ("height", "width"), strict=True
        ):
            if crop < 1 or crop % multiple:
                raise ValueError(f"train.crop_size: {crop} is not a multiple of {multiple}")
            if round(crop / low) > side:
                raise ValueError(
                    f"train.crop_size {crop} at scale {low:g} is {round(crop / low)} pixels of an "
                    f"image, more than its {name} {side}; the least scale is {crop / side:.3g}"
                )
        return self

    @model_validator(mode="after")
    def _scores_have_an_evaluator(self) -> Self:
        if self.train.score_every and self.train.evaluator is None:
            raise ValueError(
                f"train.score_every is {self.train.score_every}, and no train.evaluator is given: "
                "set train.evaluator to a segmenter (semsynth segment train), or train.score_every "
                "to 0"
            )
        return self

    @model_validator(mode="after")
    def _augmentation_does_not_leak(self) -> Self:
        if self.train.color and not self.model.augment_condition:
            raise ValueError(
                "train.color would be in the generated images too, unless "
                "model.augment_condition is true"
            )
        return self

    @model_validator(mode="after")
    def _turned_samples_fit(self) -> Self:
        if not self.train.rotate:
            return self
        height, width = self.step_size
        if height != width:
            raise ValueError(
                f"train.rotate turns samples by 90 degrees, and they are {width}x{height} (width x "
                "height): set it to false, or train on squares (height and width, or "
                "train.crop_size)"
            )
        if self.model.augment_condition:
            raise ValueError(
                "train.rotate and model.augment_condition exclude each other: turns are not among "
                "the numbers that the network is told"
            )
        return self

    @model_validator(mode="after")
    def _latents_can_be_cached(self) -> Self:
        train = self.train
        if not train.cache_latents:
            return self
        if self.model.codec != "vae":
            raise ValueError(
                f"train.cache_latents is for codec 'vae'; '{self.model.codec}' is computed faster "
                "than it is read"
            )
        for name, without in (("crop", 1), ("crop_size", None), ("color", 0), ("rotate", False)):
            if getattr(train, name) != without:
                raise ValueError(
                    f"train.{name} is {getattr(train, name)}, and augmented images have no "
                    "latents on disk; set train.cache_latents=false, or augment by flips alone"
                )
        return self

    @model_validator(mode="after")
    def _bands_fit(self) -> Self:
        given, bands = len(self.loss.band_weights), self.model.haar_levels + 1
        if given and (self.model.codec != "haar" or given != bands):
            raise ValueError(
                f"loss.band_weights has {given} numbers: codec haar takes {bands} with "
                f"haar_levels {self.model.haar_levels}, the others none"
            )
        return self

    @model_validator(mode="after")
    def _learned_variance_is_of_pixels(self) -> Self:
        # Its bound takes x0 for 8-bit values in [-1, 1] (DDPM, arXiv 2006.11239, eq. 13).
        if self.loss.learn_sigma and self.model.pixel_head:
            raise ValueError("model.pixel_head draws an image: set loss.learn_sigma to false")
        if self.loss.learn_sigma and self.model.codec != "pixel":
            raise ValueError("loss.learn_sigma needs model.codec: pixel")
        return self

    @model_validator(mode="after")
    def _process_fits_prediction(self) -> Self:
        check_flow(self.loss.prediction, self.diffusion.schedule)
        return self

    @model_validator(mode="after")
    def _can_be_distilled(self) -> Self:
        if not self.distill.steps:
            return self
        where = f"distill.steps is {self.distill.steps}, and"
        if self.loss.prediction != "sample":
            raise ValueError(
                f"{where} a network of few evaluations predicts the image: set loss.prediction to "
                f"sample (it is {self.loss.prediction}), or distill.steps to 0"
            )
        if self.model.codec == "vae":
            raise ValueError(
                f"{where} the discriminator sees images, not an autoencoder's latents: set "
                "model.codec to haar or pixel, or distill.steps to 0"
            )
        if self.train.sharding != "none":
            raise ValueError(
                f"{where} this phase wants the whole network in each process: set train.sharding "
                "to none, or distill.steps to 0"
            )
        check_distilled_images(self)
        return self


def check_distilled_images(recipe: Recipe) -> None:
    """Raise ValueError where the discriminator's features are not for the images."""
    if recipe.distill.steps and not recipe.model.is_rgb:
        raise ValueError(
            f"distill.steps is {recipe.distill.steps}, and the discriminator sees RGB of 8 bits "
            f"alone, these images have {recipe.model.image_channels} channels of "
            f"{recipe.model.image_bits} bits: set distill.steps to 0, or prepare --channels rgb"
        )


@dataclass(frozen=True)
class TrainConfig:
    """Train the generator, fine-tune it with mask dropout, distill it; resumes an unfinished run.

    Attributes:
        recipe: name of a recipe (`semsynth recipes` lists them), or a YAML file.
        data: folder of `semsynth prepare`.
        output: folder of the run; by default checkpoints/ and the name that the recipe gives.
        from_checkpoint: start from another model's weights: a final_model.pth, a run, a Diffusers
            folder, or the name of a model of the package (`semsynth models`). Data set, size and
            codec may differ, the network may not.
        fork: start a new run, in another output folder, from the newest checkpoint of a run, even
            of one that still trains: its weights and their average. Recipe and data set may differ,
            labels and network may not. Steps start afresh; the same command resumes the new run.
        label_map: for --from, a YAML file of lines `label of the data: label of the model` (or a
            list of labels, whose mean is used) where the names differ.
        resume: resume an unfinished run in the output folder (--no-resume: refuse it).
        data_changed: if training images changed since the run began: say so and ask, or continue.
        mask_dropout: what fine-tuning drops: whole masks (the paper); region: in half of the
            samples also classes and regions (finetune.region_dropout and distill.region_dropout, if
            the recipe has none).
        set: changes of the recipe, as section.key=value; lr and bs are train.learning_rate and
            train.batch_size.
        track: show numbers and previews in tensorboard, wandb, mlflow or trackio, too; several with
            commas between them. Each needs its package, and is set up by its own variables.
        device: auto, cpu, cuda or mps.
    """

    recipe: str = "sidewalk_1024"
    data: Path = Path("data/sidewalk_processed")
    output: Path | None = None
    from_checkpoint: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    fork: Path | None = None
    label_map: Path | None = None
    resume: bool = True
    data_changed: Literal["ask", "continue"] = "ask"
    mask_dropout: Literal["whole", "region"] = "whole"
    set: tuple[str, ...] = ()
    track: tuple[str, ...] = ()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


REGION_DROPOUT = 0.5
_PACKAGE = Path(__file__).resolve().parents[1]


def chosen_recipe(config: TrainConfig) -> Recipe:
    """Return the recipe that the options choose; UserError as ``load_recipe``."""
    recipe = load_recipe(config.recipe, config.set)
    for name in ("finetune", "distill") if config.mask_dropout == "region" else ():
        phase: PhaseConfig = getattr(recipe, name)
        if not phase.region_dropout:
            changed = phase.model_copy(update={"region_dropout": REGION_DROPOUT})
            recipe = recipe.model_copy(update={name: changed})
    return recipe


def run_folder(config: TrainConfig, recipe: Recipe) -> Path:
    """Return the folder of the run; UserError if the recipe's name cannot be that of a folder."""
    return config.output or Path("checkpoints") / path_name(recipe.run or recipe.name, "recipe")


def load_recipe(name_or_path: str, changes: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe and apply ``section.key=value`` changes.

    Raises:
        UserError: unknown recipe, unknown key (the nearest known one, or its new place, is named),
            or wrong value.
    """
    path = recipe_path(name_or_path)
    mapping: dict[str, Any] = load_yaml(path)
    for change in changes:
        set_value(mapping, spelled_out(change))
    where = str(path) if not changes else f"{path} with --set"
    check_moved(mapping, where)
    return parse(Recipe, mapping, where)


def with_changes(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with changes of its section ``train``."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


def latent_size(recipe: Recipe, sampling: bool = False) -> tuple[int, int]:
    """Return height and width of the latents, in training or in sampling."""
    height, width = recipe.step_size
    if sampling:
        height, width = whole_size((recipe.height, recipe.width), recipe.model.size_multiple)
    return height // recipe.model.downscale, width // recipe.model.downscale


def sampling_size(recipe: Recipe) -> tuple[int, int]:
    """Return height and width of images in sampling, before their padding is cropped."""
    height, width = latent_size(recipe, sampling=True)
    return height * recipe.model.downscale, width * recipe.model.downscale


def recipes_folder() -> Path:
    """Return the folder of the recipes that came with the package."""
    installed = _PACKAGE / "recipes"
    # A checkout (editable install) keeps them two folders up: <root>/src/semsynth, <root>/recipes.
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the recipes that came with the package, sorted."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def recipe_path(name_or_path: str | Path) -> Path:
    """Return the file of a recipe.

    Args:
        name_or_path: a known name (`streets_demo`), a path to a YAML file of the user's own, or the
            name of a model of the package, for the recipe that trained it.

    Raises:
        UserError: there is no such recipe; the message names the nearest known one.
    """
    text = str(name_or_path)
    names = recipe_names()
    if text in names:
        return recipes_folder() / f"{text}.yaml"
    path = Path(text)
    if path.is_file():
        return path
    if text in pretrained_names():
        return FOLDER / text / RECIPE
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise UserError(f"recipe file {path} does not exist; known recipes: {', '.join(names)}")
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise UserError(f"unknown recipe `{text}`: {hint}known recipes: {', '.join(names)}")

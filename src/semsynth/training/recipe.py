"""Recipes and the options of ``semsynth train``, as plain values (no torch)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tyro.conf
from pydantic import Field, model_validator

from semsynth.core.config import Config, load_yaml, parse, set_value
from semsynth.core.errors import UserError
from semsynth.core.paths import path_name
from semsynth.diffusion.config import DiffusionConfig, LossConfig, ProcessConfig, check_flow
from semsynth.models.config import ModelConfig, whole_size
from semsynth.training.recipe_keys import check_moved, spelled_out


class PhaseConfig(Config):
    """One phase of training: an optimizer, its learning rate and the dropout of masks.

    Attributes:
        steps: optimizer steps of the phase.
        learning_rate: learning rate of AdamW after the warm-up.
        lr_schedule: ``constant``, or ``cosine`` from the learning rate down to ``lr_final`` of it.
        lr_final: share of ``learning_rate`` that is left at the end of ``cosine``.
        warmup_steps: steps over which the learning rate grows linearly from zero.
        mask_dropout: share of samples whose whole mask becomes the null condition (all zeros).
        region_dropout: share of samples whose mask loses classes or regions, which become
            unlabelled: for masks that people draw or edit, which are partial.
    """

    steps: int = Field(ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    lr_schedule: Literal["constant", "cosine"] = "constant"
    lr_final: float = Field(0.05, ge=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    mask_dropout: float = Field(0.0, ge=0, le=1)
    region_dropout: float = Field(0.0, ge=0, le=1)


class TrainSection(PhaseConfig):
    """The first phase, and the settings of both.

    Attributes:
        batch_size: images per step over all processes.
        accumulation: micro-batches into which each process divides its share of the batch; saves
            memory.
        weight_decay: weight decay of AdamW.
        betas: betas of AdamW.
        grad_clip: largest norm of the gradient; a longer one is scaled down.
        ema_decay: decay of the moving average of the weights (EMA), which generates the images.
        ema_warmup: use a smaller decay at the start: min(ema_decay, (1 + n) / (10 + n)) at step n.
        flip: mirror half of the images.
        crop: random crops keep at least this share of each side and are enlarged to full size (1:
            no crops).
        crop_size: height and width of random crops, cut out without resizing. Images may then be
            larger than fits into memory, and of any size; the model still generates whole images.
            Validation uses the centres.
        scale: with ``crop_size``, the range of random factors by which images are enlarged before
            they are cropped.
        color: standard deviation of random brightness, contrast and saturation; needs
            ``model.augment_condition``.
        augment: share of the samples that are augmented by crop, scale and color.
        cache_latents: with codec ``vae``, compute the latents of all images once and keep them
            beside the data; excludes crops and color.
        precision: ``auto`` (bf16 where the device is made for it), ``no`` (fp32) or ``bf16``.
        sharding: ``full``: weights, gradients, optimizer and EMA are divided among the processes
            (FSDP2), for networks too large for one GPU; ``none``: each has all of it (DDP).
        gradient_checkpointing: recompute activations: less memory, about 1.3 times the time.
        checkpoint_levels: recompute activations of this many levels only, the largest first (0: of
            all). Most of the memory is in the first one or two.
        channels_last: memory layout of convolutions; ``auto``: with bf16, where it is faster.
        compile: compile the kernels of norms: ``auto`` (on GPUs), ``on`` or ``off``.
        workers: processes that read images (0: in the training process, kept in memory).
        log_every: steps between lines of ``metrics.jsonl``.
        validate_every: steps between validation losses (0: never).
        preview_every: steps between preview grids (0: never).
        score_every: steps between scores (0: never): images of 64 fixed training masks are
            generated and scored by the judge: mIoU, and distances to the real images. A scored step
            has a checkpoint; that of the highest mIoU is kept in best/. Weights stay the same.
        judge: the segmenter that scores, as evaluate's --segmenter: of semsynth segment train
            (segmenter.pth or its folder), or a Transformers model (a folder or Hub id).
        checkpoint_every: steps between checkpoints; the last step always has one.
        keep_checkpoints: number of the newest checkpoints that are kept.
        keep_every: checkpoints of steps that are multiples of this are kept too (0: none).
        stall_minutes: a job of several processes ends when one is silent, or steps make no
            progress, for this long; the first step, validation, previews and checkpoints may take
            six times as long.
    """

    batch_size: int = Field(16, ge=1)
    accumulation: int = Field(1, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = Field((0.9, 0.999), strict=False)
    grad_clip: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    ema_warmup: bool = True
    flip: bool = True
    crop: float = Field(1.0, gt=0, le=1)
    crop_size: tuple[int, int] | None = Field(None, strict=False)
    scale: tuple[float, float] = Field((1.0, 1.0), strict=False)
    color: float = Field(0.0, ge=0, le=1)
    augment: float = Field(1.0, ge=0, le=1)
    cache_latents: bool = False
    precision: Literal["auto", "no", "bf16"] = "auto"
    sharding: Literal["none", "full"] = "none"
    gradient_checkpointing: bool = False
    checkpoint_levels: int = Field(0, ge=0)
    channels_last: bool | Literal["auto"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    workers: int = Field(0, ge=0)
    log_every: int = Field(50, ge=1)
    validate_every: int = Field(0, ge=0)
    preview_every: int = Field(0, ge=0)
    score_every: int = Field(0, ge=0)
    judge: str | None = None
    checkpoint_every: int = Field(1000, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    keep_every: int = Field(0, ge=0)
    stall_minutes: float = Field(10.0, gt=0)

    def has_channels_last(self, precision: str) -> bool:
        """Return ``channels_last`` with ``auto`` resolved for a precision."""
        return precision == "bf16" if self.channels_last == "auto" else self.channels_last


class FinetuneSection(PhaseConfig):
    """The second phase: classifier-free guidance, by dropping masks (SDM, section 3.3)."""

    steps: int = Field(0, ge=0)
    learning_rate: float = Field(2e-5, gt=0)
    mask_dropout: float = Field(0.2, ge=0, le=1)


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

    @property
    def diffusion_config(self) -> DiffusionConfig:
        """Return what sampling needs of the sections ``diffusion`` and ``loss``."""
        predicted = self.loss.model_dump(include={"prediction", "learn_sigma"})
        return DiffusionConfig.model_validate({**self.diffusion.model_dump(), **predicted})

    @property
    def total_steps(self) -> int:
        """Return the steps of both phases."""
        return self.train.steps + self.finetune.steps

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
    def _scores_have_a_judge(self) -> Self:
        if self.train.score_every and self.train.judge is None:
            raise ValueError(
                f"train.score_every is {self.train.score_every}, and no train.judge is given: set "
                "train.judge to a segmenter (semsynth segment train), or train.score_every to 0"
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
    def _latents_can_be_cached(self) -> Self:
        train = self.train
        if not train.cache_latents:
            return self
        if self.model.codec != "vae":
            raise ValueError(
                f"train.cache_latents is for codec 'vae'; '{self.model.codec}' is computed faster "
                "than it is read"
            )
        for name, without in (("crop", 1), ("crop_size", None), ("color", 0)):
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
        if self.loss.learn_sigma and self.model.codec != "pixel":
            raise ValueError("loss.learn_sigma needs model.codec: pixel")
        return self

    @model_validator(mode="after")
    def _process_fits_prediction(self) -> Self:
        check_flow(self.loss.prediction, self.diffusion.schedule)
        return self


@dataclass(frozen=True)
class TrainConfig:
    """Train the generator, then fine-tune it with mask dropout; resumes an unfinished run.

    Attributes:
        recipe: name of a recipe (`semsynth recipes` lists them), or a YAML file.
        data: folder of `semsynth prepare`.
        output: folder of the run; by default checkpoints/ and the name that the recipe gives.
        from_checkpoint: start from another model's weights: a final_model.pth, a run, or a
            Diffusers folder. Data set, size and codec may differ, the network may not.
        fork: start a new run, in another output folder, from the newest checkpoint of a run, even
            of one that still trains: its weights and their average. Recipe and data set may differ,
            labels and network may not. Steps start afresh; the same command resumes the new run.
        label_map: for --from, a YAML file of lines `label of the data: label of the model` (or a
            list of labels, whose mean is used) where the names differ.
        resume: resume an unfinished run in the output folder (--no-resume: refuse it).
        data_changed: if training images changed since the run began: say so and ask, or continue.
        mask_dropout: what fine-tuning drops: whole masks (the paper); region: in half of the
            samples also classes and regions (finetune.region_dropout, if the recipe has none).
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
    if config.mask_dropout == "region" and not recipe.finetune.region_dropout:
        changed = recipe.finetune.model_copy(update={"region_dropout": REGION_DROPOUT})
        recipe = recipe.model_copy(update={"finetune": changed})
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
        name_or_path: a known name (`streets_demo`), or a path to a YAML file of the user's own.

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
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise UserError(f"recipe file {path} does not exist; known recipes: {', '.join(names)}")
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise UserError(f"unknown recipe `{text}`: {hint}known recipes: {', '.join(names)}")

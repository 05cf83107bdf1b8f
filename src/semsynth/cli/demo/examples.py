"""`semsynth demo`: real images that come with the package, and its models of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from semsynth.cli.demo import DemoConfig
from semsynth.cli.demo.page import Chapter, headline, write_page
from semsynth.cli.demo.stages import (
    Demo,
    Stage,
    generate_images,
    measure_gain,
    peak_memory_gb,
    run_stages,
    train_evaluator,
    write_report,
)
from semsynth.core.durations import duration
from semsynth.core.errors import UserError
from semsynth.core.files import read_json, sha256_file
from semsynth.core.logging import logger
from semsynth.core.outputs import claim_output_dir
from semsynth.pipelines.formats import pretrained

EXAMPLES_FOLDER = Path(__file__).resolve().parents[2] / "examples"
PAGE = "index.html"
# Six images of 256x256: a small segmenter, and batches that are no larger than they.
_SEGMENTER = {"width": 16, "batch_size": 4}
# A short training that changes a good model a little. A model of a few evaluations goes on with the
# phase that made it: the loss of the others would take from it what it has learned there.
_FINETUNE_BATCH = 8
_FINETUNE = (
    f"train.batch_size={_FINETUNE_BATCH}", "train.learning_rate=1e-4", "train.lr_schedule=constant",
    "train.warmup_steps=5", "train.ema_decay=0.9", "train.log_every=10", "train.validate_every=0",
    "train.preview_every=0", "train.score_every=0", "train.balance=0", "finetune.steps=0",
    "distill.learning_rate=1e-4", "distill.lr_schedule=constant", "distill.warmup_steps=5",
    "distill.ema_decay=0.9", "distill.check_every=0", "distill.diffusion_weight=0",
)  # fmt: skip


@dataclass(frozen=True)
class _Start:
    """A kind of images with the model that the demo starts from.

    Attributes:
        kind: its name.
        demo: its folder and sizes.
        model: the file of the model.
        recipe: the recipe that it was trained by.
        evaluations: that an image takes; 0: as many steps as asked for.
    """

    kind: str
    demo: Demo
    model: Path
    recipe: Path
    evaluations: int

    @property
    def tuned(self) -> Path:
        """The file of the fine-tuned model."""
        return self.demo.folder("finetuned") / "final_model.pth"


def run_examples(config: DemoConfig) -> dict[str, Any]:
    """Generate with the package's models, score, fine-tune them on a few images, and measure.

    Writes for each kind of images, in a folder of its name: ``prepared/``, ``segmenter/`` (for the
    evaluation), ``samples/`` (of the package's model), ``finetuned/`` (the model, fine-tuned),
    ``finetuned_samples/``, ``augment/``, and the pages ``report/``, ``finetuned_report/`` and
    ``comparison/``. The page of all is ``index.html``.

    Returns:
        As ``run_demo``; numbers by kind.

    Raises:
        UserError: as ``run_demo``.
    """
    starts = [_start(config, kind) for kind in config.kinds]
    budget = asdict(config.sizes)
    key: dict[str, Any] = {"source": config.source, "seed": config.seed, "budget": budget}
    key["models"] = {start.kind: sha256_file(start.model) for start in starts}
    claim_output_dir(config.output, "demo", key)
    logger.info(f"semsynth demo: real images from masks; everything goes to {config.output}/")
    logger.info("(if it is interrupted, the same command resumes)")
    stages = [stage for start in starts for stage in _stages(start)]
    chapters = [_chapter(start) for start in starts]
    page = config.output / PAGE
    stages.append(("page", "Page", lambda: write_page(page, chapters)))
    seconds = run_stages(stages)
    numbers = {chapter.kind: headline(chapter) for chapter in chapters}
    memory = peak_memory_gb()
    for start in starts:
        for line in _closing_lines(start.kind, numbers[start.kind], read_json(start.demo.gain)):
            logger.info(line)
    spent = duration(sum(seconds.values()))
    logger.info(f"\nAll in {spent}, {memory:.1f} GB of memory at most. Look at {page}\n")
    return {
        "output": str(config.output),
        "page": str(page),
        "numbers": numbers,
        "seconds": seconds,
        "peak_memory_gb": round(memory, 2),
    }


def _start(config: DemoConfig, kind: str) -> _Start:
    """Return the model of a kind, and what belongs to it."""
    from semsynth.pipelines.formats.model_file import read_diffusion

    folder = (config.models or pretrained.FOLDER) / kind
    model = _first(folder, pretrained.MODEL, "final_model.pth")
    recipe = _first(folder, pretrained.RECIPE, "config.yaml")
    if model is not None and recipe is not None:
        n = read_diffusion(model).evaluations
        return _Start(kind, Demo(config, config.output / kind), model, recipe, n)
    if config.models is None:
        raise UserError(
            f"{folder}: the package's model of {kind} is not here; install semsynth again, or give "
            "--models"
        )
    raise UserError(
        f"{folder}: must be a run of semsynth train (final_model.pth and config.yaml), or a copy "
        f"of a model of the package ({pretrained.MODEL} and {pretrained.RECIPE})"
    )


def _first(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _chapter(start: _Start) -> Chapter:
    steps = start.demo.number("finetune_steps")
    return Chapter(start.kind, start.demo.root, steps, _FINETUNE_BATCH)


def _stages(start: _Start) -> list[Stage]:
    demo, kind = start.demo, start.kind
    stages: list[Stage] = [
        ("prepare", "images of the package", partial(_prepare, demo, kind)),
        (
            "evaluator",
            "segmenter for evaluation, trained on the training images",
            partial(train_evaluator, demo, **_SEGMENTER),
        ),
        (
            "generate",
            "images from held-out masks, by the package's model",
            partial(_generate, demo, start.model, "samples"),
        ),
        (
            "finetune",
            "the package's model, fine-tuned on the training images",
            partial(_finetune, start),
        ),
        (
            "generate_finetuned",
            "images from held-out masks, by the fine-tuned model",
            partial(_generate, demo, start.tuned, "finetuned_samples"),
        ),
        (
            "augment",
            "augmentation: few real images, with and without synthetic ones",
            partial(_augment, demo, start.tuned),
        ),
        ("evaluate", "scores and pages", partial(_evaluate, demo)),
    ]
    return [(f"{kind}/{name}", f"{kind.capitalize()}: {title}", run) for name, title, run in stages]


def _prepare(demo: Demo, kind: str) -> None:
    from semsynth.data.config import PrepareConfig
    from semsynth.data.prepare.run import prepare

    prepare(PrepareConfig(path=EXAMPLES_FOLDER / kind, output=demo.folder("prepared")))


def _generate(demo: Demo, model: Path, output: str) -> None:
    per_mask = demo.number("per_mask")
    generate_images(demo, model, demo.folder(output), split="val", per_mask=per_mask, batch_size=6)


def _finetune(start: _Start) -> None:
    from semsynth.training.loop import train
    from semsynth.training.recipe import TrainConfig

    demo, steps = start.demo, start.demo.number("finetune_steps")
    train(
        TrainConfig(
            recipe=str(start.recipe),
            data=demo.folder("prepared"),
            output=demo.folder("finetuned"),
            from_checkpoint=start.model,
            set=(*_FINETUNE, *_phase(steps, start.evaluations)),
            device=demo.config.device,
        )
    )


def _phase(steps: int, evaluations: int) -> tuple[str, ...]:
    """Return what makes all steps of a training those of the phase that the model comes from."""
    last = f"train.checkpoint_every={steps}"
    if not evaluations:
        return f"train.steps={steps}", "distill.steps=0", last
    distill = f"distill.steps={steps}", f"distill.evaluations={evaluations}"
    return "train.steps=0", *distill, last


def _augment(demo: Demo, model: Path) -> None:
    from semsynth.data.dataset import PreparedDataset

    masks = len(PreparedDataset.open(demo.folder("prepared")).stems("train"))
    per_mask = math.ceil(demo.number("synthetic_count") / masks)
    output = demo.folder("augment") / "samples"
    generate_images(demo, model, output, split="train", per_mask=per_mask, batch_size=6)
    # All real images by default: what is left over as "more real images" would be none.
    measure_gain(demo, batch_size=_SEGMENTER["batch_size"], ceiling=False)


def _evaluate(demo: Demo) -> None:
    from semsynth.evaluation.compare.run import compare
    from semsynth.evaluation.config import CompareConfig

    first, tuned = demo.folder("report"), demo.folder("finetuned_report")
    write_report(demo, demo.folder("samples"), None, first)
    write_report(demo, demo.folder("finetuned_samples"), demo.folder("finetuned"), tuned)
    compare(CompareConfig((first, tuned), demo.folder("comparison"), seed=demo.config.seed))


def _closing_lines(kind: str, numbers: dict[str, Any], gain: dict[str, Any]) -> list[str]:
    n = {name: "-" if value is None else f"{value:.2f}" for name, value in numbers.items()}
    arms, trials = gain["arms"], gain["gain"]["real_and_synthetic"]["trials"]
    lines = [
        "",
        f"{kind.capitalize()}: do the images show what their masks say? (mIoU of a segmenter that "
        "was trained on six images, on held-out masks)",
        f"  real images {n['miou_real']}, by the package's model {n['miou']}, fine-tuned "
        f"{n['miou_finetuned']}; each class in its mean colour {n['miou_mean_colours']}",
        f"Do they help another segmenter with {gain['n_real']} real images? (mIoU)",
        f"  without {arms['real']['miou']:.3f}, with {arms['real_and_synthetic']['miou']:.3f}: "
        f"better in {sum(trial > 0 for trial in trials)} of {len(trials)} trials",
    ]
    return lines

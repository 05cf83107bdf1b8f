"""`semsynth demo`: the whole pipeline in minutes, ending with a page.

Every stage is the command of the same name with smaller numbers. Every stage resumes, and so does
the demo. Budgets are counted in steps and images, never in seconds: the results do not depend on
the speed of the machine. Nothing here imports torch before a stage runs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from semsynth.core.errors import UserError

# The kinds of images that come with the package, by name; each has a model there, too.
KINDS = ("nuclei", "aerial")
_ONLY_STREETS = ("train_count", "val_count", "train_steps")


@dataclass(frozen=True)
class DemoBudget:
    """Sizes of the stages; each source has its own for those that are not given."""

    train_count: int | None = None
    """Streets to train on, of --source streets (1200)."""
    val_count: int | None = None
    """Streets held out, for whose masks images are generated (100)."""
    evaluator_steps: int | None = None
    """Training steps of the segmenter that evaluates (200; streets: 1400)."""
    train_steps: int | None = None
    """Training steps of the generator of --source streets (the recipe's)."""
    finetune_steps: int | None = None
    """Steps of the fine-tuning: of the package's models on a few images (30); of streets, for
    guidance (the recipe's)."""
    per_mask: int | None = None
    """Images for each held-out mask (2; streets: 3)."""
    sampler_steps: int | None = None
    """Denoising steps of an image (the model's own; streets: 10)."""
    guidance_scale: float | None = None
    """Classifier-free guidance (the model's own; streets: 2, by the comparison in
    docs/log.md)."""
    synthetic_count: int | None = None
    """Images generated for the augmentation, of training masks (18; streets: 160)."""
    real_images: int | None = None
    """Real images of the small-data experiment (6; streets: 20)."""
    trials: int | None = None
    """Its repetitions (2)."""
    augment_steps: int | None = None
    """Training steps of each of its segmenters (200; streets: 250)."""


EXAMPLES = DemoBudget(
    evaluator_steps=200, finetune_steps=30, per_mask=2, synthetic_count=18, real_images=6,
    trials=2, augment_steps=200,
)  # fmt: skip
STREETS = DemoBudget(
    train_count=1200, val_count=100, evaluator_steps=1400, per_mask=3, sampler_steps=10,
    guidance_scale=2.0, synthetic_count=160, real_images=20, trials=2, augment_steps=250,
)  # fmt: skip


@dataclass(frozen=True)
class DemoConfig:
    """Run the whole pipeline on images that come with the package; five minutes on two cores.

    Raises:
        UserError: a flag of another source.
    """

    source: Literal["examples", "nuclei", "aerial", "streets"] = "examples"
    """Real images that come with the package, and its models of them: nuclei (microscopy), aerial
    (towns from above), or examples: both. streets: built-in drawn streets, and a model that is
    trained from scratch (ten minutes)."""
    output: Path = Path("./demo_output")
    """Folder of all results; run the same command again to resume."""
    models: Path | None = None
    """Folder with other models than the package's: runs of semsynth train, named nuclei and
    aerial."""
    recipe: str = "streets_demo"
    """Recipe of the generator of --source streets."""
    seed: int = 0
    """Decides the streets, the images and the choices of the experiment."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""
    budget: DemoBudget = field(default_factory=DemoBudget)

    def __post_init__(self) -> None:
        """Check that no flag would be ignored."""
        if self.source == "streets":
            if self.models is not None:
                raise UserError("--models is for the package's images: drop it, or --source")
            return
        given = [f"budget.{n}" for n in _ONLY_STREETS if getattr(self.budget, n) is not None]
        if self.recipe != DemoConfig.recipe:
            given.append("recipe")
        if given:
            flag = given[0].replace("_", "-")
            raise UserError(f"--{flag} is for --source streets: drop it, or add --source streets")

    @property
    def sizes(self) -> DemoBudget:
        """The budget, with the source's own sizes where none are given."""
        own = STREETS if self.source == "streets" else EXAMPLES
        given = {k: v for k, v in asdict(self.budget).items() if v is not None}
        return DemoBudget(**{**asdict(own), **given})

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of images of the package that the demo shows."""
        return KINDS if self.source == "examples" else (self.source,)


def run_demo(config: DemoConfig) -> dict[str, Any]:
    """Run all stages; those that are finished are skipped.

    Returns:
        JSON values: page, output, numbers (the main ones; None if one could not be computed),
        seconds by stage, peak_memory_gb.

    Raises:
        UserError: from any stage, or the output folder belongs to something else.
    """
    if config.source == "streets":
        from semsynth.cli.demo.streets import run_streets

        return run_streets(config)
    from semsynth.cli.demo.examples import run_examples

    return run_examples(config)

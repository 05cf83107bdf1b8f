"""When a generator begins to memorise its training images: a clock that grows with their number."""

from __future__ import annotations

from semsynth.core.errors import UserError
from semsynth.training.recipe import Recipe, with_changes

SEEN_UNTIL_MEMORISED = 200.0
"""How often a training image is seen until copies of it begin to be generated for its mask.

Until then a network generalises, and the time of that grows linearly with the number of images
(arXiv 2505.17638), so one constant does for all of them: step x batch size / images. It is fitted
to copies over steps of trainings with 20, 40 and 92 images (docs/results/quality.md).
"""


def memorised_step(recipe: Recipe, images: int) -> int | None:
    """Return at which step so many training images begin to be memorised; None: there are none."""
    if not images:
        return None
    return max(round(SEEN_UNTIL_MEMORISED * images / recipe.train.batch_size), 1)


def memorised_from(recipe: Recipe, images: int) -> str:
    """Return the same in a line; empty without images."""
    step = memorised_step(recipe, images)
    if step is None:
        return ""
    steps = recipe.diffusion_steps
    less = ""
    if steps > step:
        less = "; fewer steps (--set train.stop_memorised=true), or more images, are safer"
    return (
        f"{images:,} training images begin to be memorised at about step {step:,}, when "
        f"each was seen {SEEN_UNTIL_MEMORISED:g} times; the recipe has {steps:,} steps{less}"
    )


def stopped_in_time(recipe: Recipe, images: int) -> Recipe:
    """Return the recipe with no more steps than that, where ``train.stop_memorised`` asks for it.

    Steps are taken from the phase ``train``; those of ``finetune`` stay. Schedules end with them.

    Args:
        recipe: the recipe as it was chosen.
        images: number of training images.

    Raises:
        UserError: it is asked for, and the step comes before the phase finetune.
    """
    step = memorised_step(recipe, images)
    if not recipe.train.stop_memorised or step is None or recipe.diffusion_steps <= step:
        return recipe
    left = step - recipe.finetune.steps
    if left < 1:
        raise UserError(
            f"train.stop_memorised: {images:,} images begin to be memorised at about step "
            f"{step:,}, before the {recipe.finetune.steps:,} steps of finetune are over; set "
            f"finetune.steps below {step:,}, or add images"
        )
    return with_changes(recipe, steps=left)

"""Pairs of generated images in the phase ``distill``: energy score, levels, batches."""

import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.training.build import check_batch
from semsynth.training.distill.losses import energy_score
from semsynth.training.distill.step import noise_levels
from semsynth.training.recipe import Recipe, load_recipe

DISTILL = ("distill.steps=4", "train.batch_size=8")


def recipe(*changes: str) -> Recipe:
    return load_recipe("streets_demo", (*DISTILL, *changes))


def test_the_energy_score_is_least_for_images_that_vary_as_real_ones_do() -> None:
    # Unit vectors at angles: real ones normal with deviation 0.5, generated ones with another.
    generator = torch.Generator().manual_seed(0)

    def features(deviation: float) -> list[torch.Tensor]:
        angle = torch.randn(20000, 1, 1, 1, generator=generator) * deviation
        return [torch.cat([angle.cos(), angle.sin()], 1)]

    scores = {
        deviation: float(
            energy_score(features(deviation), features(deviation), features(0.5)).mean()
        )
        for deviation in (0.0, 0.25, 0.5, 0.8, 1.5)
    }
    assert min(scores, key=lambda deviation: scores[deviation]) == 0.5
    # Images that are all alike have the mean distance to real ones alone.
    alike = (2 * (torch.randn(200000, generator=generator) * 0.25).sin().abs()).mean()
    assert scores[0.0] == pytest.approx(float(alike), rel=0.03)


def test_pairs_are_of_one_level() -> None:
    paired, alone = recipe(), recipe("distill.diversity_weight=0")
    for step in range(20):
        levels = noise_levels(paired, step, range(8), 1000)
        assert torch.equal(levels[:4], levels[4:])
        assert int((levels == 999).sum()) == 4
        parts = [noise_levels(paired, step, range(8)[rank::2], 1000) for rank in range(2)]
        assert torch.equal(torch.stack(parts, 1).flatten(), levels)
        assert int((noise_levels(alone, step, range(8), 1000) == 999).sum()) == 4


def test_batches_that_cannot_hold_pairs_are_refused() -> None:
    check_batch(recipe(), 4)
    with pytest.raises(UserError, match=r"multiple of 2 x .*use train.batch_size=16, or distill"):
        check_batch(recipe(), 8)
    check_batch(recipe("distill.diversity_weight=0"), 8)
    check_batch(recipe("distill.steps=0"), 8)

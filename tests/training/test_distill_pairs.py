"""Pairs of generated images in the phase ``distill``: energy score, levels, batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.training.build import check_batch
from semsynth.training.distill.diversity import (
    OCTAVES,
    Details,
    class_colors,
    details,
    energy_score,
)
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


def test_distances_of_class_colours_are_means_over_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 2, 3, 8, 6, generator=generator)
    target = torch.randint(-2, 3, (2, 8, 6), generator=generator)  # of three classes, or left out
    (a,), (b,) = (class_colors(x, target, 4) for x in (first, second))
    assert a.shape == (2, 12, 1, 1) and not a.unflatten(1, (4, 3))[:, 3].any()  # nowhere
    for i in range(2):
        total = 0.0
        for label in range(3):
            here = target[i] == label
            moved = first[i][:, here].mean(1) - second[i][:, here].mean(1)
            total += float(moved.square().sum() * here.sum() / (target[i] >= 0).sum())
        found = (a - b)[i].square().sum() * 0.2**2
        assert float(found) == pytest.approx(total, rel=1e-5)


def test_details_are_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 48, 32, generator=generator)
    *octaves, x = details(image)
    assert [tuple(m.shape) for m in octaves] == [(2, 12, 48 >> n, 32 >> n) for n in range(1, 5)]
    for octave in reversed(octaves):
        x = torch.pixel_shuffle(octave + x.repeat_interleave(4, 1), 2)
    torch.testing.assert_close(x, image)
    # A pattern is in its own octave alone: here in the second, of 4 pixels.
    stripes = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(8).expand(1, 3, 48, 32)
    assert [float(m.abs().amax()) for m in details(stripes)] == [0, 1, 0, 0, 0]
    assert len(details(torch.zeros(1, 3, 4, 9))) == 3  # a side of 4 pixels: two octaves


def test_details_of_real_images_have_length_1(images: Path) -> None:
    data = PreparedDataset.open(images)
    found = Details.of(data)
    assert len(found.deviations) == OCTAVES + 1
    real = [torch.from_numpy(np.array(data.read_rgb("train", s))) for s in data.stems("train")]
    maps = found(torch.stack(real).permute(0, 3, 1, 2) / 127.5 - 1)
    for each in maps[:-1]:
        assert float(each.square().sum(1).mean()) == pytest.approx(1, rel=0.05)


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

"""Discriminator, losses, augmentation and noise levels: properties with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semsynth.core.config import parse
from semsynth.data.dataset import PreparedDataset
from semsynth.models.lite2 import PYRAMID, EfficientNetLite2
from semsynth.training.distill.diff_augment import DiffAugment
from semsynth.training.distill.discriminator import (
    Discriminator,
    FrozenFeatures,
    fine_contrast,
    fresh_discriminator,
)
from semsynth.training.distill.losses import (
    ANY_CLASS,
    IGNORED,
    PixelLoss,
    class_weights,
    grid_loss,
    perceptual_distance,
)
from semsynth.training.distill.step import noise_levels
from semsynth.training.recipe import Recipe, TrainConfig, chosen_recipe

SIZES = ((2, 3), (4, 6))


def equal_logits(classes: int, batch: int = 2) -> list[Tensor]:
    return [torch.zeros(batch, classes + 1, *size) for size in SIZES]


def test_losses_of_a_discriminator_that_knows_nothing() -> None:
    loss = PixelLoss(torch.tensor([1.0, 1.0, 2.0]))
    labelled, rare = torch.zeros(2, 4, 6).long(), torch.full((2, 4, 6), 2)
    unlabelled = torch.full((2, 4, 6), ANY_CLASS)
    logits = equal_logits(3)
    expected = torch.full((2,), math.log(4.0))
    assert torch.allclose(loss.real(logits, labelled), expected)
    assert torch.allclose(loss.real(logits, rare), 2 * expected)  # its weight
    assert torch.allclose(loss.generated(logits, labelled), expected)
    # Real, of whatever class: three of the four logits.
    assert torch.allclose(loss.real(logits, unlabelled), torch.full((2,), math.log(4 / 3)))


def test_one_class_is_real_against_generated() -> None:
    loss = PixelLoss(torch.ones(1))
    logits = [torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 6)]
    for target in (0, ANY_CLASS):
        real = loss.real(logits, torch.full((1, 4, 6), target))
        assert float(real) == pytest.approx(math.log(1 + math.exp(-2)))


def test_padding_does_not_count_and_images_are_independent() -> None:
    torch.manual_seed(0)
    loss = PixelLoss(torch.tensor([0.5, 2.0]), unlabelled=1)
    channels = torch.randint(-1, 2, (3, 4, 6))
    content = torch.ones(3, 1, 4, 6, dtype=torch.bool)
    content[:, :, 2:] = False
    target = loss.target(channels, content)
    assert set(target[:, :2].unique().tolist()) == {ANY_CLASS, 0}  # channel 1 is "unlabelled"
    assert (target[:, 2:] == IGNORED).all()
    logits = [torch.randn(3, 3, *size) for size in SIZES]
    changed = [x.clone() for x in logits]
    for x in changed:
        x[:, :, x.shape[-2] // 2 :] += 7
    for part in (loss.real, loss.generated, loss.taken_for_real):
        whole = part(logits, target)
        assert torch.equal(whole, part(changed, target))
        alone = [part([x[i : i + 1] for x in logits], target[i : i + 1]) for i in range(3)]
        assert torch.allclose(whole, torch.cat(alone))


def test_what_is_taken_for_real() -> None:
    loss, target = PixelLoss(torch.ones(2)), torch.zeros(1, 4, 6).long()
    logits = torch.zeros(1, 3, 4, 6)
    logits[:, 2, :1] = 5.0  # a quarter is called generated
    logits[:, 1, 1:] = 1.0  # of another class, but real
    assert float(loss.taken_for_real([logits], target)) == 0.75


def test_rare_classes_count_more(images: Path) -> None:
    data = PreparedDataset.open(images)
    assert torch.equal(class_weights(data, 0.0), torch.ones(data.labels.num_channels))
    weights = class_weights(data, 0.5)
    pixels = data.info.splits["train"].class_pixels
    counts = torch.tensor([pixels[name] + 1.0 for name in data.labels.channels])
    assert weights[counts.argmax()] == weights.min() < 1 < weights.max() <= 4
    assert torch.allclose(weights, (counts.mean() / counts).sqrt().clamp(0.3, 4))


def test_perceptual_distance() -> None:
    torch.manual_seed(0)
    a = [torch.randn(2, 5, 4, 4), torch.randn(2, 7, 2, 2)]
    assert float(perceptual_distance(a, [3 * x for x in a]).max()) < 1e-5  # directions alone
    opposite = perceptual_distance(a, [-x for x in a])
    assert torch.allclose(opposite, torch.full((2,), 4.0), rtol=0.02)


def test_a_grid_of_blocks_is_seen_wherever_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, 96, 128, generator=generator)
    assert float(grid_loss(noise, 4).max()) < 4e-3
    assert float(grid_loss(noise, 1).abs().max()) == 0
    blocks = torch.randn(2, 3, 24, 32, generator=generator).repeat_interleave(4, 2)
    blocky = noise + blocks.repeat_interleave(4, 3)
    # Steps across borders have twice the variance: one place of four is log sqrt(2) higher.
    expected = 2 * (0.5 * math.log(2)) ** 2 * 3 / 16
    assert float(grid_loss(blocky, 4).mean()) == pytest.approx(expected, rel=0.1)
    moved = blocky.roll((1, 2), (2, 3))
    assert float(grid_loss(moved, 4).mean()) == pytest.approx(expected, rel=0.1)
    # A pattern of every block, much weaker than the noise: steps of size 2 / sqrt(pi) are as they
    # were, and their means by place are those of the pattern.
    pattern = 0.2 * torch.tensor([1.0, 0.0, -1.0, 0.0]).repeat(32)
    expected = (0.2 / (2 / math.sqrt(math.pi))) ** 2
    assert float(grid_loss(noise + pattern, 4).mean()) == pytest.approx(expected, rel=0.15)
    flat = torch.zeros(1, 3, 8, 8, requires_grad=True)
    grid_loss(flat, 4).sum().backward()
    assert flat.grad is not None and bool(flat.grad.isfinite().all())


def test_faint_patterns_are_as_large_as_strong_ones() -> None:
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    faint = fine_contrast(0.5 + 0.1 * image)
    torch.testing.assert_close(faint, fine_contrast(image), rtol=0.05, atol=0.05)
    assert float(fine_contrast(torch.full((1, 3, 8, 8), 0.7)).abs().max()) < 1e-4


def test_image_and_mask_are_augmented_together() -> None:
    target = torch.arange(16 * 24).view(1, 16, 24).expand(6, 16, 24).contiguous()
    image = target[:, None].expand(6, 3, 16, 24).float() + 1
    augment = DiffAugment.of(["translation", "cutout"], 0, 5, range(6))
    moved, labels = augment(image, target)
    kept = labels != IGNORED
    assert torch.equal(moved[:, 0][kept], labels[kept].float() + 1)
    assert (moved[:, 0][~kept] == 0).all()
    assert 0.3 < kept.float().mean() < 1 and len({tuple(x.flatten().tolist()) for x in labels}) == 6
    assert DiffAugment.of([], 0, 5, range(6))(image, target)[0] is image


def test_colours_change_and_gradients_flow() -> None:
    image = torch.rand(4, 3, 8, 8, requires_grad=True)
    target = torch.zeros(4, 8, 8).long()
    changed, labels = DiffAugment.of(["color"], 0, 1, range(4))(image, target)
    assert labels is target and not torch.allclose(changed, image)
    changed.sum().backward()
    assert image.grad is not None and bool((image.grad != 0).all())


def test_samples_have_their_own_draws() -> None:
    whole = DiffAugment.of(["color"], 3, 7, range(6)).draws
    assert torch.equal(whole[1::2], DiffAugment.of(["color"], 3, 7, range(1, 6, 2)).draws)
    assert torch.equal(whole[2:4], DiffAugment(["color"], whole)[2:4].draws)
    assert not torch.equal(whole, DiffAugment.of(["color"], 3, 8, range(6)).draws)


def test_the_pyramid_is_that_of_the_network() -> None:
    torch.manual_seed(0)
    network = EfficientNetLite2().eval()
    image = torch.randn(1, 3, 33, 47)
    found = network.pyramid(image)
    shapes = [(1, c, -(-33 // s), -(-47 // s)) for c, s in zip(PYRAMID, (2, 4, 8, 16), strict=True)]
    assert [tuple(x.shape) for x in found] == shapes
    rest = found[-1]
    for block in network._blocks[15:]:  # what follows stride 16
        rest = block(rest)
    head = torch.nn.functional.relu6(network._bn1(network._conv_head(rest))).mean((2, 3))
    assert torch.equal(head, network.features(image))


@pytest.mark.parametrize("upsampling", [1, 2])
def test_heads_at_four_scales(upsampling: int) -> None:
    torch.manual_seed(0)
    features = FrozenFeatures(EfficientNetLite2().eval(), upsampling, torch.device("cpu"))
    image = torch.randn(2, 3, 20, 28)
    logits = Discriminator(3, 8, upsampling)(image, features(image))
    scales = [upsampling / stride for stride in (16, 8, 4, 2)]
    sizes = [(2, 4, math.ceil(20 * s), math.ceil(28 * s)) for s in scales]
    assert [tuple(x.shape) for x in logits] == sizes
    assert not any(p.requires_grad for p in features.network.parameters())


def test_norms_are_updated_once_a_step_and_by_nothing_else() -> None:
    torch.manual_seed(0)
    network = EfficientNetLite2().eval()
    features = FrozenFeatures(network, 1, torch.device("cpu"))
    discriminator = Discriminator(2, 8, 1)
    image = torch.randn(1, 3, 16, 16)
    before = {k: v.clone() for k, v in discriminator.state_dict().items()}
    first = discriminator(image, features(image))
    assert all(
        torch.equal(a, b) for a, b in zip(first, discriminator(image, features(image)), strict=True)
    )
    assert all(torch.equal(before[k], v) for k, v in discriminator.state_dict().items())
    for _ in range(30):
        discriminator.update_norms()
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2) for m in discriminator.lateral]  # type: ignore[union-attr]
    assert torch.allclose(torch.stack(norms), torch.ones(4), atol=0.02)


@pytest.fixture
def recipe(configure: Callable[..., TrainConfig]) -> Recipe:
    return chosen_recipe(configure("a", "distill.steps=4", "train.batch_size=8"))


def test_a_discriminator_of_the_seed_alone(recipe: Recipe) -> None:
    torch.manual_seed(1)
    first, state = fresh_discriminator(recipe, 3), torch.get_rng_state()
    torch.manual_seed(2)
    second = fresh_discriminator(recipe, 3).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.state_dict().items())
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_noise_levels_are_spread_over_the_batch(recipe: Recipe, share: float, pairs: bool) -> None:
    section = recipe.distill.model_copy(update={"noise_share": share, "noised_pairs": pairs})
    recipe = recipe.model_copy(update={"distill": section})
    for step in range(5):
        levels = noise_levels(recipe, step, range(8), 1000)
        assert int((levels == 999).sum()) == 8 * share
        noised = levels[levels != 999]
        if pairs and len(noised):
            assert int(noised.min()) >= 50 and int(noised.max()) <= 750
            # The other half are the pairs' others; of the range, one in each part.
            gaps = -noised[: len(noised) // 2].diff()
            assert gaps.min() > 0 and gaps.max() - gaps.min() <= 1
        else:
            assert set(noised.tolist()) <= {750, 500, 250}
        for rank in (0, 1):
            own = noise_levels(recipe, step, range(8)[rank::2], 1000)
            assert torch.equal(levels[rank::2], own)


def test_a_recipe_without_it_is_what_it_was(recipe: Recipe) -> None:
    values: dict[str, Any] = recipe.model_dump(mode="json")
    assert parse(Recipe, values, "again") == recipe and values["distill"]["evaluations"] == 1
    without = {name: value for name, value in values.items() if name != "distill"}
    assert parse(Recipe, without, "old").model_dump(mode="json") == without
    assert recipe.total_steps == 14 and recipe.diffusion_steps == 10
    assert [recipe.diffusion_at(step).evaluations for step in (10, 11)] == [0, 1]
    assert recipe.diffusion_config.evaluations == 1
    assert parse(Recipe, without, "old").diffusion_config.evaluations == 0

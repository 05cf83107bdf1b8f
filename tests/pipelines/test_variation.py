"""Neighbours of an image: noise on the way to that of another seed, wherever it is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.diffusion.config import SamplerSettings
from semsynth.pipelines.outputs import make_generators
from semsynth.pipelines.variation import Turned, slerp


def noise(seed: int) -> torch.Tensor:
    return torch.randn(1, 12, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_the_way_between_two_noises_stays_on_the_sphere() -> None:
    one, two = noise(1), noise(2)
    assert slerp(one, two, 0) is one and slerp(one, two, 1) is two
    for amount in (0.2, 0.5, 0.8):
        between = slerp(one, two, amount)
        assert float(between.std()) == pytest.approx(1, abs=0.02)
    middle = slerp(one, two, 0.5)
    assert torch.allclose(middle, slerp(two, one, 0.5), atol=1e-5)
    # Nearly (a + b) / sqrt(2): they are nearly at right angles.
    assert torch.allclose(middle, (one + two) / 2**0.5, atol=0.1)
    assert torch.equal(slerp(one, one.clone(), 0.5), one)


# The last two draw noise in every step, too.
SAMPLERS: list[tuple[dict[str, Any], SamplerSettings]] = [
    ({"evaluations": 1}, SamplerSettings()),
    ({}, SamplerSettings("dpm++", 4)),
    ({"evaluations": 4}, SamplerSettings()),
    ({"prediction": "epsilon"}, SamplerSettings("ddpm", 20)),
]


@pytest.mark.parametrize(("diffusion", "settings"), SAMPLERS, ids=["1", "dpm++", "4", "ddpm"])
def test_from_an_image_to_that_of_another_seed(
    diffusion: dict[str, Any], settings: SamplerSettings, new_pipe: Any, new_masks: Any
) -> None:
    parts, mask = new_pipe(**diffusion).synthesizer, new_masks(1)

    def image(seed: int, variation: Any = None) -> np.ndarray:
        found: np.ndarray = parts.generate(mask, [seed], settings, variation=variation)
        return found.astype(int)

    first, last = image(3), image(8)
    assert np.array_equal(image(3, (8, 0)), first)
    assert np.array_equal(image(3, (8, 1)), last)
    near, far = (np.abs(image(3, (8, amount)) - first).mean() for amount in (0.1, 0.6))
    assert 0 < near < far


def test_the_pipeline_takes_it_too_and_each_image_has_its_own(
    new_pipe: Any, new_masks: Any
) -> None:
    pipe, mask = new_pipe(evaluations=1), new_masks(1)
    turned = pipe.synthesizer.generate(mask, [3], variation=(8, 0.3))[0]
    assert np.array_equal(
        np.asarray(pipe(mask[0], seeds=[3], variation=(8, 0.3)).images[0]), turned
    )
    images = pipe(mask[0], num_images=2, seeds=[3, 8], variation=([8, 3], 1.0)).images
    swapped = [np.asarray(image).astype(int) for image in images]
    for image, seed in zip(swapped, (8, 3), strict=True):
        alone = pipe.synthesizer.generate(mask, [seed])[0].astype(int)
        assert np.abs(image - alone).max() <= 1  # kernels of another shape round so


@pytest.mark.parametrize(
    ("variation", "says"),
    [
        (7, "must be"),
        ((7,), "must be"),
        ((7, 1.5), "from 0"),
        ((7, "much"), "from 0"),
        (([7, 8], 0.5), "2 seeds for 1 images"),
        (("seven", 0.5), "seeds"),
    ],
    ids=str,
)
def test_other_variations_are_refused(variation: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Turned.of(make_generators(None, [1], 1), variation)


def test_one_generator_for_all_images_cannot_be_turned(new_pipe: Any, new_masks: Any) -> None:
    pipe, mask = new_pipe(), new_masks(1)[0]
    with pytest.raises(UserError, match="seeds="):
        pipe(mask, num_images=2, generator=torch.Generator(), variation=(7, 0.5))
    with pytest.raises(UserError, match="latents= and variation="):
        pipe(mask, seeds=[1], latents=torch.zeros(1, 12, 8, 12), variation=(7, 0.5))

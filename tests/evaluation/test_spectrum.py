"""Known answers: white noise is flat, a blur attenuates as its transfer function, blocks step."""

from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from semsynth.evaluation.metrics.spectrum import (
    BLOCKS,
    block_steps,
    decibels,
    grey,
    octave_power,
    octaves_of,
    pattern_decibels,
    pattern_power,
    step_ratio,
    texture,
    wavelengths,
)


@pytest.mark.parametrize("shape", [(64, 64), (96, 128), (75, 110)])
def test_white_noise_has_its_variance_in_every_octave(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    power = np.mean([octave_power(rng.normal(0.5, 0.2, shape)) for _ in range(200)], 0)
    assert len(power) == int(np.log2(min(shape))) - 2
    assert np.abs(decibels(power, np.full(len(power), 0.04))).max() < 0.35
    assert np.abs(decibels(power, np.full(len(power), 0.04)))[:2].max() < 0.1


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_a_blur_attenuates_as_its_transfer_function(sigma: float) -> None:
    rng, side = np.random.default_rng(1), 128
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    transfer = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
    noise = rng.normal(size=(60, side, side))
    blurred = np.fft.ifft2(np.fft.fft2(noise) * transfer).real
    before, after = (np.mean([octave_power(x) for x in images], 0) for images in (noise, blurred))
    edges = 0.5 / 2.0 ** np.arange(len(before) + 1)
    expected = [
        np.square(transfer[(low < frequency) & (frequency <= high)]).mean()
        for high, low in pairwise(edges)
    ]
    assert np.allclose(decibels(after, before), 10 * np.log10(expected), atol=0.25)


def test_a_wave_is_in_its_own_octave() -> None:
    x = np.arange(128)
    for k, length in enumerate((3, 6, 12, 24)):
        power = octave_power(0.5 + 0.4 * np.sin(2 * np.pi * x / length) * np.ones((128, 1)))
        assert power.argmax() == k and power[k] / power.sum() > 0.85
    assert wavelengths(2) == ["2 to 4 px", "4 to 8 px"]


def test_blocks_are_seen_where_they_are() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(60, 190, (96, 128, 3)).astype(np.uint8)
    for block in BLOCKS:
        border, inside = block_steps(grey(image), block)
        assert border / inside == pytest.approx(1, abs=0.03)
    # Each 4-pixel block lighter or darker as a whole.
    lighter = np.kron(rng.choice([-50, 50], (24, 32)), np.ones((4, 4)))[..., None]
    blocky = np.clip(image * 0.3 + 90 + lighter, 0, 255)
    ratios = {block: step_ratio(texture(blocky), block) for block in BLOCKS}
    assert ratios[4] > 2 and ratios[4] > 1.2 * max(ratios[2], ratios[8])
    flat = np.kron(rng.integers(0, 255, (6, 6, 3)), np.ones((4, 4, 1)))
    assert np.isnan(step_ratio(texture(flat), 4)) and block_steps(grey(flat), 4)[1] == 0


def test_a_pattern_that_each_block_repeats() -> None:
    rng = np.random.default_rng(5)
    columns = np.arange(128)

    def found(amplitude: float) -> float:
        pattern = amplitude * np.cos(2 * np.pi * columns / 4)
        rows = [pattern_power(pattern + rng.normal(0, 0.1, (128, 128)), 4) for _ in range(30)]
        return float(10 * np.log10(np.divide(*np.mean(rows, 0))))

    assert found(0) == pytest.approx(0, abs=0.1)
    # A cosine has a^2 n / 6 at its bin and a quarter at those beside it: 1.5 times it in the five
    # bins at 1/4 and 1/2, in one of two directions.
    expected = 1 + 0.1**2 * 128 / 6 * 1.5 / 5 / 2 / 0.1**2
    assert found(0.1) == pytest.approx(10 * np.log10(expected), abs=0.15)
    image = 128 + 40 * np.cos(np.pi * columns / 2) * np.ones((64, 1)) + rng.normal(0, 5, (64, 128))
    row = texture(image[..., None].repeat(3, 2))
    assert pattern_decibels(row, 4) > 10 > pattern_decibels(row, 2)
    # Steps across the borders are none the larger.
    assert step_ratio(row, 4) == pytest.approx(1, abs=0.05)
    assert np.isnan(pattern_decibels(texture(image[:40, :40, None].repeat(3, 2)), 8))


def test_steps_by_hand() -> None:
    row = np.array([[0.0, 0.1, 0.4, 0.4, 0.9, 0.9]])
    # Borders of 2-pixel blocks: 0.1 to 0.4 and 0.4 to 0.9; inside: 0.1, 0, 0.
    assert block_steps(row, 2) == (pytest.approx(0.4), pytest.approx(0.1 / 3))
    assert block_steps(row, 4) == (pytest.approx(0.5), pytest.approx(0.1))


def test_texture_is_of_grey_values_in_0_to_1() -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (32, 48, 3), np.uint8)
    assert grey(image).max() <= 1 and grey(np.full((1, 1, 3), 255))[0, 0] == pytest.approx(1)
    row = texture(image)
    assert len(row) == 4 * len(BLOCKS) + 3
    assert np.allclose(octaves_of(row), octave_power(grey(image)))
    # Twice the contrast is four times the power: 6.02 dB.
    half = octave_power(grey(image) / 2)
    assert np.allclose(decibels(half, octaves_of(row)), -6.0206, atol=1e-3)
    assert np.isnan(decibels(np.zeros(1), np.ones(1)))[0]


def test_jpeg_blocks_and_a_smooth_blur() -> None:
    rng = np.random.default_rng(4)
    smooth = ndimage.gaussian_filter(rng.normal(size=(128, 128)), 2, mode="wrap")
    image = np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    assert step_ratio(texture(image), 8) == pytest.approx(1, abs=0.05)
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=10)
    assert step_ratio(texture(np.asarray(Image.open(file))), 8) > 1.5


def test_small_images_have_no_octaves() -> None:
    assert len(octave_power(np.zeros((7, 30)))) == 0
    assert len(texture(np.zeros((7, 30, 3), np.uint8))) == 4 * len(BLOCKS)

"""Codecs are exact changes of basis."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from semsynth.core.errors import UserError
from semsynth.models.codecs.codec import Codec, HaarCodec, PixelCodec, make_codec, open_codec
from semsynth.models.config import ModelConfig

CODECS = [PixelCodec(), *(HaarCodec(levels) for levels in (1, 2, 3, 5))]
each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda c: f"{c.name}{c.downscale}")


def image(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@each_codec
def test_decoding_undoes_encoding(codec: Codec) -> None:
    x = image().double()
    latent = codec.encode(x)
    assert latent.shape == (2, codec.channels, 64 // codec.downscale, 96 // codec.downscale)
    torch.testing.assert_close(codec.decode(latent), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(codec.encode(codec.decode(latent)), latent, rtol=0, atol=1e-12)


def haar_by_levels(x: torch.Tensor, levels: int) -> torch.Tensor:
    """The definition, one level after the other; trained models know this order of channels."""
    for _ in range(levels):
        (a, b), (c, d) = [(x[..., i::2, 0::2], x[..., i::2, 1::2]) for i in (0, 1)]
        x = torch.cat((a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d), dim=1) * 0.5
    return x


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_one_matrix_equals_level_by_level(levels: int) -> None:
    x = image().double()
    expected = haar_by_levels(x, levels)
    torch.testing.assert_close(HaarCodec(levels).encode(x), expected, rtol=0, atol=1e-12)
    rounded = HaarCodec(levels).encode(x.float())
    torch.testing.assert_close(rounded.double(), expected, rtol=0, atol=1e-5)


def test_every_pixel_value_survives_the_round_trip() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, 1024, 1024), generator=generator)
    codec = HaarCodec()
    with torch.autocast("cpu", torch.bfloat16):
        found = codec.decode(codec.encode(pixels / 127.5 - 1))
    assert torch.equal(((found + 1) * 127.5).round().long(), pixels)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_memory_format_changes_nothing(layout: torch.memory_format) -> None:
    codec, x = HaarCodec(2), image().double()
    latent = codec.encode(x.to(memory_format=layout))
    assert torch.equal(latent, codec.encode(x))
    assert torch.equal(codec.decode(latent.to(memory_format=layout)), codec.decode(latent))


@each_codec
def test_lengths_and_angles_are_preserved(codec: Codec) -> None:
    a, b = image().double(), image().double().flip(0, 2)
    assert float((codec.encode(a) ** 2).sum()) == pytest.approx(float((a**2).sum()), rel=1e-12)
    product = float((codec.encode(a) * codec.encode(b)).sum())
    assert product == pytest.approx(float((a * b).sum()), abs=1e-9)


@pytest.mark.parametrize("levels", [1, 2])
def test_white_noise_stays_white(levels: int) -> None:
    """The transform of a block is an orthogonal matrix: the covariance stays the identity."""
    codec = HaarCodec(levels)
    side = codec.downscale
    basis = torch.eye(3 * side**2, dtype=torch.float64).reshape(-1, 3, side, side)
    matrix = codec.encode(basis).flatten(1)
    identity = torch.eye(len(matrix), dtype=torch.float64)
    torch.testing.assert_close(matrix.T @ matrix, identity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_first_channels_are_the_means_of_blocks(levels: int) -> None:
    codec = HaarCodec(levels)
    x = image().double()
    expected = F.avg_pool2d(x, codec.downscale) * codec.downscale
    torch.testing.assert_close(codec.encode(x)[:, :3], expected, rtol=0, atol=1e-12)


@each_codec
def test_clipping_is_that_of_the_image(codec: Codec) -> None:
    x = (3 * image()).double()
    clipped = codec.decode(codec.clip(codec.encode(x)))
    torch.testing.assert_close(clipped, x.clamp(-1, 1), rtol=0, atol=1e-12)
    inside = codec.encode(x.clamp(-1, 1))
    torch.testing.assert_close(codec.clip(inside), inside, rtol=0, atol=1e-12)


def test_a_configuration_knows_the_size_of_its_latents() -> None:
    for values in ({"codec": "pixel"}, {"haar_levels": 1}, {"haar_levels": 3}):
        model = ModelConfig.model_validate(values)
        codec = open_codec(model)
        assert (codec.channels, codec.downscale) == (model.latent_channels, model.downscale)
    keys = [codec.key for codec in CODECS]
    assert all(keys.count(key) == 1 for key in keys)


def test_unknown_codecs_are_refused() -> None:
    assert make_codec("haar", 3).channels == 192
    with pytest.raises(UserError, match="known: pixel, haar"):
        make_codec("jpeg")
    for levels in (0, 6):
        with pytest.raises(UserError, match="haar_levels"):
            HaarCodec(levels)


@pytest.mark.parametrize(("period", "band"), [(4, 0), (2, 1), (1, 2)])
def test_bands_are_the_sizes_of_details(period: int, band: int) -> None:
    """A chessboard with fields of 1, 2 and 4 pixels is all in one band."""
    codec = HaarCodec(2)
    rows, columns = torch.arange(8)[:, None] // period, torch.arange(8) // period
    board = ((rows + columns) % 2).float() * 2 - 1
    energy = codec.encode(board.expand(1, 3, 8, 8)).square().sum((0, 2, 3))
    shares = torch.zeros(3).index_add(0, codec.band_C, energy) / energy.sum()
    torch.testing.assert_close(shares, torch.eye(3)[band])
    assert torch.bincount(HaarCodec(3).band_C).tolist() == [3, 9, 36, 144]

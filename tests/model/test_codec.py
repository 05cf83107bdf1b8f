"""Codecs are exact changes of basis."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from semsynth.model.codec import Codec, HaarCodec, PixelCodec, make_codec
from semsynth.runtime.errors import UserError

CODECS = [PixelCodec(), *(HaarCodec(levels) for levels in (1, 2, 3, 5))]
each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda c: f"{c.name}{c.downscale}")


def picture(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@each_codec
def test_decoding_undoes_encoding(codec: Codec) -> None:
    x = picture().double()
    latent = codec.encode(x)
    assert latent.shape == (2, codec.channels, 64 // codec.downscale, 96 // codec.downscale)
    torch.testing.assert_close(codec.decode(latent), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(codec.encode(codec.decode(latent)), latent, rtol=0, atol=1e-12)


@each_codec
def test_lengths_and_angles_are_kept(codec: Codec) -> None:
    a, b = picture().double(), picture().double().flip(0, 2)
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
    x = picture().double()
    expected = F.avg_pool2d(x, codec.downscale) * codec.downscale
    torch.testing.assert_close(codec.encode(x)[:, :3], expected, rtol=0, atol=1e-12)


@each_codec
def test_clipping_is_that_of_the_picture(codec: Codec) -> None:
    x = (3 * picture()).double()
    clipped = codec.decode(codec.clip(codec.encode(x)))
    torch.testing.assert_close(clipped, x.clamp(-1, 1), rtol=0, atol=1e-12)
    inside = codec.encode(x.clamp(-1, 1))
    torch.testing.assert_close(codec.clip(inside), inside, rtol=0, atol=1e-12)


def test_unknown_codecs_are_refused() -> None:
    assert make_codec("haar", 3).channels == 192
    with pytest.raises(UserError, match="known: pixel, haar"):
        make_codec("vae")
    for levels in (0, 6):
        with pytest.raises(UserError, match="haar_levels"):
            HaarCodec(levels)

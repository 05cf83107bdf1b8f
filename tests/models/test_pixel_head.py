"""The head at the resolution of image pixels."""

import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.codecs.codec import HaarCodec
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.blocks import PixelHead
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.model_file import fresh_network
from semsynth.training.recipe import load_recipe

SMALL = {
    "base_channels": 32,
    "channel_mult": [1.0],
    "blocks_per_level": 1,
    "attention_factors": [],
    "spade_hidden": 8,
}


def network(**model: object) -> SemanticUNet:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({**SMALL, **model})
    return fresh_network(config, DiffusionConfig.model_validate({"prediction": "sample"}), 3)


@pytest.mark.parametrize(("side", "channels"), [(1, 3), (2, 12), (4, 48), (4, 16)])
def test_a_fresh_head_changes_nothing(side: int, channels: int) -> None:
    head = PixelHead(8, channels, side, 16)
    latent = torch.randn(2, channels, 6, 5)
    noisy = torch.randn_like(latent)
    torch.testing.assert_close(head(torch.randn(2, 8, 6, 5), latent, noisy), latent)


@pytest.mark.parametrize("of_noise", [False, True])
def test_a_correction_sees_across_the_borders_of_blocks(of_noise: bool) -> None:
    torch.manual_seed(1)
    head, codec = PixelHead(8, 48, 4, 16), HaarCodec(2)
    torch.nn.init.normal_(head.conv3.weight, std=0.1)
    h, image = torch.randn(1, 8, 3, 3), torch.randn(1, 3, 12, 12)
    changed = image.clone()
    changed[..., 4, 4] += 1  # the corner of the middle block
    same = codec.encode(torch.randn(1, 3, 12, 12))

    def corrected(x: torch.Tensor) -> torch.Tensor:
        latent = codec.encode(x)
        return codec.decode(head(h, same, latent) if of_noise else head(h, latent, same))

    a, b = map(corrected, (image, changed))
    moved = (a - b).abs().amax((0, 1)) > 1e-6
    rows, columns = (torch.nonzero(moved.any(dim)).flatten() for dim in (1, 0))
    # Three convolutions of 3 x 3 see three pixels to each side.
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (1, 7, 1, 7)


def test_the_network_has_it_where_the_model_says_so() -> None:
    with_head, without = network(pixel_head=16), network()
    assert without.head is None
    names = with_head.state_dict().keys() - without.state_dict().keys()
    assert names == {f"head.{name}" for name in with_head.head.state_dict()}
    with_head.load_state_dict(without.state_dict(), strict=False)
    labels = torch.zeros(1, 3, 16, 16)
    labels[:, 1] = 1
    inputs = (torch.randn(1, 48, 4, 4), torch.tensor([500.0]), labels)
    torch.testing.assert_close(with_head(*inputs).sample, without(*inputs).sample)


def test_files_name_it_only_where_it_is() -> None:
    assert "pixel_head" not in ModelConfig.model_validate(SMALL).model_dump()
    dumped = ModelConfig.model_validate({**SMALL, "pixel_head": 16}).model_dump()
    assert ModelConfig.model_validate(dumped).pixel_head == 16


@pytest.mark.parametrize(
    "changes",
    [
        ("model.pixel_head=16", "model.codec=vae", "model.vae=somewhere"),
        (
            "model.pixel_head=16",
            "model.codec=pixel",
            "loss.prediction=epsilon",
            "loss.learn_sigma=true",
        ),
    ],
)
def test_where_it_cannot_be(changes: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="pixel_head"):
        load_recipe("streets_demo", changes)

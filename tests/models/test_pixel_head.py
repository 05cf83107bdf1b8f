"""The head at the resolution of image pixels."""

import pytest
import torch
import torch.nn.functional as F

from semsynth.core.errors import UserError
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.codecs.codec import HaarCodec, PixelCodec
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.condition import (
    Condition,
    condition_bytes,
    encode_condition,
    encode_null,
    one_hot,
)
from semsynth.models.sdm.pixel_head import PixelHead
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

LEVEL = torch.ones(1, 24)  # an embedding of a noise level


def network(**model: object) -> SemanticUNet:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({**SMALL, **model})
    return fresh_network(config, DiffusionConfig.model_validate({"prediction": "sample"}), 3)


@pytest.mark.parametrize(("side", "channels"), [(1, 3), (2, 12), (4, 48), (4, 16), (8, 192)])
def test_a_fresh_head_gives_the_means_enlarged(side: int, channels: int) -> None:
    colours = channels // side**2
    head = PixelHead(8, channels, side, 16, 3, 24)
    codec = HaarCodec(side.bit_length() - 1, colours) if side > 1 else PixelCodec(colours)
    means, noisy = torch.randn(2, colours, 6, 5), torch.randn(2, channels, 6, 5)
    labels = head.labels(torch.ones(1, 3, 6 * side, 5 * side))
    level = torch.randn(2, 24)
    image = codec.decode(head(torch.randn(2, 8, 6, 5), means, level, noisy, labels))
    size = (6 * side, 5 * side)
    torch.testing.assert_close(image, F.interpolate(means / side, size, mode="bilinear"))


def test_blocks_that_are_equal_give_no_pattern() -> None:
    """What all blocks have in common is flat: no pixel of a block differs from another."""
    torch.manual_seed(1)
    head, codec = PixelHead(8, 48, 4, 16, 3, 24), HaarCodec(2)
    torch.nn.init.normal_(head.last.weight, std=0.1)
    h, means = torch.randn(1, 8, 1, 1).expand(-1, -1, 12, 12), torch.ones(1, 3, 12, 12)
    labels = head.labels(torch.ones(1, 3, 48, 48))
    image = codec.decode(head(h, means, LEVEL, torch.zeros(1, 48, 12, 12), labels))
    inside = image[..., 16:-16, 16:-16]  # zero padding is seen at the border
    assert inside.std((2, 3)).max() < 1e-5
    assert image.std() > 1e-2


def test_the_noise_level_decides_how_much_of_the_noisy_image_passes() -> None:
    """What norms take away, the image's own colour, has a way around the network."""
    head, codec = PixelHead(8, 48, 4, 16, 3, 2), HaarCodec(2)
    with torch.no_grad():
        head.gates.weight[:3, 0] = 1  # passed: of the first entry
        head.gates.weight[3:, 1] = -1  # the scale of the prediction: of the second
    real = torch.rand(1, 3, 1, 1).expand(-1, -1, 24, 24)
    h, means = torch.randn(1, 8, 6, 6), torch.full((1, 3, 6, 6), 0.4)

    def image(level: torch.Tensor) -> torch.Tensor:
        return codec.decode(head(h, means, level, codec.encode(real), None))

    one = 1.278464543  # silu of it is 1
    torch.testing.assert_close(image(torch.zeros(1, 2)), torch.full_like(real, 0.1))
    torch.testing.assert_close(image(torch.tensor([[one, one]])), real)
    torch.testing.assert_close(image(torch.tensor([[one, 0.0]])), real + 0.1)


@pytest.mark.parametrize("of_noise", [False, True])
def test_it_sees_across_the_borders_of_blocks(of_noise: bool) -> None:
    torch.manual_seed(1)
    head, codec = PixelHead(8, 48, 4, 16, 3, 24), HaarCodec(2)
    torch.nn.init.normal_(head.last.weight, std=0.1)
    h, means, x = torch.randn(1, 8, 8, 8), torch.randn(1, 3, 8, 8), torch.randn(1, 3, 32, 32)
    labels = torch.zeros(1, 3, 32, 32)

    def drawn(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return codec.decode(head(h, means, LEVEL, codec.encode(x), head.labels(labels)))

    before = drawn(x, labels)
    (x if of_noise else labels)[..., 16, 16] += 1  # the corner of a block
    moved = (before - drawn(x, labels)).abs().amax((0, 1)) > 1e-6
    rows, columns = (torch.nonzero(moved.any(dim)).flatten() for dim in (1, 0))
    # Four convolutions of 3 x 3 at pixels see four to each side; the noise is seen by two at half
    # the size before them, too.
    for found in (rows, columns):
        first, last = int(found[0]), int(found[-1])
        assert (5 <= first <= 8 and 24 <= last <= 27) if of_noise else (first, last) == (12, 20)


@pytest.mark.parametrize("labels", ["patch", "nearest"])
def test_masks_that_are_prepared_give_the_same(labels: str) -> None:
    unet = network(pixel_head=16, labels=labels)
    torch.nn.init.normal_(unet.head.last.weight, std=0.1)
    side = 16 if labels == "patch" else 4
    maps = one_hot(unet, torch.randint(-1, 3, (2, side, side)))
    x, t = torch.randn(4, 48, 4, 4), torch.full((4,), 500.0)
    with torch.no_grad():
        prepared = encode_condition(unet, maps)
        alone = Condition.stack([encode_condition(unet, map_KHW[None]) for map_KHW in maps])
        whole = unet(x, t, prepared, encode_null(unet, 4, 4))
        expected = unet(x, t, maps.repeat_interleave(2, 0)).sample
        null = unet(x, t, torch.zeros_like(maps[:1]).expand(4, -1, -1, -1)).sample
        stacked = unet(x, t, alone).sample
    assert prepared.n_bytes > sum(condition_bytes(unet, 2, 4, 4))
    for found, wanted in ((whole.sample, expected), (whole.null_sample, null), (stacked, expected)):
        torch.testing.assert_close(found, wanted)
    assert not torch.allclose(expected, null)


def test_the_network_has_it_where_the_model_says_so() -> None:
    with_head, without = network(pixel_head=16), network()
    assert without.head is None
    names = with_head.state_dict().keys() - without.state_dict().keys()
    assert names == {f"head.{name}" for name in with_head.head.state_dict()}
    # It makes an image of the means of the blocks, the first channels of a latent.
    assert len(with_head.conv_out.weight) == 3
    assert len(without.conv_out.weight) == 48


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


def test_the_head_stays_in_the_precision_and_layout_of_its_features() -> None:
    """One map in float32 or in another layout makes all maps at image size slow."""
    head = PixelHead(8, 48, 4, 16, 3, 24)
    head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    h = torch.randn(2, 8, 6, 5).to(memory_format=torch.channels_last)
    means, noisy = torch.randn(2, 3, 6, 5), torch.randn(2, 48, 6, 5)
    seen = []
    for layer in (head.first, head.second):
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16):
        head(h, means, torch.randn(2, 24), noisy, head.labels(torch.ones(2, 3, 24, 20)))
    assert len(seen) == 2
    assert {x.dtype for x in seen} == {torch.bfloat16}
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)

"""The noise of an image as a whole, which lets one evaluation vary stain and light."""

from __future__ import annotations

import pytest
import torch

from semsynth.models.config import ModelConfig
from semsynth.models.sdm.unet import SemanticUNet, whole_noise


def network(global_noise: int) -> SemanticUNet:
    torch.manual_seed(0)
    return SemanticUNet(
        in_channels=12, out_channels=12, label_channels=3, base_channels=8, channel_mult=(1, 2),
        blocks_per_level=1, attention_factors=(2,), head_channels=8, spade_hidden=4,
        global_noise=global_noise,
    ).eval()  # fmt: skip


@pytest.mark.parametrize("size", [(8, 8), (32, 64)])
def test_of_noise_it_is_noise_of_variance_one_whatever_the_size(size: tuple[int, int]) -> None:
    noise = torch.randn(400, 12, *size, generator=torch.Generator().manual_seed(1))
    values = torch.atanh(whole_noise(noise))
    assert abs(values.mean()) < 0.05 and abs(values.var() - 1) < 0.06
    # The channels' are independent of each other.
    assert (torch.corrcoef(values.T) - torch.eye(12)).abs().max() < 0.25


def test_of_an_image_it_is_within_one() -> None:
    image = torch.full((1, 3, 16, 16), 2.0)
    assert torch.equal(whole_noise(image), torch.ones(1, 3))
    assert torch.equal(whole_noise(-image), -torch.ones(1, 3))


def test_it_is_an_input_of_all_blocks() -> None:
    plain, varied = network(0), network(6)
    random = torch.Generator().manual_seed(2)
    for weight in plain.parameters():  # some are zero at first
        torch.nn.init.normal_(weight, std=0.2, generator=random)
    varied.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = torch.zeros(2, 3, 8, 8)
    with torch.inference_mode():
        moved = varied(x, 0.5, labels).sample - plain(x, 0.5, labels).sample
        assert (moved.abs() > 1e-4).float().mean() > 0.9
        torch.nn.init.zeros_(varied.global_in[-1].weight)
        assert torch.equal(plain(x, 0.5, labels).sample, varied(x, 0.5, labels).sample)


def test_files_without_it_are_what_they_were() -> None:
    assert "global_noise" not in ModelConfig().model_dump()
    assert ModelConfig(global_noise=8).model_dump()["global_noise"] == 8

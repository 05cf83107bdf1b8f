"""The network at any size, by label maps and by prepared conditions."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from semsynth.core.errors import UserError
from semsynth.models.sdm import condition as condition_module
from semsynth.models.sdm import unet as unet_module
from semsynth.models.sdm.condition import encode_condition
from semsynth.models.sdm.unet import SemanticUNet

CLASSES = 5


def network(**changes: Any) -> SemanticUNet:
    """A small network without zero layers (a fresh one gives zeros for everything)."""
    options: dict[str, Any] = {
        "in_channels": 3, "out_channels": 3, "label_channels": CLASSES, "base_channels": 16,
        "channel_mult": (1, 2), "blocks_per_level": 1, "attention_factors": (2,),
        "head_channels": 16, "spade_hidden": 8,
    }  # fmt: skip
    torch.manual_seed(0)
    unet = SemanticUNet(**{**options, **changes}).eval()
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return unet


def inputs(height: int, width: int, patch: int = 1) -> tuple[torch.Tensor, ...]:
    """Two noisy images, timesteps, and label maps."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, height, width, generator=g)
    ids = torch.randint(0, CLASSES, (2, height * patch, width * patch), generator=g)
    return x, torch.tensor([3, 700]), F.one_hot(ids, CLASSES).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize(
    ("height", "width", "changes"),
    [
        (8, 24, {}),
        (16, 8, {"channel_mult": (1, 1.5, 3), "attention_factors": (), "blocks_per_level": 2}),
        (6, 10, {"base_channels": 20, "head_channels": 10}),
        (7, 3, {"channel_mult": (1,), "attention_factors": (1,)}),
        (4, 4, {"base_channels": 27, "head_channels": 27, "attention_factors": ()}),
        (4, 6, {"label_patch": 2, "label_features": 12, "out_channels": 6}),
    ],
)
@torch.no_grad()
def test_any_size_width_and_depth(height: int, width: int, changes: dict[str, Any]) -> None:
    unet = network(**changes)
    x, t, labels = inputs(height, width, changes.get("label_patch", 1))
    output = unet(x, t, labels).sample
    assert output.shape == (2, changes.get("out_channels", 3), height, width)
    assert bool(output.isfinite().all()) and float(output.std()) > 0


@pytest.mark.parametrize("changes", [{}, {"label_patch": 2, "label_features": 6}])
@torch.no_grad()
def test_a_prepared_condition_gives_the_same_as_the_label_map(changes: dict[str, Any]) -> None:
    unet = network(**changes)
    x, t, labels = inputs(8, 8, changes.get("label_patch", 1))
    condition = encode_condition(unet, labels)
    assert condition.n_bytes > 0
    torch.testing.assert_close(unet(x, t, condition).sample, unet(x, t, labels).sample)
    repeated = unet(x, t, labels[:1].expand(2, -1, -1, -1)).sample
    torch.testing.assert_close(unet(x, t, encode_condition(unet, labels[:1])).sample, repeated)
    torch.testing.assert_close(unet(x, t, labels[:1]).sample, repeated)


def test_training_passes_through_the_network_and_its_blocks_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("condition.py is for sampling")

    for name, value in vars(condition_module).items():
        if inspect.isfunction(value) and value.__module__ == condition_module.__name__:
            monkeypatch.setattr(condition_module, name, refuse)
            if hasattr(unet_module, name):
                monkeypatch.setattr(unet_module, name, refuse)
    x, t, labels = inputs(8, 8)
    network()(x, t, labels).sample.mean().backward()


@torch.no_grad()
def test_both_sides_of_guidance() -> None:
    unet = network(out_channels=6)
    x, t, labels = inputs(8, 8)
    condition = encode_condition(unet, labels)
    null = encode_condition(unet, torch.zeros_like(labels[:1]))
    both = unet(x, t, condition, null)
    torch.testing.assert_close(both.sample, unet(x, t, condition).sample)
    torch.testing.assert_close(both.null_sample, unet(x, t, null).sample)
    assert unet(x, t, condition).null_sample is None


@torch.no_grad()
def test_one_timestep_for_all_images_and_tuple_output() -> None:
    unet = network()
    x, t, labels = inputs(8, 8)
    (one,) = unet(x, 3, labels, return_dict=False)
    assert torch.equal(one, unet(x, torch.full_like(t, 3), labels).sample)


def test_a_label_map_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(UserError, match=r"is \(1, 7, 8, 8\), .* channels of the network, 5"):
        encode_condition(network(), torch.zeros(1, 7, 8, 8))


@pytest.mark.parametrize("place", [(0, 0), (5, 2), (3, 7)])
@torch.no_grad()
def test_a_latent_pixel_sees_all_labels_of_its_patch(place: tuple[int, int]) -> None:
    x, t, labels = inputs(4, 4, patch=4)
    changed = labels.clone()
    changed[0, :, place[0], place[1]] = labels[0, :, place[0], place[1]].roll(1)
    unet = network(label_patch=4)
    difference = (unet(x, t, labels).sample - unet(x, t, changed).sample).abs().amax(dim=(1, 2, 3))
    assert float(difference[0]) > 0
    assert float(difference[1]) == 0


@torch.no_grad()
def test_images_of_a_batch_are_independent() -> None:
    unet = network()
    x, t, labels = inputs(8, 8)
    together = unet(x, t, labels).sample
    for i in range(2):
        alone = unet(x[i : i + 1], t[i : i + 1], labels[i : i + 1]).sample
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (2, 4)])
def test_a_size_that_cannot_be_halved_is_refused(size: tuple[int, int]) -> None:
    unet = network(channel_mult=(1, 1, 2), attention_factors=())
    x, t, labels = inputs(*size)
    message = r"cannot be halved 2 times; use multiples of 4"
    with pytest.raises(UserError, match=message):
        unet(x, t, torch.zeros(2, CLASSES, 8, 8))
    with pytest.raises(UserError, match=message):
        encode_condition(unet, labels)


@torch.no_grad()
def test_round_trip_through_diffusers(tmp_path: Path) -> None:
    unet = network(label_patch=2, label_features=4)
    unet.save_pretrained(tmp_path / "unet")
    again = SemanticUNet.from_pretrained(tmp_path / "unet")
    assert (again.config["label_patch"], again.config["label_features"]) == (2, 4)
    x, t, labels = inputs(4, 8, patch=2)
    assert torch.equal(again(x, t, labels).sample, unet(x, t, labels).sample)

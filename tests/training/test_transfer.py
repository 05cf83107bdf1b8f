"""Transferred weights: the same function where labels correspond, and what is fresh."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.label_match import match_labels
from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.condition import encode_condition, one_hot
from semsynth.pipelines.formats.model_file import ModelFile, fresh_network, load_network
from semsynth.training.init.transfer import (
    TransferReport,
    check_body,
    patch_shares,
    transfer_weights,
)

SMALL: dict[str, Any] = {
    "codec": "haar", "haar_levels": 1, "base_channels": 16, "channel_mult": [1, 2],
    "blocks_per_level": 1, "attention_factors": [2], "head_channels": 16, "spade_hidden": 8,
}  # fmt: skip
THEIRS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 3: "car"}, ignore_id=0)
# Another order, another id, a label more.
OURS = LabelSet.from_names({5: "Sky", 6: "Tree", 7: "Car", 9: "Road"})
OF_OURS = {0: 1, 2: 2, 3: 0}  # channels that correspond


def start(labels: LabelSet = THEIRS, diffusion: Any = None, **model: Any) -> ModelFile:
    config = ModelConfig.model_validate({**SMALL, **model})
    noise = DiffusionConfig.model_validate(diffusion or {"prediction": "sample"})
    torch.manual_seed(1)
    unet = fresh_network(config, noise, labels.num_channels)
    for parameter in unet.parameters():  # the last layers of a fresh network are zero
        torch.nn.init.normal_(parameter, std=0.1)
    return ModelFile(config, noise, labels, 16, 16, unet.state_dict())


def transferred(
    source: ModelFile, labels: LabelSet = OURS, diffusion: Any = None, **model: Any
) -> tuple[Any, TransferReport, dict[str, torch.Tensor]]:
    config = ModelConfig.model_validate({**SMALL, **model})
    noise = DiffusionConfig.model_validate(diffusion or {"prediction": "sample"})
    torch.manual_seed(2)
    unet = fresh_network(config, noise, labels.num_channels).eval()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    result = transfer_weights(unet, source, config, noise, match_labels(labels, source.labels))
    return unet, result, before


@pytest.mark.parametrize("features", [0, 8])
@torch.no_grad()
def test_the_same_image_for_labels_that_correspond(features: int) -> None:
    source = start(label_features=features)
    unet, result, _ = transferred(source, label_features=features)
    assert result.fresh == {} and result.dropped == []
    x, t = torch.randn(2, 12, 8, 8), torch.tensor([10, 700])
    ours = torch.tensor([0, 2, 3])[torch.randint(3, (2, 16, 16))]
    theirs = ours.clone().apply_(OF_OURS.__getitem__)
    old, nothing = load_network(source), torch.full_like(ours, -1)
    for mine, other in ((ours, theirs), (nothing, nothing)):
        found = unet(x, t, one_hot(unet, mine)).sample
        expected = old(x, t, one_hot(old, other)).sample
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_an_unmatched_label_starts_from_the_mean_of_all_labels() -> None:
    source = start(label_features=8)
    unet, _, _ = transferred(source, label_features=8)
    old = source.weights["label_conv.weight"].view(8, 3, 4, 3, 3)
    new = unet.label_conv.weight.view(8, 4, 4, 3, 3)
    torch.testing.assert_close(new[:, 1], old.mean(1))
    assert torch.equal(new[:, 3], old[:, 0])


@pytest.mark.parametrize(("there", "here"), [(False, True), (True, False), (True, True)])
def test_edges_are_transferred_or_have_no_effect(there: bool, here: bool) -> None:
    source = start(instance_edges=there, label_features=8)
    unet, _, _ = transferred(source, instance_edges=here, label_features=8)
    new = unet.label_conv.weight.view(8, 4 + here, 4, 3, 3)
    old = source.weights["label_conv.weight"].view(8, 3 + there, 4, 3, 3)
    torch.testing.assert_close(new[:, 1], old[:, :3].mean(1))
    if here:
        assert torch.equal(new[:, -1], old[:, -1] if there else torch.zeros_like(new[:, -1]))


@pytest.mark.parametrize(("theirs", "ours"), [(1, 4), (4, 1), (2, 4), (4, 2), (3, 2), (2, 2)])
def test_shares_of_a_patch_keep_the_sum(theirs: int, ours: int) -> None:
    shares = patch_shares(theirs, ours)
    torch.testing.assert_close(shares.sum(0), torch.ones(theirs))
    torch.testing.assert_close(shares.sum(1), torch.full((ours,), theirs / ours))
    if theirs == ours:
        assert torch.equal(shares, torch.eye(ours))


@pytest.mark.parametrize(("theirs", "ours"), [("pixel", "haar"), ("haar", "pixel")])
@torch.no_grad()
def test_another_codec(theirs: str, ours: str) -> None:
    source = start(codec=theirs)
    unet, result, before = transferred(source, codec=ours)
    ends = {f"{end}.{kind}" for end in ("conv_in", "conv_out") for kind in ("weight", "bias")}
    assert result.fresh.keys() == ends
    assert all("haar (1 levels)" in reason for reason in result.fresh.values())
    state = unet.state_dict()
    for name, value in state.items():
        if name in ends:
            assert torch.equal(value, before[name])
        elif not name.endswith("shared.weight"):
            assert torch.equal(value, source.weights[name])
    # An area of one class gives the same gammas and betas, whatever the label patch.
    old, side = load_network(source), 8
    for mine, other in OF_OURS.items():
        a, b = (
            encode_condition(net, one_hot(net, torch.full((1, n, n), channel)))
            for net, channel in ((unet, mine), (old, other))
            for n in (side * net.label_patch,)
        )
        for one, two in zip(a.norms, b.norms, strict=True):
            torch.testing.assert_close(one.sources[0], two.sources[0], rtol=1e-5, atol=1e-5)


EPSILON = {"prediction": "epsilon", "learn_sigma": True, "schedule": "linear"}


def test_another_prediction_has_a_fresh_last_layer() -> None:
    source = start(diffusion=EPSILON, codec="pixel")
    unet, result, _ = transferred(source, codec="pixel")
    assert result.fresh.keys() == {"conv_out.weight", "conv_out.bias"}
    assert "prediction epsilon there, sample here" in result.fresh["conv_out.bias"]
    assert not unet.conv_out.weight.any()


@pytest.mark.parametrize("learns", [False, True])
def test_the_same_prediction_without_or_with_a_variance(learns: bool) -> None:
    plain = {"prediction": "epsilon", "schedule": "linear"}
    source = start(diffusion=plain if learns else EPSILON, codec="pixel")
    unet, result, _ = transferred(source, diffusion=EPSILON if learns else plain, codec="pixel")
    assert result.fresh == {}
    assert torch.equal(unet.conv_out.weight[:3], source.weights["conv_out.weight"][:3])
    assert not unet.conv_out.weight[3:].any() and len(unet.conv_out.weight) == 3 * (1 + learns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"base_channels": 32},
            r"base_channels is 16, the recipe's 32.*--set model.base_channels=16",
        ),
        ({"channel_mult": [1, 3]}, r"channel_mult is \[1.0, 2.0\], the recipe's \[1.0, 3.0\]"),
        ({"label_features": 8}, r"label_features is 0, the recipe's 8"),
        ({"attention_factors": []}, r"attention_factors is \[2\], the recipe's \[\]"),
        ({"head_channels": 8}, r"head_channels is 16, the recipe's 8"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_network_is_refused(change: dict[str, Any], message: str) -> None:
    ours = ModelConfig.model_validate({**SMALL, **change})
    with pytest.raises(UserError, match=message) as error:
        check_body(ModelConfig.model_validate(SMALL), ours, "model.pth")
    assert "\n" not in str(error.value)


def test_attention_factors_beyond_the_network_do_not_count() -> None:
    ours = ModelConfig.model_validate({**SMALL, "attention_factors": [2, 8, 16]})
    check_body(ModelConfig.model_validate(SMALL), ours, "model.pth")

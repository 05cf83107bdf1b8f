"""The configuration is read off the shapes of an official state dict, and wrong keys are named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from official_figures import FOLDER, figures, state

from semsynth.core.errors import UserError
from semsynth.models.official.infer import OfficialNetwork, check_keys, infer_network
from semsynth.models.official.names import from_official, official_shapes, to_official
from semsynth.models.sdm.unet import SemanticUNet

Shapes = dict[str, tuple[int, ...]]


def on_meta(**options: Any) -> SemanticUNet:
    with torch.device("meta"):
        return SemanticUNet(**options)


def build(found: OfficialNetwork, head_channels: int) -> SemanticUNet:
    return on_meta(
        in_channels=found.in_channels,
        out_channels=found.out_channels,
        label_channels=found.label_channels,
        head_channels=head_channels,
        **found.model_config(head_channels, False, "f.pt").model_dump(
            include={
                "base_channels",
                "channel_mult",
                "blocks_per_level",
                "attention_factors",
                "spade_hidden",
            }
        ),
    )


def published() -> Shapes:
    keys = json.loads((FOLDER / "published_keys.json").read_text())
    return {name: tuple(shape) for name, shape in keys.items()}


def tiny() -> Shapes:
    description, _ = figures("paper_tiny")
    return {name: tuple(shape) for name, shape in description["parameters"].items()}


def refused(shapes: Shapes) -> str:
    with pytest.raises(UserError) as error:
        check_keys(build(infer_network(shapes, "f.pt"), 16), shapes, "f.pt")
    assert str(error.value).startswith("f.pt: ") and "\n" not in str(error.value)
    return str(error.value)


def test_the_published_network_at_its_full_size() -> None:
    shapes = published()
    found = infer_network(shapes, "f.pt")
    assert found == OfficialNetwork(
        in_channels=3,
        out_channels=6,
        label_channels=151,
        base_channels=256,
        widths=(256, 256, 512, 512, 1024, 1024),
        blocks_per_level=2,
        attention_levels=(3, 4, 5),
        spade_hidden=128,
    )
    unet = build(found, 64)
    check_keys(unet, shapes, "f.pt")
    assert list(official_shapes(unet).items()) == list(shapes.items())  # the order too
    assert len(shapes) == 766
    assert sum(parameter.numel() for parameter in unet.parameters()) == 660_608_518
    weights = dict(unet.state_dict())
    back = from_official(unet, to_official_on_meta(shapes))
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in weights.items()}


def to_official_on_meta(shapes: Shapes) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ["paper_tiny", "instance_tiny"])
def test_the_order_is_the_official_one(name: str) -> None:
    description, _ = figures(name)
    shapes = {key: tuple(shape) for key, shape in description["parameters"].items()}
    found = infer_network(shapes, name)
    assert list(official_shapes(build(found, 16)).items()) == list(shapes.items())


@pytest.mark.parametrize(
    "options",
    [
        {"channel_mult": (1,), "attention_factors": ()},
        {"channel_mult": (1,), "attention_factors": (1,), "blocks_per_level": 3},
        {"channel_mult": (0.5, 1, 1, 2, 2, 4, 4), "attention_factors": (16, 32, 64)},
        {"channel_mult": (1, 1, 1), "attention_factors": (1, 4), "blocks_per_level": 1},
        {"channel_mult": (2, 1.5, 1), "attention_factors": (2,), "out_channels": 3},
        {"channel_mult": (1, 2.34), "base_channels": 96, "label_channels": 36},
    ],
)
def test_any_network_is_recognised(options: dict[str, Any]) -> None:
    everything = {"base_channels": 64, "spade_hidden": 24, "head_channels": 8, **options}
    unet = on_meta(**everything)
    shapes = official_shapes(unet)
    found = infer_network(shapes, "f.pt")
    again = build(found, 8)
    assert official_shapes(again) == shapes
    assert found.widths == tuple(unet.widths)
    assert found.blocks_per_level == everything.get("blocks_per_level", 2)
    levels = range(len(found.widths))
    assert found.attention_levels == tuple(
        level for level in levels if 2**level in everything.get("attention_factors", (8, 16, 32))
    )
    assert found.learn_sigma == (everything.get("out_channels", 6) == 6)


def test_every_single_wrong_key_is_named() -> None:
    shapes = tiny()
    found = infer_network(shapes, "f.pt")
    unet = build(found, 16)
    of_the_image = {"input_blocks.0.0.weight", "out.2.weight", "out.2.bias"}
    for name, shape in shapes.items():
        rest = {key: value for key, value in shapes.items() if key != name}
        assert infer_network(rest, "f.pt") == found
        with pytest.raises(UserError, match=f"keys 1 missing: {name}$"):
            check_keys(unet, rest, "f.pt")
        wrong = (shape[0] + 1, *shape[1:])
        if name not in of_the_image:
            assert infer_network({**shapes, name: wrong}, "f.pt") == found
        with pytest.raises(UserError) as error:
            check_keys(unet, {**shapes, name: wrong}, "f.pt")
        named = f"keys 1 of another shape: {name} {wrong} in place of {shape}"
        assert str(error.value).endswith(named)


def test_all_kinds_of_wrong_keys_at_once() -> None:
    shapes = tiny()
    gone = [name for name in shapes if name.startswith("output_blocks.3.0")]
    for name in gone:
        del shapes[name]
    shapes |= {"label_emb.weight": (5, 128), "output_blocks.99.0.what": (1,)}
    shapes["time_embed.0.bias"] = (127,)
    message = refused(shapes)
    assert f"{len(gone)} missing: {gone[0]}, " in message
    assert f" and {len(gone) - 10} more" in message and gone[10] not in message
    assert "2 unknown: label_emb.weight, output_blocks.99.0.what" in message
    assert "1 of another shape: time_embed.0.bias (127,) in place of (128,)" in message


def test_other_networks_are_refused() -> None:
    shapes = tiny()
    plain = {name: shape for name, shape in shapes.items() if "mlp_" not in name}
    assert "guided-diffusion network without SPADE" in refused(plain)
    assert "not the state dict of an official SDM network" in refused({"conv1.weight": (3, 3)})
    assert "its keys are none at all" in refused({})
    conv = {**shapes, "input_blocks.2.0.op.weight": (32, 32, 3, 3)}
    assert "--resblock_updown False (input_blocks.2.0.op.weight)" in refused(conv)
    narrow = {n: (s[0] // 2, *s[1:]) if "emb_layers" in n else s for n, s in shapes.items()}
    assert "--use_scale_shift_norm False" in refused(narrow)
    half = {n: s for n, s in shapes.items() if "input" in n or "output_blocks.0" in n}
    assert "f.pt: " in refused(half)


def test_any_shapes_give_a_network_or_one_line() -> None:
    """Whatever the shapes are, there is a network or one line that says why there is none."""
    rng = np.random.default_rng(0)
    names = list(tiny())
    for _ in range(60):
        shapes = tiny()
        for name in rng.choice(names, rng.integers(1, len(names))).tolist():
            match rng.integers(4):
                case 0:
                    shapes.pop(name, None)
                case 1:
                    shapes[name] = tuple(rng.integers(0, 9, rng.integers(0, 5)).tolist())
                case 2:
                    shapes[name] = (3,) * len(shapes.get(name, ()))
                case _:
                    shapes[name.replace("blocks.1", "blocks.2").replace(".0.", ".1.")] = (4, 4)
        try:
            found = infer_network(shapes, "f.pt")
            found.model_config(1, False, "f.pt")
        except UserError as error:
            assert str(error).startswith("f.pt: ")


@pytest.mark.parametrize("head_channels", [0, 24, 128])
def test_heads_that_do_not_fit_are_refused(head_channels: int) -> None:
    found = infer_network(tiny(), "f.pt")
    with pytest.raises(UserError, match=f"--head-channels {head_channels} does not divide the 64"):
        found.model_config(head_channels, False, "f.pt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_conversion_and_back_is_exact(dtype: torch.dtype) -> None:
    description, _ = figures("instance_tiny")
    official = {name: tensor.to(dtype) for name, tensor in state(description).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in official.items()}
    unet = build(infer_network(shapes, "f.pt"), 16)
    source = dict(official)
    weights = from_official(unet, source)
    assert source == {}
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    again = to_official(unet, weights)
    assert list(again) == list(official)
    for name, tensor in again.items():
        assert torch.equal(tensor, official[name].float())
        assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()  # nothing else is saved

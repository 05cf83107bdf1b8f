"""The names and layouts of the official SDM weights, mapped onto ``SemanticUNet`` and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semsynth.core.logging import progress
from semsynth.models.sdm.blocks import Attention, ResBlock, SpadeNorm, UNetStage
from semsynth.models.sdm.unet import SemanticUNet

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """The place of an official parameter in our state dict.

    Attributes:
        name: our parameter.
        half: 0 (gamma) or 1 (beta) where ours has two official ones stacked along the first axis.
        is_conv1d: official attention is a 1x1 convolution over a sequence, a linear layer here:
            the official weight has a third axis, of one element.
    """

    name: str
    half: int | None = None
    is_conv1d: bool = False


Entries = Iterator[tuple[str, Place]]
KINDS = ("weight", "bias")


def official_layout(unet: SemanticUNet) -> dict[str, Place]:
    """Return the place of every official parameter, in the order of the official state dict.

    All map one to one but ``gamma_beta``: official gamma, then official beta, along the first axis.
    ``unet`` may be on the meta device, and has no ``label_features`` (the official one has none).
    """
    return dict(_network(unet))


def official_shapes(unet: SemanticUNet) -> dict[str, Shape]:
    """Return name and shape of every official parameter, in the official order."""
    ours = {name: tuple(parameter.shape) for name, parameter in unet.state_dict().items()}
    shapes: dict[str, Shape] = {}
    for official, place in official_layout(unet).items():
        rows, *others = ours[place.name]
        if place.half is not None:
            rows //= 2
        shapes[official] = (rows, *others, *([1] if place.is_conv1d else []))
    return shapes


def from_official(unet: SemanticUNet, state: MutableMapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights in fp32, which holds fp16 and bf16 exactly.

    Args:
        unet: has the layout; may be on the meta device, and is not changed.
        state: official tensors of ``official_shapes``; emptied meanwhile, so that there are never
            two whole sets of weights in memory.
    """
    parts: dict[str, list[Tensor]] = {}
    for official, place in progress(official_layout(unet).items(), "weights", unit="tensor"):
        value = state.pop(official).detach().float()
        parts.setdefault(place.name, []).append(value.squeeze(-1) if place.is_conv1d else value)
        if place.half == 1:
            parts[place.name] = [torch.cat(parts[place.name])]
    return {name: parts[name][0] for name in unet.state_dict()}


def to_official(unet: SemanticUNet, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the official state dict of our weights: same dtype, own memory, official order.

    Args:
        unet: has the layout; may be on the meta device.
        weights: our parameters by name.
    """
    state: dict[str, Tensor] = {}
    for official, place in progress(official_layout(unet).items(), "weights", unit="tensor"):
        value = weights[place.name].detach().cpu()
        if place.half is not None:
            value = value.chunk(2)[place.half]
        value = value.unsqueeze(-1) if place.is_conv1d else value
        state[official] = value.clone(memory_format=torch.contiguous_format)
    return state


def _network(unet: SemanticUNet) -> Entries:
    yield from _layer("time_in", "time_embed.0")
    yield from _layer("time_out", "time_embed.2")
    yield from _layer("conv_in", "input_blocks.0.0")
    for index, stage in enumerate(unet.encoder_stages()):
        yield from _stage(f"encoder.{index}", f"input_blocks.{index + 1}", stage)
    yield from _block("middle1", "middle_block.0", unet.middle1)
    yield from _attention("middle_attention", "middle_block.1", unet.middle_attention)
    yield from _block("middle2", "middle_block.2", unet.middle2)
    for index, stage in enumerate(unet.decoder_stages()):
        yield from _stage(f"decoder.{index}", f"output_blocks.{index}", stage)
    yield from _layer("norm_out", "out.0")
    yield from _layer("conv_out", "out.2")


def _stage(ours: str, theirs: str, stage: UNetStage) -> Entries:
    yield from _block(f"{ours}.block", f"{theirs}.0", stage.block)
    after = 1
    if stage.attention is not None:
        yield from _attention(f"{ours}.attention", f"{theirs}.{after}", stage.attention)
        after += 1
    if stage.up is not None:
        yield from _block(f"{ours}.up", f"{theirs}.{after}", stage.up)


def _block(ours: str, theirs: str, block: ResBlock) -> Entries:
    if block.is_spade:
        yield from _spade(f"{ours}.norm1", f"{theirs}.in_norm", block.norm1)
        yield from _layer(f"{ours}.conv1", f"{theirs}.in_layers.1")
        yield from _layer(f"{ours}.time", f"{theirs}.emb_layers.1")
        yield from _spade(f"{ours}.norm2", f"{theirs}.out_norm", block.norm2)
        yield from _layer(f"{ours}.conv2", f"{theirs}.out_layers.2")
    else:
        yield from _layer(f"{ours}.norm1", f"{theirs}.in_layers.0")
        yield from _layer(f"{ours}.conv1", f"{theirs}.in_layers.2")
        yield from _layer(f"{ours}.time", f"{theirs}.emb_layers.1")
        yield from _layer(f"{ours}.norm2", f"{theirs}.out_layers.0")
        yield from _layer(f"{ours}.conv2", f"{theirs}.out_layers.3")
    if not isinstance(block.skip, nn.Identity):
        yield from _layer(f"{ours}.skip", f"{theirs}.skip_connection")


def _spade(ours: str, theirs: str, norm: nn.Module) -> Entries:
    assert isinstance(norm, SpadeNorm)
    yield from _layer(f"{ours}.shared", f"{theirs}.mlp_shared.0")
    for half, name in enumerate(("mlp_gamma", "mlp_beta")):
        for kind in KINDS:
            yield f"{theirs}.{name}.{kind}", Place(f"{ours}.gamma_beta.{kind}", half)


def _attention(ours: str, theirs: str, attention: Attention) -> Entries:
    yield from _layer(f"{ours}.norm", f"{theirs}.norm")
    for mine, name in ((f"{ours}.qkv", "qkv"), (f"{ours}.out", "proj_out")):
        for kind in KINDS:
            yield f"{theirs}.{name}.{kind}", Place(f"{mine}.{kind}", is_conv1d=kind == "weight")


def _layer(ours: str, theirs: str) -> Entries:
    for kind in KINDS:
        yield f"{theirs}.{kind}", Place(f"{ours}.{kind}")

"""The names and layouts of the official SDM weights, mapped onto ``SemanticUNet``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from semsynth.model.spade import ResBlock, SpadeNorm
from semsynth.model.unet import SemanticUNet, Stage
from semsynth.runtime.errors import UserError


def _norm(ours: str, theirs: str, norm: torch.nn.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    for kind in ("weight", "bias"):
        if isinstance(norm, SpadeNorm):
            yield f"{ours}.shared.{kind}", (f"{theirs}.mlp_shared.0.{kind}",)
            names = (f"{theirs}.mlp_gamma.{kind}", f"{theirs}.mlp_beta.{kind}")
            yield f"{ours}.gamma_beta.{kind}", names
        else:
            yield f"{ours}.{kind}", (f"{theirs}.{kind}",)


def _block(ours: str, theirs: str, block: ResBlock) -> Iterator[tuple[str, tuple[str, ...]]]:
    spade = block.is_spade
    yield from _norm(
        f"{ours}.norm1", f"{theirs}.{'in_norm' if spade else 'in_layers.0'}", block.norm1
    )
    yield from _norm(
        f"{ours}.norm2", f"{theirs}.{'out_norm' if spade else 'out_layers.0'}", block.norm2
    )
    pairs = [
        ("conv1", "in_layers.1" if spade else "in_layers.2"),
        ("time", "emb_layers.1"),
        ("conv2", "out_layers.2" if spade else "out_layers.3"),
    ]
    if not isinstance(block.skip, torch.nn.Identity):
        pairs.append(("skip", "skip_connection"))
    yield from _plain(ours, theirs, pairs)


def _plain(
    ours: str, theirs: str, pairs: list[tuple[str, str]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for mine, official in pairs:
        for kind in ("weight", "bias"):
            yield f"{ours}.{mine}.{kind}".lstrip("."), (f"{theirs}.{official}.{kind}".lstrip("."),)


ATTENTION = [("norm", "norm"), ("qkv", "qkv"), ("out", "proj_out")]


def _stage(ours: str, theirs: str, stage: Stage) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from _block(f"{ours}.block", f"{theirs}.0", stage.block)
    after = 1
    if stage.attention is not None:
        yield from _plain(f"{ours}.attention", f"{theirs}.{after}", ATTENTION)
        after += 1
    if stage.up is not None:
        yield from _block(f"{ours}.up", f"{theirs}.{after}", stage.up)


def official_names(unet: SemanticUNet) -> dict[str, tuple[str, ...]]:
    """Return, for each parameter of ``unet``, the official ones that it holds, one after another.

    All map one to one but ``gamma_beta``, which is official gamma on top of official beta.
    """
    names: dict[str, tuple[str, ...]] = {}
    names.update(_plain("", "", [("time_in", "time_embed.0"), ("time_out", "time_embed.2")]))
    names.update(_plain("", "", [("conv_in", "input_blocks.0.0")]))
    for index, stage in enumerate(unet.encoder_stages()):
        names.update(_stage(f"encoder.{index}", f"input_blocks.{index + 1}", stage))
    names.update(_block("middle1", "middle_block.0", unet.middle1))
    names.update(_plain("middle_attention", "middle_block.1", ATTENTION))
    names.update(_block("middle2", "middle_block.2", unet.middle2))
    for index, stage in enumerate(unet.decoder_stages()):
        names.update(_stage(f"decoder.{index}", f"output_blocks.{index}", stage))
    names.update(_plain("", "", [("norm_out", "out.0"), ("conv_out", "out.2")]))
    return names


def load_official(unet: SemanticUNet, state: Mapping[str, Tensor]) -> None:
    """Copy an official state dict into ``unet``.

    Raises:
        UserError: names every parameter that is missing, unknown, or of another shape.
    """
    names = official_names(unet)
    wanted = {official for group in names.values() for official in group}
    if wanted != state.keys():
        missing, extra = sorted(wanted - state.keys()), sorted(state.keys() - wanted)
        raise UserError(f"official weights do not fit: missing {missing}, unknown {extra}")
    converted: dict[str, Tensor] = {}
    for name, parameter in unet.state_dict().items():
        value = torch.cat([state[official].float() for official in names[name]])
        # 1x1 convolutions over a sequence (attention) are linear layers here.
        value = value.squeeze(-1) if value.dim() == parameter.dim() + 1 else value
        if value.shape != parameter.shape:
            raise UserError(
                f"official weights do not fit: {' + '.join(names[name])} is "
                f"{tuple(value.shape)}, the network has {tuple(parameter.shape)}"
            )
        converted[name] = value
    unet.load_state_dict(converted)

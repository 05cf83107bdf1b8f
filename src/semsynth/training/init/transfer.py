"""Transfer of weights to a network of other labels, codec or label patches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from semsynth.core.errors import UserError
from semsynth.data.label_match import LabelMapping
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.model_file import ModelFile, meta_network

# Settings that decide the shapes of layers that see neither labels nor the codec's channels.
_BODY = ("base_channels", "channel_mult", "blocks_per_level", "head_channels", "spade_hidden",
         "label_features")  # fmt: skip
_AT_PIXELS = "head.labels.weight"  # reads labels pixel by pixel, whatever others see of a patch


@dataclass(frozen=True)
class TransferReport:
    """Which weights of a starting point were used.

    Attributes:
        parameters: how many numbers were transferred, label columns included.
        fresh: parameters that stay as they were initialized, each with the reason.
        dropped: parameters of the starting point that have no place here.
    """

    parameters: int
    fresh: dict[str, str]
    dropped: list[str]


def check_body(source: ModelConfig, model: ModelConfig, where: str) -> None:
    """Check that two networks differ only in the layers that see labels or the codec's channels.

    Raises:
        UserError: names what differs, and how to set it.
    """
    differs = {}
    for name in _BODY:
        ours, theirs = getattr(model, name), getattr(source, name)
        if ours != theirs:
            differs[name] = (theirs, ours)
    ours, theirs = attention_levels(model), attention_levels(source)
    if ours != theirs:
        differs["attention_factors"] = (theirs, ours)
    if differs:
        raise another_network(
            f"--from {where}", {f"model.{name}": pair for name, pair in differs.items()}
        )


def another_network(where: str, differs: dict[str, tuple[Any, Any]]) -> UserError:
    """Return the error of settings (theirs, ours) that decide what weights mean."""
    difference = "; ".join(f"{name} is {a}, the recipe's {b}" for name, (a, b) in differs.items())
    fix = " ".join(f"{name}={str(a).replace(' ', '')}" for name, (a, _) in differs.items())
    return UserError(
        f"{where}: is another network: {difference}; "
        f"choose a recipe of the same one, or --set {fix}"
    )


def transfer_weights(
    unet: SemanticUNet,
    source: ModelFile,
    model: ModelConfig,
    diffusion: DiffusionConfig,
    match: LabelMapping,
) -> TransferReport:
    """Fill a fresh network with the weights of ``source``, in place.

    Layers that read the label map have a column for each label (and place in a patch). A label of
    ours starts from the mean of the columns that ``match`` gives it; one without a counterpart from
    the mean of all of theirs: it then acts as an average class, which the layers above can
    interpret, where fresh columns would be noise to them. The edges' column is theirs, or zero (no
    effect) where they had no edges.

    Another label patch: the columns of a patch are distributed by area, so that an area of one
    class gives the same sum.

    The first and last convolution are transferred where the codecs are the same, and the last only
    where the networks predict the same; so is a head at the resolution of pixels of one width.

    Args:
        unet: freshly initialized; what cannot be transferred stays so.
        source: the starting point, which passed ``check_body``.
        model: of ``unet``.
        diffusion: what ``unet`` will be trained for.
        match: of their labels and ours.
    """
    old = meta_network(source)
    columns = {name for name in label_readers(unet) if name in label_readers(old)}
    state = unet.state_dict()
    reason = _ends(source, model, diffusion, state)
    fresh: dict[str, str] = {}
    count = 0
    for name, value in state.items():
        theirs = source.weights.get(name)
        if name in reason or theirs is None:
            fresh[name] = reason.get(name, "the starting point has none")
            continue
        theirs = theirs.detach().to(value.device, torch.float32)
        if name in columns:
            patches = (1, 1) if name == _AT_PIXELS else (old.label_patch, unet.label_patch)
            theirs = _columns(theirs, old, unet, match, patches)
        if name.startswith("conv_out."):
            rows = min(len(value), len(theirs))  # with or without a learned variance
            theirs = torch.cat([theirs[:rows], value[rows:]])
        value.copy_(theirs)
        count += value.numel()
    return TransferReport(count, fresh, sorted(source.weights.keys() - state.keys()))


def label_readers(unet: SemanticUNet) -> list[str]:
    """Return the names of the weights whose columns (axis 1) are those of the label map."""
    head = [] if unet.head is None else [_AT_PIXELS]
    if isinstance(unet.label_conv, nn.Conv2d):
        return ["label_conv.weight", *head]
    names = [name for name, _ in unet.named_parameters() if name.endswith(".shared.weight")]
    return names + head


def attention_levels(model: ModelConfig) -> list[int]:
    """Return the down-sampling factors that have attention and are those of a level."""
    return [2**i for i in range(len(model.channel_mult)) if 2**i in model.attention_factors]


def _ends(
    source: ModelFile, model: ModelConfig, diffusion: DiffusionConfig, names: Iterable[str]
) -> dict[str, str]:
    """Return which of the first and last layers' parameters stay fresh, and why."""
    ours, theirs = codec_name(model), codec_name(source.model)
    if ours != theirs:
        ends: tuple[str, ...] = ("conv_in.", "conv_out.", "head.")
        why = f"codec {theirs} there, {ours} here"
    elif source.diffusion.prediction != diffusion.prediction:
        ends = ("conv_out.", "head.")
        why = f"prediction {source.diffusion.prediction} there, {diffusion.prediction} here"
    elif source.model.pixel_head not in (0, model.pixel_head):
        ends, why = ("head.",), f"width {source.model.pixel_head} there, {model.pixel_head} here"
    else:
        return {}
    return {name: why for name in names if name.startswith(ends)}


def codec_name(model: ModelConfig) -> str:
    """Return a name that two codecs share if they give the same latents."""
    if model.vae is not None:
        # One without a hash was not trained behind yet: its source is all that is known.
        return f"vae {model.vae.sha256[:12] or model.vae.source}"
    name = f"haar ({model.haar_levels} levels)" if model.codec == "haar" else model.codec
    if model.is_rgb:
        return name
    return f"{name} of {model.image_channels} channels of {model.image_bits} bits"


def _columns(
    weight: Tensor,
    old: SemanticUNet,
    unet: SemanticUNet,
    match: LabelMapping,
    patches: tuple[int, int],
) -> Tensor:
    """Return (out, ours x patch^2, kh, kw) of (out, theirs x patch^2, kh, kw).

    ``patches`` are the sides of their patches of labels and of ours.
    """
    out, size = len(weight), weight.shape[2:]
    by_label = weight.view(out, old.label_channels, patches[0], patches[0], *size)
    classes = old.label_channels - old.instance_edges
    average = by_label[:, :classes].mean(1)
    parts = [by_label[:, list(group)].mean(1) if group else average for group in match.channels]
    if unet.instance_edges:
        edges = by_label[:, -1]
        parts.append(edges if old.instance_edges else torch.zeros_like(edges))
    shares = patch_shares(*patches).to(weight)
    ours = torch.einsum("ai,bj,okijyx->okabyx", shares, shares, torch.stack(parts, 1))
    return ours.reshape(out, -1, *size)


def patch_shares(theirs: int, ours: int) -> Tensor:
    """Return which share of each of ``theirs`` parts of a side lies in each of ``ours``.

    (ours, theirs) float32; the columns sum to 1; the identity for equal numbers.
    """
    shares = torch.zeros(ours, theirs)
    for i in range(ours):
        for j in range(theirs):
            # In units of 1 / (ours * theirs) of the side.
            overlap = min((i + 1) * theirs, (j + 1) * ours) - max(i * theirs, j * ours)
            shares[i, j] = max(0, overlap) / ours
    return shares

"""``ModelFile``: a trained generator as one value, read from ``final_model.pth`` or a folder.

``final_model.pth`` is everything that generating needs, in one file without code in it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semsynth.core.config import parse
from semsynth.core.errors import UserError
from semsynth.core.files import atomic_path
from semsynth.core.safe_load import load_torch_file, save_torch_file
from semsynth.core.version import __version__, is_newer
from semsynth.data.augment import AUGMENT_PARAMS
from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.codecs.codec import Codec, open_codec
from semsynth.models.codecs.vae import CONFIG
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.convert.config import WeightForm
from semsynth.pipelines.formats.diffusers_folder import (
    FINAL,
    MODEL_INDEX,
    VAE,
    check_folder,
    read_index,
    translate_load_errors,
)
from semsynth.pipelines.formats.pretrained import find_model
from semsynth.pipelines.formats.weights import (
    PackedWeights,
    WeightError,
    pack_weights,
    unpack_weights,
)

# 1: weights as they are; 2: in fewer bytes (``weights.pack_weights``), with ``scales``.
FORMAT, PACKED_FORMAT = 1, 2
UPDATE = "update it: pip install --upgrade semsynth"
# Keys of ``ModelFile`` in files; weights are beside them in a Diffusers folder.
METADATA = "facts"
_KEYS = {"model", "diffusion", "labels", "height", "width", METADATA}

Metadata = Mapping[str, Any]
"""``ModelFile.metadata``."""


@dataclass(frozen=True)
class ModelFile:
    """A trained generator.

    Attributes:
        model: configuration of network and codec.
        diffusion: configuration of the forward process.
        labels: the label set that it was trained on.
        height: of its images in pixels.
        width: of its images in pixels.
        weights: the network's (averaged) parameters.
        metadata: recipe, step, data set, licence and versions, as plain values (the key ``facts``
            in files).
    """

    model: ModelConfig
    diffusion: DiffusionConfig
    labels: LabelSet
    height: int
    width: int
    weights: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)


def build_network(
    model: ModelConfig, diffusion: DiffusionConfig, label_channels: int
) -> tuple[SemanticUNet, Codec]:
    """Return a fresh network and the codec that it works behind.

    Raises:
        UserError: an autoencoder that cannot be loaded, or is not the model's.
    """
    return fresh_network(model, diffusion, label_channels), open_codec(model)


def fresh_network(
    model: ModelConfig, diffusion: DiffusionConfig, label_channels: int
) -> SemanticUNet:
    """Return a network with fresh weights; its codec's are not needed for that."""
    channels = model.latent_channels
    unet: SemanticUNet = SemanticUNet(
        in_channels=channels,
        out_channels=channels * (2 if diffusion.learn_sigma else 1),
        label_channels=label_channels + model.instance_edges,
        base_channels=model.base_channels,
        channel_mult=tuple(model.channel_mult),
        blocks_per_level=model.blocks_per_level,
        attention_factors=tuple(model.attention_factors),
        head_channels=model.head_channels,
        spade_hidden=model.spade_hidden,
        dropout=model.dropout,
        label_patch=model.downscale if model.labels == "patch" else 1,
        label_features=model.label_features,
        instance_edges=model.instance_edges,
        augment_channels=len(AUGMENT_PARAMS) if model.augment_condition else 0,
        pixel_head=model.pixel_head,
        pixel_side=model.downscale if model.pixel_head else 1,
        global_noise=model.global_noise,
    )
    return unet


def check_network(network: SemanticUNet, model: ModelConfig, labels: LabelSet) -> None:
    """Check that a network has the channels that labels and model ask for.

    Raises:
        UserError: it has others.
    """
    wanted = (labels.num_channels + model.instance_edges, model.latent_channels)
    found = (network.config["label_channels"], network.config["in_channels"])
    if found != wanted:
        raise UserError(
            f"the network has {found[0]} condition and {found[1]} image channels, labels and "
            f"model ask for {wanted[0]} and {wanted[1]}"
        )


def meta_network(file: ModelFile) -> SemanticUNet:
    """Return the file's network without storage: its names and shapes."""
    with torch.device("meta"):
        return fresh_network(file.model, file.diffusion, file.labels.num_channels)


def load_network(file: ModelFile) -> SemanticUNet:
    """Return the file's network in evaluation mode, with the file's own tensors (no copy).

    Raises:
        UserError: the weights do not fit the configuration.
    """
    unet = meta_network(file)
    given: Any = file.weights  # of a file: anything
    wanted, found = (
        {name: getattr(tensor, "shape", None) for name, tensor in weights.items()}
        for weights in (unet.state_dict(), given if isinstance(given, dict) else {})
    )
    other = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if other:
        raise UserError(
            f"weights do not fit the configuration: {len(other)} tensors are missing, unknown or "
            f"of another shape ({other[0]}); the model is damaged, or another version of semsynth "
            "trained it: generate with that version, or train again"
        )
    unet.load_state_dict(file.weights, assign=True)
    unet.eval()
    return unet


def save_model_file(path: Path, file: ModelFile, form: WeightForm = "fp32") -> WeightError | None:
    """Write ``file`` to ``path``, all of it or nothing.

    Args:
        path: the new file.
        file: the generator.
        form: how its weights are written; other than ``fp32`` they are rounded, and the metadata
            of the new file say so (key ``rounded``).

    Returns:
        What rounding changed; None with ``fp32``.

    Raises:
        UserError: the disk is full, or weights that are not finite and so cannot be rounded.
    """
    if form == "fp32":
        _write(path, file, {"format": FORMAT}, PackedWeights(file.weights))
        return None
    packed, error = pack_weights(file.weights, form)
    before = file.metadata.get("rounded", {}).get("relative_error", 0.0)
    rounded = {"weights": form, "relative_error": round(math.hypot(before, error.relative), 6)}
    file = replace(file, metadata={**file.metadata, "rounded": rounded})
    _write(path, file, {"format": PACKED_FORMAT, "scales": packed.scales}, packed)
    return error


def _write(path: Path, file: ModelFile, head: dict[str, Any], packed: PackedWeights) -> None:
    value = {
        **head,
        "model": file.model.model_dump(mode="json"),
        "diffusion": file.diffusion.model_dump(mode="json"),
        "labels": file.labels.to_json(),
        "height": file.height,
        "width": file.width,
        "weights": {name: tensor.detach().cpu() for name, tensor in packed.tensors.items()},
        METADATA: file.metadata,
    }
    with atomic_path(path) as temporary:
        save_torch_file(value, temporary)


def load_model_file(path: Path) -> ModelFile:
    """Read a ``final_model.pth``; never runs code that a file may carry.

    Raises:
        UserError: missing, cut short, a pickle with code in it, not a model of ours, or one that a
            newer version wrote.
    """
    path = find_model(path)
    path = path / FINAL if path.is_dir() else path
    value = _read_file(path)
    weights = value["weights"]
    if value["format"] == PACKED_FORMAT:
        weights = unpack_weights(PackedWeights(weights, value["scales"]), str(path))
    return _model_file(value, weights, path)


def _read_file(path: Path, mapped: bool = False) -> dict[str, Any]:
    """Return what a file holds, its weights as they are in it."""
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint; train one with 'semsynth train'")
    value = load_torch_file(path, mapped=mapped)
    form = value.get("format") if isinstance(value, dict) else None
    if isinstance(form, int) and form > PACKED_FORMAT:
        raise UserError(
            f"{path}: is of a newer version of semsynth (format {form}, this one reads up to "
            f"{PACKED_FORMAT}); {UPDATE}"
        )
    keys = _KEYS | {"weights"} | ({"scales"} if form == PACKED_FORMAT else set())
    if not isinstance(value, dict) or form not in (1, 2) or not keys <= value.keys():
        raise UserError(f"{path}: is not a final_model.pth of semsynth (format {FORMAT})")
    return value


def read_diffusion(path: Path) -> DiffusionConfig:
    """Return the forward process of what ``load_checkpoint`` reads, without its weights.

    Raises:
        UserError: see ``load_checkpoint``.
    """
    path = find_model(path)
    if (path / MODEL_INDEX).is_file():
        value = read_index(path)
    else:
        path = path / FINAL if path.is_dir() else path
        value = _read_file(path, mapped=True)
    with _of_a_newer_version(value.get(METADATA)):
        return parse(DiffusionConfig, value.get("diffusion", {}), f"{path}: diffusion")


def load_checkpoint(path: Path) -> ModelFile:
    """Read a ``final_model.pth``, the run folder that holds one, or a Diffusers folder.

    Or a model of the package, by its name.

    Raises:
        UserError: nothing is there, or it is damaged or not a model of ours.
    """
    path = find_model(path)
    index_file = path / MODEL_INDEX
    if not index_file.is_file():
        return load_model_file(path)
    check_folder(str(path))
    index = read_index(path)
    missing = sorted(_KEYS - {METADATA} - index.keys())
    if missing:
        raise UserError(f"{index_file}: has no '{missing[0]}'; save the model again")
    with translate_load_errors(str(path)):
        network = SemanticUNet.from_pretrained(path / "unet")
    return _model_file({METADATA: {}, **index}, network.state_dict(), index_file)


def _model_file(value: dict[str, Any], weights: dict[str, Tensor], path: Path) -> ModelFile:
    with _of_a_newer_version(value[METADATA]):
        return _parsed(value, weights, path)


@contextmanager
def _of_a_newer_version(metadata: Any) -> Iterator[None]:
    """Say in errors that the model is of a newer version of this package, where it is."""
    try:
        yield
    except UserError as error:
        written = str(metadata.get("semsynth")) if isinstance(metadata, dict) else ""
        if not is_newer(written):
            raise
        raise UserError(
            f"{error}; the model is of semsynth {written}, this is {__version__}: {UPDATE}"
        ) from None


def _parsed(value: dict[str, Any], weights: dict[str, Tensor], path: Path) -> ModelFile:
    model = parse(ModelConfig, value["model"], f"{path}: model")
    return ModelFile(
        model=with_own_vae(model, path.parent),
        diffusion=parse(DiffusionConfig, value["diffusion"], f"{path}: diffusion"),
        labels=LabelSet.from_json(value["labels"], str(path)),
        height=value["height"],
        width=value["width"],
        weights=weights,
        metadata=value[METADATA],
    )


def with_own_vae(model: ModelConfig, folder: Path) -> ModelConfig:
    """Return the configuration, its autoencoder from ``folder``/vae where one is there.

    So a model and its autoencoder can move to another machine together. That it is the same one is
    checked when it is loaded.
    """
    own = folder / VAE
    if model.vae is None or not (own / CONFIG).is_file():
        return model
    vae = model.vae.model_copy(update={"source": str(own)})
    return model.model_copy(update={"vae": vae})


# ---- what metadata say: licence and training


def licence(metadata: Metadata) -> str:
    """Return the licence of the training data, ``unknown`` if it was not given."""
    return str(metadata.get("licence") or "unknown").strip() or "unknown"


def has_licence(metadata: Metadata) -> bool:
    """Return whether the licence of the training data is known."""
    return licence(metadata).casefold() not in ("unknown", "none", "-", "?")


def joint_licence(*licences: str) -> str:
    """Return the licence of a model trained on several data sets: all of them hold.

    ``unknown`` if one of them is unknown, so that the rest is not taken for the whole.
    """
    if not all(has_licence({"licence": text}) for text in licences):
        return "unknown"
    return "; ".join(dict.fromkeys(part for text in licences for part in text.split("; ")))


def trained_with_cfg_dropout(metadata: Metadata) -> bool:
    """Return whether training ever dropped whole masks, which classifier-free guidance needs.

    True if the metadata do not have it, as for the authors' checkpoints, which were trained so.
    """
    recipe = metadata.get("recipe") or {}
    train, finetune = recipe.get("train"), recipe.get("finetune") or {}
    if train is None or train.get("mask_dropout", 0) > 0:
        return True
    reached = metadata.get("step", train["steps"] + 1) > train["steps"]
    return bool(reached and finetune.get("steps", 0) and finetune.get("mask_dropout", 0) > 0)


def trained_with_partial_masks(metadata: Metadata) -> bool:
    """Return whether training ever dropped classes or regions of masks; False if not known."""
    recipe = metadata.get("recipe") or {}
    phases = [recipe.get(name) or {} for name in ("train", "finetune", "distill")]
    return any(phase.get("region_dropout", 0) and phase.get("steps", 0) for phase in phases)


# Of a recipe: what decides no weights.
_NAMES = ("name", "about", "run", "seed")


def training_origin(metadata: Metadata) -> dict[str, Any]:
    """Return the seed of a training and a key of all else that decided its weights.

    Empty where the metadata do not have it: models of other programs or of earlier versions.

    Returns:
        ``training_seed``, and ``training_key``: 16 hexadecimal digits, the same for models that
        were trained by the same recipe to the same step, on the same images, from the same start.
    """
    recipe, data = metadata.get("recipe"), metadata.get("data_sha256")
    if not isinstance(recipe, Mapping) or data is None:
        return {}
    rest = {name: value for name, value in recipe.items() if name not in _NAMES}
    decides = [rest, data, metadata.get("step"), metadata.get("from")]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return {"training_seed": recipe.get("seed"), "training_key": digest[:16]}

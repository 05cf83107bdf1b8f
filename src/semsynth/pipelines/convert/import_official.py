"""``semsynth import``: from a state dict of the official SDM code to a Diffusers folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor

from semsynth.core.config import Config, parse
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import atomic_folder, read_json, require_space, sha256_file, write_json
from semsynth.core.logging import file_size_progress, logger, progress
from semsynth.core.outputs import MARKER, claim_output_dir
from semsynth.core.safe_load import load_torch_file
from semsynth.core.version import __version__
from semsynth.data.labels import LabelSet
from semsynth.data.sources import preset
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.official.infer import OfficialNetwork, check_keys, infer_network
from semsynth.models.official.names import from_official
from semsynth.pipelines.convert.config import ImportConfig
from semsynth.pipelines.formats.model_file import ModelFile, licence, meta_network
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline

KIND = "diffusers"
HEAD_CHANNELS = 64  # of all published networks
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
PREFIX = "module."  # torch's DistributedDataParallel puts it before every key


class SideFile(Config):
    """What an official file cannot hold, as ``export`` writes it beside one.

    A prepared data set's ``dataset.json`` has the same keys, among others.

    Attributes:
        labels: with ``ignore_id``, as in ``LabelSet.to_json``.
        name: of the data set.
        licence: of the data set.
        height: of the images in pixels.
        width: of the images in pixels.
        head_channels: width of an attention head.
        facts: the metadata of ``ModelFile``.
        flags: with which the official code builds the network.
    """

    labels: list[dict[str, Any]]
    ignore_id: int | None = None
    name: str = ""
    licence: str = "unknown"
    height: int = Field(256, ge=1)
    width: int = Field(256, ge=1)
    head_channels: int = Field(HEAD_CHANNELS, ge=1)
    facts: dict[str, Any] = Field(default_factory=dict)
    flags: str = ""


@dataclass(frozen=True)
class Origin:
    """What is known of the training besides the weights.

    Attributes:
        labels: None for as many classes as the file has, without names.
        size: height and width in pixels.
        head_channels: width of an attention head.
        metadata: as in ``ModelFile``.
    """

    labels: LabelSet | None = None
    size: tuple[int, int] = (256, 256)
    head_channels: int = HEAD_CHANNELS
    metadata: dict[str, Any] = field(default_factory=dict)


def import_official(config: ImportConfig) -> dict[str, Any]:
    """Read an official checkpoint and write it as a Diffusers folder, all of it or nothing.

    Returns:
        What the file was found to be, and where the folder is.

    Raises:
        UserError: the file is not an official SDM network or does not fit the flags (keys that are
            missing, unknown, of another shape or not finite are named), or the output is taken.
    """
    origin = read_origin(config)
    state = read_state(config.file)
    parameters = sum(tensor.numel() for tensor in state.values())
    file = describe(state, config, origin)
    sha256 = sha256_file(config.file)
    metadata = {
        **file.metadata,
        "imported_from": "official",
        "source_file": config.file.name,
        "source_sha256": sha256,
        "semsynth": __version__,
        "torch": str(torch.__version__),
    }
    file = replace(file, metadata=metadata)
    key = {
        "source_sha256": sha256,
        "dataset": config.dataset,
        "labels": file.labels.to_json(),
        "head_channels": file.model.head_channels,
        "size": [file.height, file.width],
    }
    if not is_written(config.output, key):
        require_space(config.output, 4 * parameters, "the model")
        write_folder(with_weights(file, state, str(config.file)), config.output, key)
    return {
        "output": str(config.output),
        "parameters": parameters,
        "classes": file.labels.num_channels,
        "instances": file.model.instance_edges,
        "size": f"{file.height}x{file.width}",
        "licence": licence(file.metadata),
        "model": file.model.model_dump(mode="json"),
        "source_sha256": sha256,
    }


def describe(state: Mapping[str, Tensor], config: ImportConfig, origin: Origin) -> ModelFile:
    """Return the generator that the names and shapes of a state dict describe, without weights.

    Args:
        state: official tensors, of which only the shapes are read (they may be on ``meta``).
        config: its ``file`` begins the messages.
        origin: of ``read_origin``.

    Raises:
        UserError: see ``import_official``.
    """
    where = str(config.file)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = infer_network(shapes, where)
    if found.in_channels != 3 or found.out_channels not in (3, 6):
        raise UserError(
            f"{where}: has {found.in_channels} channels in (input_blocks.0.0) and "
            f"{found.out_channels} out (out.2); an SDM network has 3 in, and 3 or 6 (learned "
            "variance) out"
        )
    instances = _has_edges(found, config, origin.labels)
    model = found.model_config(config.head_channels or origin.head_channels, instances, where)
    height, width = config.height_width or origin.size
    near = model.nearest_size(height, width)
    if near != (height, width):
        raise UserError(
            f"--size {height}x{width}: sides must be multiples of {model.size_multiple} for the "
            f"network in {where}; the nearest size is {near[0]}x{near[1]}"
        )
    diffusion = DiffusionConfig(
        prediction="epsilon", schedule="linear", learn_sigma=found.learn_sigma
    )
    classes = found.label_channels - instances
    labels = origin.labels or LabelSet.from_names({i: f"class {i}" for i in range(classes)})
    file = ModelFile(model, diffusion, labels, height, width, {}, origin.metadata)
    check_keys(meta_network(file), shapes, where)
    return file


def with_weights(file: ModelFile, state: dict[str, Tensor], where: str) -> ModelFile:
    """Return the result of ``describe`` with the weights of ``state``, which is emptied.

    Raises:
        UserError: weights that are not finite, or not floats of 16 or 32 bits: names them.
    """
    _check_values(state, where)
    return replace(file, weights=from_official(meta_network(file), state))


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict; its tensors stay on the disk until they are used.

    Raises:
        UserError: cannot be read, carries code, or has anything but names and tensors.
    """
    value = load_torch_file(path, mapped=True)
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path}: holds {type(value).__name__}, not a state dict")
    if {"format", "weights", "model"} <= value.keys():
        raise UserError(f"{path}: is a final_model.pth of semsynth; see `semsynth export` for it")
    others = [str(name) for name, item in value.items() if not isinstance(item, Tensor)]
    if others:
        raise UserError(
            f"{path}: is not a plain state dict: not tensors are {abbreviate(others)}; save the "
            "network's state dict alone (the official code's ema_0.9999_*.pt is one)"
        )
    state = {str(name): item for name, item in value.items()}
    while all(name.startswith(PREFIX) for name in state):
        state = {name.removeprefix(PREFIX): item for name, item in state.items()}
    return state


def read_origin(config: ImportConfig) -> Origin:
    """Return what ``--dataset`` or ``--labels`` gives about the training.

    Raises:
        UserError: no such data set or file, or a file without labels.
    """
    if config.dataset is not None:
        known = preset(config.dataset)
        metadata = {"dataset": config.dataset, "licence": known.licence}
        return Origin(known.labels, (known.height, known.width), metadata=metadata)
    if config.labels is None:
        return Origin()
    path = config.labels / "dataset.json" if config.labels.is_dir() else config.labels
    value = read_json(path)
    if not isinstance(value, dict) or "labels" not in value:
        raise UserError(f"{path}: has no labels; give a prepared data set or its dataset.json")
    entries = {name: value[name] for name in SideFile.model_fields if name in value}
    side = parse(SideFile, entries, str(path))
    stored = {"labels": side.labels, "ignore_id": side.ignore_id}
    labels = LabelSet.from_json(stored, str(path))
    metadata = {**side.facts, "dataset": side.name, "licence": side.licence}
    return Origin(labels, (side.height, side.width), side.head_channels, metadata)


def is_written(folder: Path, key: Mapping[str, Any]) -> bool:
    """Return whether the same command has already written ``folder``.

    Raises:
        UserError: it holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    claim_output_dir(folder, KIND, key)
    logger.info(f"{folder}: exists already, made from the same file with the same flags")
    return True


def write_folder(
    file: ModelFile, folder: Path, key: Mapping[str, Any], examples: bytes | None = None
) -> None:
    """Write a Diffusers folder that appears when it is complete; ``examples``: for its card.

    Raises:
        UserError: the folder is not empty, or the disk is full.
    """
    n_bytes = sum(t.numel() * t.element_size() for t in file.weights.values())
    with atomic_folder(folder) as temporary:
        try:
            with file_size_progress(temporary, n_bytes, "writing"):
                pipe = SemanticDiffusionPipeline.from_model_file(file)
                pipe.examples = examples
                pipe.save_pretrained(temporary)
        except SafetensorError as error:
            raise UserError(
                f"{folder}: could not be written ({error}); is the disk full?"
            ) from error
        write_json(temporary / MARKER, {"kind": KIND, "key": dict(key)})


def _has_edges(found: OfficialNetwork, config: ImportConfig, labels: LabelSet | None) -> bool:
    """Return whether the label map has an edge channel; UserError for another number of classes."""
    channels, edges = found.label_channels, config.instances
    expected: list[tuple[str, int]] = []
    if labels is not None:
        flag = f"--dataset {config.dataset}" if config.dataset else f"--labels {config.labels}"
        expected.append((flag, labels.num_channels))
        # The number of classes is known: a remaining channel can only be the edges.
        edges = edges or channels == labels.num_channels + 1
    if config.num_classes is not None:
        expected.append(("--num-classes", config.num_classes))
    for flag, classes in expected:
        if channels != classes + edges:
            also = " and the edges of instances" if edges else ""
            hint = "; if the last is the edges of instances, add --instances"
            raise UserError(
                f"{config.file}: its label map has {channels} channels, but {flag} makes "
                f"{classes + edges}: {classes} classes{also}"
                f"{hint if channels == classes + 1 else ''}"
            )
    if channels <= edges:
        raise UserError(f"{config.file}: its label map has no channel beside that of the edges")
    return edges


def _check_values(state: Mapping[str, Tensor], where: str) -> None:
    strange = [f"{n} ({t.dtype})" for n, t in state.items() if t.dtype not in FLOATS]
    if strange:
        raise UserError(f"{where}: weights must be fp32, fp16 or bf16: {abbreviate(strange)}")
    broken = []
    for name, tensor in progress(state.items(), "checking", unit="tensor"):
        finite = tensor.isfinite()
        if not finite.all():
            wrong = int((~finite).sum())
            broken.append(f"{name} ({wrong} of {tensor.numel()} values)")
    if broken:
        raise UserError(
            f"{where}: NaN or infinite weights in {abbreviate(broken)}; copy the file again"
        )

"""``semsynth export`` of a model: as a file of the official code, a folder, or a .pth."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import atomic_folder, atomic_path, require_space, write_json
from semsynth.core.logging import file_size_progress, logger
from semsynth.core.safe_load import save_torch_file
from semsynth.data.content import digest_json
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.codecs.codec import open_codec
from semsynth.models.official.names import to_official
from semsynth.pipelines.convert.config import ExportConfig
from semsynth.pipelines.convert.import_official import SideFile, is_written, write_folder
from semsynth.pipelines.formats.diffusers_folder import VAE, translate_save_errors
from semsynth.pipelines.formats.model_file import (
    ModelFile,
    licence,
    meta_network,
    save_model_file,
    with_own_vae,
)
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline

# What the official code has no flags for: the hidden width of SPADE, and multiples that are not
# whole (but those of its 512x512 network).
SPADE_HIDDEN = 128
GROUPS = 32
MULTIPLES_512 = [0.5, 1, 1, 2, 2, 4, 4]
PAPER = DiffusionConfig(prediction="epsilon", schedule="linear", learn_sigma=True)
PROCESS = ("prediction", "schedule", "timesteps", "shift")


def export_model(config: ExportConfig) -> dict[str, Any]:
    """Write the model as ``config.to``; complete or absent.

    Returns:
        What was written; for the official code also the flags to run it with.

    Raises:
        UserError: no such model, the output exists, or the official code cannot run the model
            (with the reasons).
    """
    side_file = config.output.with_suffix(".json")
    files = {"official": [config.output, side_file], "pth": [config.output], "diffusers": []}
    for path in files[config.to]:
        if path.exists():
            raise UserError(f"{path}: exists; choose another output or remove it")
    if config.to == "official" and side_file == config.output:
        raise UserError(f"{config.output}: the .json is written beside it; name it .pt")
    pipe = SemanticDiffusionPipeline.from_checkpoint(config.source, "cpu")
    file = pipe.model_file
    result: dict[str, Any] = {"output": str(config.output), "to": config.to}
    if config.to == "diffusers":
        _write_diffusers(pipe, config)
        return result
    n_bytes = sum(t.numel() * t.element_size() for t in file.weights.values())
    if config.to == "official":
        check_official(file, str(config.source))
    require_space(config.output.parent, n_bytes, "the model")
    if config.to == "pth":
        logger.info(f"{config.output}: writing {n_bytes / 1e9:.2f} GB")
        error = save_model_file(config.output, file, config.weights)
        if error is not None:
            logger.info(f"{config.output}: {config.weights} changes the weights by {error.text()}")
            result |= {"weights": config.weights, "weights_error": error.relative}
        result["megabytes"] = config.output.stat().st_size / 1e6
        if pipe.vae is not None:
            result["vae"] = str(_write_vae(pipe, config.output.parent / VAE))
        return result
    flags = official_flags(file)
    write_official(file, config.output, side_file, flags)
    return {**result, "labels": str(side_file), "flags": flags}


def _write_diffusers(pipe: SemanticDiffusionPipeline, config: ExportConfig) -> None:
    """Write the folder, with what its card shows; nothing where the same one is there already."""
    key = {"model_sha256": pipe.checkpoint_sha256}
    if config.report is not None:
        pipe.add_scores(config.report)
        key["scores"] = digest_json(pipe.metadata["scores"])
    if config.samples is not None:
        pipe.add_examples(config.samples, config.data)
        key["examples"] = hashlib.sha256(pipe.examples or b"").hexdigest()
    if not is_written(config.output, key):
        write_folder(pipe.model_file, config.output, key, pipe.examples)


def _write_vae(pipe: SemanticDiffusionPipeline, folder: Path) -> Path:
    """Write the autoencoder to the folder where a ``final_model.pth`` beside it looks for one.

    Raises:
        UserError: another one exists there, or it cannot be written.
    """
    if (folder / "config.json").is_file():
        open_codec(with_own_vae(pipe.model_file.model, folder.parent))
        return folder
    assert pipe.vae is not None, "the caller asks"
    with atomic_folder(folder) as temporary, translate_save_errors(str(folder)):
        pipe.vae.save_pretrained(temporary)
    return folder


def check_official(file: ModelFile, where: str) -> None:
    """Check that the official code, as published, computes what this model computes.

    Raises:
        UserError: gives every reason why it does not; ``where`` begins the message.
    """
    model, diffusion = file.model, file.diffusion
    widths = [int(multiple * model.base_channels) for multiple in model.channel_mult]
    narrow = [width for width in widths if width % GROUPS]
    whole = all(multiple == int(multiple) for multiple in model.channel_mult)
    reasons = [
        (model.codec != "pixel", f"it works on pixels, not behind codec '{model.codec}'"),
        (
            not model.is_rgb,
            f"it takes RGB of 8 bits, not {model.image_channels} channels of {model.image_bits}",
        ),
        (model.label_features > 0, "it has no label_features"),
        (
            model.spade_hidden != SPADE_HIDDEN,
            f"its spade_hidden is always {SPADE_HIDDEN}, not {model.spade_hidden}",
        ),
        (bool(narrow), f"its widths are multiples of {GROUPS}, not {narrow}"),
        (
            not whole and model.channel_mult != MULTIPLES_512,
            f"its channel_mult are whole, not {model.channel_mult}",
        ),
        *(
            (
                getattr(diffusion, name) != getattr(PAPER, name),
                f"{name} is {getattr(diffusion, name)!r}, in its published use "
                f"{getattr(PAPER, name)!r}",
            )
            for name in PROCESS
        ),
    ]
    given = [text for is_so, text in reasons if is_so]
    if given:
        raise UserError(f"{where}: the official code cannot run this model: {'; '.join(given)}")


def official_flags(file: ModelFile) -> str:
    """Return the flags with which the official code builds this network.

    Its label images hold condition channels: see ``channel`` of each label.
    """
    model = file.model
    side = min(file.height, file.width)
    used = [
        f for f in model.attention_factors if f < 2 ** len(model.channel_mult) and f & f - 1 == 0
    ]
    # It wants at least one; the factor of a single pixel is none of any level.
    resolutions = [str(side // factor) for factor in sorted(used)] or ["1"]
    multiples = {"channel_mult": ",".join(str(int(m)) for m in model.channel_mult)}
    flags = {
        "image_size": side,
        "num_classes": file.labels.num_channels,
        "class_cond": True,
        "no_instance": not model.instance_edges,
        "num_channels": model.base_channels,
        **({} if model.channel_mult == MULTIPLES_512 and side == 512 else multiples),
        "num_res_blocks": model.blocks_per_level,
        "num_head_channels": model.head_channels,
        "attention_resolutions": ",".join(resolutions),
        "resblock_updown": True,
        "use_scale_shift_norm": True,
        "learn_sigma": file.diffusion.learn_sigma,
        "diffusion_steps": file.diffusion.timesteps,
        "noise_schedule": file.diffusion.schedule,
    }
    return " ".join(f"--{name} {value}" for name, value in flags.items())


def write_official(file: ModelFile, path: Path, side_file: Path, flags: str) -> None:
    """Write a state dict in the official order, and beside it a file with what it cannot hold."""
    state = to_official(meta_network(file), file.weights)
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    side = SideFile(
        **file.labels.to_json(),
        name=str(file.metadata.get("dataset", "")),
        licence=licence(file.metadata),
        height=file.height,
        width=file.width,
        head_channels=file.model.head_channels,
        facts=file.metadata,
        flags=flags,
    )
    write_json(side_file, side.model_dump(mode="json"))
    try:
        with atomic_path(path) as temporary, file_size_progress(temporary, n_bytes, "writing"):
            save_torch_file(state, temporary)
    except (OSError, UserError):
        with suppress(OSError):
            side_file.unlink(missing_ok=True)
        raise

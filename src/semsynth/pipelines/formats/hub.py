"""The Hugging Face Hub: fetching a folder, and publishing one with its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.pipelines.formats.diffusers_folder import CONFIG, MODEL_INDEX, VAE
from semsynth.pipelines.formats.model_file import Metadata, has_licence

_FETCH_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
_PUSH_OPTIONS = ("commit_message", "private", "token", "create_pr", "subfolder")
_WEIGHTS = "diffusion_pytorch_model"


def fetch(name: str, options: Mapping[str, Any]) -> str:
    """Return the folder of a repository's files, from the cache or the Hub.

    Diffusers would look for the network's class in the repository, which has no code. Only
    configurations and weights are fetched, and no pickles unless ``use_safetensors=False`` asks
    for them.

    Args:
        name: OWNER/NAME.
        options: of ``from_pretrained``.
    """
    from huggingface_hub import snapshot_download

    ending = "bin" if options.get("use_safetensors") is False else "safetensors"
    variant = f".{options['variant']}" if options.get("variant") else ""
    parts = ("unet", VAE)  # a model without an autoencoder has no second folder
    configs = [MODEL_INDEX, CONFIG, *(f"{part}/*.json" for part in ("scheduler", *parts))]
    weights = [
        f"{part}/{_WEIGHTS}{variant}{shard}.{ending}" for part in parts for shard in ("", "-[0-9]*")
    ]
    folder: str = snapshot_download(
        name,
        allow_patterns=[*configs, *weights],
        **{key: options[key] for key in _FETCH_OPTIONS if options.get(key) is not None},
    )
    return folder


def check_publishable(metadata: Metadata) -> None:
    """Check that a model may be published at all, before anything is sent.

    Raises:
        UserError: the licence of its data is unknown.
    """
    if not has_licence(metadata):
        raise UserError(
            "push_to_hub: the licence of the training data is unknown; find it out, and prepare "
            "the data with --licence, or set it: pipe.register_to_config(facts={**pipe.metadata, "
            "'licence': 'CC BY 4.0'})"
        )
    if not metadata.get("dataset"):
        raise UserError(
            "push_to_hub: the model's metadata have no data set; set it: "
            "pipe.register_to_config(facts={**pipe.metadata, 'dataset': 'NAME'})"
        )


def split_options(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the Hub's options from ``options`` and return them."""
    return {key: options.pop(key) for key in _PUSH_OPTIONS if key in options}


def publish(pipe: Any, folder: Path, name: str, options: Mapping[str, Any]) -> str:
    """Upload a folder that ``save_pretrained`` wrote; return the address of the commit."""
    from huggingface_hub import create_repo

    options = dict(options)
    token = options.get("token")
    private = options.pop("private", None)
    repository = create_repo(name, private=private, token=token, exist_ok=True).repo_id
    return str(pipe._upload_folder(folder, repository, **options))

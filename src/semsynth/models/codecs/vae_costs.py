"""An autoencoder by its configuration alone: its FLOPs and parameters, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from semsynth.core.files import read_json
from semsynth.models.codecs.vae import CONFIG, VaeCodec, autoencoder_class, check_vae
from semsynth.models.config import VaeConfig
from semsynth.models.flops import count_flops

# Stable Diffusion's autoencoder, 8 pixels a side (arXiv 2112.10752, table 8; the sizes are those
# of its configuration), and the names on the Hub that are of this architecture.
KL_F8 = {
    "_class_name": "AutoencoderKL",
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
KL_F8_NAMES = ("stabilityai/sd-vae-ft-mse", "stabilityai/sd-vae-ft-ema", "stabilityai/sdxl-vae")


@dataclass(frozen=True)
class VaeCosts:
    """What an autoencoder takes for one image.

    Attributes:
        encode: FLOPs from an image to its latent.
        decode: FLOPs from a latent to its image.
        parameters: of encoder and decoder, float32.
    """

    encode: int
    decode: int
    parameters: int


def find_config(source: str) -> dict[str, Any] | None:
    """Return the values of its ``config.json``, from a folder, the Hub's cache, or by its name.

    None if they are only on the network.

    Raises:
        UserError: the file is damaged.
    """
    if (Path(source) / CONFIG).is_file():
        return dict(read_json(Path(source) / CONFIG))
    parts = source.split("/")
    try:
        cached = try_to_load_from_cache("/".join(parts[:2]), "/".join([*parts[2:], CONFIG]))
    except HFValidationError:
        return None
    if isinstance(cached, str):
        return dict(read_json(Path(cached)))
    return dict(KL_F8) if source in KL_F8_NAMES else None


def fresh_vae(config: VaeConfig) -> VaeCodec | None:
    """Return the codec, randomly initialized; None if its configuration is not known.

    For counting and timing: in FakeTensorMode it has no storage.

    Raises:
        UserError: it is not an autoencoder, or has other latents than the model expects.
    """
    values = find_config(config.source)
    if values is None:
        return None
    network = autoencoder_class(values, config.source).from_config(values)
    codec = VaeCodec(network, config.source, hashed=False)
    any_weights = config.model_copy(update={"sha256": ""})
    return check_vae(codec, any_weights, f"model.vae {config.source}")


@lru_cache
@torch.no_grad()
def vae_costs(config: VaeConfig, height: int, width: int) -> VaeCosts | None:
    """Count an autoencoder's FLOPs without storage, in the tiles that it would use.

    Returns:
        For one image of that size; None if its configuration is not known.

    Raises:
        UserError: see ``fresh_vae``.
    """
    # A CPU's fused attention is not counted; its parts are.
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        codec = fresh_vae(config)
        if codec is None:
            return None
        image = torch.empty(1, 3, height, width)
        latent = torch.empty(1, codec.channels, height // codec.downscale, width // codec.downscale)
        return VaeCosts(
            count_flops(lambda: codec.encode(image)),
            count_flops(lambda: codec.decode(latent)),
            sum(parameter.numel() for parameter in codec.vae.parameters()),
        )

"""The codec of a Diffusers autoencoder (AutoencoderKL, AutoencoderTiny, AutoencoderDC, ...)."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ModelMixin
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.core.files import read_json
from semsynth.models.codecs.tiling import decode_tiled
from semsynth.models.config import VaeConfig

CONFIG = "config.json"
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model-[0-9]*.safetensors")
# Images of more pixels go through in tiles with blended seams: the Stable Diffusion decoder
# takes about 5 GB for 1024x1024 in one piece.
TILED_ABOVE = 1024 * 1024
TILE = 512
# Tiles of classes that have none of their own: side, how far the published AutoencoderTiny looks
# around a pixel (so that its tiles give the image of one piece), and the blended strip.
OWN_TILE, MARGIN, RAMP = 768, 152, 32
# Images of more pixels go through one after the other.
ALONE_ABOVE = 512 * 512
# Large enough for the coarsest ones (DC-AE f128).
_PROBE = 128


class VaeCodec:
    """Latents of an autoencoder, brought to about unit variance as its configuration says.

    Latents are (z - shift) * factor. ``factor`` is ``scaling_factor``, over ``latents_std`` where
    there is one; ``shift`` is ``latents_mean`` or ``shift_factor`` (Diffusers' pipelines of Stable
    Diffusion, SDXL, SD3 and Flux; DC-AE has a factor alone).

    z is the mode of the posterior, in training too, so that latents are a function of the image
    and can be kept on disk. A draw would differ little: published posteriors are narrow, for their
    KL penalty has a weight of 1e-6 (arXiv 2112.10752, G).

    The weights are frozen and always float32, under autocast too: published decoders overflow in
    float16 (``force_upcast``), and an image is decoded once, where the U-Net runs many times.
    They go where the tensors are that come in.

    Attributes:
        vae: the network; no part of the U-Net's weights.
        source: where it came from.
        sha256: of weights, class and scale, whatever format the file has.
    """

    name = "vae"

    def __init__(self, vae: ModelMixin, source: str, hashed: bool = True) -> None:
        """Wrap an autoencoder and find out its latents' size by encoding a small image.

        ``hashed``: False for one without weights of its own (``model.vae_config``).

        Raises:
            UserError: it does not take RGB images, or does not say the scale of its latents.
        """
        if any(tensor.dtype != torch.float32 for tensor in vae.state_dict().values()):
            vae = vae.float()  # which tensors without storage do not bear
        self.vae, self.source = vae.eval().requires_grad_(False), source
        self._shift, self._factor = _scale(vae.config, source)
        _set_tile(self.vae)
        try:
            with torch.no_grad():
                size = tuple(self._latent(torch.zeros(1, 3, _PROBE, _PROBE)).shape)
            # They must broadcast to the channels.
            torch.broadcast_shapes(size, self._shift.shape, self._factor.shape)
            _, self.channels, height, _ = size
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{source}: does not encode RGB images: {reason}") from None
        self.downscale = _PROBE // height
        self.sha256 = _sha256(self.vae, self._shift, self._factor) if hashed else ""
        self.key: dict[str, Any] = {"codec": self.name, "sha256": self.sha256}
        self.band_C = torch.zeros(self.channels, dtype=torch.int64)

    def encode(self, image_B3HW: Tensor) -> Tensor:
        """Return the latent, (B, channels, H / downscale, W / downscale) float32."""
        self._prepare(image_B3HW, 1)
        with torch.autocast(image_B3HW.device.type, enabled=False):
            latent = self._latent(image_B3HW.float())
            return (latent - self._shift) * self._factor

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Return the image, (B, 3, H, W) float32, not yet clipped to [-1, 1]."""
        pixels = self._prepare(latent_BCHW, self.downscale)
        z = latent_BCHW.float() / self._factor + self._shift

        def decode(z: Tensor) -> Tensor:
            image: Tensor = self.vae.decode(z).sample
            return image

        with torch.autocast(latent_BCHW.device.type, enabled=False):
            if pixels <= TILED_ABOVE or _tiles_itself(self.vae):
                return decode(z)
            tile, margin, ramp = (max(1, n // self.downscale) for n in (OWN_TILE, MARGIN, RAMP))
            return decode_tiled(decode, z, tile, margin, ramp)

    def clip(self, latent_BCHW: Tensor) -> Tensor:
        """Return the latent itself.

        Latents have no bounds, as in the published latent models; clipping the image behind
        them would take a pass through the whole autoencoder in every step.
        """
        return latent_BCHW

    def _latent(self, image_B3HW: Tensor) -> Tensor:
        output = self.vae.encode(image_B3HW)
        if hasattr(output, "latent_dist"):
            output = output.latent_dist.mode()
        else:
            output = output.latents if hasattr(output, "latents") else output.latent
        return output  # type: ignore[no-any-return]

    def _prepare(self, x: Tensor, scale: int) -> int:
        """Go where ``x`` is; choose how much goes through at a time; return an image's pixels."""
        if self._shift.device != x.device or self.vae.dtype != torch.float32:
            self.vae.to(x.device, torch.float32)
            self._shift, self._factor = self._shift.to(x.device), self._factor.to(x.device)
        pixels = x.shape[-2] * x.shape[-1] * scale**2
        if hasattr(self.vae, "use_slicing"):
            self.vae.use_slicing = pixels > ALONE_ABOVE
        if _tiles_itself(self.vae):
            self.vae.use_tiling = pixels > TILED_ABOVE
        return pixels


def _tiles_itself(vae: ModelMixin) -> bool:
    # Diffusers' tiles of AutoencoderTiny are for 4 channels and a factor of 8 alone, and crop the
    # others' images.
    return hasattr(vae, "use_tiling") and not isinstance(vae, AutoencoderTiny)


def open_vae(config: VaeConfig) -> VaeCodec:
    """Load the autoencoder that a model works behind.

    Raises:
        UserError: it cannot be loaded, has other latents than the model expects, or is not the
            one that the model was trained behind.
    """
    return checked(load_vae(config.source), config, f"model.vae {config.source}")


def wrap_vae(vae: ModelMixin, config: VaeConfig, where: str) -> VaeCodec:
    """Return the codec of an autoencoder that is loaded already; errors as of ``open_vae``."""
    if not (hasattr(vae, "encode") and hasattr(vae, "decode")):
        raise UserError(f"{where}: a {type(vae).__name__} is no autoencoder of Diffusers")
    return checked(VaeCodec(vae, where), config, where)


def checked(codec: VaeCodec, config: VaeConfig, where: str) -> VaeCodec:
    """Return the codec; UserError where it is not what the configuration says."""
    if (codec.channels, codec.downscale) != (config.channels, config.downscale):
        raise UserError(
            f"{where}: its latents have {codec.channels} channels and cover "
            f"{codec.downscale} pixels a side, the model wants {config.channels} and "
            f"{config.downscale}; set model.vae.channels and model.vae.downscale, or use another"
        )
    if config.sha256 not in ("", codec.sha256):
        raise UserError(
            f"{where}: is not the autoencoder that the model was trained behind "
            f"(SHA-256 {codec.sha256[:12]}, not {config.sha256[:12]}); put that one there, or "
            "into a folder 'vae' beside the model"
        )
    return codec


def load_vae(source: str) -> VaeCodec:
    """Load an autoencoder by the class that its ``config.json`` names; remembers the last two.

    Args:
        source: folder, or OWNER/NAME or OWNER/NAME/FOLDER of the Hugging Face Hub.

    Raises:
        UserError: nothing is there, the Hub cannot be reached, or it is no autoencoder.
    """
    return _load((Path(source) if Path(source).is_dir() else _fetch(source)).resolve(), source)


@lru_cache(maxsize=2)
def _load(folder: Path, source: str) -> VaeCodec:
    if not (folder / CONFIG).is_file():
        inside = folder / "vae"
        hint = f"; did you mean {source}/vae?" if (inside / CONFIG).is_file() else ""
        raise UserError(f"{source}: is no autoencoder of Diffusers (it has no {CONFIG}){hint}")
    found = autoencoder_class(read_json(folder / CONFIG), source)
    try:
        vae, info = found.from_pretrained(
            folder, torch_dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source}: cannot be loaded: {reason}") from None
    if info["missing_keys"]:
        # Diffusers would leave them as they were drawn, with a warning.
        raise UserError(
            f"{source}: its file of weights lacks {sorted(info['missing_keys'])[0]} "
            f"and {len(info['missing_keys']) - 1} more; copy it again"
        )
    return VaeCodec(vae, source)


def autoencoder_class(config: Any, source: str) -> Any:
    """Return the class that the values of a ``config.json`` name; UserError for another thing."""
    name = str(config.get("_class_name")) if isinstance(config, dict) else "nothing"
    known = not name.startswith("_") and hasattr(diffusers, name)
    found = getattr(diffusers, name) if known else None
    if found is None or not (hasattr(found, "encode") and hasattr(found, "decode")):
        raise UserError(
            f"{source}: is no autoencoder of Diffusers {diffusers.__version__} "
            f"({CONFIG} names '{name}')"
        )
    return found


def _fetch(source: str) -> Path:
    """Return the folder of an autoencoder of the Hub, from the cache or the network."""
    parts = source.split("/")
    if len(parts) < 2 or source.startswith(("/", ".", "~")) or Path(source).exists():
        raise UserError(
            f"{source}: no such folder; a model finds its autoencoder also in a folder 'vae' "
            "beside it (one of the Hub is OWNER/NAME or OWNER/NAME/FOLDER)"
        )
    name, inside = "/".join(parts[:2]), "".join(f"{part}/" for part in parts[2:])
    files = [f"{inside}{file}" for file in ("*.json", *_WEIGHTS)]
    try:
        return Path(snapshot_download(name, allow_patterns=files)).joinpath(*parts[2:])
    except HFValidationError:
        raise UserError(f"{source}: no such folder, and no name of the Hub") from None
    except GatedRepoError:
        raise UserError(
            f"{source}: its terms must be accepted first: see https://huggingface.co/{name}, then "
            "log in with 'hf auth login'"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"{source}: no such folder, and nothing of that name on the Hub") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{source}: no such folder, and the Hub cannot be reached ({reason}); fetch it where "
            f"there is a network: hf download {name}"
        ) from None


def _scale(config: Any, source: str) -> tuple[Tensor, Tensor]:
    """Return shift and factor of the latents, (1, C, 1, 1) or (1, 1, 1, 1) float32."""
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    scaling = config.get("scaling_factor")
    if scaling is None and deviation is None:
        raise UserError(
            f"{source}: does not say the scale of its latents; write scaling_factor (1 over their "
            f"standard deviation) into its {CONFIG}"
        )
    shift = config.get("shift_factor") or 0.0 if mean is None else mean
    factor = torch.tensor(1.0 if scaling is None else scaling)
    if deviation is not None:
        factor = factor / torch.tensor(deviation)
    return torch.tensor(shift).float().view(1, -1, 1, 1), factor.float().view(1, -1, 1, 1)


def _set_tile(vae: ModelMixin) -> None:
    # By default its tiles have the size of its training images, which may be very small.
    # AutoencoderDC's are of this size already.
    if isinstance(vae, AutoencoderKL):
        vae.tile_sample_min_size = TILE
        vae.tile_latent_min_size = TILE >> (len(vae.config.block_out_channels) - 1)


def _sha256(vae: ModelMixin, *scale: Tensor) -> str:
    digest = hashlib.sha256(type(vae).__name__.encode())
    state = dict(vae.state_dict()) | {f"scale {i}": x for i, x in enumerate(scale)}
    for name in sorted(state):
        values: np.ndarray[Any, Any] = state[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

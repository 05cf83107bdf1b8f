"""The codec of a Diffusers autoencoder (AutoencoderKL, AutoencoderTiny, AutoencoderDC, ...)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from itertools import product
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
from semsynth.core.paths import path_name
from semsynth.models.config import VaeConfig

CONFIG = "config.json"
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model-[0-9]*.safetensors")
# Images of more pixels are encoded and decoded in tiles with blended seams: the Stable Diffusion
# decoder takes about 5 GB for 1024x1024 at once.
TILED_ABOVE = 1024 * 1024
TILE = 512
# Our tiles, for classes of Diffusers without tiling, in image pixels: side, the receptive field of
# the published AutoencoderTiny (so that its tiles equal the whole image), and the blended strip.
OWN_TILE, MARGIN, RAMP = 768, 152, 32
# Images of more pixels are processed one by one.
ALONE_ABOVE = 512 * 512
# Side of a test image, large enough for the coarsest autoencoder (DC-AE f128).
_PROBE = 128


class VaeCodec:
    """Latents of an autoencoder, scaled to about unit variance as its configuration says.

    Latents are (z - shift) * factor. ``factor`` is ``scaling_factor``, divided by ``latents_std``
    where there is one; ``shift`` is ``latents_mean`` or ``shift_factor`` (Diffusers' pipelines of
    Stable Diffusion, SDXL, SD3 and Flux; DC-AE has a factor alone).

    z is the mode of the posterior, in training too, so that latents are a function of the image
    and can be cached on disk. A sample would differ little: published posteriors are narrow, as
    their KL penalty has a weight of 1e-6 (arXiv 2112.10752, G).

    The weights are frozen and always float32, under autocast too: published decoders overflow in
    float16 (``force_upcast``), and an image is decoded once, while the U-Net runs many times.
    They move to the device of the input.

    Attributes:
        vae: the network; not a part of the U-Net's weights.
        source: the folder or Hub id that it was loaded from.
        sha256: of weights, class and scale, whatever format the file has.
    """

    name = "vae"
    image_channels, image_bits = 3, 8

    def __init__(self, vae: ModelMixin, source: str, hashed: bool = True) -> None:
        """Wrap an autoencoder; encoding a small image shows the size of its latents.

        ``hashed``: False for one with random weights (``vae_costs.fresh_vae``).

        Raises:
            UserError: it does not encode RGB images, or does not state the scale of its latents.
        """
        if any(tensor.dtype != torch.float32 for tensor in vae.state_dict().values()):
            vae = vae.float()  # fails for tensors without storage
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

        Latents have no bounds, as in the published latent models; clipping their image would take
        a pass through the whole autoencoder in every step.
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
        """Move to the device of ``x``, set slicing and tiling; return the pixels of an image."""
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
    # Diffusers' tiling of AutoencoderTiny is only for 4 channels and a factor of 8; otherwise it
    # crops the images.
    return hasattr(vae, "use_tiling") and not isinstance(vae, AutoencoderTiny)


def open_vae(config: VaeConfig) -> VaeCodec:
    """Load the autoencoder of a model.

    Raises:
        UserError: it cannot be loaded, has other latents than the model expects, or is not the
            one that the model was trained with.
    """
    return check_vae(load_vae(config.source), config, f"model.vae {config.source}")


def wrap_vae(vae: ModelMixin, config: VaeConfig, where: str) -> VaeCodec:
    """Return the codec of a loaded autoencoder; errors as of ``open_vae``."""
    if not (hasattr(vae, "encode") and hasattr(vae, "decode")):
        raise UserError(f"{where}: a {type(vae).__name__} is not an autoencoder of Diffusers")
    return check_vae(VaeCodec(vae, where), config, where)


def check_vae(codec: VaeCodec, config: VaeConfig, where: str) -> VaeCodec:
    """Return the codec; UserError if it differs from the configuration."""
    if (codec.channels, codec.downscale) != (config.channels, config.downscale):
        raise UserError(
            f"{where}: its latents have {codec.channels} channels and cover "
            f"{codec.downscale} pixels per side, the model needs {config.channels} and "
            f"{config.downscale}; set model.vae.channels and model.vae.downscale, or use another"
        )
    if config.sha256 not in ("", codec.sha256):
        raise UserError(
            f"{where}: is not the autoencoder that the model was trained with "
            f"(SHA-256 {codec.sha256[:12]}, not {config.sha256[:12]}); put the right one there, "
            "or into a folder 'vae' beside the model"
        )
    return codec


def load_vae(source: str) -> VaeCodec:
    """Load an autoencoder by the class that its ``config.json`` names; caches the last two.

    Args:
        source: folder, or OWNER/NAME or OWNER/NAME/FOLDER of the Hugging Face Hub.

    Raises:
        UserError: nothing is there, the Hub cannot be reached, or it is not an autoencoder.
    """
    return _load((Path(source) if Path(source).is_dir() else _fetch(source)).resolve(), source)


@lru_cache(maxsize=2)
def _load(folder: Path, source: str) -> VaeCodec:
    if not (folder / CONFIG).is_file():
        inside = folder / "vae"
        hint = f"; did you mean {source}/vae?" if (inside / CONFIG).is_file() else ""
        raise UserError(f"{source}: is not an autoencoder of Diffusers (it has no {CONFIG}){hint}")
    found = autoencoder_class(read_json(folder / CONFIG), source)
    try:
        vae, info = found.from_pretrained(
            folder, torch_dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source}: cannot be loaded: {reason}") from None
    if info["missing_keys"]:
        # Diffusers would leave them randomly initialized, with a warning.
        raise UserError(
            f"{source}: its file of weights lacks {sorted(info['missing_keys'])[0]} "
            f"and {len(info['missing_keys']) - 1} more; copy it again"
        )
    return VaeCodec(vae, source)


def autoencoder_class(config: Any, source: str) -> Any:
    """Return the class that a ``config.json`` names; UserError if it is not an autoencoder."""
    name = str(config.get("_class_name")) if isinstance(config, dict) else "nothing"
    known = not name.startswith("_") and hasattr(diffusers, name)
    found = getattr(diffusers, name) if known else None
    if found is None or not (hasattr(found, "encode") and hasattr(found, "decode")):
        raise UserError(
            f"{source}: is not an autoencoder of Diffusers {diffusers.__version__} "
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
    for part in parts:
        path_name(part, source)
    name, inside = "/".join(parts[:2]), "".join(f"{part}/" for part in parts[2:])
    files = [f"{inside}{file}" for file in ("*.json", *_WEIGHTS)]
    try:
        return Path(snapshot_download(name, allow_patterns=files)).joinpath(*parts[2:])
    except HFValidationError:
        raise UserError(f"{source}: no such folder, and not a valid id of the Hub") from None
    except GatedRepoError:
        raise UserError(
            f"{source}: its terms must be accepted first: see https://huggingface.co/{name}, then "
            "log in with 'hf auth login'"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{source}: no such folder, and no repository of that name on the Hub"
        ) from None
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
            f"{source}: does not state the scale of its latents; write scaling_factor (1 over "
            f"their standard deviation) into its {CONFIG}"
        )
    shift = config.get("shift_factor") or 0.0 if mean is None else mean
    factor = torch.tensor(1.0 if scaling is None else scaling)
    if deviation is not None:
        factor = factor / torch.tensor(deviation)
    return torch.tensor(shift).float().view(1, -1, 1, 1), factor.float().view(1, -1, 1, 1)


def _set_tile(vae: ModelMixin) -> None:
    # By default tiles have the size of the training images, which may be very small; those of
    # AutoencoderDC already have this size.
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


def decode_tiled(
    decode: Callable[[Tensor], Tensor], latent_BCHW: Tensor, tile: int, margin: int, ramp: int
) -> Tensor:
    """Decode tile by tile and blend the overlaps.

    At an inner border of a tile, ``margin`` latent pixels are not used, as their surroundings are
    cut off; over the next ``ramp`` the weight rises linearly. A decoder whose receptive field
    reaches at most ``margin`` latent pixels gives the same image as without tiles, to rounding;
    for others, seams are blended.

    Args:
        decode: latent (B, C, h, w) to image (B, 3, h * k, w * k).
        latent_BCHW: any size.
        tile: side of a tile in latent pixels, more than two margins and a ramp.
        margin: latent pixels at inner borders that are not used.
        ramp: latent pixels over which tiles are blended.
    """
    height, width = latent_BCHW.shape[2:]
    total = weights = None
    step = tile - 2 * margin - ramp
    for top, left in product(_tile_starts(height, tile, step), _tile_starts(width, tile, step)):
        part = latent_BCHW[:, :, top : top + tile, left : left + tile]
        image = decode(part).float()
        scale = image.shape[2] // part.shape[2]
        if total is None or weights is None:
            size = (height * scale, width * scale)
            total = image.new_zeros(len(image), image.shape[1], *size)
            weights = image.new_zeros(size)
        rows, columns = (
            _blend_weights((start, length, side), (margin, ramp), scale)
            for start, length, side in (
                (top, part.shape[2], height),
                (left, part.shape[3], width),
            )
        )
        weight = (rows[:, None] * columns).to(image)
        window = (
            slice(top * scale, top * scale + image.shape[2]),
            slice(left * scale, left * scale + image.shape[3]),
        )
        total[:, :, *window] += image * weight
        weights[window] += weight
    assert total is not None and weights is not None, "there is at least one tile"
    return total / weights


def _tile_starts(side: int, tile: int, step: int) -> list[int]:
    """Return where tiles begin; the last one ends where the side does."""
    return [*range(0, side - tile, step), side - tile] if side > tile else [0]


def _blend_weights(place: tuple[int, int, int], edge: tuple[int, int], scale: int) -> Tensor:
    """Return the weight of each image pixel of a tile along one axis, float64.

    Args:
        place: start and length of the tile, and length of the image, in latent pixels.
        edge: margin and ramp, in latent pixels.
        scale: image pixels per latent pixel along a side.
    """
    (start, length, side), (margin, ramp) = place, edge
    at = (torch.arange(length * scale, dtype=torch.float64) + 0.5) / scale
    weight = torch.ones_like(at)
    if start > 0:
        weight = weight.minimum(((at - margin) / ramp).clamp(0, 1))
    if start + length < side:
        weight = weight.minimum(((length - at - margin) / ramp).clamp(0, 1))
    return weight

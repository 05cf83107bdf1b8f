"""Latents of images and of their mirror images, computed once and stored on disk.

An autoencoder would otherwise take longer than the U-Net's step. A folder is of one data set, one
codec and one size, and refuses any other::

    .semsynth.json              the key: hashes of dataset.json and codec, size, mirrored, dtype
    <split>/<stem>.safetensors  (1 or 2, C, h, w): the image and, where mirrored, its mirror
                                image; beside them the hash of the image's file

Files are complete or absent, so a run that was killed resumes with those that are missing, and
several processes may share the work. ``dataset.json`` does not depend on the images' pixels: the
latents of an image that has changed are computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from semsynth.core.errors import UserError
from semsynth.core.files import require_space, write_bytes
from semsynth.core.logging import progress
from semsynth.core.outputs import claim_output_dir
from semsynth.data.content import digest_bytes
from semsynth.data.dataset import PreparedDataset
from semsynth.data.loader import Latents, loadable
from semsynth.models.codecs.codec import Codec, normalize_images

FORMAT = 3
Kept = Literal["float16", "float32"]
PIXELS_AT_A_TIME = 8 * 512 * 512
_LATENTS = "latents"
_WRITTEN = "sha256"  # of each version


@dataclass(frozen=True)
class LatentSet:
    """What a cache is of.

    Attributes:
        data: the prepared data set.
        codec: from images to latents.
        mirrored: whether the mirror images are there too; an autoencoder's latents of them are
            not its mirrored latents.
        dtype: of the files. float16 is fine for latents of unit variance: its rounding, at most
            1/2048 of a value, is far below 8-bit pixels'.
    """

    data: PreparedDataset
    codec: Codec
    mirrored: bool = True
    dtype: Kept = "float16"

    @property
    def key(self) -> dict[str, Any]:
        """What decides the latents besides the image, whose digest is in its file's name."""
        return {
            "format": FORMAT,
            "codec": dict(self.codec.key),
            "height": self.data.height,
            "width": self.data.width,
            "mirrored": self.mirrored,
            "dtype": self.dtype,
        }

    @property
    def folder(self) -> Path:
        """Where the cache is by default: beside the data, one folder for each key."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return self.data.root.with_name(f"{self.data.root.name}_latents") / digest[:12]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a file: versions, channels, height, width."""
        scale = self.codec.downscale
        size = (self.data.height // scale, self.data.width // scale)
        return (1 + self.mirrored, self.codec.channels, *size)


@dataclass(frozen=True)
class LatentCache:
    """The finished latents of a split; ``read`` may be called from any process.

    A file is named by the digest of its image: no two data sets, states or splits are confused.
    """

    folder: Path
    shape: tuple[int, int, int, int]
    digests: dict[str, str]
    """Digest of each image by its stem."""

    def read(self, stem: str, mirrored: bool = False) -> npt.NDArray[np.float32]:
        """Return the latent of an image or of its mirror image, (C, h, w) float32.

        Raises:
            UserError: the file is missing or damaged, or mirror images were not cached.
        """
        path = self._path(stem)
        if mirrored and self.shape[0] < 2:
            raise UserError(f"{self.folder}: has no latents of mirrored images (train.flip)")
        version = int(mirrored)
        try:
            with safe_open(path, "numpy") as file:
                stored = file.get_slice(_LATENTS)
                digests = (file.metadata() or {}).get(_WRITTEN, "").split()
                if tuple(stored.get_shape()) == self.shape:
                    found = stored[version : version + 1][0]
                    # Files of earlier versions have no digests.
                    if not digests or digests[version:][:1] == [digest_bytes(found.tobytes())]:
                        return np.asarray(found, np.float32)
                    path.unlink(missing_ok=True)  # the next run computes it again
        except (OSError, SafetensorError):
            pass
        raise UserError(f"{path}: is missing or damaged; run the command again")

    def has(self, stem: str) -> bool:
        """Return whether the latents of an image are there, whole."""
        try:
            with safe_open(self._path(stem), "numpy") as file:
                return tuple(file.get_slice(_LATENTS).get_shape()) == self.shape
        except (OSError, SafetensorError):
            return False

    def write(self, stem: str, latents: npt.NDArray[Any]) -> None:
        """Keep the latents of an image, all or nothing."""
        digests = " ".join(digest_bytes(one.tobytes()) for one in latents)
        data = save({_LATENTS: np.ascontiguousarray(latents)}, {_WRITTEN: digests})
        write_bytes(self._path(stem), data)

    def _path(self, stem: str) -> Path:
        return self.folder / f"{self.digests[stem]}.safetensors"


def claim_latents(latents: LatentSet, folder: Path | None = None) -> Path:
    """Make a folder (None: ``latents.folder``) that of the latents, before anything is computed.

    Of several processes one has to do this before the others call ``cache_latents``.

    Raises:
        UserError: the folder is of another codec or size.
    """
    return claim_output_dir(folder or latents.folder, "latents", latents.key)


def cache_latents(
    latents: LatentSet,
    split: str,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    shard: tuple[int, int] = (0, 1),
    stems: Sequence[str] | None = None,
) -> LatentCache:
    """Compute the latents of a split that are not on disk yet, and return the cache.

    Those of images that were there before, in any data set that shares the folder, are not.

    Args:
        latents: of what.
        split: which images.
        device: where the codec computes.
        folder: where the cache is (None: ``latents.folder``).
        shard: (rank, world): which of the images this process computes. Others' may still be
            missing on return: wait for all processes before reading.
        stems: of these images of the split alone (None: of all).

    Raises:
        UserError: the folder is of another codec or size; images are missing; too little space; or
            latents that are not finite.
    """
    data = latents.data
    if not data.has_images(split):
        raise UserError(f"{data.root}: some masks of the split '{split}' have no image")
    folder = claim_latents(latents, folder)
    files = data.file_digests(split, ("images",))
    cache = LatentCache(folder, latents.shape, {stem: x["images"] for stem, x in files.items()})
    own = list(data.stems(split) if stems is None else stems)[shard[0] :: shard[1]]
    missing = [stem for stem in own if not cache.has(stem)]
    if not missing:
        return cache
    each = int(np.prod(latents.shape)) * np.dtype(latents.dtype).itemsize
    require_space(folder, each * len(missing) * shard[1], "the cache of latents")
    size = max(1, PIXELS_AT_A_TIME // (data.height * data.width))
    parts = [missing[i : i + size] for i in range(0, len(missing), size)]
    for part in progress(parts, f"latents of {split}", unit="batch"):
        images = np.stack([loadable(data.read_image(split, stem)) for stem in part])
        for stem, found in zip(part, _encode(latents, images, device), strict=True):
            if not np.isfinite(found).all():
                raise UserError(
                    f"{data.image_path(split, stem)}: its latent is not finite in "
                    f"{latents.dtype}; use another autoencoder, or float32"
                )
            cache.write(stem, found)
    return cache


def shared_latents(
    accelerator: Accelerator, latents: LatentSet, split: str, stems: Sequence[str] | None = None
) -> Latents:
    """Return the cached latents of a split; all processes call it, and share in computing them.

    Raises:
        UserError: see ``cache_latents``.
    """
    if accelerator.is_main_process:
        claim_latents(latents)
    accelerator.wait_for_everyone()
    shard = (accelerator.process_index, accelerator.num_processes)
    cache = cache_latents(latents, split, accelerator.device, shard=shard, stems=stems)
    accelerator.wait_for_everyone()
    return cache.read


@torch.no_grad()
def _encode(
    latents: LatentSet, images_BHWC: npt.NDArray[Any], device: torch.device | str
) -> npt.NDArray[Any]:
    """Return (B, versions, C, h, w) in the dtype of the files."""
    images = torch.from_numpy(images_BHWC).to(device).permute(0, 3, 1, 2)
    pixels = normalize_images(images, latents.codec.image_bits)
    versions = [pixels, pixels.flip(-1)] if latents.mirrored else [pixels]
    found = torch.stack([latents.codec.encode(version) for version in versions], dim=1)
    rounded: npt.NDArray[Any] = found.to(getattr(torch, latents.dtype)).cpu().numpy()
    return rounded

"""What users of other Diffusers pipelines try first, where it is called or works otherwise here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.logging import warn_once

_NO_TEXT = "what is painted says the mask; there is no text"
_ALWAYS_TILED = "an autoencoder (pipe.vae) takes large images in tiles, several one by one"
_NO_ADAPTERS = "its network has no adapters; train with 'semsynth train'"

_ARGUMENTS = {
    "prompt": _NO_TEXT,
    "prompt_embeds": _NO_TEXT,
    "negative_prompt": f"{_NO_TEXT}; guidance_scale weighs the mask against no mask",
    "negative_prompt_embeds": f"{_NO_TEXT}; guidance_scale weighs the mask against no mask",
    "image": "the first argument is mask=, the label ids or their colours",
    "masks": "the first argument is mask=, and may be a batch or a list",
    "mask_image": "the first argument is mask=, and the whole image is painted",
    "num_images_per_prompt": "use num_images=, the images of each mask",
    "batch_size": "use num_images=, the images of each mask",
    "height": "an image has the size of its mask; resize the mask (nearest neighbour)",
    "width": "an image has the size of its mask; resize the mask (nearest neighbour)",
    "steps": "use num_inference_steps=",
    "seed": "use seeds=[...], one for each image, or generator=",
    "eta": "set it up in the scheduler: eta 0 is DDIMScheduler, eta 1 DDPMScheduler",
    "sampler": "set pipe.scheduler = X.from_config(pipe.scheduler.config)",
    "timesteps": "choose num_inference_steps= and the scheduler's timestep_spacing",
    "sigmas": "choose num_inference_steps= and the scheduler's spacing (use_karras_sigmas)",
    "strength": "it paints from noise alone",
    "callback": "use callback_on_step_end=",
    "callback_steps": "use callback_on_step_end=, which is called after each step",
    "cross_attention_kwargs": "the mask enters by SPADE, not by cross-attention",
    "clip_skip": _NO_TEXT,
    "ip_adapter_image": _NO_ADAPTERS,
}

_ATTRIBUTES = {
    "vae_scale_factor": "see pipe.codec.downscale",
    "image_processor": "see output_type",
    "text_encoder": _NO_TEXT,
    "tokenizer": _NO_TEXT,
    "encode_prompt": _NO_TEXT,
    "safety_checker": "it paints the classes of its data alone, and none was made for it",
    "transformer": "its network is pipe.unet",
    "enable_vae_slicing": _ALWAYS_TILED,
    "disable_vae_slicing": _ALWAYS_TILED,
    "enable_vae_tiling": _ALWAYS_TILED,
    "disable_vae_tiling": _ALWAYS_TILED,
    "load_lora_weights": _NO_ADAPTERS,
    "load_ip_adapter": _NO_ADAPTERS,
    "load_textual_inversion": _NO_TEXT,
    "from_single_file": "use from_checkpoint for a final_model.pth, 'semsynth import' for the "
    "authors' files",
}


def refuse_unsupported_arguments(unknown: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse arguments that ``__call__`` does not take, and say what to use.

    Raises:
        UserError: there is one.
    """
    for name in unknown:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]}=?" if near else "see help(pipe)"
        raise UserError(f"{name}= is not for this pipeline: {_ARGUMENTS.get(name, hint)}")


class UnsupportedDiffusersAPI:
    """Answers for what this pipeline has no use for."""

    def __getattr__(self, name: str) -> Any:
        """Say in the AttributeError why there is no such thing."""
        if name in _ATTRIBUTES:
            raise AttributeError(f"{type(self).__name__} has no {name}: {_ATTRIBUTES[name]}")
        return super().__getattr__(name)  # type: ignore[misc]

    def set_attention_slice(self, slice_size: Any) -> None:
        """Do nothing, with a warning unless slicing is to be off: attention is never sliced."""
        if slice_size is not None:
            _nothing_to_do("attention slicing")

    def set_use_memory_efficient_attention_xformers(
        self, valid: bool, attention_op: Any = None
    ) -> None:
        """Do nothing, with a warning unless it is to be off: attention is PyTorch's."""
        if valid:
            _nothing_to_do("xformers")

    def enable_freeu(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: FreeU scales the skips of Stable Diffusion's decoder."""
        raise UserError("FreeU is made for Stable Diffusion's network; this one has no such scales")

    def fuse_qkv_projections(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: queries, keys and values come from one projection already."""


def _nothing_to_do(what: str) -> None:
    warn_once(
        f"{what}: nothing to do; attention is PyTorch's scaled_dot_product_attention, which never "
        "holds the whole matrix"
    )


def check_counts(num_images: Any, num_inference_steps: Any) -> None:
    """Check that both are whole numbers of at least 1; UserError names the one that is not."""
    for name, value in (("num_images", num_images), ("num_inference_steps", num_inference_steps)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{name} is {value!r}: must be a whole number of at least 1")

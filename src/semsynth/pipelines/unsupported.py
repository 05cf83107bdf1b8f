"""What users of other Diffusers pipelines try first: its name here, or why it is absent."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from semsynth.core.errors import UserError
from semsynth.core.logging import warn_once

_NO_TEXT = "the mask decides what is generated; there are no text prompts"
_ALWAYS_TILED = "an autoencoder (pipe.vae) takes large images in tiles, and several one by one"
_NO_ADAPTERS = "its network has no adapters; train with 'semsynth train'"

_ARGUMENTS = {
    "prompt": _NO_TEXT,
    "prompt_embeds": _NO_TEXT,
    "negative_prompt": f"{_NO_TEXT}; guidance_scale weighs the mask against no mask",
    "negative_prompt_embeds": f"{_NO_TEXT}; guidance_scale weighs the mask against no mask",
    "masks": "the first argument is mask=, and may be a batch or a list",
    "mask_image": "the first argument is mask=; the region of image= to regenerate is keep=",
    "batch_size": "use num_images=, the images of each mask",
    "height": "an image has the size of its mask; resize the mask (nearest neighbour)",
    "width": "an image has the size of its mask; resize the mask (nearest neighbour)",
    "steps": "use num_inference_steps=",
    "seed": "use seeds=[...], one for each image, or generator=",
    "eta": "set it up in the scheduler: eta 0 is DDIMScheduler, eta 1 DDPMScheduler",
    "guidance_rescale": "use a lower guidance_scale=, or guidance_interval=",
    "sampler": "set pipe.scheduler = X.from_config(pipe.scheduler.config)",
    "timesteps": "choose num_inference_steps= and the scheduler's timestep_spacing",
    "sigmas": "choose num_inference_steps= and the scheduler's spacing (use_karras_sigmas)",
    "callback": "use callback_on_step_end=",
    "callback_steps": "use callback_on_step_end=, which is called after each step",
    "cross_attention_kwargs": "the mask enters by SPADE, not by cross-attention",
    "clip_skip": _NO_TEXT,
    "ip_adapter_image": _NO_ADAPTERS,
}

ATTRIBUTES = {
    "vae_scale_factor": "see pipe.codec.downscale",
    "image_processor": "see output_type",
    "text_encoder": _NO_TEXT,
    "tokenizer": _NO_TEXT,
    "encode_prompt": _NO_TEXT,
    "safety_checker": "it generates only the classes of its data",
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
    """Refuse arguments that ``__call__`` does not take, and name what to use.

    Raises:
        UserError: there is one.
    """
    for name in unknown:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]}=?" if near else "see help(pipe.__call__)"
        raise UserError(f"{name}= is not for this pipeline: {_ARGUMENTS.get(name, hint)}")


def refuse_freeu() -> NoReturn:
    """Refuse FreeU, which scales the skip connections of Stable Diffusion's decoder.

    Raises:
        UserError: always.
    """
    raise UserError("FreeU is made for Stable Diffusion's network; this one has no such scales")


def warn_never_sliced(what: str) -> None:
    """Warn that an option of attention has no effect: it never holds the whole matrix."""
    warn_once(
        f"{what}: has no effect; attention is PyTorch's scaled_dot_product_attention, which never "
        "holds the whole matrix"
    )

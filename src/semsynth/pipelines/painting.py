"""From masks to images: a Diffusers pipeline's ``__call__``, and ``generate`` for the package."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import ImagePipelineOutput
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.core.logging import warn_once
from semsynth.core.precision import autocast, keep_casts
from semsynth.data.edges import instance_edges
from semsynth.data.labels import Array
from semsynth.diffusion.config import SamplerSettings
from semsynth.diffusion.guidance import Denoiser
from semsynth.diffusion.sampling import check_scheduler, make_scheduler, sample, set_timesteps
from semsynth.models.config import whole_size
from semsynth.models.sdm.condition import Condition
from semsynth.models.sdm.label_input import label_input
from semsynth.models.sdm.reference import reference_forward
from semsynth.pipelines.callbacks import Callback, Interrupted, StepEnd, check_callback
from semsynth.pipelines.condition_cache import describe, encode_masks, images_a_mask, keep_bytes
from semsynth.pipelines.formats.provenance import trained_with_cfg_dropout
from semsynth.pipelines.inputs import Mask, read_instances, read_masks
from semsynth.pipelines.outputs import (
    Generators,
    OutputType,
    check_output_type,
    initial_noise,
    make_generators,
    to_output,
    to_pixels,
)
from semsynth.pipelines.padding import crop_to, pad_to_multiple, told
from semsynth.pipelines.parts import PipelineParts
from semsynth.pipelines.unsupported import check_counts, refuse_unsupported_arguments


class PaintingPipeline(PipelineParts):
    """The parts of ``SemanticDiffusionPipeline`` that paint."""

    @torch.no_grad()
    def encode(self, mask_BHW: Array, edges_BHW: Array | None = None) -> Condition | Tensor:
        """Compute all that depends on masks alone (with ``plain``, the label map, (B, K, H, W)).

        Args:
            mask_BHW: integer label ids; filled up with unlabelled pixels where the network could
                not halve their sides.
            edges_BHW: 1 at the borders of instances, for a model with ``instance_edges`` (None:
                no borders).

        Raises:
            UserError: an id that is none of ``labels``.
        """
        self.labels.check_ids(mask_BHW, "masks")

        def fitted(values_BHW: Array, rest: int) -> Tensor:
            whole = pad_to_multiple(values_BHW, self._model.size_multiple, rest)
            return torch.from_numpy(np.ascontiguousarray(whole)).to(self._execution_device)

        channels = fitted(self._lut[mask_BHW], self.labels.unlabelled_channel)
        edges = None if edges_BHW is None else fitted(edges_BHW, 0)
        if self.plain:
            return label_input(self._plain_unet, self._model, channels, edges)
        with self._autocast():
            keep = self._keep(len(mask_BHW), self._latent_size(mask_BHW.shape[1:]))
            return encode_masks(self._plain_unet, self._model, channels, edges, keep)

    def _latent_size(self, size: tuple[int, ...]) -> tuple[int, int]:
        height, width = whole_size((size[0], size[1]), self._model.size_multiple)
        return height // self.codec.downscale, width // self.codec.downscale

    def _keep(self, masks: int, latent_size: tuple[int, int]) -> int:
        needed = sum(self._plain_unet.condition_bytes(masks, *latent_size))
        return keep_bytes(self.cache, self._execution_device, needed)

    def describe_size(self, height: int, width: int) -> str:
        """Return a line on what becomes of masks of this size; empty for the trained one."""
        return told((height, width), (self.height, self.width), self._model.size_multiple)

    def describe_cache(self, masks: int, size: tuple[int, int] | None = None) -> str:
        """Return a line on how much memory the conditions of so many masks take."""
        latent_size = self._latent_size(size or (self.height, self.width))
        with self._autocast():
            keep = self._keep(masks, latent_size)
            return describe(self._plain_unet, masks, latent_size, keep)

    @torch.no_grad()
    def generate(
        self,
        mask_BHW: npt.NDArray[Any],
        seeds: Sequence[int],
        settings: SamplerSettings | None = None,
        edges_BHW: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Paint an image for each mask, with a sampler chosen by name.

        Args:
            mask_BHW: integer label ids.
            seeds: one for each mask; an image depends on its own alone.
            settings: sampler, steps and guidance.
            edges_BHW: see ``encode``.

        Returns:
            (B, H, W, 3) uint8 RGB.

        Raises:
            UserError: an id that is no label, another number of seeds than masks, or more steps
                than the model has noise levels.
        """
        settings = settings or SamplerSettings()
        if len(seeds) != len(mask_BHW):
            raise UserError(f"{len(mask_BHW)} masks but {len(seeds)} seeds; give one for each")
        self._check_edges(edges_BHW)
        self._check_guidance(settings.guidance_scale)
        scheduler = make_scheduler(self._diffusion, settings.sampler)
        set_timesteps(scheduler, settings.steps)
        generators = make_generators(None, list(seeds), len(seeds))
        noise = self._noise(mask_BHW, generators)
        each = images_a_mask(mask_BHW, edges_BHW)
        edges = None if edges_BHW is None else edges_BHW[::each]
        condition = self.encode(mask_BHW[::each], edges)
        latent = self._sample(condition, (scheduler, settings), (noise, generators))
        self.maybe_free_model_hooks()
        return to_pixels(self._decode(latent, mask_BHW))

    @torch.no_grad()
    def __call__(
        self,
        mask: Mask | None = None,
        num_images: int = 1,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        generator: Generators = None,
        seeds: Sequence[int] | int | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        latents: Tensor | None = None,
        instances: Mask | None = None,
        **unknown: Any,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Paint images of masks with ``scheduler``; see the class for the arguments.

        Raises:
            UserError: an argument that is wrong or not for this pipeline, before any work.
        """
        refuse_unsupported_arguments(unknown, CALL_ARGUMENTS)
        check_output_type(output_type)
        check_counts(num_images, num_inference_steps)
        check_callback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        if guidance_scale is None:
            guidance_scale = self.default_guidance
        settings = SamplerSettings(
            steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
        )
        check_scheduler(self._diffusion, self.scheduler)
        masks, edges = self._read(mask, instances)
        self._check_guidance(guidance_scale)
        count = len(masks) * num_images
        generators = make_generators(generator, seeds, count)
        masks_N = np.repeat(masks, num_images, axis=0)
        noise = self._noise(masks_N, generators, latents)
        set_timesteps(self.scheduler, num_inference_steps)
        condition = self.encode(masks, edges)
        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            step = StepEnd(self, callback_on_step_end, bar)
            x0 = self._sample(condition, (self.scheduler, settings), (noise, generators), step)
        images = x0 if output_type == "latent" else to_output(self._decode(x0, masks), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _read(self, mask: Mask | None, instances: Mask | None) -> tuple[Array, Array | None]:
        if mask is None:
            raise UserError("mask= is missing: an image, array or path of label ids or colours")
        masks = read_masks(mask, self.labels)
        edges = None
        if instances is not None:
            edges = instance_edges(read_instances(instances, masks.shape))
        self._check_edges(edges)
        if text := self.describe_size(masks.shape[1], masks.shape[2]):
            warn_once(text)
        if edges is None and self.instance_edges:
            warn_once("the model was trained with the edges of instances; instances= is missing")
        return masks, edges

    def _check_edges(self, edges: Array | None) -> None:
        if edges is not None and not self.instance_edges:
            raise UserError("instances: this model was trained without them (instance_edges)")

    def _check_guidance(self, scale: float) -> None:
        if scale != 1.0 and not trained_with_cfg_dropout(self.facts):
            warn_once(
                f"guidance_scale is {scale:g}, but the model never saw dropped masks: what it "
                "paints without a mask is arbitrary; use 1, or train with mask_dropout"
            )

    def _noise(
        self,
        masks: Array,
        generators: list[torch.Generator],
        latents: Tensor | None = None,
    ) -> Tensor:
        shape = (len(generators), self.codec.channels, *self._latent_size(masks.shape[1:]))
        return initial_noise(shape, generators, latents, self._execution_device)

    def _sample(
        self,
        condition: Condition | Tensor,
        how: tuple[Any, SamplerSettings],
        noise: tuple[Tensor, list[torch.Generator]],
        on_step: StepEnd | None = None,
    ) -> Tensor:
        """Return x0, (N, C, H, W) float32."""
        scheduler, settings = how
        noise_BCHW, generators = noise
        null = None
        if settings.guidance_scale != 1.0 and not self.plain:
            with self._autocast():
                null = self._plain_unet.encode_null(*noise_BCHW.shape[2:])

        device, precision = self._execution_device, self.precision

        def network(x: Tensor, t: Tensor, with_null: bool) -> tuple[Tensor, Tensor | None]:
            x = x.to(self._plain_unet.dtype)
            if isinstance(condition, Tensor):
                return reference_forward(self._plain_unet, x, t, condition, with_null)
            if precision == "bf16":
                x = x.contiguous(memory_format=torch.channels_last)
            with autocast(device, precision):
                output = self.unet(x, t, condition, null if with_null else None)
            return output.sample, output.null_sample

        denoise = Denoiser(network, self.schedule, self.codec.clip, settings)
        try:
            with self._kept_casts():
                x0 = sample(denoise, scheduler, noise_BCHW, generators, on_step)
        except Interrupted as stopped:
            x0 = stopped.latents
        if not x0.isfinite().all():
            raise UserError(
                f"{type(scheduler).__name__} with {settings.steps} steps gave values that are not "
                "finite; take more steps, another scheduler, or bfloat16 in place of float16"
            )
        return x0

    def _kept_casts(self) -> AbstractContextManager[object]:
        # Sequential offloading brings new weights in each pass: the casts of the old ones are lost.
        return nullcontext() if self._is_moving() else keep_casts(self._execution_device)

    def _decode(self, latent: Tensor, masks: Array) -> Tensor:
        image = crop_to(self.codec.decode(latent), (masks.shape[1], masks.shape[2]))
        return image.clamp(-1, 1)


CALL_ARGUMENTS = tuple(inspect.signature(PaintingPipeline.__call__).parameters)[1:-1]

"""``Synthesizer``: from label maps to images with a trained network, without Diffusers' pipelines.

Masks may have any size. Where the network could not halve a side, the mask is padded with
unlabelled pixels below and to the right, and the image is cropped to the mask's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semsynth.core.devices import (
    Precision,
    autocast,
    keep_casts,
    memory_format,
    pick_device,
    resolve_precision,
)
from semsynth.core.errors import UserError
from semsynth.core.logging import warn_once
from semsynth.data.image_files.channels import PixelForm
from semsynth.data.labels import Array, LabelSet
from semsynth.diffusion.config import DEFAULT_GUIDANCE, DiffusionConfig, SamplerSettings
from semsynth.diffusion.guidance import Denoiser, guide, guide_reference
from semsynth.diffusion.sampling import (
    OnStep,
    check_result,
    make_scheduler,
    sample,
    set_timesteps,
)
from semsynth.diffusion.schedule import Schedule, Start
from semsynth.models.codecs.codec import Codec, open_codec
from semsynth.models.config import Compile, ModelConfig, Size, whole_size
from semsynth.models.sdm.condition import (
    Cache,
    Condition,
    cache_budget,
    cached_norms,
    condition_bytes,
    encode_masks,
    encode_null,
    label_input,
)
from semsynth.models.sdm.unet import SemanticUNet, reference_forward
from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256
from semsynth.pipelines.formats.model_file import (
    Metadata,
    ModelFile,
    check_network,
    licence,
    load_checkpoint,
    load_network,
    trained_with_cfg_dropout,
    trained_with_partial_masks,
)
from semsynth.pipelines.from_image import FromImage, KnownImages
from semsynth.pipelines.outputs import (
    crop_to,
    initial_noise,
    make_generators,
    pad_to_multiple,
    size_note,
    to_pixels,
)
from semsynth.pipelines.variation import Turned, Variation

WantedPrecision = Literal["auto", "no", "bf16"]


class Interrupted(Exception):
    """Raised by an ``on_step`` to end sampling early; ``latents`` are the result."""

    def __init__(self, latents: Tensor) -> None:
        """Keep ``latents``, (N, C, H, W)."""
        super().__init__("interrupted")
        self.latents = latents


class Synthesizer:
    """A trained network with all that turns label maps into images.

    Attributes:
        network: the network; one that ``torch.compile`` wraps is fine.
        codec: from images to what the network sees, and back.
        model: configuration of network and codec.
        diffusion: configuration of the forward process.
        labels: the label set that it was trained on.
        mask_labels: what its masks may hold: the same, unless ``allow_unlabelled`` added an id.
        height: of the images that it was trained on, in pixels.
        width: of the images that it was trained on, in pixels.
        metadata: of the training: recipe, step, data set, licence, versions (may be empty).
        checkpoint_sha256: hash of what it was loaded from; empty for one in training.
        cache: how much of what depends on the masks alone is kept between steps.
        use_reference: compute as the official code does (``reference_forward``); slow.
        execution_device: where an offloaded network computes; None: where its weights are.
    """

    def __init__(
        self,
        network: SemanticUNet,
        codec: Codec,
        model: ModelConfig,
        diffusion: DiffusionConfig,
        labels: LabelSet,
        size: Size,
        metadata: Metadata | None = None,
    ) -> None:
        """Put the parts together; ``size``: height and width of the training images in pixels.

        Raises:
            UserError: the network has other channels than ``labels`` and ``model`` ask for.
        """
        self.network, self.codec = network, codec
        self.model, self.diffusion, self.labels = model, diffusion, labels
        self.mask_labels = labels
        self.height, self.width = size
        self.metadata: Mapping[str, Any] = metadata or {}
        self.checkpoint_sha256 = ""
        self.cache: Cache = "auto"
        self.use_reference = False
        self.execution_device: torch.device | None = None
        self._wanted_precision: WantedPrecision | None = "auto"
        self._compile: Compile = "auto"
        self._precision: Precision = "no"
        self._prepared_for: tuple[torch.device, torch.dtype, bool] | None = None
        check_network(self.plain_network, model, labels)

    @classmethod
    def from_model_file(cls, file: ModelFile, device: str = "cpu") -> Self:
        """Return one with the file's own tensors as its weights (no copy on the CPU).

        Raises:
            UserError: weights that do not fit the configuration, an autoencoder that cannot be
                loaded, or no such device.
        """
        network = load_network(file).to(pick_device(device))
        size = (file.height, file.width)
        codec = open_codec(file.model)
        return cls(network, codec, file.model, file.diffusion, file.labels, size, file.metadata)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Self:
        """Load ``final_model.pth``, the run folder that holds one, or a Diffusers folder.

        Raises:
            UserError: see ``load_checkpoint``; or no such device.
        """
        file = load_checkpoint(Path(path))
        try:
            loaded = cls.from_model_file(file, device)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        loaded.checkpoint_sha256 = checkpoint_sha256(path)
        return loaded

    @cached_property
    def schedule(self) -> Schedule:
        """The forward process that the network was trained on."""
        return Schedule(self.diffusion)

    @property
    def plain_network(self) -> SemanticUNet:
        """The network itself, where ``torch.compile`` wraps it."""
        return getattr(self.network, "_orig_mod", self.network)  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.execution_device or self.plain_network.device

    @property
    def instance_edges(self) -> bool:
        """Whether the edges between objects are a part of its condition."""
        return self.model.instance_edges

    @property
    def pixels(self) -> PixelForm:
        """What its images hold: channels and bits."""
        return PixelForm(self.model.image_channels, self.model.image_bits)

    @property
    def licence(self) -> str:
        """Licence of the training data, ``unknown`` if it was not given."""
        return licence(self.metadata)

    @property
    def default_guidance(self) -> float:
        """Guidance scale to use by default: 1 for a model without mask dropout, or distilled."""
        guided = not self.diffusion.evaluations and trained_with_cfg_dropout(self.metadata)
        return DEFAULT_GUIDANCE if guided else 1.0

    def allow_unlabelled(self) -> int:
        """Let pixels of masks be unlabelled where the labels have no ignored id.

        For a model that was trained with region dropout: 255 in a mask is a class to some people,
        so that it is asked for.

        Returns:
            Their id: the ignored one, or 255, or the largest one below that no label has.

        Raises:
            UserError: the labels have no ignored id, and it was trained with whole masks alone.
        """
        if self.labels.ignore_id is None and not trained_with_partial_masks(self.metadata):
            raise UserError(
                "the model knows no unlabelled pixels: its labels have no ignored id, and it was "
                "trained with whole masks; train with --mask-dropout region"
            )
        self.mask_labels = self.labels.with_ignore("unlabelled")
        ignored = self.mask_labels.ignore_id
        assert ignored is not None
        return ignored

    def complete(self, settings: SamplerSettings) -> SamplerSettings:
        """Return settings with this model's own values where none were given.

        Raises:
            UserError: something was given that is not for it (``SamplerSettings.of_model``).
        """
        chosen = settings.of_model(self.diffusion.evaluations)
        if "guidance_scale" in chosen.given:
            return chosen
        return replace(chosen, guidance_scale=self.default_guidance)

    def preview_settings(self, steps: int) -> SamplerSettings:
        """Return how it generates while it trains: in ``steps``, unless it is distilled."""
        if self.diffusion.evaluations:
            return self.complete(SamplerSettings())
        return self.complete(SamplerSettings(steps=min(steps, self.diffusion.timesteps - 1)))

    @property
    def precision(self) -> Precision:
        """What is computed in: the fastest here, unless ``set_precision`` says otherwise.

        Decided when it is first read on a device; the weights' memory format follows from it, and
        the norms' kernels are compiled or not. A network that is not in float32 computes in its
        own type.
        """
        device, dtype = self.device, self.plain_network.dtype
        if self._prepared_for != (device, dtype, self.use_reference):
            self._prepared_for = (device, dtype, self.use_reference)
            if self._wanted_precision is not None:
                own = self.use_reference or dtype != torch.float32
                self._precision = "no" if own else resolve_precision(self._wanted_precision, device)
            compile_norms: Compile = "off" if self.use_reference else self._compile
            self.plain_network.compile_norms(compile_norms, device)
            if device.type != "meta" and not self._is_offloaded():
                self.plain_network.to(memory_format=memory_format(self._precision))
        return self._precision

    def set_precision(self, precision: WantedPrecision) -> Precision:
        """Compute in bfloat16 where that is faster; the weights stay as they are.

        Args:
            precision: ``no``; ``bf16``, where the device is made for it; ``auto`` (the default),
                where faster.

        Returns:
            What is used.
        """
        self._wanted_precision, self._prepared_for = precision, None
        return self.precision

    def use_precision(self, precision: Precision) -> None:
        """Compute in this precision, whatever is faster here."""
        self._wanted_precision, self._precision, self._prepared_for = None, precision, None

    def set_compile(self, wanted: Compile) -> None:
        """Compile the kernels of norms, or not; by default ``auto``, on GPUs."""
        self._compile, self._prepared_for = wanted, None

    @torch.no_grad()
    def encode(self, mask_BHW: Array, edges_BHW: Array | None = None) -> Condition | Tensor:
        """Compute all that depends on masks alone.

        Args:
            mask_BHW: integer label ids, of any size.
            edges_BHW: 1 at the borders of instances, for a model with ``instance_edges`` (None:
                no borders).

        Returns:
            The condition; with ``use_reference`` the label map itself, (B, K, H, W).

        Raises:
            UserError: an id that is not in ``mask_labels``.
        """
        self.mask_labels.check_ids(mask_BHW, "masks")
        lut = self.mask_labels.channel_lut()
        channels = self._to_device(lut[mask_BHW], self.labels.unlabelled_channel)
        edges = None if edges_BHW is None else self._to_device(edges_BHW, 0)
        return self.encode_channels(channels, edges)

    @torch.no_grad()
    def encode_channels(
        self,
        channels_BHW: Tensor,
        edges_BHW: Tensor | None = None,
        cache_bytes: int | None = None,
    ) -> Condition | Tensor:
        """Compute what ``encode`` does, of tensors on ``device`` whose sizes need no padding.

        Args:
            channels_BHW: condition channels, those of no class where nothing is labelled.
            edges_BHW: as for ``encode``.
            cache_bytes: gammas and betas to keep, at most; None: by ``cache``.
        """
        network = self.plain_network
        if self.use_reference:
            return label_input(network, self.model, channels_BHW, edges_BHW)
        with self._autocast():
            if cache_bytes is None:
                size = (channels_BHW.shape[1], channels_BHW.shape[2])
                cache_bytes = self._cache_bytes(len(channels_BHW), self.latent_size(size))
            return encode_masks(network, self.model, channels_BHW, edges_BHW, cache_bytes)

    def _to_device(self, values_BHW: Array, padding: int) -> Tensor:
        whole = pad_to_multiple(values_BHW, self.model.size_multiple, padding)
        return torch.from_numpy(np.ascontiguousarray(whole)).to(self.device)

    def latent_size(self, size: Size) -> Size:
        """Return height and width of what the network sees of a mask of ``size``."""
        height, width = whole_size(size, self.model.size_multiple)
        return height // self.codec.downscale, width // self.codec.downscale

    def _cache_bytes(self, masks: int, latent_size: Size) -> int:
        needed = sum(condition_bytes(self.plain_network, masks, *latent_size))
        return cache_budget(self.cache, self.device, needed)

    def describe_size(self, height: int, width: int) -> str:
        """Return a line on what becomes of masks of this size; empty for the trained one."""
        return size_note((height, width), (self.height, self.width), self.model.size_multiple)

    def describe_cache(self, masks: int, size: Size | None = None) -> str:
        """Return a line on how much memory the conditions of so many masks take."""
        latent_size = self.latent_size(size or (self.height, self.width))
        with self._autocast():
            budget = self._cache_bytes(masks, latent_size)
            sizes = condition_bytes(self.plain_network, masks, *latent_size)
            cached = cached_norms(self.plain_network, masks, latent_size, budget)
        share = f"{sum(sizes[i] for i in cached) / 1e6:.0f} of {sum(sizes) / 1e6:.0f} MB"
        return f"condition cache: {share} for {masks} masks, {len(cached)} of {len(sizes)} norms"

    def check_edges(self, edges_BHW: Array | None) -> None:
        """Check that edges are given only where the model takes them; UserError otherwise."""
        if edges_BHW is not None and not self.instance_edges:
            raise UserError("instances: this model was trained without them (instance_edges)")

    def check_guidance(self, scale: float) -> None:
        """Warn of guidance for a model that cannot compute without a mask."""
        if scale != 1.0 and not trained_with_cfg_dropout(self.metadata):
            warn_once(
                f"guidance_scale is {scale:g}, but the model never saw dropped masks: what it "
                "generates without a mask is arbitrary; use 1, or train with mask_dropout"
            )

    @torch.no_grad()
    def denoiser(
        self, condition: Condition | Tensor, latent_size: Size, settings: SamplerSettings
    ) -> Denoiser:
        """Return the network with a condition, guided and clipped, as samplers call it.

        Args:
            condition: of ``encode``.
            latent_size: height and width of the latents.
            settings: guidance scale and interval.
        """
        null = None
        if settings.guidance_scale != 1.0 and not self.use_reference:
            with self._autocast():
                null = encode_null(self.plain_network, *latent_size)
        device, precision = self.device, self.precision

        def predict(x: Tensor, t: Tensor, with_null: bool) -> tuple[Tensor, Tensor | None]:
            x = x.to(self.plain_network.dtype)
            if isinstance(condition, Tensor):
                return reference_forward(self.plain_network, x, t, condition, with_null)
            if precision == "bf16":
                x = x.contiguous(memory_format=torch.channels_last)
            with autocast(device, precision):
                output = self.network(x, t, condition, null if with_null else None)
            return output.sample, output.null_sample

        combine = guide_reference if self.use_reference else guide
        return Denoiser(predict, self.schedule, self.codec.clip, settings, combine)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition | Tensor,
        noise_NCHW: Tensor,
        generators: Sequence[torch.Generator],
        scheduler: Any,
        settings: SamplerSettings,
        on_step: OnStep | None = None,
        start: Start | None = None,
    ) -> Tensor:
        """Run the reverse process.

        Args:
            condition: of ``encode``; N is a multiple of its number of masks.
            noise_NCHW: standard normal noise, float32.
            generators: one for each image, for schedulers that add noise.
            scheduler: of Diffusers, after ``set_timesteps``; of this call alone.
            settings: guidance; sampler and steps are the scheduler's.
            on_step: called after each step; may raise ``Interrupted``.
            start: where it starts from images (``KnownImages.start``); None: from the noise.

        Returns:
            x0, (N, C, H, W) float32.

        Raises:
            UserError: the result is not finite.
        """
        latent_size = (noise_NCHW.shape[2], noise_NCHW.shape[3])
        denoise = self.denoiser(condition, latent_size, settings)
        try:
            with self._keep_casts():
                x0 = sample(denoise, scheduler, noise_NCHW, generators, on_step, start)
        except Interrupted as stopped:
            x0 = stopped.latents
        if not x0.isfinite().all():
            raise UserError(
                f"{type(scheduler).__name__} with {settings.steps} steps gave values that are not "
                f"finite; {self._instead_of_values_that_are_not_finite()}"
            )
        return x0

    def _instead_of_values_that_are_not_finite(self) -> str:
        if not all(weight.isfinite().all() for weight in self.network.parameters()):
            return "the model's weights are not finite: use another model, or train it again"
        if self.diffusion.evaluations:  # steps and scheduler are its own
            return "use bfloat16 in place of float16"
        return "take more steps, another scheduler, or bfloat16 in place of float16"

    def decode(self, latent_NCHW: Tensor, size: Size) -> Tensor:
        """Return images in [-1, 1], (N, C, H, W), cropped to ``size``, that of the masks."""
        return crop_to(self.codec.decode(latent_NCHW), size).clamp(-1, 1)

    @torch.no_grad()
    def generate(
        self,
        mask_BHW: npt.NDArray[Any],
        seeds: Sequence[int],
        settings: SamplerSettings | None = None,
        edges_BHW: npt.NDArray[Any] | None = None,
        real: FromImage | None = None,
        variation: Variation | None = None,
        on_step: OnStep | None = None,
    ) -> npt.NDArray[Any]:
        """Generate an image for each mask.

        Args:
            mask_BHW: integer label ids.
            seeds: one for each mask; an image depends on its own alone.
            settings: of the sampler; what is not given is the model's own (``of_model``).
            edges_BHW: see ``encode``.
            real: images to start from, and regions; None: from noise. A seed's noise is the same.
            variation: (seed or seeds, amount): noise turned towards that of others, from 0 to 1.
            on_step: see ``sample``.

        Returns:
            (B, H, W, 3) uint8 RGB; or of the model's channels and bits (``PixelForm``): more than 8
            bits are uint16.

        Raises:
            UserError: ids that are not labels, another number of seeds than masks, or settings or
                images that do not fit.
        """
        settings = (settings or SamplerSettings()).of_model(self.diffusion.evaluations)
        if len(seeds) != len(mask_BHW):
            raise UserError(f"{len(mask_BHW)} masks but {len(seeds)} seeds; give one for each")
        self.check_edges(edges_BHW)
        self.check_guidance(settings.guidance_scale)
        if real is not None:
            real.check(mask_BHW.shape, self.pixels)
        scheduler = make_scheduler(self.diffusion, settings.sampler)
        known, start = self.start(scheduler, settings.steps, real)
        size = (mask_BHW.shape[1], mask_BHW.shape[2])
        generators = make_generators(None, list(seeds), len(seeds))
        noise = self.noise(size, generators, scheduler, variation)
        # One condition for each run of equal masks: its images share it.
        repeats = images_per_mask(mask_BHW, edges_BHW)
        edges = None if edges_BHW is None else edges_BHW[::repeats]
        condition = self.encode(mask_BHW[::repeats], edges)
        latent = self.sample(condition, noise, generators, scheduler, settings, on_step, start)
        images = self.decode(latent, size)
        if known is not None:
            images = known.finish(images)
        return to_pixels(images, self.codec.image_bits)

    @torch.no_grad()
    def start(
        self, scheduler: Any, steps: int, real: FromImage | None = None
    ) -> tuple[KnownImages | None, Start]:
        """Prepare a scheduler for ``steps``; return images to start from, and where that is.

        Raises:
            UserError: the scheduler cannot take so many steps, or not from an image.
        """
        strength = 1.0 if real is None else real.strength
        set_timesteps(scheduler, steps, self.diffusion.evaluations, strength)
        known, start = None, Start()
        if real is not None:
            known = KnownImages.of(real, self.codec, self.model.size_multiple, self.device)
            start = known.start(self.diffusion, scheduler, strength)
        check_result(self.diffusion, scheduler, steps, start)
        return known, start

    def noise(
        self,
        size: Size,
        generators: list[torch.Generator],
        scheduler: Any,
        variation: Variation | None = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Return noise for images of ``size``; see ``outputs.initial_noise``.

        With a variation the noise that the scheduler, of this call alone, adds is turned, too.

        Raises:
            UserError: see ``Turned.of`` and ``outputs.initial_noise``; or both are given.
        """
        shape = (len(generators), self.codec.channels, *self.latent_size(size))
        if variation is None:
            return initial_noise(shape, generators, latents, self.device)
        if latents is not None:
            raise UserError("latents= and variation= both decide the noise; give one of them")
        turned = Turned.of(generators, variation)
        turned.apply_to(scheduler)
        with turned.drawing():
            return initial_noise(shape, generators, None, self.device)

    def _is_offloaded(self) -> bool:
        """Return whether offloading brings the network's weights when they are needed."""
        return any(hasattr(module, "_hf_hook") for module in self.plain_network.modules())

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.precision)

    def _keep_casts(self) -> AbstractContextManager[object]:
        # Sequential offloading brings new weights in each pass: the casts of the old ones are lost.
        return nullcontext() if self._is_offloaded() else keep_casts(self.device)


def images_per_mask(*maps_BHW: Array | None) -> int:
    """Return n where each run of n images has the same mask and edges, as large as it can be."""
    given = [maps for maps in maps_BHW if maps is not None]
    count = len(given[0])
    new = [any((maps[i] != maps[i - 1]).any() for maps in given) for i in range(1, count)]
    starts = np.flatnonzero([True, *new])
    lengths = np.diff([*starts, count])
    return int(np.gcd.reduce(lengths))

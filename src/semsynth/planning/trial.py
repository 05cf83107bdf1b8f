"""A recipe's run on random images: the steps, validation and generation of `semsynth train`.

With real tensors their time is measured (``timing``), in a dry run their memory (``memory``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from semsynth.core.devices import Precision
from semsynth.data.augment import AUGMENT_PARAMS
from semsynth.data.labels import LabelSet
from semsynth.data.loader import Batch
from semsynth.diffusion.config import DEFAULT_GUIDANCE, SamplerSettings
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.sampling import OnStep, make_scheduler, set_timesteps
from semsynth.diffusion.schedule import Schedule
from semsynth.models.codecs.codec import Codec, PixelCodec, normalize_images, open_codec
from semsynth.models.codecs.vae import VaeCodec
from semsynth.models.codecs.vae_costs import find_config, fresh_vae
from semsynth.models.lite2 import EfficientNetLite2
from semsynth.models.sdm.condition import Condition
from semsynth.pipelines.formats.model_file import fresh_network
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.planning.memory_tracker import unset_fake_temporarily
from semsynth.training.distill.diversity import OCTAVES, Details
from semsynth.training.distill.losses import PixelLoss
from semsynth.training.distill.state import make_adversary
from semsynth.training.distill.step import distill_step
from semsynth.training.recipe import Recipe, latent_size, sampling_size, with_changes
from semsynth.training.state import (
    Ema,
    TrainState,
    enable_checkpointing,
    make_optimizer,
    set_memory_format,
)
from semsynth.training.step import TrainContext, train_step
from semsynth.training.validation import batch_loss


class TrialRun:
    """One process of a training, without a folder and without data.

    Attributes:
        recipe: of the training; one process has all of its batch.
        state: network, optimizer, average, as ``train_step`` takes them.
        synthesizer: generates with the averaged weights.
        codec: of the recipe, its weights randomly initialised. An autoencoder whose configuration
            is not known is left out: latents are given.
    """

    def __init__(self, recipe: Recipe, label_channels: int, device: torch.device) -> None:
        """Build what a training builds; see ``trial_run``."""
        self.recipe, self.label_channels, self.device = recipe, label_channels, device
        torch.manual_seed(recipe.seed)
        # Previews and scores are of the model before it is distilled.
        self.diffusion = recipe.diffusion_config.model_copy(update={"evaluations": 0})
        unet = fresh_network(recipe.model, self.diffusion, label_channels).to(device)
        vae = recipe.model.vae
        self.codec: Codec = (
            open_codec(recipe.model) if vae is None else fresh_vae(vae) or PixelCodec()
        )
        enable_checkpointing(unet, recipe)
        ema = Ema(unet, recipe.train.ema_decay, recipe.train.ema_warmup)
        precision: Precision = "bf16" if recipe.train.precision == "bf16" else "no"
        self.state = TrainState(unet, ema, make_optimizer(recipe, unet), {}, precision)
        loss = DiffusionLoss(Schedule(self.diffusion), recipe.loss)
        accelerator = Accelerator(cpu=device.type == "cpu")
        self.context = TrainContext(recipe, accelerator, self.codec, loss)
        set_memory_format(self.state, recipe, self.context.device)
        labels = LabelSet.from_names({i: f"class {i}" for i in range(label_channels)})
        size = sampling_size(recipe)
        self.synthesizer = Synthesizer(
            ema.module, self.codec, recipe.model, self.diffusion, labels, size
        )
        self.synthesizer.use_precision(precision)
        self.synthesizer.set_compile(recipe.train.compile)

    def batch(self, images: int, given_latents: bool = False) -> Batch:
        """Return random images and masks as a loader gives them.

        Args:
            images: how many.
            given_latents: even where each step encodes its images; without effect for the codecs
                that have no weights.
        """
        recipe, vae = self.recipe, self.recipe.model.vae
        generator = torch.Generator().manual_seed(0)

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(0, high, (images, *shape), generator=generator)

        size, classes = recipe.step_size, self.label_channels
        noise = torch.randn(images, recipe.model.latent_channels, *latent_size(recipe))
        given_latents = vae is not None and (
            given_latents or recipe.train.cache_latents or find_config(vae.source) is None
        )
        return Batch(
            draw(256, 0 if given_latents else recipe.model.image_channels, *size).byte(),
            draw(classes, *size).to(torch.int8 if classes <= 128 else torch.int16),
            None,
            draw(2, *size).byte() if recipe.model.instance_edges else None,
            torch.zeros(images, len(AUGMENT_PARAMS)),
            torch.randn_like(noise) if given_latents else None,
            noise,
        )

    def step(self, batch: Batch, accumulation: int) -> Tensor:
        """Take one optimizer step of all of ``batch``."""
        changes = {"batch_size": len(batch.channels), "accumulation": accumulation}
        context = replace(self.context, recipe=with_changes(self.recipe, **changes))
        self.state.step = 0  # however many there are: it stays in the first phase
        return train_step(self.state, context, batch)

    def distill_step(self, batch: Batch, accumulation: int) -> Tensor:
        """Take one step of the phase ``distill`` of all of ``batch``; with real tensors alone."""
        changes = {"batch_size": len(batch.channels), "accumulation": accumulation}
        context = replace(self.context, recipe=with_changes(self.recipe, **changes))
        if self.state.adversary is None:
            loss = PixelLoss(torch.ones(self.label_channels, device=self.device))
            features = EfficientNetLite2().eval()  # how long they take does not depend on weights
            details = Details((1.0,) * (OCTAVES + 1))
            self.state.adversary = make_adversary(self.recipe, loss, details, features, self.device)
        self.state.step = self.recipe.diffusion_steps + 1  # in the phase, after what begins it
        return distill_step(self.state, context, batch)

    def validate(self, batch: Batch) -> Tensor:
        """Return the validation loss of a batch."""
        return batch_loss(
            self.state.ema.module,
            self.context,
            batch,
            torch.zeros(len(batch.channels), dtype=torch.int64),
        )

    @torch.no_grad()
    def encode_image(self, images: int, size: tuple[int, int]) -> Tensor:
        """Return latents of random images of ``size``, encoded together."""
        image = torch.randint(
            0,
            256,
            (images, self.codec.image_channels, *size),
            dtype=torch.uint8,
            device=self.device,
        )
        return self.codec.encode(normalize_images(image, self.codec.image_bits))

    def encode_mask(self, cache_bytes: int | None = None) -> Condition | Tensor:
        """Encode the mask of one whole image; see ``Synthesizer.encode_channels``."""
        size = sampling_size(self.recipe)
        mask = torch.randint(0, self.label_channels, (1, *size), device=self.device)
        edges = torch.zeros_like(mask) if self.recipe.model.instance_edges else None
        return self.synthesizer.encode_channels(mask.short(), edges, cache_bytes)

    def sample(
        self,
        condition: Condition | Tensor,
        steps: int,
        guidance: float = DEFAULT_GUIDANCE,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return the latent of one whole image after so many steps."""
        settings = SamplerSettings(steps=steps, guidance_scale=guidance)
        with unset_fake_temporarily():  # Diffusers computes its noise levels with NumPy
            scheduler = make_scheduler(self.diffusion, settings.sampler)
            set_timesteps(scheduler, steps)
        generator = torch.Generator().manual_seed(0)
        channels, size = self.recipe.model.latent_channels, latent_size(self.recipe, sampling=True)
        noise = torch.randn(1, channels, *size, generator=generator).to(self.device)
        return self.synthesizer.sample(condition, noise, [generator], scheduler, settings, on_step)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Return the image behind a latent of ``sample``."""
        return self.synthesizer.decode(latent, sampling_size(self.recipe))

    @property
    def has_autoencoder(self) -> bool:
        """Whether the recipe has an autoencoder whose configuration is known."""
        return isinstance(self.codec, VaeCodec)


@contextmanager
def trial_run(
    recipe: Recipe,
    label_channels: int,
    device: torch.device,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[TrialRun]:
    """Give a ``TrialRun``, made in a context.

    Args:
        recipe: as ``resolve_auto`` returns it.
        label_channels: classes with a condition channel.
        device: where it computes.
        context: that of a dry run, or none.
    """
    try:
        with context():
            trial = TrialRun(recipe, label_channels, device)
        yield trial
    finally:
        # As after a training: the next one in this process may have another precision.
        AcceleratorState._reset_state(reset_partial_state=True)

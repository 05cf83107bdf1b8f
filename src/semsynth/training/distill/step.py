"""One step of the phase ``distill``: of the discriminator, then of the generator.

A share of the samples is made from pure noise, the others from noised real images. The images that
the discriminator learns from are those of the generator's step too, features and augmentation
included: that saves a forward pass of both networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from semsynth.core.rng import numpy_rng
from semsynth.data.loader import Batch
from semsynth.models.codecs.codec import normalize_images
from semsynth.training.distill.diff_augment import DiffAugment
from semsynth.training.distill.diversity import class_colors, directions, energy_score
from semsynth.training.distill.losses import PixelLoss, grid_loss, perceptual_distance
from semsynth.training.distill.state import Adversary
from semsynth.training.recipe import Recipe
from semsynth.training.state import TrainState
from semsynth.training.step import (
    Inputs,
    TrainContext,
    clipped_norm,
    drop_masks,
    dropped_masks,
    learning_rate,
    make_inputs,
    phase_at,
    predict,
    step_timesteps,
)

# Generated images are clipped a little outside of [-1, 1]: there gradients end.
_BOUND = 1.2
# Shares of the timesteps between which real images are noised, in pairs.
_CLEANEST, _NOISIEST = 0.05, 0.75
NAMES = (
    "loss",
    "generator_loss",
    "discriminator_loss",
    "reconstruction_loss",
    "perceptual_loss",
    "diversity_loss",
    "grid_loss",
    "diffusion_loss",
    "real_accuracy",
    "generated_accuracy",
    "grad_norm",
)


@dataclass(frozen=True)
class _Seen:
    """What the discriminator sees of a micro-batch.

    Attributes:
        image: augmented, (B, 3, H, W).
        features: of it.
        target: what its pixels are, (B, H, W).
    """

    image: Tensor
    features: list[Tensor]
    target: Tensor

    def detached(self) -> _Seen:
        """Return it without the generator's gradients."""
        return _Seen(self.image.detach(), [x.detach() for x in self.features], self.target)

    def of(self, places: slice, chosen: Tensor) -> _Seen:
        """Return those samples of some places that are chosen, (places,) bool."""
        image, target = (x[places][chosen] for x in (self.image, self.target))
        return _Seen(image, [x[places][chosen] for x in self.features], target)


@dataclass(frozen=True)
class _Made:
    """What the generator made of a micro-batch.

    Attributes:
        latents: predicted, (B, C, h, w).
        image: of them, (B, 3, H, W).
        seen: what is seen of their images.
        real: what is seen of the real images of the same masks.
    """

    latents: Tensor
    image: Tensor
    seen: _Seen
    real: _Seen


def distill_step(state: TrainState, context: TrainContext, batch: Batch) -> Tensor:
    """Take a step of both optimizers; return the numbers of ``NAMES`` on the device."""
    assert state.adversary is not None
    begin_step(state, context.recipe)
    step = _Step(state, context, batch, state.adversary)
    made = step.train_discriminator()
    norm = step.train_generator(made)
    state.ema.update(state.plain_unet)
    state.step += 1
    return torch.cat([step.sums / len(step.inputs.x0), norm])


def in_words(values: Mapping[str, float]) -> str:
    """Return the numbers of ``NAMES`` for a line on the terminal."""
    losses = (f"{name} {values[f'{name}_loss']:.2f}" for name in ("generator", "discriminator"))
    found = (f"{name} {values[f'{name}_accuracy']:.0%}" for name in ("real", "generated"))
    return f"{', '.join(losses)}, recognised: {', '.join(found)}"


def begin_step(state: TrainState, recipe: Recipe) -> None:
    """Set what the phase sets; at its start both networks begin with the averaged weights."""
    assert state.adversary is not None
    section = recipe.distill
    _, step = phase_at(recipe, state.step)
    if step == 0:
        state.optimizer.state.clear()
        with torch.no_grad():
            for weight, average in zip(
                state.plain_unet.parameters(), state.ema.module.parameters(), strict=True
            ):
                weight.copy_(average)
    rate = learning_rate(section, step)
    share = section.discriminator_learning_rate / section.learning_rate
    for optimizer, factor in ((state.optimizer, 1.0), (state.adversary.optimizer, share)):
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = rate * factor, section.betas
    state.ema.decay = section.ema_decay
    state.unet.train()


class _Step:
    """The parts of one step of a process.

    Attributes:
        inputs: of its share of the batch.
        sums: over its images: of the numbers of ``NAMES`` but the last.
    """

    def __init__(
        self, state: TrainState, context: TrainContext, batch: Batch, adversary: Adversary
    ) -> None:
        self.state, self.context, self.adversary = state, context, adversary
        recipe, device, slots = context.recipe, context.device, context.slots
        self.section = recipe.distill
        dropped = dropped_masks(recipe, state.step, slots, self.section.mask_dropout)
        drop_masks(batch, dropped)
        t = noise_levels(recipe, state.step, slots, context.loss.schedule.timesteps)
        is_noise = t == context.loss.schedule.timesteps - 1
        # Of the samples: those that the energy score compares.
        self.is_paired = is_noise | self.section.noised_pairs
        if self.section.diversity_weight:
            _share_masks(batch, self.is_paired)
        self.inputs: Inputs = make_inputs(state, context, batch)
        pixels = normalize_images(batch.images.to(device))
        self.content = None if batch.content is None else batch.content.to(device)
        self.target = self.loss.target(batch.channels.to(device), self.content)
        self.pixels = pixels
        self.t = t.to(device)
        augmented = [slot % _drawn_apart(recipe) for slot in slots]
        kinds = self.section.diff_augment
        self.augment = DiffAugment.of(kinds, recipe.seed, state.step, augmented)
        self.parts = self._parts(len(pixels))
        self.sums = torch.zeros(len(NAMES) - 1, device=device)

    @property
    def loss(self) -> PixelLoss:
        return self.adversary.loss

    def _parts(self, n: int) -> list[Tensor]:
        """Return the places of the micro-batches; the two samples of a pair are in one."""
        train = self.context.recipe.train
        of_a_pair = train.batch_size // _drawn_apart(self.context.recipe)
        places = torch.arange(n).view(of_a_pair, -1)
        return [part.flatten() for part in places.chunk(train.accumulation, dim=1)]

    def train_discriminator(self) -> _Made | None:
        """Take the discriminator's step; return the generator's images with their gradients.

        None with ``train.accumulation``, where the gradients would take too much memory: then they
        are made again.
        """
        discriminator, optimizer = self.adversary.discriminator, self.adversary.optimizer
        discriminator.update_norms()
        is_whole = len(self.parts) == 1
        made: _Made | None = None
        for part in self.parts:
            with torch.set_grad_enabled(is_whole), self._unsynchronised(self._is_last_pass(part)):
                made = self._generate(part)
            loss = self._discriminator_loss(made.real, made.seen.detached())
            (loss * (len(made.latents) / len(self.pixels))).backward()
        self._average_gradients()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return made if is_whole else None

    def train_generator(self, made: _Made | None) -> Tensor:
        """Take the generator's step; return its gradient's norm, (1,).

        Args:
            made: of ``train_discriminator``.
        """
        state, context = self.state, self.context
        self.adversary.discriminator.requires_grad_(False)
        for part in self.parts:
            share = len(part) / len(self.pixels)
            with self._unsynchronised(self._is_last_pass(part)):
                loss = self._generator_loss(part, made or self._generate(part))
                context.accelerator.backward(loss * share)
            if self.section.diffusion_weight:
                with self._unsynchronised(part is self.parts[-1]):
                    context.accelerator.backward(self._diffusion_loss(part) * share)
        self.adversary.discriminator.requires_grad_(True)
        norm = clipped_norm(state, context)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        return norm

    def _is_last_pass(self, part: Tensor) -> bool:
        """Return whether the generator's adversarial pass of a part is the step's last one."""
        return part is self.parts[-1] and not self.section.diffusion_weight

    def _unsynchronised(self, last: bool) -> AbstractContextManager[None]:
        """Return the context of a pass whose gradients the processes average now (the last)."""
        if last:
            return nullcontext()
        waits: AbstractContextManager[None] = self.context.accelerator.no_sync(self.state.unet)
        return waits

    def _generate(self, part: Tensor) -> _Made:
        """Generate from a part of the batch."""
        state, inputs, context = self.state, self.inputs, self.context
        x0, noise, t = inputs.x0[part], inputs.noise[part], self.t[part]
        schedule = context.loss.schedule
        is_noise = (t == schedule.timesteps - 1)[:, None, None, None]
        x = torch.where(is_noise, noise, schedule.noised(x0, noise, t))
        with context.autocast(state.precision):
            latents = predict(state, inputs, part, x, t).float()
        image = context.codec.decode(latents).clamp(-_BOUND, _BOUND)
        if self.content is not None:
            image = torch.where(self.content[part], image, self.pixels[part])
        with torch.no_grad():
            real = self._see(self.pixels[part], part)
        return _Made(latents, image, self._see(image, part), real)

    def _see(self, image: Tensor, part: Tensor) -> _Seen:
        image, target = self.augment[part](image, self.target[part])
        with self.context.autocast(self.state.precision):
            return _Seen(image, self.adversary.features(image), target)

    def _logits(self, seen: _Seen) -> list[Tensor]:
        with self.context.autocast(self.state.precision):
            found: list[Tensor] = self.adversary.discriminator(seen.image, seen.features)
        return found

    def _discriminator_loss(self, real: _Seen, generated: _Seen) -> Tensor:
        of_real, of_generated = self._logits(real), self._logits(generated)
        loss = self.loss.real(of_real, real.target)
        loss = loss + self.loss.generated(of_generated, generated.target)
        self._add(
            discriminator_loss=loss,
            real_accuracy=self.loss.taken_for_real(of_real, real.target),
            generated_accuracy=1 - self.loss.taken_for_real(of_generated, generated.target),
        )
        return loss.mean()

    def _generator_loss(self, part: Tensor, made: _Made) -> Tensor:
        section = self.section
        adversarial = self.loss.real(self._logits(made.seen), made.seen.target)
        alpha, _ = self.context.loss.schedule.coefficients(self.t[part], made.latents)
        known = alpha[:, 0, 0, 0] ** 2  # the share of the image that its noise has left
        reconstruction = known * self._squared_error(part, made.latents)
        perceptual = torch.zeros_like(known)
        if section.perceptual_weight:
            perceptual = known * perceptual_distance(made.seen.features, made.real.features)
        total = adversarial + section.reconstruction_weight * reconstruction
        total = total + section.perceptual_weight * perceptual
        diversity = self._energy_score(part, made)
        total = total + section.diversity_weight * diversity
        grid = grid_loss(made.image, self.context.codec.downscale)
        total = total + section.grid_weight * grid
        self._add(
            loss=total,
            diversity_loss=diversity,
            grid_loss=grid,
            generator_loss=adversarial,
            reconstruction_loss=reconstruction,
            perceptual_loss=perceptual,
        )
        return total.mean()

    def _energy_score(self, part: Tensor, made: _Made) -> Tensor:
        """Return the energy scores (B,) of pairs, at both of their images; 0 elsewhere."""
        section = self.section
        scores = torch.zeros(len(part), device=made.latents.device)
        half = len(part) // 2
        paired = self.is_paired[part[:half]].to(scores.device)
        if not section.diversity_weight or not paired.any():
            return scores
        # Both have one real image and one augmentation.
        seen = [made.seen.of(slice(i, i + half), paired) for i in (0, half)]
        seen.append(made.real.of(slice(0, half), paired))
        found = energy_score(*(directions(x.features) for x in seen))
        if (details := self.adversary.details) is not None:
            found = found + section.detail_weight * energy_score(*(details(x.image) for x in seen))
        if section.color_weight:
            classes = self.loss.classes
            colors = (class_colors(x.image, x.target, classes) for x in seen)
            found = found + section.color_weight * energy_score(*colors)
        return scores.masked_scatter(paired.repeat(2), found.repeat(2))

    def _squared_error(self, part: Tensor, latents: Tensor) -> Tensor:
        """Return the mean squared errors to the real images (B,), without padding."""
        inputs = self.inputs
        error = (latents - inputs.x0[part]) ** 2
        if inputs.weight is None:
            return error.mean((1, 2, 3))
        counts = inputs.weight[part]
        total = (error * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3)).clamp(min=1)
        return total / error.shape[1]

    def _diffusion_loss(self, part: Tensor) -> Tensor:
        state, inputs, context = self.state, self.inputs, self.context
        t = step_timesteps(context.recipe, context.loss, state.step, context.slots)[part]
        weight = None if inputs.weight is None else inputs.weight[part]
        pairs = (inputs.x0[part], inputs.noise[part], t.to(context.device), weight)
        with context.autocast(state.precision):
            network = partial(predict, state, inputs, part)
            loss = context.loss(network, *pairs, context.channel_weights).total
        weighted = self.section.diffusion_weight * loss
        self._add(loss=weighted, diffusion_loss=loss)
        return weighted.mean()

    def _add(self, **values: Tensor) -> None:
        for name, value_B in values.items():
            self.sums[NAMES.index(name)] += value_B.detach().sum()

    def _average_gradients(self) -> None:
        """Give the discriminator's gradients the mean over all processes."""
        accelerator = self.context.accelerator
        if accelerator.num_processes == 1:
            return
        weights = [w for w in self.adversary.discriminator.parameters() if w.grad is not None]
        flat = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
        means = accelerator.reduce(flat, "mean").split([w.numel() for w in weights])
        for weight, mean in zip(weights, means, strict=True):
            weight.grad = mean.view_as(weight)


def _drawn_apart(recipe: Recipe) -> int:
    """Return for how many slots of a batch levels and augmentations are drawn.

    With ``distill.diversity_weight`` half of them: a slot and that half a batch after it are a
    pair, which has one level and one augmentation.
    """
    return recipe.train.batch_size // (2 if recipe.distill.diversity_weight else 1)


def _share_masks(batch: Batch, is_paired_B: Tensor) -> None:
    """Give both samples of each pair the first one's image and mask."""
    half = len(is_paired_B) // 2
    pairs = is_paired_B[:half]
    layers = (batch.images, batch.channels, batch.content, batch.edges, batch.augment_params)
    for layer in (*layers, batch.latents):
        if layer is not None:
            layer[half:][pairs] = layer[:half][pairs]


def noise_levels(recipe: Recipe, step: int, slots: range, timesteps: int) -> Tensor:
    """Return the timesteps of a step's samples, (B,), on the CPU: functions of (seed, step, slot).

    ``timesteps`` - 1, which is pure noise, for ``distill.noise_share`` of them; for the others 3/4,
    1/2 or 1/4 of it, with ``distill.noised_pairs`` all from 3/4 down to 1/20.
    """
    share, apart = recipe.distill.noise_share, _drawn_apart(recipe)
    offset = numpy_rng(recipe.seed, "distill levels", step).random()
    noised = [timesteps * n // 4 for n in (3, 2, 1)]
    found = []
    for slot in slots:
        # Spread evenly over the batch, as timesteps are.
        place = (slot % apart + offset) / apart
        if place < share:
            found.append(timesteps - 1)
        else:
            down = (place - share) / (1 - share)
            if recipe.distill.noised_pairs:
                found.append(int(timesteps * (_NOISIEST + down * (_CLEANEST - _NOISIEST))))
            else:
                found.append(noised[min(2, int(3 * down))])
    return torch.tensor(found)

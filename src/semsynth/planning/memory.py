"""The memory of a run, followed through a step and a preview that allocate nothing.

PyTorch runs the real network, loss and backward pass on tensors without storage (FakeTensorMode),
the autoencoder and the generation of an image too, and ``MemoryTracker`` adds up what is alive. So
checkpointing, autocast's copies and the order in which memory comes and goes are those of the code
that trains, not of a formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from semsynth.core.devices import autocast, keep_casts, memory_format
from semsynth.diffusion.guidance import guide
from semsynth.diffusion.loss import DiffusionLoss
from semsynth.diffusion.schedule import Schedule
from semsynth.models.codecs.codec import Codec, make_codec, normalize_images
from semsynth.models.codecs.vae_costs import fresh_vae
from semsynth.models.config import VaeConfig
from semsynth.models.sdm.blocks import Modulation, ResBlock
from semsynth.models.sdm.compiled_norms import compiled_norm_act
from semsynth.models.sdm.condition import AUTO_SHARE, encode_masks, encode_null
from semsynth.models.sdm.label_input import label_input
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.provenance import DEFAULT_GUIDANCE
from semsynth.planning.flops import computed, settled
from semsynth.planning.live_bytes import MemoryTracker
from semsynth.training.inputs.latent_cache import PIXELS_AT_A_TIME
from semsynth.training.metrics import meta_unet
from semsynth.training.recipe import Recipe, latent_size, painted_size
from semsynth.training.validation import VALIDATION_BATCH

Moment = Literal["training", "optimizer", "encoding", "validation", "preview"]


@dataclass(frozen=True)
class StepMemory:
    """Bytes of tensors of one process at the moment when there are most.

    Attributes:
        weights: float32, whatever the precision is.
        optimizer: AdamW's two moments, float32.
        ema: the averaged weights, float32.
        autoencoder: its weights, float32; 0 for another codec, or where nothing is known of it.
        buckets: DistributedDataParallel's copy of the gradients; 0 for one process.
        gradients: at that moment: while activations are at their most, few or none are there.
        activations: all else: what is saved for the backward pass, autocast's copies, the inputs,
            and what is computed at that moment.
        saved: what stands at the end of a step's forward pass; no part of the sum.
        moment: which one it is: ``training`` (forward and backward pass of a micro-batch),
            ``optimizer`` (its step), ``encoding`` (by an autoencoder), ``validation``, ``preview``.
    """

    weights: int
    optimizer: int
    ema: int
    autoencoder: int = 0
    buckets: int = 0
    gradients: int = 0
    activations: int = 0
    saved: int = 0
    moment: Moment = "training"

    @property
    def state(self) -> int:
        """Return what is there all the time."""
        return self.weights + self.optimizer + self.ema + self.autoencoder + self.buckets

    @property
    def total(self) -> int:
        """Return the most that there is at a time."""
        return self.state + self.gradients + self.activations


def step_memory(
    recipe: Recipe, label_channels: int, images: int, world: int = 1, cuda: bool = True
) -> StepMemory:
    """Return the memory of the recipe's training, but for previews (``preview_memory``).

    Args:
        recipe: its ``batch_size`` does not matter, ``images`` do.
        label_channels: classes with a condition channel.
        images: of a micro-batch of one process.
        world: processes.
        cuda: autocast as on a GPU (norms in float32) or as on a CPU (norms in bfloat16).

    Returns:
        The largest of: a micro-batch, the optimizer's step, a validation (of no more images at
        a time than a micro-batch has), encoding by an autoencoder.
    """
    recipe, accumulation = settled(recipe, cuda), recipe.train.accumulation
    with _fake(recipe, label_channels, cuda) as unet:
        state = _state(recipe, unet, world)
        trained = _follow(unet, recipe, images, accumulation)
    state = replace(state, saved=trained["saved"])
    kinds = [
        replace(state, moment="training", **trained),
        replace(state, moment="optimizer", gradients=state.weights),
    ]
    if state.autoencoder and recipe.model.vae is not None:
        size, count = recipe.step_size, images * accumulation
        if recipe.train.cache_latents:
            count = max(1, PIXELS_AT_A_TIME // (size[0] * size[1]))
        encoded = _encoding(recipe.model.vae, count, size)
        kinds.append(replace(state, activations=encoded, moment="encoding"))
    if recipe.train.validate_every:
        with _fake(recipe, label_channels, cuda) as unet, torch.no_grad():
            validated = _follow(unet.eval(), recipe, min(VALIDATION_BATCH, images), 0)
        validated["saved"] = trained["saved"]
        kinds.append(replace(state, moment="validation", **validated))
    return max(kinds, key=lambda kind: kind.total)


def preview_memory(
    recipe: Recipe,
    label_channels: int,
    world: int = 1,
    cuda: bool = True,
    limit: float = math.inf,
) -> StepMemory:
    """Return the memory of painting one whole image, guided, in the midst of training.

    Args:
        recipe: the images' size is its own, not that of its crops.
        label_channels: see ``step_memory``, as for ``world`` and ``cuda``.
        world: processes.
        cuda: autocast as on a GPU.
        limit: of the device. Of what the state leaves of it, a condition may take half.
    """
    recipe = settled(recipe, cuda)
    with _fake(recipe, label_channels, cuda) as unet:
        state = _state(recipe, unet, world)
        free = max(0.0, limit - state.state)
        keep = None if math.isinf(free) else int(AUTO_SHARE * free)
        return replace(state, activations=_painting(unet, recipe, keep), moment="preview")


def _state(recipe: Recipe, unet: SemanticUNet, world: int) -> StepMemory:
    """Return what is there all the time; in FakeTensorMode."""
    sizes = 4 * sum(parameter.numel() for parameter in unet.parameters())
    autoencoder = 0 if recipe.model.vae is None else _vae_bytes(recipe.model.vae)
    return StepMemory(sizes, 2 * sizes, sizes, autoencoder, buckets=sizes if world > 1 else 0)


def largest_batch(
    taken: Callable[[int], float], limit: float, start: int = 1, most: int = 1 << 14
) -> int:
    """Return the largest n of which ``taken(n)`` is at most ``limit``; 0 where not even 1 is.

    Args:
        taken: memory of n images, which grows with n, nearly in proportion; it takes seconds.
        limit: in the same unit.
        start: where to look first.
        most: no more than so many.
    """
    low, high, guess = 0, most + 1, start
    known: list[tuple[int, float]] = []
    while high - low > 1:
        guess = min(max(guess, low + 1), high - 1)
        known = [*known[-1:], (guess, taken(guess))]
        low, high = (guess, high) if known[-1][1] <= limit else (low, guess)
        guess = _line_meets(known, limit) if len(known) > 1 else guess + 1
    return low


def _line_meets(known: list[tuple[int, float]], limit: float) -> int:
    (n, taken), (m, more) = sorted(known)
    slope = (more - taken) / (m - n) if m > n else 0.0
    return m + int((limit - more) // slope) if slope > 0 else 2 * m


@contextmanager
def _fake(recipe: Recipe, label_channels: int, cuda: bool) -> Iterator[SemanticUNet]:
    """Give the recipe's network as tensors that say they are on a CPU and have no storage."""
    unet = meta_unet(recipe, label_channels)
    layout = torch.channels_last if recipe.train.channels_last else torch.contiguous_format
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in unet.modules():
            for name, parameter in module.named_parameters(recurse=False):
                dense = torch.empty(parameter.shape)
                shaped = dense.contiguous(memory_format=layout) if dense.dim() == 4 else dense
                setattr(module, name, nn.Parameter(shaped))
        if recipe.train.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        for block in unet.modules() if cuda and recipe.train.compile != "off" else ():
            if isinstance(block, ResBlock):
                block.norm_act = partial(compiled_norm_act, kernel=_kernel)
        with _casts_of_cuda() if cuda else nullcontext():
            yield unet.train()


def _follow(unet: SemanticUNet, recipe: Recipe, images: int, accumulation: int) -> dict[str, int]:
    """Return the parts of ``StepMemory`` that a micro-batch decides; 0 micro-batches: no backward.

    As ``train_step`` and ``validation_loss`` do it, one after the other.
    """
    model, training = recipe.model, accumulation > 0
    loss_of = DiffusionLoss(Schedule(recipe.diffusion_config), recipe.loss)
    live = MemoryTracker()
    live.ignore(list(unet.parameters()))
    layout = torch.channels_last if recipe.train.channels_last else torch.contiguous_format
    share = images * max(1, accumulation)
    with live:
        if accumulation > 1:  # the gradients of the micro-batches before it
            for parameter in unet.parameters():
                parameter.grad = torch.empty_like(parameter)
                live.mark(parameter.grad)
        size = (share, model.latent_channels, *latent_size(recipe))
        x0 = torch.empty(size).contiguous(memory_format=layout)
        noise, t = torch.empty(size), torch.zeros(share, dtype=torch.int64)
        channels = torch.zeros(share, *recipe.step_size, dtype=torch.int16)
        edges = torch.zeros_like(channels) if model.instance_edges else None
        label_map = label_input(
            unet, model, channels[:images], None if edges is None else edges[:images]
        )
        for parameter in unet.parameters():
            if training:
                parameter.register_post_accumulate_grad_hook(lambda p: _mark(live, p))
        part = slice(0, images)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            return unet(x, t, label_map).sample  # type: ignore[no-any-return]

        with autocast(torch.device("cpu"), computed(recipe)):
            loss = loss_of(predict, x0[part], noise[part], t[part]).total.mean()
        saved = live.now - live.marked
        if training:
            loss.backward()
    return {
        "gradients": live.marked_at_peak,
        "activations": live.peak - live.marked_at_peak,
        "saved": saved,
    }


@lru_cache
def _vae_bytes(vae: VaeConfig) -> int:
    with FakeTensorMode(allow_non_fake_inputs=True):
        codec = fresh_vae(vae)
    return 0 if codec is None else 4 * sum(p.numel() for p in codec.vae.parameters())


@lru_cache
@torch.no_grad()
def _encoding(vae: VaeConfig, count: int, size: tuple[int, int]) -> int:
    """Return the most bytes while an autoencoder encodes so many images, given together."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        codec = fresh_vae(vae)
        assert codec is not None
        live = _live(codec, None)
        with live:
            codec.encode(normalize_images(torch.empty(count, 3, *size, dtype=torch.uint8)))
    return live.peak


@torch.no_grad()
def _painting(unet: SemanticUNet, recipe: Recipe, keep: int | None) -> int:
    """Return the most bytes while one whole image is painted, as ``preview`` does it.

    Args:
        unet: the network, which becomes as its average is: without gradients.
        recipe: what it is of.
        keep: see ``SemanticUNet.encode``.
    """
    model, device = recipe.model, torch.device("cpu")
    unet.eval().requires_grad_(False)
    codec = (
        make_codec(model.codec, model.haar_levels) if model.vae is None else fresh_vae(model.vae)
    )
    precision = computed(recipe)
    layout = memory_format(precision)
    live = _live(codec, unet)
    with live:
        channels = torch.zeros(1, *painted_size(recipe), dtype=torch.int16)
        edges = channels if model.instance_edges else None
        size = latent_size(recipe, painted=True)
        shape = (1, model.latent_channels, *size)
        # The noise, x, and what DPM-Solver++ remembers of two steps.
        held = [torch.empty(shape) for _ in range(4)]
        t = torch.zeros(1, dtype=torch.int64)
        with autocast(device, precision):
            condition = encode_masks(unet, model, channels, edges, keep)
            null = encode_null(unet, *size)
        with keep_casts(device):
            for _ in range(2):  # in the second pass all weights have been cast
                x = held[0].contiguous(memory_format=layout)
                with autocast(device, precision):
                    both = unet(x, t, condition, null)
                output = guide(
                    both.sample, both.null_sample, DEFAULT_GUIDANCE, model.latent_channels
                ).float()
                del both
                x0 = output[:, : model.latent_channels] - x
                x0 = x0 if codec is None else codec.clip(x0)
                del output, x
        del null, held
        if codec is not None:
            codec.decode(x0).clamp(-1, 1)
    return live.peak


def _live(codec: Codec | None, unet: SemanticUNet | None) -> MemoryTracker:
    live = MemoryTracker()
    for network in (getattr(codec, "vae", None), unet):
        if network is not None:
            live.ignore(list(network.parameters()))
    return live


def _mark(live: MemoryTracker, parameter: Tensor) -> None:
    if parameter.grad is not None:
        live.mark(parameter.grad)


@contextmanager
def _casts_of_cuda() -> Iterator[None]:
    """Make a CPU's autocast cast as CUDA's does: norms in float32, addcmul in the widest type.

    Of the operations that the two treat differently these are the ones that the network has
    ("CUDA ops that autocast to float32" and "that promote", PyTorch's documentation of amp).
    """
    library = torch.library.Library("aten", "IMPL")

    def widened(operation: Any, always: bool) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            floats = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
            if always or any(a.dtype == torch.float32 for a in floats):
                args = tuple(a.float() if isinstance(a, Tensor) else a for a in args)
            with torch.autocast("cpu", enabled=False):
                return operation(*args, **options)

        return run

    library.impl("group_norm", widened(torch.group_norm, True), "AutocastCPU")
    library.impl("addcmul", widened(torch.addcmul, False), "AutocastCPU")
    try:
        yield
    finally:
        library._destroy()


class _Kernel(torch.autograd.Function):
    """The memory of ``fused.norm_silu`` as compiled: it keeps its arguments, and nothing between.

    torch.compile computes single elements again in the backward pass rather than keep them.
    """

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, dtype: torch.dtype, *factors: Tensor) -> Tensor:
        ctx.save_for_backward(x_BCHW, *factors)
        return torch.empty_like(x_BCHW, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x_BCHW, *factors = ctx.saved_tensors
        return torch.empty_like(x_BCHW), None, *(torch.empty_like(part) for part in factors)


def _kernel(
    x_BCHW: Tensor,
    groups: int,
    modulation: Modulation,
    time: Modulation | None,
    dtype: torch.dtype,
) -> Tensor:
    return _Kernel.apply(x_BCHW, dtype, *modulation, *(time or ()))  # type: ignore[no-any-return]

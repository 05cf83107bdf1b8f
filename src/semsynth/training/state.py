"""The state of a training: what changes from step to step, and the keys of its checkpoints.

With ``train.sharding: full`` each process holds a shard of weights, gradients, AdamW's moments and
averaged weights, cut along their first axis; a block's weights are whole on a GPU only while it
computes (FSDP2; ZeRO, arXiv 1910.02054, stage 3). The numbers are those of DistributedDataParallel,
to rounding, and checkpoints are the same: whole tensors by name.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from semsynth.core.devices import Precision
from semsynth.core.logging import logger
from semsynth.data.labels import LabelSet
from semsynth.models.codecs.codec import Codec
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.model_file import ModelFile, fresh_network
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.training.checkpoints.store import each_tensor
from semsynth.training.distill.state import Adversary
from semsynth.training.recipe import Recipe


class Ema:
    """The exponential moving average of a network's weights.

    Attributes:
        module: the averaged network, in evaluation mode.
        updates: how many updates it has had.
    """

    def __init__(self, module: SemanticUNet, decay: float, warmup: bool) -> None:
        """Start from the weights of ``module``; see ``TrainSection`` for the arguments."""
        self.module: SemanticUNet = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.warmup = warmup
        self.updates = 0

    @torch.no_grad()
    def update(self, module: SemanticUNet) -> None:
        """Move a step towards the weights of ``module``."""
        decay = self.decay
        if self.warmup:
            # Else a short run's average is mostly its random start.
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(
            list(self.module.parameters()), list(module.parameters()), weight=1 - decay
        )
        self.updates += 1


@dataclass
class TrainState:
    """All that changes in a training, or that a checkpoint needs to continue it.

    Attributes:
        unet: the network, in Accelerate's wrapper where several processes have it whole.
        ema: its averaged weights.
        optimizer: of its weights.
        metadata: recipe, data set, licence and versions, for the model's files.
        precision: what the network computes in; the run's first start decides what ``auto`` is.
        step: optimizer steps taken.
        adversary: of a recipe with the phase ``distill``.
    """

    unet: Any
    ema: Ema
    optimizer: torch.optim.Optimizer
    metadata: dict[str, Any]
    precision: Precision = "no"
    step: int = 0
    adversary: Adversary | None = None

    @property
    def plain_unet(self) -> SemanticUNet:
        """Return the network without Accelerate's wrapper."""
        return extract_model_from_parallel(self.unet)  # type: ignore[no-any-return]

    def state_dict(self, ema: SemanticUNet) -> dict[str, Any]:
        """Return what a checkpoint holds; all processes call it, and rank 0's is complete.

        Tensors are the training's own, or, of a sharded one, whole copies on rank 0's CPU.

        Args:
            ema: of ``full_ema``.
        """
        unet = self.plain_unet
        options = StateDictOptions(full_state_dict=True, cpu_offload=_is_sharded(unet))
        # PyTorch would take a step of an optimizer that has taken none.
        adversary = self.adversary if self.adversary and self.adversary.optimizer.state else None
        return {
            **({} if adversary is None else {"adversary": adversary.state_dict()}),
            "step": self.step,
            "model": get_model_state_dict(unet, options=options),
            "ema": ema.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": get_optimizer_state_dict(unet, self._optimizer, options=options),
            "precision": self.precision,
            "facts": self.model_metadata,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from a checkpoint or a fork; all processes call it before ``prepare``.

        Args:
            saved: on rank 0, which sends it to the others; theirs is not used.
        """
        several = dist.is_initialized() and dist.get_world_size() > 1
        stopped = saved.get("adversary", {}).get("stopped", False)
        parts = saved.keys() & {"optimizer", "adversary"}
        numbers: list[Any] = [saved.get("step"), saved.get("ema_updates"), parts, stopped]
        if several:
            dist.broadcast_object_list(numbers)
        self.step, self.ema.updates, parts, stopped = numbers
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=several)
        unet = self.plain_unet

        def part(name: str) -> Any:
            # A broadcast sends the memory as it lies, and receives it as a contiguous tensor.
            return each_tensor(saved.get(name, {}), torch.Tensor.contiguous)

        if "optimizer" in parts:
            # Before the weights: PyTorch takes an empty step to make room for the moments.
            set_optimizer_state_dict(unet, self._optimizer, part("optimizer"), options=options)
            for group in self.optimizer.param_groups:
                group["betas"] = tuple(group["betas"])  # lists after the transfer
        set_model_state_dict(unet, part("model"), options=options)
        set_model_state_dict(self.ema.module, part("ema"), options=options)
        if "adversary" in parts and self.adversary is not None:
            self.adversary.load_state_dict(part("adversary"), options)
            self.adversary.progress.stopped = stopped

    def is_finished(self, recipe: Recipe) -> bool:
        """Return whether there are no more steps to take."""
        stopped = self.adversary is not None and self.adversary.progress.stopped
        return stopped or self.step >= recipe.total_steps

    def restore_good(self) -> None:
        """Take the average and the step of a phase that stopped early, on rank 0; else nothing."""
        progress = None if self.adversary is None else self.adversary.progress
        if progress is not None and progress.stopped and progress.good_weights:
            self.ema.module.load_state_dict(progress.good_weights)
            self.step = progress.good_step

    @property
    def model_metadata(self) -> dict[str, Any]:
        """Return the metadata of a model that is saved now."""
        return {**self.metadata, "step": self.step}

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer without Accelerate's wrapper."""
        return getattr(self.optimizer, "optimizer", self.optimizer)


def make_optimizer(recipe: Recipe, unet: SemanticUNet) -> torch.optim.Optimizer:
    """Return the recipe's AdamW, fused."""
    section = recipe.train
    return torch.optim.AdamW(
        unet.parameters(),
        lr=section.learning_rate,
        betas=section.betas,
        weight_decay=section.weight_decay,
        fused=True,
    )


def enable_checkpointing(unet: SemanticUNet, recipe: Recipe) -> None:
    """Switch gradient checkpointing on where the recipe wants it, on its levels."""
    if recipe.train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        unet.checkpoint_levels = recipe.train.checkpoint_levels or unet.checkpoint_levels


def set_memory_format(state: TrainState, recipe: Recipe, device: torch.device) -> None:
    """Give networks and moments, not wrapped yet, their layout in memory and their kernels."""
    train, unet = recipe.train, state.unet
    # Shards have one layout only; convolutions follow the images' all the same.
    if train.has_channels_last(state.precision) and not isinstance(unet, FSDPModule):
        for network in (unet, state.ema.module):
            network.to(memory_format=torch.channels_last)
    for weight, moments in state.optimizer.state.items():
        for name, value in moments.items():
            # The fused AdamW goes through memory, whatever the layout: it must be the weight's.
            if value.shape == weight.shape and value.stride() != weight.stride():
                moments[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
    unet.compile_norms(train.compile, device)


def saved_precision(saved: Mapping[str, Any]) -> Precision | None:
    """Return what a checkpoint's run computed in; None for a fork, which chooses again."""
    return saved.get("precision")


def forked(saved: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the state that a fork of a checkpoint starts with, and the checkpoint's metadata.

    That is weights, their average and how far it has warmed up; optimizer and step start again.
    """
    learned = {name: saved[name] for name in ("model", "ema", "ema_updates")}
    return {"step": 0, **learned}, saved["facts"]


def full_ema(state: TrainState, recipe: Recipe) -> SemanticUNet:
    """Return the averaged network as rank 0 uses it: whole, on its device.

    All processes call it. Where the average is sharded, rank 0 gets a copy (4 bytes a parameter, of
    the CPU for a moment and of its device until it is deleted), and other ranks get back their
    shard, which they cannot compute with.
    """
    average = state.ema.module
    if not _is_sharded(average):
        return average
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(average, options=options)
    if dist.get_rank() != 0:
        return average
    device = next(average.parameters()).device
    with torch.device("meta"):
        classes = average.label_channels - average.instance_edges
        network = fresh_network(recipe.model, recipe.diffusion_config, classes)
    network.load_state_dict(weights, assign=True)
    network.to(device).eval().requires_grad_(False)
    return network


def ema_model_file(
    state: TrainState, recipe: Recipe, labels: LabelSet, ema: SemanticUNet
) -> ModelFile:
    """Return the averaged network (of ``full_ema``) with all that is needed to use it."""
    return ModelFile(
        recipe.model,
        recipe.diffusion_at(state.step),
        labels,
        recipe.height,
        recipe.width,
        ema.state_dict(),
        state.model_metadata,
    )


def ema_synthesizer(
    state: TrainState, recipe: Recipe, codec: Codec, labels: LabelSet, ema: SemanticUNet
) -> Synthesizer:
    """Return what generates with the averaged network (of ``full_ema``), as training computes."""
    diffusion, size = recipe.diffusion_at(state.step), (recipe.height, recipe.width)
    synthesizer = Synthesizer(
        ema, codec, recipe.model, diffusion, labels, size, state.model_metadata
    )
    configure(synthesizer, state, recipe)
    return synthesizer


def configure(synthesizer: Synthesizer, state: TrainState, recipe: Recipe) -> None:
    """Let what generates compute as the training does."""
    synthesizer.use_precision(state.precision)
    synthesizer.set_compile(recipe.train.compile)


def is_sharded(recipe: Recipe, accelerator: Accelerator) -> bool:
    """Return whether each process holds a shard of the state; a single one holds all of it."""
    if recipe.train.sharding == "none":
        return False
    if accelerator.num_processes == 1:
        logger.info("train.sharding=full: a single process holds everything, as without it")
    return int(accelerator.num_processes) > 1


def shard(network: SemanticUNet, device: torch.device) -> None:
    """Keep only this process's shard of a network that is the same in all of them."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    middle = (network.middle1, network.middle_attention, network.middle2)
    for part in (*network.encoder, *middle, *network.decoder, network):
        sharded: FSDPModule = fully_shard(part, mesh=mesh)
        if device.type == "cpu":
            sharded.set_force_sum_reduction_for_comms(True)  # gloo has no mean


def _is_sharded(network: SemanticUNet) -> bool:
    return isinstance(network, FSDPModule)

"""The training's state in shares, one for each process (FSDP2), where a GPU cannot hold all of it.

Weights, gradients, AdamW's moments and averaged weights are cut along their first axis; a block's
weights are whole on a GPU only while it computes (ZeRO, arXiv 1910.02054, stage 3). The numbers are
those of DistributedDataParallel, to rounding, and so are all files.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from semsynth.core.logging import logger
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.training.checkpoints.store import each_tensor
from semsynth.training.recipe import Recipe
from semsynth.training.throughput import meta_unet


def is_shared(recipe: Recipe, accelerator: Accelerator) -> bool:
    """Return whether each process holds a share; one process alone holds all of it, and says so."""
    if recipe.train.sharding == "none":
        return False
    if accelerator.num_processes == 1:
        logger.info("train.sharding=full: this one process holds everything, as without it")
    return int(accelerator.num_processes) > 1


def shard(network: SemanticUNet, device: torch.device) -> None:
    """Keep of a network, the same in all processes, this one's share, on ``device``."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    middle = (network.middle1, network.middle_attention, network.middle2)
    for part in (*network.encoder, *middle, *network.decoder, network):
        whole: FSDPModule = fully_shard(part, mesh=mesh)
        if device.type == "cpu":
            whole.set_force_sum_reduction_for_comms(True)  # gloo knows no mean


def gathered(value: Any, keep: bool) -> Any:
    """Return nested mappings and lists with the tensors that are in shares whole, on the CPU.

    All processes call it with the same names in the same order; what is no share stays as it is.

    Args:
        value: of a ``state_dict``.
        keep: whether this process wants them; else there is None in their place.
    """

    def whole(part: Tensor) -> Tensor | None:
        if not isinstance(part, DTensor):
            return part
        full: Tensor = part.full_tensor()
        return full.detach().cpu() if keep else None

    return each_tensor(value, whole)


def in_shares(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's whole state as ``optimizer`` holds it: the inverse of ``gathered``."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def share(value: Any, like: Tensor) -> Any:
        if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.dim() == 0:
            return value
        # Every process has read the whole file, so that nothing has to be sent.
        mine = value.to(like.device)
        return distribute_tensor(mine, like.device_mesh, like.placements, src_data_rank=None)

    moments = {
        index: {name: share(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": moments}


def whole_average(
    average: SemanticUNet, recipe: Recipe, label_channels: int, accelerator: Accelerator
) -> SemanticUNet:
    """Return the averaged network as rank 0 uses it: whole, on its device.

    All processes call it. Where the average is in shares, a copy is made (4 bytes a parameter, of
    the CPU for a moment and of rank 0's device until it is let go), and other ranks get back their
    share, which they cannot compute with.
    """
    if not isinstance(average, FSDPModule):
        return average
    weights = gathered(average.state_dict(), accelerator.is_main_process)
    if not accelerator.is_main_process:
        return average
    network = meta_unet(recipe, label_channels)
    network.load_state_dict(weights, assign=True)
    network.to(accelerator.device).eval().requires_grad_(False)
    return network

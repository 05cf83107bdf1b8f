"""What a plan is for: processes, their memory, cards; and what is assumed of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from semsynth.core.gpu_specs import Peak

# Assumed, and printed as such: what is no tensor. CUDA's context, its kernels and the workspaces of
# cuBLAS and cuDNN; NCCL's buffers; blocks that PyTorch's allocator holds and cannot use. On a CPU
# the interpreter and the libraries.
CONTEXT, NCCL, FRAGMENTS, PROCESS = 1_000_000_000, 500_000_000, 0.05, 600_000_000
# Assumed: what is left of the speed of one process when several exchange gradients on one node.
SCALING = 0.95


@dataclass(frozen=True)
class Hardware:
    """What a plan is for.

    Attributes:
        cuda: GPUs, or else the CPU at hand.
        gpus: processes, one a GPU.
        memory: bytes of a GPU, or those that are free for the CPU.
        peaks: the cards for which times are estimated.
        utilisation: share of their peak that is assumed to be reached, of all that is computed.
        device: where steps are timed; None: nowhere.
        why_not: what to say then.
    """

    cuda: bool
    gpus: int
    memory: float
    peaks: tuple[Peak, ...]
    utilisation: float
    device: torch.device | None
    why_not: str = "not asked for"

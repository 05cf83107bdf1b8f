"""How many bytes of tensors are alive, and the most that ever were, without allocating them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from semsynth.models.sdm import compiled_norms, unet

__all__ = ["DryRun", "MemoryTracker", "unset_fake_temporarily"]


class MemoryTracker(TorchDispatchMode):
    """Follows the storage of every tensor that operations return, from creation to release.

    Views share their storage, which counts once. What a kernel allocates for itself and frees
    before it returns is not seen. Works with the tensors of a ``DryRun``, which have no storage.

    Attributes:
        now: bytes alive that were created inside (and marked ones).
        marked: those of ``now`` that were given to ``mark``.
        peak: the largest ``now`` so far.
        marked_at_peak: ``marked`` at that moment.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        super().__init__()
        self.now = self.marked = self.peak = self.marked_at_peak = 0
        self._sizes: dict[int, int] = {}
        self._marks: set[int] = set()

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Never count these."""
        for tensor in tensors:
            self._sizes[id(tensor.untyped_storage())] = 0

    def mark(self, tensor: Tensor) -> None:
        """Count a tensor in ``marked`` too, from now until it is released."""
        key = id(tensor.untyped_storage())
        self._created(tensor)
        if key not in self._marks:
            self._marks.add(key)
            self.marked += self._sizes[key]

    def reset_peak(self) -> None:
        """Forget the peak so far."""
        self.peak, self.marked_at_peak = self.now, self.marked

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what it returned."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._created(leaf)
        if self.now > self.peak:
            self.reset_peak()
        return result

    def _created(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._sizes:
            return
        size = storage.nbytes()
        self._sizes[key] = size
        self.now += size
        weakref.finalize(storage, self._released, key)

    def _released(self, key: int) -> None:
        size = self._sizes.pop(key)
        self.now -= size
        if key in self._marks:
            self._marks.remove(key)
            self.marked -= size


class DryRun:
    """Lets code run on tensors that say they are on the CPU and have no storage.

    They are those of PyTorch's FakeTensorMode. Where the code reads a number of one, it reads 1.
    """

    def __init__(self, cuda: bool) -> None:
        """Choose how is cast under autocast: as a GPU does, with compiled norms, or as a CPU does.

        (A fake tensor of a GPU has no backward pass where PyTorch has no GPU.)
        """
        self._cuda, self._mode = cuda, _AnsweringMode(allow_non_fake_inputs=True)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make tensors without storage in this context; those of earlier ones can be used."""
        with ExitStack() as contexts:
            contexts.enter_context(self._mode)
            contexts.enter_context(mock.patch.object(FakeTensor, "__deepcopy__", _deepcopy))
            contexts.enter_context(mock.patch.object(nn.Module, "_apply", _apply))
            if self._cuda:
                for module, name, replacement in (
                    (compiled_norms, "_compiled", lambda: _compiled_norm),
                    (unet, "can_compile", lambda device: True),
                ):
                    contexts.enter_context(mock.patch.object(module, name, replacement))
                contexts.enter_context(_casts_of_cuda())
            yield


class _AnsweringMode(FakeTensorMode):
    """Answers 1 (or yes) where code reads a number that no tensor has, as of a finite loss."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        except DataDependentOutputException:
            dtype = args[0].dtype
            return 1.0 if dtype.is_floating_point else dtype == torch.bool or 1


@torch.no_grad()
def _deepcopy(tensor: FakeTensor, memo: dict[int, Any]) -> Tensor:
    """Do what ``Tensor.__deepcopy__`` does, which copies the storage and so damages memory."""
    if id(tensor) not in memo:
        copied = torch.empty_like(tensor)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(copied, tensor.requires_grad) if is_parameter else copied
    return memo[id(tensor)]  # type: ignore[no-any-return]


@torch.no_grad()
def _apply(module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
    """Do what ``Module._apply`` does (``to``, ``float``), which refuses tensors without storage."""
    for tensor in (*module.parameters(), *module.buffers()):
        converted = convert(tensor)
        if converted is not tensor:
            tensor.data = converted
    return module


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


class _CompiledNorm(torch.autograd.Function):
    """The memory of ``norm_silu`` as compiled: it saves its arguments, and no intermediate.

    torch.compile computes elementwise operations again in the backward pass rather than save them.
    """

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, dtype: torch.dtype, *factors: Tensor) -> Tensor:
        ctx.save_for_backward(x_BCHW, *factors)
        return torch.empty_like(x_BCHW, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x_BCHW, *factors = ctx.saved_tensors
        return torch.empty_like(x_BCHW), None, *(torch.empty_like(part) for part in factors)


def _compiled_norm(
    x_BCHW: Tensor, groups: int, modulation: Any, time: Any, dtype: torch.dtype
) -> Tensor:
    return _CompiledNorm.apply(x_BCHW, dtype, *modulation, *(time or ()))  # type: ignore[no-any-return]

"""How many bytes of tensors are alive, and the most that ever were, without allocating them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryTracker(TorchDispatchMode):
    """Follows the storage of every tensor that operations return, from birth to death.

    Views share their storage, which counts once. What a kernel takes for itself and gives back
    before it returns is not seen. Works with tensors of FakeTensorMode, which have none in truth.

    Attributes:
        now: bytes alive that were made inside (and marked ones).
        marked: those of ``now`` that were given to ``mark``.
        peak: the most of ``now`` so far.
        marked_at_peak: ``marked`` at that moment.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        super().__init__()
        self.now = self.marked = self.peak = self.marked_at_peak = 0
        self._sizes: dict[int, int] = {}
        self._marks: set[int] = set()

    def ignore(self, tensors: Sequence[Tensor]) -> None:
        """Never count these."""
        for tensor in tensors:
            self._sizes[id(tensor.untyped_storage())] = 0

    def mark(self, tensor: Tensor) -> None:
        """Count a tensor apart, as ``marked``, from now to its end."""
        key = id(tensor.untyped_storage())
        self._born(tensor)
        if key not in self._marks:
            self._marks.add(key)
            self.marked += self._sizes[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what it returned."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._born(leaf)
        if self.now > self.peak:
            self.peak, self.marked_at_peak = self.now, self.marked
        return result

    def _born(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._sizes:
            return
        size = storage.nbytes()
        self._sizes[key] = size
        self.now += size
        weakref.finalize(storage, self._died, key)

    def _died(self, key: int) -> None:
        size = self._sizes.pop(key)
        self.now -= size
        if key in self._marks:
            self._marks.remove(key)
            self.marked -= size

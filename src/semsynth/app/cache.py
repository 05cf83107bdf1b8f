"""What was made before, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Kept = TypeVar("Kept")
CACHE_BYTES = 32 << 20


class Cache(Generic[Kept]):
    """What was made before, the latest of it, up to so many bytes; of any thread."""

    def __init__(self, limit: int = CACHE_BYTES, size_of: Callable[[Any], int] = len) -> None:
        """Keep at most ``limit`` bytes, which ``size_of`` counts: by default the length."""
        self.limit, self.size = limit, 0
        self._size_of = size_of
        self._files: OrderedDict[Any, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Kept]) -> Kept:
        """Return what a key has; ``make`` makes it where it is not there."""
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
        made = make()
        with self._lock:
            if key in self._files:
                self.size -= self._size_of(self._files.pop(key))
            self._files[key] = made
            self.size += self._size_of(made)
            while self.size > self.limit:
                self.size -= self._size_of(self._files.popitem(last=False)[1])
        return made

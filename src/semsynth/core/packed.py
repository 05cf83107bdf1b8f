"""Very many texts in memory, packed: as Python objects each takes a hundred bytes."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, MutableMapping, MutableSet, Sequence
from operator import eq
from typing import Generic, TypeVar, overload

S = TypeVar("S")
T = TypeVar("T")


class Items(Sequence[T]):
    """A sequence whose items are made when they are asked for; equal to any with the same items."""

    @abstractmethod
    def _item(self, place: int) -> T:
        """Return the item at a place, from 0 to less than the length."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        """Return an item, or a list of some."""
        places = range(len(self))[index]
        return list(map(self._item, places)) if isinstance(places, range) else self._item(places)

    def __iter__(self) -> Iterator[T]:
        """Go through the items."""
        return map(self._item, range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same items."""
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return False
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]


class Names(Items[str]):
    """Texts in memory, packed: their letters, and 4 bytes each; found by halving if sorted."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Take the texts."""
        self._text = bytearray()
        self._ends = array("I" if array("I").itemsize == 4 else "L", [0])
        self._is_sorted = True
        self._places: dict[str, int] | None = None
        self._found = 0
        for name in names:
            self.append(name)

    def append(self, name: str) -> None:
        """Add a text at the end."""
        data = to_bytes(name)
        if len(self._ends) > 1 and self._is_sorted and data <= self._at(len(self._ends) - 2):
            self._is_sorted = False
        self._text += data
        self._ends.append(len(self._text))
        self._places = None

    def _at(self, place: int) -> bytes:
        return bytes(self._text[self._ends[place] : self._ends[place + 1]])

    def find(self, name: str) -> int | None:
        """Return the place of a text, or None."""
        if not self._is_sorted:
            if self._places is None:
                self._places = {name: place for place, name in enumerate(self)}
            return self._places.get(name)
        data, low, high = to_bytes(name), 0, len(self)
        # Most are asked for in their order, and some several times.
        for place in range(self._found, min(self._found + 2, high)):
            if self._at(place) == data:
                self._found = place
                return place
        while low < high:
            middle = (low + high) // 2
            if self._at(middle) < data:
                low = middle + 1
            else:
                high = middle
        if low == len(self) or self._at(low) != data:
            return None
        self._found = low
        return low

    @property
    def is_sorted(self) -> bool:
        """Whether the texts are sorted, and none is there twice."""
        return self._is_sorted

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self._ends) - 1

    def __contains__(self, name: object) -> bool:
        """Whether a text is there."""
        return isinstance(name, str) and self.find(name) is not None

    def _item(self, place: int) -> str:
        return to_text(self._at(place))

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same texts."""
        if isinstance(other, Names):
            return self._text == other._text and self._ends == other._ends
        return super().__eq__(other)

    __hash__ = None

    def __repr__(self) -> str:
        """Return the texts as a list has them."""
        return repr(list(self))


class Picked(Items[T]):
    """Some items of another sequence, in its order: 4 bytes each."""

    def __init__(self, items: Sequence[T], wanted: Callable[[T], bool] | None = None) -> None:
        """Take the items that are wanted (all by default)."""
        self._items = items
        chosen = (i for i, item in enumerate(items) if wanted is None or wanted(item))
        self._places = array("I", chosen)

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self._places)

    def _item(self, place: int) -> T:
        return self._items[self._places[place]]


class Mapped(Items[T], Generic[S, T]):
    """What a function returns for each item of a sequence; it is called at each look."""

    def __init__(self, items: Sequence[S], function: Callable[[S], T]) -> None:
        """Take the items and the function."""
        self._items, self._function = items, function

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self._items)

    def _item(self, place: int) -> T:
        return self._function(self._items[place])

    def __iter__(self) -> Iterator[T]:
        """Go through the items as the sequence below does, which may read many at once."""
        return map(self._function, self._items)


class NameDict(MutableMapping[str, str]):
    """A few different values for many of the texts in ``Names``: two bytes for each of these."""

    def __init__(self, names: Names) -> None:
        """Take the texts that are expected."""
        self._names = names
        self._numbers = array("H", bytes(2 * len(names)))
        self._values: list[str] = [""]
        self._others: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        """Return the value of a text; KeyError: it has none."""
        place = self._names.find(name)
        if place is None:
            return self._others[name]
        if not self._numbers[place]:
            raise KeyError(name)
        return self._values[self._numbers[place]]

    def __setitem__(self, name: str, value: str) -> None:
        """Set the value of a text."""
        if (place := self._names.find(name)) is None:
            self._others[name] = value
            return
        if value not in self._values[1:]:
            self._values.append(value)
        self._numbers[place] = self._values.index(value, 1)

    def __delitem__(self, name: str) -> None:
        """Take the value of a text away; KeyError: it has none."""
        if (place := self._names.find(name)) is None:
            del self._others[name]
        elif not self._numbers[place]:
            raise KeyError(name)
        else:
            self._numbers[place] = 0

    def __iter__(self) -> Iterator[str]:
        """Go through the texts that have a value."""
        for place, number in enumerate(self._numbers):
            if number:
                yield self._names[place]
        yield from self._others

    def __len__(self) -> int:
        """Return how many texts have a value."""
        return len(self._numbers) - self._numbers.count(0) + len(self._others)

    def __contains__(self, name: object) -> bool:
        """Whether a text has a value."""
        place = self._names.find(name) if isinstance(name, str) else None
        return name in self._others if place is None else bool(self._numbers[place])


class NameSet(MutableSet[str]):
    """Many of the texts in ``Names``: two bytes each; others as usual."""

    def __init__(self, names: Names) -> None:
        """Take the texts that are expected."""
        self._marks = NameDict(names)

    def add(self, name: str) -> None:
        """Add a text."""
        self._marks[name] = "x"

    def discard(self, name: str) -> None:
        """Remove a text, if it is there."""
        self._marks.pop(name, None)

    def __contains__(self, name: object) -> bool:
        """Whether a text is there."""
        return name in self._marks

    def __iter__(self) -> Iterator[str]:
        """Go through the texts."""
        return iter(self._marks)

    def __len__(self) -> int:
        """Return how many texts are there."""
        return len(self._marks)


# Names of files may have bytes that are not text, which Python has as \udc80 and so on.
def to_bytes(text: str) -> bytes:
    """Return a text as bytes, which are sorted as texts are."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """Return what ``to_bytes`` was given."""
    return data.decode("utf-8", "surrogatepass")

"""What the values in a mask mean: ids, names, colours, condition channels, the ignored id."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError, abbreviate

Color = tuple[int, int, int]
Array = npt.NDArray[Any]
MAX_ID = 65535
BLACK: Color = (0, 0, 0)


@dataclass(frozen=True)
class Label:
    """One class of a mask.

    Attributes:
        id: the value in the mask, 0 to 65535.
        name: unique within its set.
        color: RGB, 0 to 255 each, unique within its set.
        channel: its channel of the network's condition; None: the condition is all zeros.
        thing: whether it is countable (a car), unlike stuff (sky).
    """

    id: int
    name: str
    color: Color
    channel: int | None
    thing: bool = False


@dataclass(frozen=True)
class LabelSet:
    """The labels of a data set; ids, names, colours and channels are unique.

    ``ignore_id`` marks unlabelled pixels: the generator generates them, segmenters and scores skip
    them.

    Example:
        >>> labels = LabelSet.from_names({0: "unlabelled", 1: "road", 2: "car"}, ignore_id=0)
        >>> labels.channels
        {'road': 0, 'car': 1}

    Raises:
        UserError: a duplicate, a value out of range, or gaps between the channels.
    """

    labels: tuple[Label, ...]
    ignore_id: int | None = None

    def __post_init__(self) -> None:
        """Check that the set is consistent."""
        _check_unique("id", [label.id for label in self.labels])
        _check_unique("name", [label.name for label in self.labels])
        _check_unique("colour", [label.color for label in self.labels])
        channels = [label.channel for label in self.labels if label.channel is not None]
        _check_unique("channel", channels)
        if not channels:
            raise UserError("labels: no label has a channel; name at least one class")
        if sorted(channels) != list(range(len(channels))):
            raise UserError(f"labels: channels must be 0 to {len(channels) - 1} without gaps")
        for label in self.labels:
            if not 0 <= label.id <= MAX_ID:
                raise UserError(f"labels: id {label.id} ('{label.name}') is outside 0..{MAX_ID}")
            if not all(0 <= part <= 255 for part in label.color):
                raise UserError(f"labels: colour {label.color} ('{label.name}') is outside 0..255")
        if self.ignore_id is not None and self.ignore_id not in self.by_id:
            raise UserError(f"labels: ignore_id {self.ignore_id} is not the id of a label")

    @classmethod
    def from_names(
        cls,
        names: Mapping[int, str],
        ignore_id: int | None = None,
        colors: Mapping[int, Color] | None = None,
        things: Iterable[str] = (),
    ) -> LabelSet:
        """Number the channels in the order of the ids; the ignored id gets none, and is black.

        Labels without an entry in ``colors`` get distinct colours.
        """
        given = dict(colors or {})
        if ignore_id is not None and ignore_id in names and BLACK not in given.values():
            given.setdefault(ignore_id, BLACK)
        missing = [i for i in sorted(names) if i not in given]
        given |= dict(zip(missing, distinct_colors(len(missing), given.values()), strict=True))
        classes = [i for i in sorted(names) if i != ignore_id]
        channels = {i: channel for channel, i in enumerate(classes)}
        countable = set(things)
        labels = (
            Label(i, names[i], given[i], channels.get(i), names[i] in countable)
            for i in sorted(names)
        )
        return cls(tuple(labels), ignore_id)

    @cached_property
    def by_id(self) -> dict[int, Label]:
        """The labels by their ids."""
        return {label.id: label for label in self.labels}

    @cached_property
    def names(self) -> dict[int, str]:
        """The names by ids, in the order of the labels."""
        return {label.id: label.name for label in self.labels}

    @cached_property
    def trainable(self) -> tuple[Label, ...]:
        """All labels but the ignored one."""
        return tuple(label for label in self.labels if label.id != self.ignore_id)

    @cached_property
    def channels(self) -> dict[str, int]:
        """The condition channels by name, in their order; without the labels that have none."""
        pairs = [(label.channel, label.name) for label in self.labels if label.channel is not None]
        return {name: channel for channel, name in sorted(pairs)}

    @property
    def num_channels(self) -> int:
        """The number of channels of the network's condition."""
        return sum(label.channel is not None for label in self.labels)

    @property
    def unlabelled_channel(self) -> int:
        """The condition channel of unlabelled pixels; -1 if they have none."""
        channel = None if self.ignore_id is None else self.by_id[self.ignore_id].channel
        return -1 if channel is None else channel

    @property
    def max_id(self) -> int:
        """The largest id."""
        return max(self.by_id)

    @property
    def mask_dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The type that masks are stored in: uint8, or uint16 when an id is above 255."""
        return np.uint8 if self.max_id <= 255 else np.uint16

    def channel_lut(self) -> npt.NDArray[np.int16]:
        """Return id -> channel as an array of ``max_id + 1`` entries; -1 for no channel."""
        lut = np.full(self.max_id + 1, -1, np.int16)
        for label in self.labels:
            if label.channel is not None:
                lut[label.id] = label.channel
        return lut

    def colorize(self, ids: Array) -> npt.NDArray[np.uint8]:
        """Return ids (H, W) in their colours: (H, W, 3) uint8 RGB. Errors: see ``check_ids``."""
        self.check_ids(ids, "mask")
        lut = np.zeros((self.max_id + 1, 3), np.uint8)
        for label in self.labels:
            lut[label.id] = label.color
        return lut[ids]

    def decode_colors(self, image: Array, where: str = "coloured mask") -> Array:
        """Read a coloured mask (H, W, 3) uint8 RGB back as ids (H, W), exactly.

        Raises:
            UserError: not such an array, or a colour belongs to no label: names the most frequent
                one, how many pixels have it, and the nearest label.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(
                f"{where}: colours are (H, W, 3) uint8, this is {image.shape} {image.dtype}"
            )
        by_code = {_code(label.color): label.id for label in self.labels}
        codes = np.array(sorted(by_code), np.int64)
        pixels = image.astype(np.int64)
        pixels = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
        place = np.minimum(np.searchsorted(codes, pixels), len(codes) - 1)
        unknown = codes[place] != pixels
        if unknown.any():
            raise UserError(f"{where}: {self._unknown_color(pixels[unknown])}")
        ids = np.array([by_code[code] for code in codes.tolist()], self.mask_dtype)
        return ids[place]

    def _unknown_color(self, codes: Array) -> str:
        values, counts = np.unique(codes, return_counts=True)
        code = int(values[counts.argmax()])
        color = (code >> 16, code >> 8 & 255, code & 255)
        near = min(self.labels, key=lambda label: math.dist(label.color, color))
        others = f", nor do {len(values) - 1} other colours" if len(values) > 1 else ""
        return (
            f"colour {color} ({counts.max()} pixels) belongs to no label{others}; the nearest "
            f"label is '{near.name}' {near.color}; JPEG or smoothed masks cannot be read"
        )

    def check_ids(self, ids: Array, where: str) -> None:
        """Check that every pixel is the id of a label.

        Raises:
            UserError: names ``where``, the unknown ids and how many pixels have them.
        """
        if not np.issubdtype(ids.dtype, np.integer):
            raise UserError(f"{where}: a mask holds integers, not {ids.dtype}")
        known = np.zeros(MAX_ID + 1, bool)
        known[list(self.by_id)] = True
        outside = (ids < 0) | (ids > MAX_ID) if ids.dtype.itemsize > 2 else ids < 0
        if not outside.any() and known[ids].all():
            return
        values, counts = np.unique(ids, return_counts=True)
        wrong = [
            (int(value), int(count))
            for value, count in zip(values, counts, strict=True)
            if int(value) not in self.by_id
        ]
        shown = abbreviate([f"{value} ({count} pixels)" for value, count in wrong], 5)
        raise UserError(
            f"{where}: ids outside the labels: {shown}; add them to the labels or fix the "
            f"mask (labels have {min(self.by_id)} to {self.max_id})"
        )

    def with_ignore(self, name: str = "padding") -> LabelSet:
        """Return a set that has an ignored id: this one, or this one and a label ``name``.

        Its id is 255, or the largest free one below, so that masks stay 8-bit where they can.

        For padded images, whose padding must not count as a class, and for filtered ones.
        """
        if self.ignore_id is not None:
            return self
        free = next((i for i in range(255, -1, -1) if i not in self.by_id), self.max_id + 1)
        colors = [label.color for label in self.labels]
        color = BLACK if BLACK not in colors else distinct_colors(1, colors)[0]
        return replace(self, labels=(*self.labels, Label(free, name, color, None)), ignore_id=free)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for ``from_json``."""
        labels = [
            {
                "id": label.id,
                "name": label.name,
                "color": list(label.color),
                "channel": label.channel,
                "thing": label.thing,
            }
            for label in self.labels
        ]
        return {"labels": labels, "ignore_id": self.ignore_id}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "") -> LabelSet:
        """Make a set from what ``to_json`` returned; labels without a colour get distinct ones.

        Args:
            value: with the keys ``labels`` and ``ignore_id``.
            where: the file that it is from, for messages.

        Raises:
            UserError: something is missing or wrong.
        """
        prefix = f"{where}: " if where else ""
        try:
            ignore = value["ignore_id"]
            colors = _stored_colors(value["labels"], ignore)
            labels = tuple(
                Label(
                    int(entry["id"]),
                    str(entry["name"]),
                    color,
                    None if entry["channel"] is None else int(entry["channel"]),
                    bool(entry["thing"]),
                )
                for entry, color in zip(value["labels"], colors, strict=True)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{prefix}labels: {error!r} in a stored label set; was it edited?"
            ) from None
        try:
            return cls(labels, None if ignore is None else int(ignore))
        except UserError as error:
            raise UserError(f"{prefix}{error}") from None


def _stored_colors(entries: Sequence[Mapping[str, Any]], ignore_id: Any) -> list[Color]:
    """Return the colours of stored labels; those that are missing are made as in ``from_names``."""
    given = [None if entry.get("color") is None else _color(entry["color"]) for entry in entries]
    for index, entry in enumerate(entries):
        if given[index] is None and entry["id"] == ignore_id and BLACK not in given:
            given[index] = BLACK
    known = [color for color in given if color is not None]
    made = iter(distinct_colors(len(given) - len(known), known))
    return [next(made) if color is None else color for color in given]


def check_same_labels(first: LabelSet, second: LabelSet, where: str, other: str) -> None:
    """Check that two label sets give the same ids the same names.

    Raises:
        UserError: names the first label that differs; ``where`` and ``other`` name the two sets.
    """
    if first.ignore_id != second.ignore_id:
        raise UserError(
            f"{where}: ignores id {first.ignore_id}, {other} ignores {second.ignore_id}; "
            "use data, samples and segmenter of one label set"
        )
    for i in sorted(first.names.keys() | second.names.keys()):
        one, two = first.names.get(i), second.names.get(i)
        if one != two:
            raise UserError(
                f"{where}: label {i} is {one!r}, in {other} it is {two!r}; "
                "use data, samples and segmenter of one label set"
            )


def check_extra_labels(extra: LabelSet, labels: LabelSet, where: str, other: str) -> None:
    """Check that images of one set can be trained on beside those of another.

    As ``check_same_labels``, but the extra ones may have an ignored id where the others have none:
    `semsynth filter` gives one to data without.

    Args:
        extra: labels of the extra images.
        labels: those of the others.
        where: the extra ones in messages.
        other: the others in messages.

    Raises:
        UserError: names the first label that differs.
    """
    if labels.ignore_id is None and extra.ignore_id not in (None, *labels.names):
        extra = replace(extra, labels=extra.trainable, ignore_id=None)
    check_same_labels(extra, labels, where, other)


def number_values(values: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """Number the values of a map from 1, in their order; 0 stays 0.

    Args:
        values: (H, W) integers from 0.

    Returns:
        (H, W) numbers, and the value of each number from 1.
    """
    found, numbers = np.unique(values, return_inverse=True)
    zeros = int(0 in found[:1])
    return numbers.reshape(values.shape).astype(np.int64) + 1 - zeros, found[zeros:]


def hex_color(color: Sequence[int]) -> str:
    """Return an RGB colour, 0 to 255 each, as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def distinct_colors(n: int, taken: Iterable[Color] = ()) -> list[Color]:
    """Return ``n`` well separated colours, none of them black or in ``taken``.

    Each is the point of an RGB lattice farthest from all before it ("redmean" distance, in
    integers, so that every machine gives the same list); black is reserved for unlabelled.
    """
    side = 9
    while side**3 < 3 * (n + 1):
        side += 4
    steps = np.linspace(0, 255, side).round().astype(np.int64)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    nearest = np.full(len(lattice), np.iinfo(np.int64).max)
    for color in [BLACK, *taken]:
        nearest = np.minimum(nearest, _distance(lattice, color))
    chosen: list[Color] = []
    for _ in range(n):
        color = _color(lattice[int(nearest.argmax())].tolist())
        chosen.append(color)
        nearest = np.minimum(nearest, _distance(lattice, color))
    return chosen


def _distance(colors: Array, color: Sequence[int]) -> npt.NDArray[np.int64]:
    difference = colors - np.array(color, np.int64)
    red = (colors[:, 0] + color[0]) // 2
    weights = np.stack([512 + red, np.full_like(red, 1024), 767 - red], -1)
    squared: npt.NDArray[np.int64] = (weights * difference**2).sum(-1)
    return squared


def _color(value: Sequence[Any]) -> Color:
    red, green, blue = (int(part) for part in value)
    return red, green, blue


def _code(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _check_unique(what: str, values: Sequence[Any]) -> None:
    duplicates = sorted({value for value in values if values.count(value) > 1})
    if duplicates:
        raise UserError(f"labels: {what} {duplicates[0]!r} is used twice; each label needs its own")

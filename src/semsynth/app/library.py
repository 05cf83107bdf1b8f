"""What the studio browses: the masks of a prepared data set or of samples, rare classes first.

The index, how many pixels of each class a mask has, is made once, by a thread beside the server.
Until it is complete the images that were looked at are listed, and the rest after them.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from semsynth.app.cache import Cache
from semsynth.app.label_view import LabelView, class_pixels
from semsynth.app.refused import Refused
from semsynth.core.errors import UserError
from semsynth.core.logging import logger
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import encode_image
from semsynth.data.labels import Array, number_values
from semsynth.data.resize import Size

Counts = npt.NDArray[np.int64]
Json = dict[str, Any]
# Longer side of a thumbnail in pixels.
THUMBNAIL = 128
# A page of a list has at most so many items.
MOST_ITEMS = 200
_ID = re.compile(r"d([0-9]{1,9})")


@dataclass(frozen=True)
class Item:
    """An image of the data, or a mask alone.

    Attributes:
        number: what it is called in addresses.
        split: its split.
        stem: its stem.
    """

    number: int
    split: str
    stem: str

    @property
    def id(self) -> str:
        """What a request calls it: no part of it is a path."""
        return f"d{self.number}"


class Library:
    """The images and masks of a data set for the page.

    Attributes:
        data: the data set.
        items: all of them, by number.
        problem: what was wrong with the first file that could not be read; empty: nothing.
    """

    def __init__(self, data: PreparedDataset) -> None:
        """List the images; ``start`` counts what they show."""
        self.data = data
        splits = data.splits()
        self.items = [
            Item(number, split, stem)
            for number, (split, stem) in enumerate((s, x) for s in splits for x in data.stems(s))
        ]
        self.problem = ""
        self._labels = list(data.labels.trainable)
        self._column = np.full(data.labels.max_id + 1, -1)
        for column, label in enumerate(self._labels):
            self._column[label.id] = column
        # Pixels by class of the images that were looked at, those of the others are -1.
        self._pixels: Counts = np.full((len(self.items), len(self._labels)), -1, np.int64)
        self._thumbnails: Cache[bytes] = Cache()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to make the index, in a thread; nothing waits for it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, daemon=True, name="index of masks")
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def wait(self) -> None:
        """Wait until the index is complete."""
        self.start()
        if self._thread is not None:
            self._thread.join()

    @property
    def indexed(self) -> int:
        """How many images were looked at."""
        return int((self._pixels[:, :1] >= 0).sum())

    def _look(self) -> None:
        for item in self.items:
            if self._stop.is_set():
                return
            try:
                self._pixels[item.number] = self._count(item)
            except (UserError, OSError) as error:
                self._pixels[item.number] = 0
                self.problem = self.problem or str(error)
                logger.warning(str(error))

    def _count(self, item: Item) -> Counts:
        ids = self.data.read_mask(item.split, item.stem)
        top, left, height, width = self.data.content_box(item.split, item.stem)
        self.data.labels.check_ids(ids, str(self.data.mask_path(item.split, item.stem)))
        columns = self._column[ids[top : top + height, left : left + width]]
        return np.bincount(columns[columns >= 0], minlength=len(self._labels)).astype(np.int64)

    def find(self, item_id: str) -> Item:
        """Return an item by what a request calls it.

        Raises:
            Refused: 404, there is none.
        """
        found = _ID.fullmatch(item_id)
        if found is None or int(found[1]) >= len(self.items):
            raise Refused(f"{self.data.root.name}: has no such image", 404)
        return self.items[int(found[1])]

    def classes(self, view: LabelView) -> list[Json]:
        """Return the classes of the data that the model knows, rare first.

        Returns:
            ``id`` of the model, ``share`` of all pixels, ``images`` that have it (None: not yet
            known).
        """
        done = self.indexed == len(self.items)
        images = (self._pixels > 0).sum(0)
        found: dict[int, Json] = {}
        for column, label in enumerate(self._labels):
            if view.names.get(label.name) is None or not self._shares[column]:
                continue
            one = found.setdefault(
                int(view.to_model[label.id]), {"share": 0.0, "images": 0 if done else None}
            )
            one["share"] += float(self._shares[column])
            if done:
                # Of several classes that are one, the most frequent says in how many it is.
                one["images"] = max(one["images"], int(images[column]))
        listed = [{"id": i, **one, "share": round(one["share"], 6)} for i, one in found.items()]
        return sorted(listed, key=lambda one: (one["share"], one["id"]))

    @cached_property
    def _shares(self) -> npt.NDArray[np.float64]:
        """Share of each class in all labelled pixels of the data."""
        used = class_pixels(self.data)
        pixels = np.array([used.get(label.name, 0) for label in self._labels], np.float64)
        return np.asarray(pixels / max(pixels.sum(), 1))

    def page(
        self, view: LabelView, split: str | None, class_id: int | None, span: tuple[int, int]
    ) -> Json:
        """Return a part of the list of images: those of rare classes first.

        Args:
            view: the labels of the model that is open.
            split: only of this split; None: of all.
            class_id: only with this class of the model, largest share first; None: all.
            span: how many to pass over, and how many to return.

        Raises:
            UserError: the data have no such split.
        """
        if split is not None:
            self.data.stems(split)
        columns = None
        if class_id is not None:
            ids = view.back(class_id, self.data.labels)
            columns = [int(self._column[i]) for i in ids]
        order = self._order(columns)
        if split is not None:
            order = [n for n in order if self.items[n].split == split]
        offset, limit = max(span[0], 0), min(max(span[1], 0), MOST_ITEMS)
        return {
            "total": len(order),
            "indexed": self.indexed,
            "of": len(self.items),
            "problem": self.problem,
            "items": [self.describe(n, view) for n in order[offset : offset + limit]],
        }

    def _order(self, columns: list[int] | None) -> list[int]:
        pixels = self._pixels
        known = pixels[:, :1].ravel() >= 0
        if columns is not None:
            count = pixels[:, columns].clip(0).sum(1) if columns else np.zeros(len(pixels))
            order = np.lexsort((np.arange(len(count)), -count))
            return [int(n) for n in order if count[n] > 0]
        rarest = np.where(pixels > 0, self._shares, np.inf)
        column = rarest.argmin(1) if len(self._labels) else np.zeros(len(pixels), int)
        rows = np.arange(len(pixels))
        keys = (rows, -pixels[rows, column], rarest[rows, column], ~known)
        return [int(n) for n in np.lexsort(keys)]

    def describe(self, number: int, view: LabelView) -> Json:
        """Return what the page needs to know of an image; its classes are the model's, rare first.

        Classes are absent while the image was not looked at.
        """
        item, pixels = self.items[number], self._pixels[number]
        total = max(int(pixels.clip(0).sum()), 1)
        shares: dict[int, float] = {}
        for column in sorted(np.flatnonzero(pixels > 0), key=lambda c: (self._shares[c], c)):
            label = self._labels[column]
            if view.names.get(label.name) is not None:
                model_id = int(view.to_model[label.id])
                shares[model_id] = shares.get(model_id, 0.0) + int(pixels[column]) / total
        return {
            "id": item.id,
            "split": item.split,
            "stem": item.stem,
            "size": [self.data.height, self.data.width],
            "image": self.data.record(item.split, item.stem).image,
            "instances": self.data.record(item.split, item.stem).instances,
            "classes": [[i, round(share, 6)] for i, share in shares.items()],
        }

    def mask(self, item: Item, view: LabelView) -> Array:
        """Read a mask in the ids of the model: (H, W).

        Raises:
            UserError: it cannot be read.
        """
        ids = self.data.read_mask(item.split, item.stem)
        self.data.labels.check_ids(ids, f"{item.split}/{item.stem}")
        return view.apply(ids)

    def instances(self, item: Item) -> Array:
        """Read the numbers of the objects of a mask, from 1 without gaps: (H, W) uint16, 0: none.

        Raises:
            Refused: 404, it has no map of objects.
        """
        found = self.data.find_instances(item.split, item.stem)
        if found is None:
            raise Refused(f"{item.split}/{item.stem}: has no map of objects", 404)
        numbers, _ = number_values(found)
        return np.asarray(numbers, np.uint16)

    def image(self, item: Item) -> npt.NDArray[np.uint8]:
        """Read what is shown of an image: (H, W, 3).

        Raises:
            UserError: there is a mask alone, or the file cannot be read.
        """
        if not self.data.record(item.split, item.stem).image:
            raise UserError(f"{item.split}/{item.stem}: is a mask without an image")
        return self.data.read_rgb(item.split, item.stem)

    def thumbnail(self, item: Item) -> bytes:
        """Return a small PNG of the image, or of the coloured mask where there is no image."""
        return self._thumbnails.get(item.number, lambda: self._small(item))

    def _small(self, item: Item) -> bytes:
        if self.data.record(item.split, item.stem).image:
            return encode_image(small(self.image(item)), "png")
        colors = self.data.labels.colorize(self.data.read_mask(item.split, item.stem))
        return encode_image(small(colors, cv2.INTER_NEAREST), "png")

    def same_mask(self, mask: Array, view: LabelView) -> Item | None:
        """Return the first image whose mask is this one, of ids of the model (H, W); None: none.

        Only of those that were looked at; those of the training split come first.
        """
        if mask.shape != (self.data.height, self.data.width):
            return None
        wanted = np.bincount(mask.ravel(), minlength=int(view.to_model.max()) + 1)
        for number in self._with_pixels(wanted, view):
            if np.array_equal(self.mask(self.items[number], view), mask):
                return self.items[number]
        return None

    def _with_pixels(self, wanted: Counts, view: LabelView) -> list[int]:
        """Return the images that have so many pixels of each class of the model."""
        own = [label for label in self._labels if view.names.get(label.name) is not None]
        close = (self._pixels[:, :1] >= 0).ravel()
        for class_id in {int(view.to_model[label.id]) for label in own}:
            ids = view.back(class_id, self.data.labels)
            count = self._pixels[:, [int(self._column[i]) for i in ids]].sum(1)
            close &= count == wanted[class_id]
        numbers = [int(n) for n in np.flatnonzero(close)]
        return sorted(numbers, key=lambda n: self.items[n].split != "train")


def small(pixels: Array, how: int = cv2.INTER_AREA) -> Array:
    """Return an image (H, W, C) whose longer side is at most ``THUMBNAIL``."""
    height, width = pixels.shape[:2]
    scale = THUMBNAIL / max(height, width)
    if scale >= 1:
        return pixels
    size: Size = (max(round(height * scale), 1), max(round(width * scale), 1))
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=how))

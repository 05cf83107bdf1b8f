"""The shelf of objects: what can be taken out of masks of the data whole, as `edit` does it.

Which classes come as objects, and which of their pieces are whole, is what ``edits.scene`` learns.
The masks are looked at by a thread, when the shelf is first asked for.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from semsynth.app.cache import CACHE_BYTES, Cache
from semsynth.app.label_view import LabelView
from semsynth.app.library import MOST_ITEMS, Item, Library
from semsynth.app.outputs import item_facts
from semsynth.app.refused import Refused
from semsynth.augmentation.edits.pair import Cutout, cut_out, read_pair
from semsynth.augmentation.edits.scene import learn
from semsynth.augmentation.edits.survey import ImageSurvey, Piece, Surveyor
from semsynth.core.errors import UserError
from semsynth.core.logging import logger
from semsynth.core.rng import evenly
from semsynth.data.content import digest_bytes
from semsynth.data.image_files.channels import as_rgb, encode_image
from semsynth.data.labels import Array

Json = dict[str, Any]
# Masks that are looked at: enough objects for a shelf. What is known of each takes memory: a number
# for each class and row, and for each class and object.
MOST_MASKS, MOST_BYTES = 500, 64 << 20
# The first objects are shown after so many masks; then after twice as many, and so on.
_FIRST = 16
_ID = re.compile(r"o[0-9a-f]{16}")
# Seconds between two looks for an object that is not found yet.
_WAIT = 0.1


@dataclass(frozen=True)
class ShelfObject:
    """An object of the data.

    Attributes:
        id: what a request calls it: no part of it is a path. Another start of the studio calls it
            the same, and nothing else of other data, since pages keep it.
        number: in the order in which they were found.
        item: its image.
        piece: which of its pixels.
    """

    id: str
    number: int
    item: Item
    piece: Piece


class Shelf:
    """The objects of the training split, or of the first split that has images."""

    def __init__(self, library: Library) -> None:
        """Choose the masks; ``start`` looks at them."""
        self._library, self._data = library, library.data
        self._items = _with_images(library)
        self.of = len(self._items)
        self.indexed = 0
        self._found: list[ShelfObject] = []
        self._by_id: dict[str, ShelfObject] = {}
        self._files: Cache[bytes] = Cache()
        self._cutouts: Cache[Cutout] = Cache(CACHE_BYTES, _bytes_of)
        self._thread: threading.Thread | None = None
        self._lock, self._stop = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Begin to look for objects, in a thread."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, daemon=True, name="objects")
                self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self.wait()

    def wait(self) -> None:
        """Wait until all masks were looked at."""
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        surveyors: dict[str, Surveyor] = {}
        surveys: list[tuple[Item, ImageSurvey]] = []
        shown = _FIRST
        for item in self._items:
            if self._stop.is_set():
                return
            surveyor = surveyors.setdefault(item.split, Surveyor(self._data, item.split))
            try:
                surveys.append((item, surveyor.run(item.stem)))
            except (UserError, OSError) as error:
                logger.warning(str(error))
            count = self.indexed + 1
            if count in (shown, self.of):
                shown *= 2
                self._learn(surveys)
            self.indexed = count

    def _learn(self, surveys: list[tuple[Item, ImageSurvey]]) -> None:
        if not surveys:
            return
        data = self._data
        scene = learn([survey for _, survey in surveys], data.labels, (data.height, data.width))
        items = {(item.split, survey.stem): item for item, survey in surveys}
        split = surveys[0][0].split
        found = []
        for label in np.flatnonzero(scene.objects).tolist():
            for piece in scene.pieces.get(label, []):
                found.append(self._number(items[split, piece.stem], piece))
        self._found = found

    def _number(self, item: Item, piece: Piece) -> ShelfObject:
        """Return an object; one that was found before keeps its number."""
        image = self._data.record(item.split, item.stem).digest
        where = (self._data.info.name, image, item.split, item.stem)
        what = (piece.label, piece.instance, piece.box, piece.pixel)
        key = f"o{digest_bytes(repr((where, what)).encode())[:16]}"
        if key not in self._by_id:
            self._by_id[key] = ShelfObject(key, len(self._by_id), item, piece)
        return self._by_id[key]

    def page(self, view: LabelView, class_id: int | None, span: tuple[int, int]) -> Json:
        """Return a part of the list of objects: those of rare classes first, then the largest.

        Args:
            view: the labels of the model that is open; classes that it does not know are left out.
            class_id: only of this class of the model; None: of all.
            span: how many to pass over, and how many to return.
        """
        self.start()
        names = self._data.labels.names
        known = [x for x in self._found if view.names.get(names[x.piece.label]) is not None]
        count = Counter(int(view.to_model[one.piece.label]) for one in known)
        objects = [
            (int(view.to_model[one.piece.label]), one)
            for one in known
            if class_id in (None, int(view.to_model[one.piece.label]))
        ]
        objects.sort(key=lambda x: (count[x[0]], x[0], -x[1].piece.area, x[1].number))
        offset, limit = max(span[0], 0), min(max(span[1], 0), MOST_ITEMS)
        done = self.indexed == self.of
        return {
            "total": len(objects),
            "line": "no class of the masks comes as whole objects" if done and not known else "",
            "indexed": self.indexed,
            "of": self.of,
            "classes": [{"id": i, "objects": n} for i, n in sorted(count.items(), key=_rare)],
            "items": [_described(i, one) for i, one in objects[offset : offset + limit]],
        }

    def find(self, object_id: str) -> ShelfObject:
        """Return an object by what a request calls it.

        A page may ask for one that it had before the studio was restarted: then this waits until
        it is found, or all masks were looked at.

        Raises:
            Refused: 404, there is none.
        """
        if _ID.fullmatch(object_id) is None:
            raise self._no_such()
        while object_id not in self._by_id:
            done = self._stop.is_set() or self.indexed == self.of
            if done and object_id not in self._by_id:
                raise self._no_such()
            self.start()
            self._stop.wait(_WAIT)
        return self._by_id[object_id]

    def _no_such(self) -> Refused:
        return Refused(f"{self._data.root.name}: has no such object", 404)

    def cutout(self, one: ShelfObject) -> Cutout:
        """Return the object without its surroundings, in ids of the data."""

        def read() -> Cutout:
            return cut_out(read_pair(self._data, one.item.split, one.item.stem), [one.piece])

        return self._cutouts.get(one.number, read)

    def facts(self, one: ShelfObject) -> Json:
        """Return where an object is from, as metadata say it."""
        name = self._data.labels.names[one.piece.label]
        return {"class": name, **item_facts(one.item, self._library), "box": _box(one.piece)}

    def shown(self, one: ShelfObject) -> bytes:
        """Return the object without its surroundings: a PNG with transparency, of its box."""
        return self._files.get(("image", one.number), lambda: self._encode(one, True))

    def region(self, one: ShelfObject) -> bytes:
        """Return which pixels of its box are of the object: a PNG of 0 and 255."""
        return self._files.get(("region", one.number), lambda: self._encode(one, False))

    def _encode(self, one: ShelfObject, with_image: bool) -> bytes:
        found = self.cutout(one)
        alpha = found.shape.astype(np.uint8) * np.uint8(255)
        if not with_image:
            return encode_image(alpha, "png")
        return encode_rgba(self._rgb(found), alpha)

    def _rgb(self, found: Cutout) -> Array:
        form = self._data.pixels
        return found.image if form.is_rgb else as_rgb(found.image, form.bits)


def _with_images(library: Library) -> list[Item]:
    """Return the images whose objects are looked for: evenly spread, of one split."""
    data = library.data
    for split in sorted(data.splits(), key=lambda name: name != "train"):
        of_split = [item for item in library.items if item.split == split]
        found = [item for item in of_split if data.record(split, item.stem).image]
        if found:
            each = (data.height + 64) * (data.labels.max_id + 1) * 8
            return evenly(found, min(MOST_MASKS, max(MOST_BYTES // each, _FIRST)))
    return []


def _rare(pair: tuple[int, int]) -> tuple[int, int]:
    return pair[1], pair[0]


def _described(class_id: int, one: ShelfObject) -> Json:
    return {
        "id": one.id,
        "item": one.item.id,
        "class": class_id,
        "box": _box(one.piece),
        "pixels": one.piece.area,
    }


def _box(piece: Piece) -> list[int]:
    """Return top, left, height, width."""
    top, left, bottom, right = piece.box
    return [top, left, bottom - top, right - left]


def _bytes_of(cutout: Cutout) -> int:
    return cutout.image.nbytes + cutout.parts.nbytes


def encode_rgba(rgb: Array, alpha: Array) -> bytes:
    """Return an image (H, W, 3) with its opacity (H, W), both uint8, as a PNG.

    What cannot be seen is black: files are smaller, and nothing of it is passed on.
    """
    pixels = np.dstack([rgb * (alpha[..., None] > 0), alpha]).astype(np.uint8)
    return encode_image(np.ascontiguousarray(pixels[..., [2, 1, 0, 3]]), "png")

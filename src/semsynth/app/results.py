"""The images that were made, with all that makes them again, in bounded memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from semsynth.app.config import RESULT_BYTES
from semsynth.app.refused import Refused
from semsynth.data.labels import Array
from semsynth.diffusion.config import SamplerSettings

if TYPE_CHECKING:
    from semsynth.app.transplants import Pasted
    from semsynth.pipelines.from_image import FromImage


@dataclass(frozen=True)
class Result:
    """An image and what it was made of: ``synthesizer.generate`` of these gives the same bytes.

    Objects that are only pasted lie over what it gives.

    Attributes:
        model: id of the model.
        mask_HW: the ids as the model got them, scaled to its size; unlabelled pixels have
            ``StudioModel.unlabelled``.
        image_HWC: the image, of the model's channels and bits.
        png: what the page shows of it.
        seed: of the noise.
        settings: of the sampler, complete.
        edges_HW: borders of objects, for a model that knows them; None for others.
        instances_HW: numbers of the objects that the page knows, of the model's size; 0: none.
            None: it said nothing of objects.
        variation: (seed, amount) of ``Synthesizer.generate``; None: none.
        real: image to start from, strength and region, each of one image; None: from noise.
        pasted: objects that are pasted into it as they are; None: there are none.
        begun: how it was begun from images, JSON values of its metadata.
        items: ids of the images of the data whose pixels it may show.
        quality: ``live`` or ``final``.
        seconds: that it took.
        note: what the page says of it; empty where there is nothing to say.
        id: what it is known by in requests.
    """

    model: str
    mask_HW: Array
    image_HWC: Array
    png: bytes
    seed: int
    settings: SamplerSettings
    edges_HW: Array | None = None
    instances_HW: Array | None = None
    variation: tuple[int, float] | None = None
    real: FromImage | None = None
    pasted: Pasted | None = None
    begun: dict[str, Any] = field(default_factory=dict)
    items: tuple[str, ...] = ()
    quality: str = "final"
    seconds: float = 0.0
    note: str = ""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        arrays = [self.mask_HW, self.image_HWC]
        arrays += [x for x in (self.edges_HW, self.instances_HW) if x is not None]
        if self.real is not None:
            arrays.append(self.real.images_BHWC)
            if self.real.regions_BHW is not None:
                arrays.append(self.real.regions_BHW)
        pasted = 0 if self.pasted is None else self.pasted.n_bytes
        return sum(array.nbytes for array in arrays) + len(self.png) + pasted


@dataclass(frozen=True)
class Upload:
    """An image that a user gave to start from.

    Attributes:
        image_HWC: RGB of 8 bits.
        png: what the page shows of it.
        id: what it is known by in requests.
    """

    image_HWC: Array
    png: bytes
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))

    @property
    def items(self) -> tuple[str, ...]:
        """It shows no image of the data."""
        return ()

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return int(self.image_HWC.nbytes) + len(self.png)


class ResultStore:
    """Results and uploads by id; the oldest are dropped where they take more than ``limit``."""

    def __init__(self, limit: int = RESULT_BYTES) -> None:
        """Keep at most ``limit`` bytes, but always the newest."""
        self.limit = limit
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def add(self, entry: Result | Upload) -> None:
        """Keep a result or an upload."""
        with self._lock:
            self._kept[entry.id] = entry
            self._bytes += entry.n_bytes
            while self._bytes > self.limit and len(self._kept) > 1:
                _, old = self._kept.popitem(last=False)
                self._bytes -= old.n_bytes

    def find(self, name: str) -> Result | Upload | None:
        """Return what has an id, which is the newest now; None where it is not kept."""
        with self._lock:
            entry: Result | Upload | None = self._kept.get(name)
            if entry is not None:
                self._kept.move_to_end(name)
            return entry

    def get(self, name: str) -> Result:
        """Return the result of an id.

        Raises:
            Refused: 404, it is no longer kept, or there never was one.
        """
        entry = self.find(name)
        if not isinstance(entry, Result):
            raise Refused("this image is no longer kept: generate it again", 404)
        return entry

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._kept)

"""From a request of the page to an image, by the same code as `semsynth generate`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from semsynth.app.label_view import UNLABELLED
from semsynth.app.models import StudioModel
from semsynth.app.queue import Turn
from semsynth.app.refused import Refused
from semsynth.app.results import Result
from semsynth.app.transplants import (
    MOST_OBJECTS,
    Pasting,
    PlacedOrder,
    Transplant,
    check_instances,
)
from semsynth.app.uploads import scaled, scaled_image
from semsynth.augmentation.edits.survey import Bools
from semsynth.core.config import Config
from semsynth.data.content import digest_bytes
from semsynth.data.image_files.channels import as_rgb, encode_image
from semsynth.data.labels import Array
from semsynth.diffusion.config import (
    DEFAULT_STRENGTH,
    SamplerName,
    SamplerSettings,
    check_strength,
)
from semsynth.pipelines.from_image import FromImage


class VariationOrder(Config):
    """How far to turn the noise towards that of another seed."""

    seed: int = Field(ge=0, lt=2**63)
    amount: float = Field(ge=0, le=1)


class Order(Config):
    """What the page asks for beside the mask: the part ``request`` of `POST /api/generate`.

    Attributes:
        client: the page.
        lane: its place that shows the image.
        number: larger than that of any earlier request of the lane.
        model: id; None: the first one.
        seed: of the noise.
        steps: of the sampler; None: the model's own. So for guidance and scheduler.
        quality: ``live``, the cheapest sampler whatever is given; ``final``, as given.
        strength: of starting from ``source``; None: 1 with ``keep``, else 0.5.
        source: id of an item, an upload or a result to start from.
        keep: only the part ``region`` is regenerated.
        variation: towards another seed's noise.
        objects: of the shelf, whose own pixels are pasted into the image; needs ``instances``.
        object_strength: from how much noise these pixels are made part of it, as ``strength``;
            None: ``OBJECT_STRENGTH``.
    """

    client: str = Field(min_length=1, max_length=64)
    lane: str = Field(min_length=1, max_length=64)
    number: int = Field(ge=0)
    model: str | None = None
    seed: int = Field(0, ge=0, lt=2**63)
    steps: int | None = None
    guidance: float | None = None
    scheduler: SamplerName | None = None
    quality: Literal["live", "final"] = "final"
    strength: float | None = None
    source: str | None = None
    keep: bool = False
    variation: VariationOrder | None = None
    objects: list[PlacedOrder] = Field(default_factory=list, max_length=MOST_OBJECTS)
    object_strength: float | None = None


@dataclass(frozen=True)
class Canvas:
    """What is drawn: maps (H, W) of any size.

    Attributes:
        mask: ids of classes.
        region: where the image is regenerated, with ``keep``; None: everywhere.
        instances: the number of the object that a pixel belongs to, 0: none; None: nothing is said
            of objects.
        placed: objects of the shelf among them, with their own pixels.
    """

    mask: Array
    region: Bools | None = None
    instances: Array | None = None
    placed: tuple[Transplant, ...] = ()


@dataclass(frozen=True)
class Source:
    """A real or generated image to start from.

    Attributes:
        image_HWC: in the channels and bits of the model that is to start from it.
        items: ids of the images of the data whose pixels it may show.
    """

    image_HWC: Array
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rendering:
    """An order that was checked: its ``run`` is the work of a turn.

    Attributes:
        model: that generates.
        order: what was asked for.
        settings: of the sampler.
        mask_HW: ids of the model's size.
        instances_HW: numbers of objects, of the model's size; None: nothing is known of them.
        real: to start from; None: noise.
        pasting: objects with their own pixels; None: there are none.
        items: ids of the images of the data whose pixels it may show.
        note: what the page says of it.
    """

    model: StudioModel
    order: Order
    settings: SamplerSettings
    mask_HW: Array
    instances_HW: Array | None
    real: FromImage | None
    pasting: Pasting | None
    items: tuple[str, ...]
    note: str

    def run(self, turn: Turn) -> Result:
        """Generate the image; cancelled between two steps where nobody wants it any more.

        Objects that have their own pixels are pasted into it. Where it is to be final, it is
        generated once more, from this image, where the objects are.
        """
        turn.check()
        began = time.perf_counter()
        edges = self.model.edges(self.mask_HW, self.instances_HW)
        real, pasted = self.real, None
        image = self._generate(turn, edges, real, 0)
        if self.pasting is not None:
            pasted = self.pasting.into(image)
            image = pasted.image_HWC
            if self._refines:
                real, pasted = self.pasting.to_refine(pasted), None
                image = self._generate(turn, edges, real, self.settings.steps)
        png = encode_image(as_rgb(image, self.model.synthesizer.pixels.bits), "png")
        return Result(
            model=self.model.id,
            mask_HW=self.mask_HW,
            edges_HW=edges,
            instances_HW=self.instances_HW,
            image_HWC=image,
            png=png,
            seed=self.order.seed,
            settings=self.settings,
            variation=self._variation,
            real=real,
            pasted=pasted,
            begun=self._begun(),
            items=self.items,
            quality=self.order.quality,
            seconds=time.perf_counter() - began,
            note=self.note,
        )

    @property
    def _variation(self) -> tuple[int, float] | None:
        variation = self.order.variation
        return None if variation is None else (variation.seed, variation.amount)

    @property
    def _refines(self) -> bool:
        """Whether objects are made part of the image: not while it has to follow the brush."""
        return self.pasting is not None and self.order.quality == "final"

    def _generate(
        self, turn: Turn, edges_HW: Array | None, real: FromImage | None, done: int
    ) -> Array:
        """Generate from ``real`` where so many steps are done already.

        What was generated of the very same a while ago is there still.
        """
        steps = self.settings.steps
        pasting = self.pasting if self._refines else None
        again = 0 if pasting is None else max(1, int(steps * pasting.strength))
        turn.report(done, steps + again)

        def on_step(index: int, t: Any, x: Any) -> None:
            turn.report(min(done + index + 1, steps + again), steps + again)

        def make() -> Array:
            images = self.model.synthesizer.generate(
                self.mask_HW[None],
                [self.order.seed],
                self.settings,
                None if edges_HW is None else edges_HW[None],
                real,
                self._variation,
                on_step,
            )
            return np.asarray(images[0])

        planes = [self.mask_HW, edges_HW]
        if real is not None:
            planes += [real.images_BHWC, real.regions_BHW]
        values = (self.order.seed, self.settings, self._variation, real and real.strength)
        image = self.model.recent.get((*map(_digest, planes), *values), make)
        turn.report(min(done + steps, steps + again), steps + again)
        return image

    def _begun(self) -> dict[str, Any]:
        """Return how it is begun from images, as the manifest of samples says it."""
        found: dict[str, Any] = {}
        if self.real is not None:
            found = {"from_image": True, "strength": self.real.strength}
            if self.real.regions_BHW is not None:
                found["keep"] = "outside"
        if self.pasting is not None:
            found["objects"] = self.pasting.facts()
            found["object_strength"] = self.pasting.strength if self._refines else 0.0
        return found


def _digest(values: Array | None) -> str:
    return "" if values is None else digest_bytes(np.ascontiguousarray(values).tobytes())


def prepare(
    model: StudioModel, order: Order, canvas: Canvas, source: Source | None = None
) -> Rendering:
    """Check an order and bring its parts to the model's size.

    Args:
        model: that is to generate.
        order: what was asked for.
        canvas: as drawn.
        source: to start from.

    Raises:
        UserError: what does not fit, in a line.
    """
    notes: list[str] = []
    mask = fit_mask(model, canvas.mask, notes)
    real = _real(model, order, canvas.region, source, notes)
    pasting, instances = _pasting(order, canvas), canvas.instances
    if pasting is not None and order.quality == "live":
        notes.append("objects are pasted as they are: the final image makes them part of it")
    if instances is not None and instances.shape != model.size:
        instances = scaled(instances, model.size)
    items = (() if source is None else source.items) + (
        () if pasting is None else tuple(one.item for one in pasting.objects)
    )
    return Rendering(
        model=model,
        order=order,
        settings=_settings(model, order),
        mask_HW=mask,
        instances_HW=instances,
        real=real,
        pasting=pasting,
        items=tuple(dict.fromkeys(items)),
        note="; ".join(notes),
    )


def _pasting(order: Order, canvas: Canvas) -> Pasting | None:
    """Return the objects that are seen; None where there are none."""
    check_instances(canvas.instances, canvas.mask, bool(canvas.placed))
    if order.object_strength is not None:
        check_strength(order.object_strength, "object_strength")
    if canvas.instances is None or not canvas.placed:
        return None
    region = canvas.region if order.keep else None
    return Pasting.of(canvas.placed, canvas.mask, canvas.instances, region, order.object_strength)


def _settings(model: StudioModel, order: Order) -> SamplerSettings:
    if order.quality == "live":
        return model.live_settings()
    asked = SamplerSettings(order.scheduler, order.steps, order.guidance)
    return model.synthesizer.complete(asked)


def fit_mask(model: StudioModel, mask_HW: Array, notes: list[str]) -> Array:
    """Return a mask as drawn as ids of a model, of its size.

    Args:
        model: whose labels the ids are; 255 is understood as unlabelled, unless it is a label.
        mask_HW: of any size.
        notes: gets what was changed, and what the model does not know.

    Raises:
        UserError: ids that are not labels, or unlabelled pixels that have no meaning for it.
    """
    mask = mask_HW
    if mask.shape != model.size:
        notes.append(f"mask scaled from {_size(mask.shape)} to {_size(model.size)}")
        mask = scaled(mask, model.size)
    known = model.labels.by_id
    if UNLABELLED not in known:
        mask = np.where(mask == UNLABELLED, model.unlabelled, mask)
    open_pixels = mask == model.unlabelled
    if model.mask_labels.ignore_id is None and open_pixels.any():
        share = _share(open_pixels)
        raise Refused(
            f"{share} of the mask is unlabelled, and {model.name} has no label for that: fill it, "
            "or train with --mask-dropout region"
        )
    model.mask_labels.check_ids(mask, "mask")
    if open_pixels.any() and (why := model.why_not_partial()) is not None:
        notes.append(f"{_share(open_pixels)} of the mask is unlabelled: {why}")
    return mask.astype(model.mask_labels.mask_dtype)


def _real(
    model: StudioModel,
    order: Order,
    region_HW: npt.NDArray[np.bool_] | None,
    source: Source | None,
    notes: list[str],
) -> FromImage | None:
    if source is None:
        for name, given in (("strength", order.strength is not None), ("keep", order.keep)):
            if given:
                raise Refused(f"{name} needs source, an image to start from")
        return None
    if order.keep and region_HW is None:
        raise Refused("keep needs the part region: a PNG of 0 (stays) and 255 (regenerated)")
    image = source.image_HWC
    if image.shape[:2] != model.size:
        notes.append(f"image scaled from {_size(image.shape)} to {_size(model.size)}")
        image = scaled_image(image, model.size)
    regions = None
    if order.keep and region_HW is not None:
        region = region_HW if region_HW.shape == model.size else scaled(region_HW, model.size)
        regions = region[None]
    strength = order.strength
    if strength is None:
        strength = 1.0 if order.keep else DEFAULT_STRENGTH
    real = FromImage(image[None], strength, regions)
    real.check((1, *model.size), model.synthesizer.pixels)
    return real


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _share(pixels: npt.NDArray[np.bool_]) -> str:
    percent = 100 * float(pixels.mean())
    return f"{percent:.0f} %" if percent >= 1 else "less than 1 %"


def check_source(image_HWC: Array, model: StudioModel) -> Array:
    """Return an image in the channels and bits of a model's.

    Raises:
        Refused: it has others, and is not RGB or grey of 8 bits.
    """
    form = model.synthesizer.pixels
    fits = image_HWC.dtype == (np.uint8 if form.bits == 8 else np.uint16)
    if fits and image_HWC.shape[2] == form.channels:
        return image_HWC
    if image_HWC.dtype == np.uint8 and form.bits == 8:
        if (image_HWC.shape[2], form.channels) == (1, 3):
            return np.repeat(image_HWC, 3, axis=2)
        if (image_HWC.shape[2], form.channels) == (3, 1):
            return np.asarray(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY))[..., None]
    raise Refused(
        f"{model.name} makes images of {form}: it cannot start from one of {image_HWC.shape[2]} "
        f"channels of {image_HWC.dtype}"
    )

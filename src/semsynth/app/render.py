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
from semsynth.app.uploads import scaled, scaled_image
from semsynth.core.config import Config
from semsynth.data.channels import as_rgb
from semsynth.data.labels import Array
from semsynth.data.writer import encode_image
from semsynth.diffusion.config import DEFAULT_STRENGTH, SamplerName, SamplerSettings
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
        keep: only the part ``region`` is made anew.
        variation: towards another seed's noise.
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


@dataclass(frozen=True)
class Source:
    """A real or generated image to start from.

    Attributes:
        id: of the item or result.
        image_HWC: in the channels and bits of the model that is to start from it.
    """

    id: str
    image_HWC: Array


@dataclass(frozen=True)
class Rendering:
    """An order that was checked: its ``run`` is the work of a turn.

    Attributes:
        model: that generates.
        order: what was asked for.
        settings: of the sampler.
        mask_HW: ids of the model's size.
        real: to start from; None: noise.
        note: what the page says of it.
    """

    model: StudioModel
    order: Order
    settings: SamplerSettings
    mask_HW: Array
    real: FromImage | None
    note: str

    def run(self, turn: Turn) -> Result:
        """Generate the image; cancelled between two steps where nobody wants it any more."""
        turn.check()
        steps = self.settings.steps
        turn.report(0, steps)
        began = time.perf_counter()

        def on_step(index: int, t: Any, x: Any) -> None:
            turn.report(index + 1, steps)

        variation = self.order.variation
        turned = None if variation is None else (variation.seed, variation.amount)
        edges = self.model.edges(self.mask_HW)
        images = self.model.synthesizer.generate(
            self.mask_HW[None],
            [self.order.seed],
            self.settings,
            None if edges is None else edges[None],
            self.real,
            turned,
            on_step,
        )
        image = images[0]
        png = encode_image(as_rgb(image, self.model.synthesizer.pixels.bits), "png")
        return Result(
            model=self.model.id,
            mask_HW=self.mask_HW,
            edges_HW=edges,
            image_HWC=image,
            png=png,
            seed=self.order.seed,
            settings=self.settings,
            variation=turned,
            real=self.real,
            source=self.order.source,
            quality=self.order.quality,
            seconds=time.perf_counter() - began,
            note=self.note,
        )


def prepare(
    model: StudioModel,
    order: Order,
    mask_HW: Array,
    region_HW: npt.NDArray[np.bool_] | None = None,
    source: Source | None = None,
) -> Rendering:
    """Check an order and bring its parts to the model's size.

    Args:
        model: that is to generate.
        order: what was asked for.
        mask_HW: the ids as drawn, of any size.
        region_HW: where the image is made anew, with ``keep``.
        source: to start from.

    Raises:
        UserError: what does not fit, in a line.
    """
    notes: list[str] = []
    settings = _settings(model, order)
    mask = fit_mask(model, mask_HW, notes)
    real = _real(model, order, region_HW, source, notes)
    return Rendering(model, order, settings, mask, real, "; ".join(notes))


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
        UserError: ids that are no labels, or unlabelled pixels that have no meaning for it.
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
        raise Refused("keep needs the part region: a PNG of 0 (stays) and 255 (made anew)")
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

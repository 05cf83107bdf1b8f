"""Images and masks at the size that a protocol brings them to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semsynth.data.labels import Array, LabelSet
from semsynth.data.resize import Box, Size
from semsynth.evaluation.inputs.image_set import ImageSet, Pixels
from semsynth.evaluation.inputs.mask_set import MaskSet
from semsynth.evaluation.protocols import Protocol


@dataclass(frozen=True)
class ResizedImages:
    """Real images, each brought to the size of the generated ones as a protocol says.

    Attributes:
        images: the images as they are.
        to: height and width.
        protocol: says how.
    """

    images: ImageSet
    to: Size
    protocol: Protocol

    @property
    def title(self) -> str:
        """The name for reports."""
        return self.images.title

    @property
    def where(self) -> str:
        """The name for messages."""
        return self.images.where

    @property
    def stems(self) -> Sequence[str]:
        """The stems in order."""
        return self.images.stems

    def read_rgb(self, stem: str) -> Pixels:
        """Read an image: (H, W, 3) uint8 of the size."""
        return self.protocol.real_image(self.images.read_rgb(stem), self.to)

    def content_box(self, stem: str) -> Box:
        """Return the box of the content at the size."""
        return _scaled(self.images.content_box(stem), self.images.size(stem), self.to)

    def size(self, stem: str) -> Size:
        """Return the size."""
        return self.to

    def file(self, stem: str) -> Path:
        """Return the file of an image."""
        return self.images.file(stem)

    def digests(self) -> Mapping[str, str]:
        """Return the digests of the files."""
        return self.images.digests()

    def of(self, stems: Sequence[str]) -> ResizedImages:
        """Return a set of these images alone."""
        return replace(self, images=self.images.of(stems))

    def group(self, stem: str) -> str | None:
        """Return what images are alike of."""
        return self.images.group(stem)

    def check(self) -> None:
        """Read every image that nobody vouches for."""
        self.images.check()

    def say_what_is_shown(self) -> None:
        """Say what reading the images as RGB passes over."""
        self.images.say_what_is_shown()


@dataclass(frozen=True)
class ResizedMasks:
    """Masks, each brought to the size of the generated images; see ``ResizedImages``."""

    masks: MaskSet
    to: Size
    protocol: Protocol

    @property
    def labels(self) -> LabelSet:
        """What the ids mean."""
        return self.masks.labels

    @property
    def where(self) -> str:
        """The name for messages."""
        return self.masks.where

    @property
    def stems(self) -> Sequence[str]:
        """The stems in order."""
        return self.masks.stems

    def read_mask(self, stem: str) -> Array:
        """Read a mask: (H, W) ids of the size."""
        return self.protocol.mask(self.masks.read_mask(stem), self.to)

    def content_box(self, stem: str) -> Box:
        """Return the box of the content at the size."""
        return _scaled(self.masks.content_box(stem), self.masks.size(stem), self.to)

    def size(self, stem: str) -> Size:
        """Return the size."""
        return self.to

    def digests(self) -> Mapping[str, str]:
        """Return the digests of the files."""
        return self.masks.digests()


def _scaled(box: Box, size: Size, to: Size) -> Box:
    """Return a box of an image of ``size`` at the size ``to``; pixels on its edge stay inside."""
    top, left, height, width = box
    bottom, right = -(-(top + height) * to[0] // size[0]), -(-(left + width) * to[1] // size[1])
    top, left = top * to[0] // size[0], left * to[1] // size[1]
    return top, left, bottom - top, right - left

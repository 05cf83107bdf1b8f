"""Streets, and how training images come back among generated ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from semsynth.core.distributed.shards import ALL, Shard
from semsynth.evaluation.copying.entry import ImageSets
from semsynth.evaluation.copying.records import ImageRecords, record_images
from semsynth.streetscenes import render, scene
from semsynth.streetscenes.drawing import draw_image
from semsynth.streetscenes.layout import sample_scene

SIZE = 64
Images = np.ndarray
Change = Callable[[Images, Images, np.random.Generator], Images]


def streets(seed: int, n: int) -> tuple[Images, Images]:
    """Images (N, H, W, 3) and masks (N, H, W)."""
    images, masks = zip(*(render(seed, i, SIZE, SIZE) for i in range(n)), strict=True)
    return np.stack(images), np.stack(masks)


def other_light(seed: int, index: int, k: int) -> Images:
    """A street of the same mask in another light, with houses, ground and cars of other colours.

    What an honest generator gives for a mask: the layout, and nothing else of the image.
    """
    street, other = sample_scene(seed, index), sample_scene(seed + 1000 + k, index)
    rng = np.random.default_rng([index, k])
    houses = [house for side in (other.left, other.right) for house in side.buildings]
    cars = [thing.color for thing in other.things if isinstance(thing, scene.Car)]

    def repaint(side: scene.Side) -> scene.Side:
        found = []
        for house in side.buildings:
            model = houses[rng.integers(len(houses))] if houses else house
            names = ("wall", "trim", "ground", "roof_color", "brick", "salt")
            found.append(replace(house, **{name: getattr(model, name) for name in names}))
        return replace(side, buildings=tuple(found))

    names = ("asphalt", "slab", "grass", "curb", "slab_size")
    ground = replace(street.ground, **{name: getattr(other.ground, name) for name in names})
    things = [
        replace(thing, color=cars[rng.integers(len(cars))])
        if cars and isinstance(thing, scene.Car)
        else thing
        for thing in street.things
    ]
    changed = replace(
        street,
        weather=other.weather,
        left=repaint(street.left),
        right=repaint(street.right),
        ground=ground,
        things=tuple(things),
    )
    return draw_image(changed, SIZE, SIZE)[0]


def _bytes(values: np.ndarray) -> Images:
    return values.clip(0, 255).round().astype(np.uint8)


def _crop(image: Images, rng: np.random.Generator) -> Images:
    side = round(0.9 * SIZE)
    top, left = rng.integers(0, SIZE - side + 1, 2)
    part = image[top : top + side, left : left + side]
    return cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def _shift(image: Images, rng: np.random.Generator) -> Images:
    move = [(3, 0), (-3, 0), (0, 3), (0, -3)][rng.integers(4)]
    matrix = np.array([[1, 0, move[0]], [0, 1, move[1]]], np.float32)
    return cv2.warpAffine(image, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)


def _half(image: Images, other: Images, rng: np.random.Generator) -> Images:
    mixed, part = other.copy(), slice(None, SIZE // 2)
    if rng.integers(2):
        part = slice(SIZE // 2, None)
    index = (part, slice(None)) if rng.integers(2) else (slice(None), part)
    mixed[index] = image[index]
    return mixed


# How a training image comes back: of the image, another image and random numbers.
CHANGES: dict[str, Change] = {
    "exact": lambda image, other, rng: image,
    "mirrored": lambda image, other, rng: image[:, ::-1],
    "brighter by 20": lambda image, other, rng: _bytes(image.astype(float) + 20),
    "noise of 10": lambda image, other, rng: _bytes(image + rng.normal(0, 10, image.shape)),
    "blurred": lambda image, other, rng: cv2.GaussianBlur(image, (0, 0), 1),
    "crop of 90%": lambda image, other, rng: _crop(image, rng),
    "shift of 3": lambda image, other, rng: _shift(image, rng),
    "half": _half,
}


class Streets:
    """Training and held-out streets, and what is compared with them."""

    def __init__(self, n_training: int, n_held_out: int) -> None:
        self.training, self.training_masks = streets(1, n_training)
        self.held_out, self.held_out_masks = streets(2, n_held_out)
        self.colours = np.zeros((256, 3))
        for label in np.unique(self.training_masks):
            self.colours[label] = self.training[self.training_masks == label].mean(0)

    def copies(self, change: str, n: int, seed: int = 0) -> Images:
        """``n`` training images that were changed."""
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(self.training))[:n]
        others = self.held_out[rng.integers(0, len(self.held_out), n)]
        pairs = zip(self.training[chosen], others, strict=True)
        return np.stack([CHANGES[change](image, other, rng) for image, other in pairs])

    def mean_colours(self, masks: np.ndarray) -> Images:
        return self.colours[masks].round().astype(np.uint8)

    def sets(self, generated: Images, shard: Shard = ALL, real: Images | None = None) -> ImageSets:
        """Samples of the held-out masks, in order (several a mask where there are more)."""
        real = self.held_out if real is None else real
        masks_of = [i % len(real) for i in range(len(generated))]
        return self._sets(generated, masks_of, real, self.held_out_masks, shard)

    def sets_of_training_masks(self, generated: Images, masks_of: Sequence[int]) -> ImageSets:
        """Samples of training masks."""
        n = max(masks_of) + 1
        return self._sets(generated, masks_of, self.training[:n], self.training_masks[:n], ALL)

    def _sets(
        self,
        generated: Images,
        masks_of: Sequence[int],
        real: Images,
        masks: np.ndarray,
        shard: Shard,
    ) -> ImageSets:
        stems = {
            "generated": [f"sample_{i:03d}" for i in range(len(generated))],
            "real": [f"mask_{i:03d}" for i in range(len(real))],
            "training": [f"train_{i:03d}" for i in range(len(self.training))],
        }
        records = {
            "generated": _record(generated, [None] * len(generated), shard),
            "real": _record(real, masks, shard),
            "training": _record(self.training, self.training_masks, shard),
            "mean_colours": _record(self.mean_colours(masks), masks, shard),
        }
        groups = {name: [None] * len(stems[name]) for name in ("real", "training")}
        return ImageSets(records, masks_of, stems, groups)


def _record(images: Images, masks: Sequence[np.ndarray | None], shard: Shard) -> ImageRecords:
    return record_images(lambda i: (images[i], None, masks[i]), range(len(images)), "images", shard)

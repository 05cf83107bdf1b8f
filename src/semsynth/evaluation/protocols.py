"""How a line of the literature measures, by name: sizes, resizes, which images, averaging.

``protocols.yaml`` holds the values, each with its source. Numbers of two protocols cannot be put
beside each other; a report says in a sentence which one it followed and what of it cannot be
reproduced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semsynth.core.config import Config, load_yaml
from semsynth.core.errors import UserError

Size = tuple[int, int]
"""Height and width in pixels."""
Averaging = Literal["miou", "miou_of_masks", "miou_all"]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

NAMES = ("sdm", "oasis", "spade", "clean", "semsynth")
DEFAULT = "semsynth"
FILE = Path(__file__).with_name("protocols.yaml")
# The side at which SDM's loader shows images to LPIPS, after the first resize.
_IMAGENET_SIDE = 299
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
_RESIZES = {
    "pytorch": "fid (bilinear, not smoothed)",
    "tensorflow": "fid_tensorflow",
    "clean": "fid_clean (Pillow's bicubic filter in float)",
}
# What a protocol leaves open: whoever follows it says which.
_OPEN = {("spade", "evaluator_size")}
# Values whose key in reports is an older one.
_KEYS = {"evaluator_size": "judge_size", "evaluators": "judges"}
_AVERAGES = {
    "miou": "mean over classes with a union",
    "miou_of_masks": "mean over classes of the masks",
    "miou_all": "mean over all classes, absent ones count 0",
}


class Protocol(Config):
    """What a protocol fixes; ``protocols.yaml`` explains each value.

    Attributes:
        name: sdm, oasis, spade, clean or semsynth.
        sources: where each value is from, by its name.
    """

    name: str
    title: str
    images_size: tuple[Size, ...] | None
    real_filter: Literal["bicubic"] | None
    mask_filter: Literal["nearest"] | None
    distance_size: Size | None
    distance_filter: Literal["skimage"] | None
    resize: Literal["pytorch", "tensorflow", "clean"]
    covariance: Literal["float32", "float64"]
    distance_batch: int | None
    distance_samples: int | None
    max_allowed: bool
    lpips_network: Literal["alex", "vgg"] | None
    lpips_size: Size | None
    lpips_input: Literal["unit", "imagenet_299"] | None
    lpips_samples: int | None
    lpips_batch: int | None
    averaging: Averaging
    evaluator_size: Literal["own", "generated"] | int | Size
    evaluators: tuple[str, ...]
    not_reproduced: tuple[str, ...]
    sources: dict[str, str]

    @property
    def resizes(self) -> bool:
        """Whether real images and masks are brought to the size of the generated ones."""
        return self.real_filter is not None

    def check_size(self, size: Size, where: str) -> None:
        """Check the size of the generated images; UserError if the protocol wants another one."""
        if self.images_size is not None and size not in self.images_size:
            wanted = " or ".join(_text(each) for each in self.images_size)
            raise UserError(
                f"{where}: images are {_text(size)}, protocol {self.name} needs {wanted} (height x "
                "width); generate them at this size, or choose another --protocol"
            )

    def real_image(self, image: Bytes, size: Size) -> Bytes:
        """Return a real image (H, W, 3) at the size of the generated ones."""
        return image if image.shape[:2] == size else _pillow(image, size, "BICUBIC")

    def mask(self, mask: npt.NDArray[Any], size: Size) -> npt.NDArray[Any]:
        """Return ids (H, W) at the size of the generated images: those of the nearest pixels."""
        return mask if mask.shape == size else _pillow(mask, size, "NEAREST")

    def distance_image(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an image (H, W, 3) as the features see it, before their own resize.

        Returns:
            ``image`` itself, or float32 in 0..255 which is not quantised.
        """
        if self.distance_size is None:
            return image
        return skimage_resize(image, self.distance_size)

    def lpips_image(self, image: Bytes) -> Floats:
        """Return an image (H, W, 3) as LPIPS sees it, float32, where -1..1 is 0..1."""
        size = image.shape[:2] if self.lpips_size is None else self.lpips_size
        image = _pillow(image, size, "BILINEAR")
        if self.lpips_input != "imagenet_299":
            return np.asarray(image.astype(np.float32) / 255, np.float32)
        image = _pillow(image, (_IMAGENET_SIDE, _IMAGENET_SIDE), "BILINEAR")
        normalised = (image.astype(np.float32) / 255 - _IMAGENET_MEAN) / _IMAGENET_STD
        # LPIPS makes 2x - 1 of it.
        return np.asarray((normalised + 1) / 2, np.float32)

    def lpips_mean(self, distances: Sequence[npt.NDArray[np.float64]]) -> float:
        """Return the diversity of the distances (pairs,) of each mask, in the masks' order.

        Over a batch of masks, then over batches of equal weight; without batches the mean over
        the masks.
        """
        means = np.array([each.mean() for each in distances])
        size = self.lpips_batch or len(means)
        return float(np.mean([means[i : i + size].mean() for i in range(0, len(means), size)]))

    def distance_stems(self, by_mask: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the samples that enter the distances: of each mask the first ones, in order.

        Args:
            by_mask: stems of the samples by the stem of their mask.
        """
        stems = [s for samples in by_mask.values() for s in samples[: self.distance_samples]]
        return stems[: self.whole_batches(len(stems))]

    def whole_batches(self, n: int) -> int:
        """Return how many of ``n`` images enter a distance: without the last incomplete batch."""
        batch = self.distance_batch
        return n if batch is None or n < batch else n - n % batch

    def evaluator_input(self, generated: Size) -> Size | None:
        """Return the size at which an evaluator sees such images; None: its own input size."""
        if self.evaluator_size == "own":
            return None
        if isinstance(self.evaluator_size, int):
            scale = self.evaluator_size / min(generated)
            return round(generated[0] * scale), round(generated[1] * scale)
        return generated if self.evaluator_size == "generated" else self.evaluator_size

    def check_flags(self, given: Mapping[str, Any]) -> None:
        """Refuse flags that contradict the protocol.

        Args:
            given: flags by their name (resize, lpips_network, evaluator_size, max, ...); None: not
                given. Names that the protocol does not fix are passed over.

        Raises:
            UserError: naming the flag, the protocol's value and its source.
        """
        for name, value in given.items():
            key = "max_allowed" if name == "max" else name
            left_open = self.max_allowed if name == "max" else (self.name, name) in _OPEN
            if value is None or key not in self.sources or left_open:
                continue
            wanted = "all images" if name == "max" else getattr(self, name)
            if value != wanted:
                raise UserError(
                    f"--{name.replace('_', '-')} {_text(value)}: protocol {self.name} has "
                    f"{_text(wanted)} ({self.sources[key]}); drop one of them"
                )

    @property
    def sentence(self) -> str:
        """The protocol in words, for report and page."""
        which = (
            "all images"
            if self.distance_batch is None
            else (f"whole batches of {self.distance_batch} images (the rest is left out)")
        )
        parts = [
            f"Protocol {self.name}: {self.title}.",
            f"Distances: {self._images()}, {_RESIZES[self.resize]}, {which}"
            + (f", {_count(self.distance_samples)} of each mask" if self.distance_samples else "")
            + f", covariances in {self.covariance}.",
            self._lpips(),
            f"mIoU: {self.averaging} ({_AVERAGES[self.averaging]}), {self._evaluator()}.",
        ]
        if self.not_reproduced:
            parts.append("Not reproduced: " + "; ".join(self.not_reproduced) + ".")
        return " ".join(part for part in parts if part)

    def _images(self) -> str:
        if self.distance_size is not None:
            return f"images resized to {_text(self.distance_size)} (skimage, order 1, float)"
        if self.resizes:
            return f"images as generated, real ones resized to them ({self.real_filter})"
        return "images as they are"

    def _lpips(self) -> str:
        if self.lpips_network is None:
            return ""
        samples = self.lpips_samples
        pairs = (
            "all pairs"
            if samples is None
            else (f"{samples} samples of a mask, {samples * (samples - 1) // 2} pairs")
        )
        over = (
            "mean over masks"
            if self.lpips_batch is None
            else (f"mean over batches of {self.lpips_batch} masks, then over the batches")
        )
        network = {"alex": "AlexNet", "vgg": "VGG-16"}[self.lpips_network]
        size = "the images' size" if self.lpips_size is None else _text(self.lpips_size)
        return f"LPIPS: {network} at {size}, {pairs}, {over}."

    def _evaluator(self) -> str:
        if isinstance(self.evaluator_size, int):
            return f"the evaluator sees images whose shorter side is {self.evaluator_size}"
        own = {"own": "its own input size", "generated": "the size of the generated images"}
        size = self.evaluator_size
        where = own[size] if isinstance(size, str) else _text(size)
        return f"the evaluator sees images at {where}"

    def to_json(self) -> dict[str, Any]:
        """Return the report's entry: the values, their sources, the sentence."""
        values = _to_keys(self.model_dump(mode="json"))
        return {**values, "sources": _to_keys(values["sources"]), "sentence": self.sentence}


def _to_keys(values: dict[str, Any]) -> dict[str, Any]:
    return {_KEYS.get(name, name): value for name, value in values.items()}


def load_protocol(name: str | None = None) -> Protocol:
    """Return a protocol by name; ``semsynth`` by default.

    Raises:
        UserError: the name is unknown.
    """
    protocols = _read()
    if (name or DEFAULT) not in protocols:
        raise UserError(f"--protocol {name}: is unknown; choose among {', '.join(NAMES)}")
    return protocols[name or DEFAULT]


def choose_protocol(name: str | None, flags: Mapping[str, Any]) -> Protocol:
    """Return the protocol of a command: a named one as it is, else the default with its flags.

    Args:
        name: ``--protocol``; None: not given.
        flags: flags that a protocol may fix, by the names of its values (``resize``,
            ``evaluator_size``, ``lpips_network``) and ``max``; None: not given.

    Raises:
        UserError: there is no such protocol, or a flag contradicts it.
    """
    protocol = load_protocol(name)
    given = {key: value for key, value in flags.items() if value is not None}
    if name is not None:
        protocol.check_flags(given)
    changes = {key: value for key, value in given.items() if key in Protocol.model_fields}
    if all(getattr(protocol, key) == value for key, value in changes.items()):
        return protocol
    sources = protocol.sources | {key: f"--{key.replace('_', '-')}" for key in changes}
    return protocol.model_copy(update={**changes, "sources": sources})


@cache
def _read() -> dict[str, Protocol]:
    """Read the file: values are checked, and each has a source."""
    protocols = {}
    for name, entries in load_yaml(FILE).items():
        values = {key: _tuples(entry["value"]) for key, entry in entries.items()}
        sources = {key: str(entry["source"]) for key, entry in entries.items()}
        protocols[name] = Protocol(name=name, sources=sources, **values)
    return protocols


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def skimage_resize(image: npt.NDArray[Any], size: Size) -> Floats:
    """Resize as SDM's evaluation does: scikit-image, order 1, smoothed where it reduces.

    Args:
        image: (H, W, 3) in 0..255, any number format.
        size: height and width.

    Returns:
        float32 in 0..255, not quantised.
    """
    from skimage.transform import resize

    return np.asarray(resize(image.astype(np.float32), (*size, 3)), np.float32)


def _pillow(array: npt.NDArray[Any], size: Size, method: str) -> npt.NDArray[Any]:
    """Resize uint8 images (H, W, 3) or ids (H, W) by a filter of Pillow, quantised as it does."""
    from PIL import Image

    if array.shape[:2] == size:
        return array
    # Pillow has no unsigned 16-bit images that it resizes; 32-bit ones hold the ids as they are.
    source = array if array.dtype == np.uint8 else array.astype(np.int32)
    resized = Image.fromarray(source).resize((size[1], size[0]), Image.Resampling[method])
    return np.asarray(resized).astype(array.dtype)


def _text(value: Any) -> str:
    """Return a value in words; sizes as height x width."""
    if isinstance(value, tuple) and all(isinstance(part, int) for part in value):
        return "x".join(map(str, value))
    return str(value)


def _count(n: int) -> str:
    return "one" if n == 1 else str(n)

"""What a segmenter sees in an image, and where that is not the mask; scores as `evaluate` has them.

Evaluator and copies answer questions on one image at a time: nothing of the loading is repeated.
"""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semsynth.app.label_view import unlabelled_id
from semsynth.core.errors import UserError, abbreviate
from semsynth.data.image_files.channels import encode_image
from semsynth.data.labels import Array, LabelSet

if TYPE_CHECKING:
    from semsynth.evaluation.evaluators import Evaluator, Network

Json = dict[str, Any]


class ImageEvaluator:
    """The segmenter that scores images, of models with any labels.

    Attributes:
        network: what predicts.
    """

    def __init__(self, network: Network) -> None:
        """Take the network; its classes are matched with a model's when that is asked for."""
        self.network = network
        self._evaluators: dict[str, Evaluator] = {}
        # One pass at a time: several would take the memory of several.
        self._lock = threading.Lock()

    @classmethod
    def open(cls, segmenter: Path, device: str) -> ImageEvaluator:
        """Load a segmenter of `segment train`, or a Transformers model from a folder.

        Raises:
            UserError: it is neither, or cannot be loaded.
        """
        from semsynth.evaluation.evaluators import open_network

        return cls(open_network(str(segmenter), device))

    def of(self, labels: LabelSet) -> Evaluator:
        """Return the evaluator of a model's images.

        Raises:
            UserError: the segmenter has no class of the model.
        """
        from semsynth.evaluation.evaluators import evaluator_of

        key = repr(labels)
        if key not in self._evaluators:
            self._evaluators[key] = evaluator_of(self.network, labels)
        return self._evaluators[key]

    def score(self, image: npt.NDArray[np.uint8], mask: Array, labels: LabelSet) -> Json:
        """Compare what the segmenter sees in an image with a mask.

        Args:
            image: (H, W, 3) RGB.
            mask: (H, W) ids of ``labels``; unlabelled pixels, and classes that the segmenter does
                not know, are not counted.
            labels: of the model.

        Returns:
            ``miou`` (0 to 1; None: no pixel counts), ``pixel_accuracy``, ``classes`` (id, IoU, and
            whether the mask has it), ``map`` (base64 of a PNG of ids), ``disagreement`` (of one of
            0 and 255, 255 where a counted pixel is seen as another class), ``evaluator``,
            ``line``.

        Raises:
            UserError: the sizes differ, or the segmenter has no class of the model.
        """
        # It imports the segmenters, which the studio needs only with --segmenter.
        from semsynth.segmentation.metrics import ConfusionMatrix

        if image.shape[:2] != mask.shape:
            height, width = image.shape[:2]
            raise UserError(
                f"the mask is {mask.shape[1]}x{mask.shape[0]}, the image {width}x{height}: "
                "generate the image of this mask first"
            )
        evaluator = self.of(labels)
        with self._lock:
            seen = evaluator.predict(image[None])[0]
        matrix = ConfusionMatrix(evaluator.ids)
        rows, columns = matrix.places(seen, mask, labels.ignore_id)
        matrix.add_places(rows, columns)
        counted = bool(matrix.target.sum())
        return {
            "evaluator": evaluator.name,
            "miou": round(matrix.miou, 6) if counted else None,
            "pixel_accuracy": round(matrix.pixel_accuracy, 6) if counted else None,
            "classes": [
                {"id": i, "iou": round(iou, 6), "in_mask": there}
                for i, iou, there in zip(
                    matrix.ids.tolist(), matrix.iou.tolist(), matrix.present.tolist(), strict=True
                )
                if not np.isnan(iou)
            ],
            "map": as_base64(_ids_png(seen, labels)),
            "disagreement": as_base64(_flags_png((rows >= 0) & (rows != columns))),
            "line": _line(evaluator, counted),
        }


def _line(evaluator: Evaluator, counted: bool) -> str:
    if not counted:
        return f"{evaluator.name}: the mask has no pixel of a class that it knows"
    if evaluator.left_out:
        names = abbreviate([repr(name) for name in evaluator.left_out], 5)
        return f"{evaluator.name} does not know {names}: not counted"
    return ""


def _ids_png(seen: Array, labels: LabelSet) -> bytes:
    """Return predicted ids as a PNG: what is none of the classes is unlabelled."""
    ids = np.where(seen < 0, unlabelled_id(labels), seen)
    return encode_image(ids.astype(np.uint8 if ids.max() <= 255 else np.uint16), "png")


def _flags_png(where: Array) -> bytes:
    return encode_image(where.astype(np.uint8) * np.uint8(255), "png")


def as_base64(data: bytes) -> str:
    """Return bytes as text for JSON."""
    return base64.b64encode(data).decode("ascii")


def why_no_evaluator(data: str | None) -> str:
    """Return why nothing is scored, in a line; ``data``: the name of the data that are open."""
    if data is None:
        return (
            "no segmenter is open: start with --segmenter PATH (`semsynth segment train` makes one "
            "of labelled images)"
        )
    return (
        f"{data} has no segmenter with it: start with --segmenter PATH (`semsynth segment train "
        f"--data {data}` makes one)"
    )

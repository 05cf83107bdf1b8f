"""Segmenters of `semsynth segment train` as evaluators."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.evaluation.hub_evaluator import Sees, Size, input_size
from semsynth.segmentation.config import SEGMENTER_FILE
from semsynth.segmentation.seen import SeenImages
from semsynth.segmentation.segmenter import Segmenter

Array = npt.NDArray[Any]


class OwnNetwork:
    """A segmenter of `semsynth segment train`; see ``evaluators.Network``."""

    has_features = True

    def __init__(self, path: Path, device: str, sees: Sees = "own") -> None:
        """Load it, to see images at that size; UserError as ``Segmenter.load``."""
        self._sees = sees
        self.segmenter = Segmenter.load(path, device)
        info = self.segmenter.info
        file = path.parent if path.name == SEGMENTER_FILE else path
        self.name = file.name or "segmenter"
        labels = info.labels.trainable
        self.names: Sequence[str] = [label.name for label in labels]
        self._index = np.zeros(info.labels.max_id + 1, np.int32)
        self._index[[label.id for label in labels]] = np.arange(len(labels))
        self.sha256 = str(self.segmenter.sha256)
        self.seen = SeenImages.from_json(info.provenance)
        origin = info.provenance
        self.about = {
            "kind": info.arch["kind"],
            "input_size": [info.height, info.width] if sees == "own" else sees,
            "trained_on": {key: origin.get(key) for key in ("data", "split", "n_train", "steps")},
            "miou_val": origin.get("miou"),
        }

    @torch.inference_mode()
    def classes(self, images_BHWC: Array, size: Size | None) -> tuple[Array, Array | None]:
        """Return what ``evaluators.Network`` says; resizes images to its input size."""
        given = (images_BHWC.shape[1], images_BHWC.shape[2])
        own, size = self._input_size(given), size or given
        if given == own == size:
            ids, features = self.segmenter.analyse(images_BHWC)
            return self._index[ids], features
        logits, features_BD = self._forward(images_BHWC, own)
        found = [
            F.interpolate(one[None], size=size, mode="bilinear").argmax(1)[0] for one in logits
        ]
        return torch.stack(found).cpu().numpy(), features_BD.double().cpu().numpy()

    @torch.inference_mode()
    def log_probabilities(self, image_HWC: Array, size: Size) -> tuple[Array, Array | None]:
        """Return what ``evaluators.Network`` says, of logits that are brought to that size."""
        given = (image_HWC.shape[0], image_HWC.shape[1])
        logits, features_BD = self._forward(image_HWC[None], self._input_size(given))
        if tuple(logits.shape[2:]) != size:
            logits = F.interpolate(logits, size=size, mode="bilinear")
        return logits.log_softmax(1)[0].cpu().numpy(), features_BD[0].float().cpu().numpy()

    def _input_size(self, given: Size) -> Size:
        own = input_size(self._sees, given)
        return own or (self.segmenter.info.height, self.segmenter.info.width)

    def _forward(self, images_BHWC: Array, size: Size) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes, h, w) and features (B, D) of images at the size it sees."""
        images = torch.from_numpy(np.ascontiguousarray(images_BHWC)).to(self.segmenter.device)
        x = images.permute(0, 3, 1, 2).float() / 255
        if tuple(x.shape[2:]) != size:
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
        self.segmenter.eval()
        logits, features_BD = self.segmenter(x)
        return logits, features_BD

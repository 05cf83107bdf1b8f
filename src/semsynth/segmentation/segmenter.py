"""The segmenter: a network, its labels, and the file that holds both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError
from semsynth.core.files import atomic_path, sha256_file
from semsynth.core.safe_load import load_torch_file, save_torch_file
from semsynth.data.labels import LabelSet
from semsynth.segmentation.config import segmenter_file
from semsynth.segmentation.encoder_unet import lite2_unet
from semsynth.segmentation.small_unet import Perturb, UNet, level_widths

Array = npt.NDArray[Any]
FORMAT = 1
_KEYS = {"format", "kind", "arch", "state", "labels", "height", "width", "licence", "provenance"}


@dataclass(frozen=True)
class SegmenterInfo:
    """Architecture, labels and origin of a segmenter.

    Attributes:
        arch: how the network is built: ``kind`` (unet, lite2, or segmentation or backbone of the
            Transformers library), its options, ``mean`` and ``std`` of the pixels (RGB, 0 to 1).
        labels: the labels of the data it was trained on.
        height: height of the training images in pixels.
        width: width of the training images in pixels.
        licence: licence of the training data.
        provenance: training data, settings and scores, as JSON values.
    """

    arch: dict[str, Any]
    labels: LabelSet
    height: int
    width: int
    licence: str
    provenance: dict[str, Any] = field(default_factory=dict)


class Segmenter(nn.Module):
    """A network that gives each pixel one of the labels (never the ignored one)."""

    mean: Tensor
    std: Tensor
    ids: Tensor

    def __init__(self, info: SegmenterInfo) -> None:
        """Build the network, randomly initialised."""
        super().__init__()
        self.info = info
        self.net = _build(info)
        for name in ("mean", "std"):
            value = torch.tensor(info.arch[name]).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        ids = torch.tensor([label.id for label in info.labels.trainable])
        self.register_buffer("ids", ids, persistent=False)
        self.sha256: str | None = None

    @property
    def labels(self) -> LabelSet:
        """The labels it predicts."""
        return self.info.labels

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return self.ids.device

    def forward(self, images_BCHW: Tensor, perturb: Perturb | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes, H, W) and features (B, D) of images in 0..1, RGB.

        ``perturb`` changes each feature map of the encoder before the decoder gets it.
        """
        x = (images_BCHW - self.mean) / self.std
        logits, features = self.net(x.contiguous(memory_format=torch.channels_last), perturb)
        return logits, features

    @torch.inference_mode()
    def analyse(self, images_BHWC: Array) -> tuple[Array, npt.NDArray[np.float64]]:
        """Return predicted ids (B, H, W) and features (B, D) of uint8 RGB images (B, H, W, 3)."""
        self.eval()
        images = torch.from_numpy(np.ascontiguousarray(images_BHWC)).to(self.device)
        logits, features = self(images.permute(0, 3, 1, 2).float() / 255)
        ids = self.ids[logits.argmax(1)].cpu().numpy().astype(self.labels.mask_dtype)
        return ids, features.double().cpu().numpy()

    def predict(self, images_BHWC: Array) -> Array:
        """Return the predicted ids (B, H, W) of uint8 RGB images (B, H, W, 3)."""
        return self.analyse(images_BHWC)[0]

    def features(self, images_BHWC: Array) -> npt.NDArray[np.float64]:
        """Return features (B, D) of uint8 RGB images (B, H, W, 3): see the network's forward."""
        return self.analyse(images_BHWC)[1]

    def save(self, path: str | Path) -> Path:
        """Write one file that ``torch.load(weights_only=True)`` opens; return its path."""
        info = self.info
        content = {
            "format": FORMAT,
            "kind": "segmenter",
            "arch": info.arch,
            "state": {name: value.cpu() for name, value in self.state_dict().items()},
            "labels": info.labels.to_json(),
            "height": info.height,
            "width": info.width,
            "licence": info.licence,
            "provenance": info.provenance,
        }
        with atomic_path(path) as temporary:
            save_torch_file(content, temporary)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Segmenter:
        """Read a segmenter from its file, or from the folder that holds ``segmenter.pth``.

        Raises:
            UserError: missing, cut short, a pickle with code in it, or not a segmenter.
        """
        path = segmenter_file(Path(path))
        content = _read(path)
        info = SegmenterInfo(
            content["arch"],
            LabelSet.from_json(content["labels"], str(path)),
            content["height"],
            content["width"],
            content["licence"],
            content["provenance"],
        )
        try:
            segmenter = cls(info)
            segmenter.load_state_dict(content["state"])
        except Exception as error:  # an invalid ``arch`` fails in many ways inside Transformers
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path}: its weights do not fit its network ({reason}); train the segmenter again"
            ) from None
        segmenter.sha256 = sha256_file(path)
        return segmenter.to(pick_device(device)).eval()


def unet_arch(width: int, height_px: int, width_px: int) -> dict[str, Any]:
    """Return the ``arch`` of a U-Net for images of about this size."""
    widths = level_widths(width, height_px, width_px)
    return {"kind": "unet", "widths": widths, "mean": [0.45] * 3, "std": [0.25] * 3}


def _build(info: SegmenterInfo) -> nn.Module:
    classes = len(info.labels.trainable)
    if info.arch["kind"] == "unet":
        net: nn.Module = UNet(classes, list(info.arch["widths"]))
    elif info.arch["kind"] == "lite2":
        net = lite2_unet(classes, info.arch)
    else:
        from semsynth.segmentation import hub_models as hub

        net = hub.build(info.arch, classes)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _read(path: Path) -> Mapping[str, Any]:
    remedy = "train one with 'semsynth segment train'"
    content = load_torch_file(path, remedy)
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        raise UserError(f"{path}: is not a segmenter; {remedy}")
    if content["kind"] != "segmenter" or content["format"] != FORMAT:
        raise UserError(f"{path}: is a file of another kind or format; {remedy}")
    return content

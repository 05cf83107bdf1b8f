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
from semsynth.core.files import write_json
from semsynth.core.logging import progress_bar
from semsynth.core.outputs import claim_output_dir
from semsynth.core.rng import derive_seed, torch_generator
from semsynth.core.version import __version__
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import check_same_labels
from semsynth.segmentation.config import SEGMENTER_FILE, SegmentTrainConfig
from semsynth.segmentation.loader import (
    IGNORE_INDEX,
    MixedBatches,
    SegmentationDataset,
    augment,
)
from semsynth.segmentation.metrics import score_split, summary
from semsynth.segmentation.segmenter import Segmenter, SegmenterInfo, unet_arch

# Rarer classes are weighted as if they had this share of the pixels: weights stay bounded.
_LEAST_SHARE = 1e-3
# Share of the steps in which the learning rate rises.
_WARM_UP = 0.15


def train_segmenter(config: SegmentTrainConfig) -> Path:
    """Train and return the path of ``segmenter.pth``; see ``train`` for the scores."""
    return Path(train(config)["segmenter"])


def train(config: SegmentTrainConfig) -> dict[str, Any]:
    """Run `semsynth segment train`.

    On the CPU, the same configuration and number of threads give the same weights.

    Returns:
        JSON values: segmenter (path), steps, train_loss; with a validation split also n_val and
        the scores of ``metrics.summary``.

    Raises:
        UserError: data, extra data or output cannot be used; the loss becomes infinite or NaN.
    """
    device = pick_device(config.device)
    data = PreparedDataset.open(config.data)
    extra = _open_extra(config, data)
    output = claim_output_dir(config.output, "segmenter", {"data": str(config.data)})
    real = SegmentationDataset(data, config.split)
    extra_images = None if extra is None else SegmentationDataset(extra, config.extra_split)
    batches = MixedBatches(real, extra_images, config.batch_size, config.mix_share, config.seed)
    segmenter = _build(config, data).to(device)
    loss = _fit(segmenter, batches, _class_weights(real, config.class_balance), config)
    result: dict[str, Any] = {"steps": config.steps, "train_loss": loss}
    if config.val_split in data.splits():
        matrix = score_split(segmenter, data, config.val_split)
        result |= {"n_val": len(data.stems(config.val_split)), **summary(matrix, data.labels.names)}
    segmenter.info.provenance.update(result)
    path = segmenter.save(output / SEGMENTER_FILE)
    write_json(output / "segmenter.json", segmenter.info.provenance)
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


def _build(config: SegmentTrainConfig, data: PreparedDataset) -> Segmenter:
    torch.manual_seed(derive_seed(config.seed, "segmenter weights"))
    pretrained = None
    if config.init_from is not None or config.arch != "unet":
        from semsynth.segmentation import hub_models as hub

        n = len(data.labels.trainable)
        if config.init_from is not None:
            arch, pretrained = hub.from_pretrained(config.init_from, n)
        else:
            arch = hub.segformer_arch(config.arch, n)
    else:
        arch = unet_arch(config.width, data.height, data.width)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    provenance = {
        "data": data.info.name,
        "split": config.split,
        "n_train": len(data.stems(config.split)),
        "settings": settings,
        "versions": {"semsynth": __version__, "torch": str(torch.__version__)},
    }
    info = SegmenterInfo(arch, data.labels, data.height, data.width, data.info.licence, provenance)
    segmenter = Segmenter(info)
    if pretrained is not None:
        segmenter.net.load_state_dict(pretrained.state_dict())
    return segmenter


def _class_weights(real: SegmentationDataset, exponent: float) -> Tensor:
    """Return weights by class index whose mean over the labelled pixels is 1."""
    shares = torch.from_numpy(real.class_shares())
    weights = shares.clamp_min(_LEAST_SHARE) ** -exponent
    return (weights / (weights * shares).sum()).float()


def _fit(
    segmenter: Segmenter, batches: MixedBatches, weights: Tensor, config: SegmentTrainConfig
) -> float:
    """Train in place and return the last loss."""
    groups = _parameter_groups(segmenter, config)
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    # At least one step of warm-up and one of decay, however short the training.
    warm_up = max(_WARM_UP, 1.5 / config.steps) if config.steps > 2 else 0.5
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=config.steps + 1,
        pct_start=warm_up,
    )
    weights, value = weights.to(segmenter.device), 0.0
    segmenter.train()
    with progress_bar(config.steps, "train segmenter", "step") as bar:
        for step in range(config.steps):
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
    segmenter.eval()
    return value


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

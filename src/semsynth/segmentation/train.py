"""Training a segmenter on real images, with extra ones mixed in where asked."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import semsynth
from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError
from semsynth.core.files import claim_output_dir, write_json
from semsynth.core.progress import progress_bar
from semsynth.core.rng import derive_seed
from semsynth.core.torch_rng import torch_generator
from semsynth.data.dataset import PreparedDataset
from semsynth.segmentation.augmentation import augment
from semsynth.segmentation.config import SEGMENTER_FILE, SegmentTrainConfig
from semsynth.segmentation.evaluate import score_split, summary
from semsynth.segmentation.loader import UNKNOWN, Batches, SegmentationDataset, check_same_labels
from semsynth.segmentation.segmenter import Segmenter, SegmenterInfo, unet_arch

# The rarest classes are counted as if they had this share: weights stay bounded.
_LEAST_SHARE = 1e-3
_WARM_UP = 0.15


def train_segmenter(config: SegmentTrainConfig) -> Path:
    """Train and return the path of ``segmenter.pth``; see ``train`` for the scores."""
    return Path(train(config)["segmenter"])


def train(config: SegmentTrainConfig) -> dict[str, Any]:
    """Do what `semsynth segment train` says.

    On the CPU the same configuration gives the same weights (with the same number of threads).

    Returns:
        The path of the file, and the scores on the validation split where there is one.

    Raises:
        UserError: data, extra data or output cannot be used; the loss is no longer finite.
    """
    device = pick_device(config.device)
    data = PreparedDataset.open(config.data)
    extra = _open_extra(config, data)
    output = claim_output_dir(config.output, "segmenter", {"data": str(config.data)})
    real = SegmentationDataset(data, config.split)
    others = None if extra is None else SegmentationDataset(extra, config.extra_split)
    batches = Batches(real, others, config.batch_size, config.mix_share, config.seed)
    segmenter = _build(config, data).to(device)
    loss = _optimise(segmenter, batches, _class_weights(real, config.class_balance), config)
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
        "versions": {"semsynth": semsynth.__version__, "torch": str(torch.__version__)},
    }
    info = SegmenterInfo(arch, data.labels, data.height, data.width, data.info.licence, provenance)
    segmenter = Segmenter(info)
    if pretrained is not None:
        segmenter.net.load_state_dict(pretrained.state_dict())
    return segmenter


def _class_weights(real: SegmentationDataset, exponent: float) -> Tensor:
    """Return weights by class index whose mean over the known pixels is 1."""
    shares = torch.from_numpy(real.class_shares())
    weights = shares.clamp_min(_LEAST_SHARE) ** -exponent
    return (weights / (weights * shares).sum()).float()


def _optimise(
    segmenter: Segmenter, batches: Batches, weights: Tensor, config: SegmentTrainConfig
) -> float:
    """Train in place and return the last loss."""
    optimizer = torch.optim.AdamW(_groups(segmenter, config), weight_decay=config.weight_decay)
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
                raise UserError(f"segment train: the loss is {value} at step {step}; lower lr")
            bar.set_postfix_str(f"loss {value:.3f}", refresh=False)
            bar.update()
    segmenter.eval()
    return value


def _groups(segmenter: Segmenter, config: SegmentTrainConfig) -> list[dict[str, Any]]:
    """Return the parameters with their learning rates: less for those that were learned before."""
    if config.init_from is None:
        return [{"params": list(segmenter.parameters()), "lr": config.lr}]
    known = segmenter.net.pretrained_parameters()  # type: ignore[operator]
    ids = {id(parameter) for parameter in known}
    fresh = [parameter for parameter in segmenter.parameters() if id(parameter) not in ids]
    return [
        {"params": fresh, "lr": config.lr},
        {"params": known, "lr": config.lr * config.pretrained_lr_share},
    ]


def _loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return weighted cross-entropy plus soft Dice loss over the known pixels; 0 without any.

    Dice (Milletari et al. 2016, arXiv 1606.04797) is close to what mIoU measures; here it is the
    mean over the classes in the batch.
    """
    known = targets != UNKNOWN
    index = targets.clamp_min(0)
    losses = F.cross_entropy(logits, targets, weights, ignore_index=UNKNOWN, reduction="sum")
    entropy = losses / (weights[index] * known).sum().clamp_min(1e-6)
    shares = logits.softmax(1)
    right = shares.gather(1, index[:, None])[:, 0] * known
    overlap = torch.zeros_like(weights).index_add(0, index.flatten(), right.flatten())
    counts = torch.zeros_like(weights).index_add(0, index.flatten(), known.flatten().float())
    total = (shares * known[:, None]).sum((0, 2, 3)) + counts
    dice = 1 - (2 * overlap + 1) / (total + 1)
    present = counts > 0
    return entropy + (dice * present).sum() / present.sum().clamp_min(1)

"""Training of a segmenter on real images, optionally mixed with extra ones."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semsynth.core.devices import Precision, pick_device, resolve_precision
from semsynth.core.errors import UserError
from semsynth.core.logging import logger
from semsynth.core.outputs import Output, check_result, write_result
from semsynth.core.rng import derive_seed
from semsynth.core.safe_load import tensors_digest
from semsynth.core.version import __version__
from semsynth.data.class_checks import require_classes, warn_about_classes
from semsynth.data.content import digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet, check_extra_labels
from semsynth.segmentation.appearance import Appearance
from semsynth.segmentation.config import SEGMENTER_FILE, STRONG, UNLABELLED, SegmentTrainConfig
from semsynth.segmentation.encoder_unet import lite2_arch, lite2_unet
from semsynth.segmentation.fit import STATE, Objective, OnSave, fit
from semsynth.segmentation.loader import (
    Augmentation,
    FreshImages,
    Mix,
    MixedBatches,
    PlainAugmentation,
    SegmentationDataset,
    TrainingImages,
)
from semsynth.segmentation.mean_teacher import MeanTeacher, Unlabelled, check_encoder, measure
from semsynth.segmentation.metrics import score_split, summary
from semsynth.segmentation.objective import Supervised, class_weights
from semsynth.segmentation.seen import KEY as SEEN
from semsynth.segmentation.seen import SeenImages
from semsynth.segmentation.segmenter import Segmenter, SegmenterInfo, unet_arch
from semsynth.segmentation.strong import Geometry, StrongAugmentation
from semsynth.segmentation.unlabelled import UnlabelledImages

INFO = "segmenter.json"
_NOT_IN_KEY = (
    *("data", "extra", "output", "init_from", "device", "overwrite", "workers"),
    *("unlabelled", "unlabelled_split", "ema", "fresh"),
)
# What the key of segmenters has always had; newer settings are in it if they are not the default.
_FIRST_SETTINGS = (
    "split", "val_split", "extra_split", "mix_share", "arch", "width", "steps", "batch_size", "lr",
    "pretrained_lr_share", "weight_decay", "class_balance", "seed",
)  # fmt: skip
_PROVENANCE = ("data", "split", "n_train", "settings", "versions")


def train_segmenter(config: SegmentTrainConfig) -> Path:
    """Train and return the path of ``segmenter.pth``; see ``train`` for the scores."""
    return Path(train(config)["segmenter"])


def train(
    config: SegmentTrainConfig,
    fresh: FreshImages | None = None,
    on_save: OnSave | None = None,
) -> dict[str, Any]:
    """Run `semsynth segment train`; go on where an earlier call with the same content stopped.

    On the CPU, the same configuration and number of threads give the same weights.

    Args:
        config: the settings.
        fresh: what makes the images of the extra masks, if ``config.fresh`` is given.
        on_save: called after each time that the state of the training was written.

    Returns:
        JSON values: segmenter (path), steps, train_loss; with a validation split also n_val and
        the scores of ``metrics.summary``; with unlabelled images what ``unlabelled`` says of them
        (images, left_out, and the pseudo-labels of ``mean_teacher.measure``).

    Raises:
        UserError: data, extra or unlabelled images or output cannot be used (the message says what
            a segmenter that is there was trained on otherwise); the loss becomes infinite or NaN.
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
    unlabelled = _unlabelled(config, data, segmenter)
    output = _output(config, data, extra, segmenter, unlabelled)
    if fresh is not None:
        output = replace(output, key={**output.key, "fresh": fresh.digest})
    folder = output.claim()
    if (stored := _finished(folder)) is not None:
        output.complete()
        return stored
    labelled = supervised(*_labelled(data, extra, fresh, config), config)
    objective = _objective(labelled, unlabelled, config)
    loss = fit(segmenter, objective, config, folder / STATE, on_save)
    result: dict[str, Any] = {"steps": config.steps, "train_loss": loss}
    result |= _scores(segmenter, data, unlabelled, config)
    used = [(data, config.split), *([(extra, config.extra_split)] if extra else [])]
    seen = SeenImages.of(used, () if unlabelled is None else unlabelled.seen())
    path = _write(segmenter, result, seen, folder)
    output.complete()
    return {"segmenter": str(path), **result}


def _write(segmenter: Segmenter, result: dict[str, Any], seen: SeenImages, folder: Path) -> Path:
    """Write the finished segmenter and what is said of it; return its file."""
    provenance = segmenter.info.provenance
    provenance.update({**result, SEEN: seen.to_json()})
    path = segmenter.save(folder / SEGMENTER_FILE)
    # For programs, not for readers of the JSON file.
    write_result(folder, INFO, {k: v for k, v in provenance.items() if k != SEEN})
    (folder / STATE).unlink(missing_ok=True)
    return path


def _unlabelled(
    config: SegmentTrainConfig, data: PreparedDataset, segmenter: Segmenter
) -> UnlabelledImages | None:
    if config.unlabelled is None:
        return None
    check_encoder(segmenter)
    return UnlabelledImages(config.unlabelled, data, config.split, config.unlabelled_split)


def _labelled(
    data: PreparedDataset,
    extra: PreparedDataset | None,
    fresh: FreshImages | None,
    config: SegmentTrainConfig,
) -> tuple[SegmentationDataset, SegmentationDataset | FreshImages | None]:
    """Return the real images and the extra ones."""
    if config.fresh is not None and fresh is None:
        raise ValueError("config.fresh needs fresh: call augmentation.fresh.train")
    real = SegmentationDataset(data, config.split)
    if extra is None or fresh is not None:
        return real, fresh
    return real, SegmentationDataset(extra, config.extra_split)


def _scores(
    segmenter: Segmenter,
    data: PreparedDataset,
    unlabelled: UnlabelledImages | None,
    config: SegmentTrainConfig,
) -> dict[str, Any]:
    """Return the scores on the validation split, if there is one, and what was unlabelled."""
    split = config.val_split if config.val_split in data.splits() else None
    result: dict[str, Any] = {}
    if split is not None:
        matrix = score_split(segmenter, data, split)
        result |= {"n_val": len(data.stems(split)), **summary(matrix, data.labels.names)}
    if unlabelled is not None:
        found = measure(segmenter, unlabelled, data, split, config.confidence)
        result["unlabelled"] = {**unlabelled.summary(), "pseudo_labels": found}
    return result


def _output(
    config: SegmentTrainConfig,
    data: PreparedDataset,
    extra: PreparedDataset | None,
    segmenter: Segmenter,
    unlabelled: UnlabelledImages | None = None,
) -> Output:
    """Return the folder, and what decides the segmenter and its scores."""
    settings = _settings_of_key(config)
    used = [("images", data, config.split), ("validation", data, config.val_split)]
    if extra is not None:
        used.append(("extra", extra, config.extra_split))
    used = [(name, folder, split) for name, folder, split in used if split in folder.splits()]
    kinds = ["images", "masks"]
    if config.augment == "strong" and config.copy_paste:
        kinds.append("instances")
    inputs = {name: folder.digests([split], kinds) for name, folder, split in used}
    key = {"format": 2, **settings}
    key |= {name: folder.info.digest_of(inputs[name]) for name, folder, _ in used}
    if unlabelled is not None:
        inputs["unlabelled"] = unlabelled.digests()
        key["unlabelled"] = digest_json(inputs["unlabelled"])
    if config.init_from is not None:
        key["init_from"] = tensors_digest(segmenter.state_dict())
    elif config.arch == "lite2":
        key["network"] = segmenter.info.arch
    return Output(config.output, "segmenter", key, inputs, config.overwrite)


def _settings_of_key(config: SegmentTrainConfig) -> dict[str, Any]:
    """Return the settings that decide the segmenter.

    Strong augmentation and unlabelled images have all of their own: the defaults of these may
    change with the version.
    """
    defaults = {field.name: field.default for field in fields(config)}
    unlabelled = config.unlabelled is not None
    always = _FIRST_SETTINGS + (UNLABELLED if unlabelled else ())
    always += STRONG if unlabelled or config.augment == "strong" else ()
    average = {"ema": config.average_decay} if config.average_decay else {}
    return average | {
        name: value
        for name, value in asdict(config).items()
        if name not in _NOT_IN_KEY and (name in always or value != defaults[name])
    }


def _finished(folder: Path) -> dict[str, Any] | None:
    """Return what ``train`` returned for a segmenter that is finished; None: it is not."""
    path = folder / SEGMENTER_FILE
    if not (path.exists() and (folder / INFO).exists()):
        return None
    try:
        segmenter = Segmenter.load(path, "cpu")
    except UserError as error:
        logger.warning(f"{error}; trained again")
        return None
    found = {k: v for k, v in segmenter.info.provenance.items() if k != SEEN}
    try:
        check_result(folder, [INFO])
    except UserError as error:
        logger.warning(f"{error.args[0].partition(';')[0]}; written again, from {path.name}")
        write_result(folder, INFO, found)
    logger.info(f"{path}: is already trained")
    result = {k: v for k, v in found.items() if k not in _PROVENANCE}
    return {"segmenter": str(path), **result}


def _open_extra(config: SegmentTrainConfig, data: PreparedDataset) -> PreparedDataset | None:
    if config.extra is None:
        return None
    extra = PreparedDataset.open(config.extra)
    check_extra_labels(extra.labels, data.labels, str(config.extra), str(config.data))
    if (extra.height, extra.width) != (data.height, data.width):
        raise UserError(
            f"{config.extra}: images are {extra.width}x{extra.height}, "
            f"in {config.data} they are {data.width}x{data.height}"
        )
    return extra


def supervised(
    images: TrainingImages,
    extra: TrainingImages | FreshImages | None,
    config: SegmentTrainConfig,
) -> Supervised:
    """Return the loss on labelled images of any origin.

    Args:
        images: the real images, whose frequencies of classes balance the loss.
        extra: images that are mixed in.
        config: the settings of the training; its folders and splits do not count.
    """
    last = config.mix_share if config.mix_share_end is None else config.mix_share_end
    mix = Mix(config.mix_share, last, config.steps)
    augmentation: Augmentation = PlainAugmentation(config.seed)
    if config.augment == "strong":
        augmentation = strong_augmentation(images, config)
    batches = MixedBatches(
        images, extra, config.batch_size, mix, config.seed, augmentation, config.workers
    )
    weights = class_weights(images, config.class_balance)
    wanted: Precision = "bf16" if config.precision == "bf16" else "no"
    precision = resolve_precision(wanted, pick_device(config.device))
    return Supervised(batches, weights, config.extra_weight, precision)


def _objective(
    labelled: Supervised, unlabelled: Unlabelled | None, config: SegmentTrainConfig
) -> Objective:
    return labelled if unlabelled is None else MeanTeacher.of(labelled, unlabelled, config)


def strong_augmentation(images: TrainingImages, config: SegmentTrainConfig) -> StrongAugmentation:
    """Return the strong augmentation of a configuration; ``images`` are the real ones."""
    shares = images.class_shares() if config.balanced_crops else None
    return StrongAugmentation(
        images,
        config.seed,
        Geometry(config.scale, config.flip, config.rotate, shares),
        Appearance(config.color, config.stain, config.blur),
        config.classmix,
        config.copy_paste,
    )


def fit_segmenter(
    segmenter: Segmenter,
    images: TrainingImages,
    config: SegmentTrainConfig,
    state: Path,
    extra: TrainingImages | FreshImages | None = None,
    unlabelled: Unlabelled | None = None,
) -> None:
    """Train on images of any origin, in place; go on from the file ``state`` if it is there.

    Args:
        segmenter: untrained, of ``build_segmenter``, on its device.
        images: what to train on.
        config: the settings of the training; its folders and splits do not count.
        state: where the training is kept until it is finished; its folder exists.
        extra: what is mixed in, as ``config.mix_share`` and ``config.extra_weight`` say.
        unlabelled: what a mean teacher learns from, too, with the settings of ``config``, whose
            ``unlabelled`` must be set; its folder does not count.

    Raises:
        UserError: the loss becomes infinite or NaN.
    """
    objective = _objective(supervised(images, extra, config), unlabelled, config)
    fit(segmenter, objective, config, state)
    state.unlink(missing_ok=True)


def build_segmenter(
    config: SegmentTrainConfig, labels: LabelSet, size: tuple[int, int], licence: str = ""
) -> Segmenter:
    """Return the untrained segmenter of a configuration; the seed decides its weights.

    Args:
        config: ``arch``, ``enlarge``, ``width``, ``init_from`` and ``seed`` count.
        labels: what it predicts.
        size: height and width of the images.
        licence: of the training data.

    Raises:
        UserError: ``init_from`` cannot be loaded, or the weights of ``arch`` are not installed.
    """
    torch.manual_seed(derive_seed(config.seed, "segmenter weights"))
    pretrained: nn.Module | None = None
    n = len(labels.trainable)
    if config.init_from is None and config.arch == "unet":
        arch = unet_arch(config.width, *size)
    elif config.init_from is None and config.arch == "lite2":
        arch = lite2_arch(config.enlarge)
        pretrained = lite2_unet(n, arch, pretrained=True)
    else:
        from semsynth.segmentation import hub_models as hub

        if config.init_from is not None:
            arch, pretrained = hub.from_pretrained(config.init_from, n, config.enlarge)
        else:
            arch = hub.segformer_arch(config.arch, n)
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

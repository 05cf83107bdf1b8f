"""What is scored: generated and real images, masks and training images, each of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import read_json
from semsynth.core.logging import logger
from semsynth.core.outputs import MARKER
from semsynth.data.dataset import PreparedDataset
from semsynth.data.info import INFO
from semsynth.data.label_files.files import find_label_file, label_file, read_label_file
from semsynth.data.labels import LabelSet, check_same_labels
from semsynth.data.manifest import made_from_image, read_manifest
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.folders import image_files, matching_folders
from semsynth.evaluation.inputs.image_set import FolderImages, ImageSet, PreparedImages, digest_of
from semsynth.evaluation.inputs.mask_set import FolderMasks, MaskSet, PreparedMasks
from semsynth.evaluation.inputs.matching import grouped, match
from semsynth.evaluation.inputs.resized import ResizedImages, ResizedMasks
from semsynth.evaluation.metrics.blocks import Blocks, blocks_of
from semsynth.evaluation.protocols import Protocol, choose_protocol, load_protocol
from semsynth.pipelines.generate.sample_store import spread


@dataclass(frozen=True)
class Inputs:
    """The images that are scored, and what they are compared with.

    Attributes:
        generated: the generated images.
        real: the real images of the masks, by the masks' stems.
        masks: the masks; None: images alone are compared.
        training: real images that the generator was trained on, if they are given.
        training_masks: their masks by the same stems, if they are known.
        by_mask: stems of the samples by the stem of their mask; both in a fixed order.
        settings: what a manifest says of all samples (checkpoint, sampler, steps, ...).
        dataset: name of the data.
        licence: of the real images; empty: not known.
        protocol: how they are measured.
        matched_by: what said which sample is of which mask: ``manifest``, or a rule of names.
    """

    generated: ImageSet
    real: ImageSet
    masks: MaskSet | None
    training: ImageSet | None
    training_masks: MaskSet | None
    by_mask: dict[str, list[str]]
    settings: dict[str, Any] = field(default_factory=dict)
    dataset: str = ""
    licence: str = ""
    protocol: Protocol = field(default_factory=load_protocol)
    matched_by: str = ""

    @property
    def labels(self) -> LabelSet | None:
        """What the ids of the masks mean."""
        return None if self.masks is None else self.masks.labels

    @cached_property
    def blocks(self) -> Blocks:
        """The masks that are not independent of each other, for intervals and standard errors."""
        stems = self.masks_order
        return blocks_of(stems, [self.real.group(stem) for stem in stems])

    @property
    def masks_order(self) -> list[str]:
        """Stems of the masks (and real images), in order: number i is a mask's number."""
        return list(self.by_mask)

    @property
    def samples_with_masks(self) -> list[tuple[str, str]]:
        """Stem of every sample, and of its mask, in order: number i is a sample's number."""
        return [(stem, mask) for mask, stems in self.by_mask.items() for stem in stems]

    @property
    def first_samples(self) -> list[int]:
        """Number of the first sample of each mask: one a mask, so N is that of real images."""
        numbers, number = [], 0
        for stems in self.by_mask.values():
            numbers.append(number)
            number += len(stems)
        return numbers

    @cached_property
    def made_from_real(self) -> list[str]:
        """Stems of the samples whose manifest says that they were made from an image of the split.

        They are compared with that image, or what it was edited to.
        """
        generated = self.generated
        if not isinstance(generated, PreparedImages):
            return []
        made = {
            line["stem"]
            for line in read_manifest(generated.data.root)
            if line["split"] == generated.split and made_from_image(line)
        }
        return [stem for stem in generated.stems if stem in made]

    def contents(self) -> dict[str, dict[str, str]]:
        """Return the digest of every file that is compared, by what it is and its stem."""
        sets = {"samples": self.generated, "data": self.real, "training": self.training}
        found = {name: {} if images is None else _named(images) for name, images in sets.items()}
        masks = {} if self.masks is None else self.masks.digests()
        found["masks"] = {stem: masks[stem] for stem in self.masks_order if stem in masks}
        return found

    def set_digests(self) -> dict[str, str]:
        """Return what identifies each set of images, whatever their files are called."""
        sets = {"generated": self.generated, "real": self.real, "training": self.training}
        return {name: digest_of(images) for name, images in sets.items() if images is not None}


def _named(images: ImageSet) -> dict[str, str]:
    """Return the digests of images; of prepared ones by split and stem, as elsewhere."""
    split = f"{images.split}/" if isinstance(images, PreparedImages) else ""
    return {f"{split}{stem}": digest for stem, digest in images.digests().items()}


def open_inputs(config: EvaluateConfig) -> Inputs:
    """Open everything that is given and say which image is of which mask.

    Raises:
        UserError: something is missing, unfinished or does not belong together.
    """
    protocol = choose_protocol(config.protocol, config.protocol_flags)
    prepared = _prepared_sets(config)
    generated, samples = _open_generated(config)
    real = _open_real(config)
    masks = _open_masks(config, prepared, samples)
    pairs, settings, rule = _pairs(config, generated, samples, masks or real)
    if masks is None and samples is not None:
        firsts = {mask: sample for sample, mask in reversed(list(pairs.items()))}
        masks = PreparedMasks(samples.data, samples.split, firsts)
    by_mask = grouped(pairs, (masks or real).stems)
    there = set(real.stems)
    absent = [stem for stem in by_mask if stem not in there]
    if absent:
        raise UserError(
            f"{real.where}: has no image of mask '{absent[0]}' ({len(absent)} masks without real "
            "image); give the real images of the same masks as --real"
        )
    _say_matches(generated.where, by_mask, (masks or real).stems, rule)
    by_mask = {stem: by_mask[stem] for stem in spread(list(by_mask), config.max)}
    training = _open_training(config, prepared)
    if samples is not None and masks is not None:
        check_same_labels(samples.data.labels, masks.labels, samples.where, masks.where)
    origin = real.data.info if isinstance(real, PreparedImages) else None
    inputs = Inputs(
        generated.of([stem for stems in by_mask.values() for stem in stems]),
        real.of(list(by_mask)),
        masks,
        training,
        _masks_of_training(training, masks),
        by_mask,
        settings,
        origin.name if origin else real.title,
        origin.licence if origin else "",
        protocol,
        rule,
    )
    return _at_one_size(inputs)


def _at_one_size(inputs: Inputs) -> Inputs:
    """Bring real images and masks to the size of the generated ones, if the protocol says so.

    Raises:
        UserError: the generated images have several sizes, or one that the protocol does not have.
    """
    protocol, generated = inputs.protocol, inputs.generated
    if not protocol.resizes and protocol.images_size is None:
        return inputs
    sizes = {generated.size(stem): stem for stem in reversed(generated.stems)}
    for size in sizes:
        protocol.check_size(size, generated.where)
    if not protocol.resizes:
        return inputs
    if len(sizes) > 1:
        (one, first), (two, second), *_ = sizes.items()
        raise UserError(
            f"{generated.where}: '{first}' is {one[1]}x{one[0]}, '{second}' {two[1]}x{two[0]}; "
            f"protocol {protocol.name} resizes real images to the one size of the generated ones"
        )
    size = next(iter(sizes))
    training, masks, learned = inputs.training, inputs.masks, inputs.training_masks
    return replace(
        inputs,
        real=ResizedImages(inputs.real, size, protocol),
        masks=None if masks is None else ResizedMasks(masks, size, protocol),
        training=None if training is None else ResizedImages(training, size, protocol),
        training_masks=None if learned is None else ResizedMasks(learned, size, protocol),
    )


def is_prepared(folder: Path) -> bool:
    """Return whether a folder is prepared data or samples (perhaps unfinished), not plain."""
    if (folder / MARKER).is_file():
        return True
    path = folder / INFO
    if not path.is_file():
        return False
    value = read_json(path)
    return isinstance(value, dict) and {"splits", "labels"} <= value.keys()


def _prepared_sets(config: EvaluateConfig) -> list[PreparedDataset]:
    """Return the prepared data that masks and training images come from if not given alone."""
    folders = [config.data] if config.data is not None else []
    if config.data is None or config.real is not None:
        folders.append(config.real_folder)
    return [PreparedDataset.open(folder) for folder in folders if is_prepared(folder)]


def _open_generated(config: EvaluateConfig) -> tuple[ImageSet, PreparedImages | None]:
    """Return the generated images; and again, if they are samples in our layout."""
    words = config.generated_folders
    folders = matching_folders(words, "--generated")
    if len(folders) == 1 and is_prepared(folders[0]):
        found = PreparedImages.open(folders[0], config.split)
        return found, found
    if len(folders) == 1:
        folder = folders[0]
        return FolderImages(folder.name, str(folder), image_files(folder, "--generated")), None
    for folder in folders:
        if is_prepared(folder):
            raise UserError(
                f"{folder}: is a data set of semsynth, among other folders; give it alone as "
                "--generated, or the folder of its images"
            )
    names = _names_of(folders)
    files = {
        f"{name}/{stem}": path
        for name, folder in zip(names, folders, strict=True)
        for stem, path in image_files(folder, "--generated").items()
    }
    return FolderImages(Path(words[0]).name, " ".join(words), files), None


def _names_of(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names; of those that share one, their places in the list."""
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [str(i) for i in range(len(names))]


def _open_real(config: EvaluateConfig) -> ImageSet:
    folder = config.real_folder
    if config.real is None and config.data is None and not folder.exists():
        raise UserError(
            "--real is missing: the folder of the real images of the same masks (or --data, "
            f"prepared data; {folder}, which is taken without either, does not exist)"
        )
    return _open_set(folder, config.split, "--real" if config.real else "--data")


def _open_set(folder: Path, split: str, flag: str) -> ImageSet:
    if is_prepared(folder) or flag == "--data":
        return PreparedImages.open(folder, split)
    return FolderImages(folder.name, str(folder), image_files(folder, flag))


def _open_masks(
    config: EvaluateConfig, prepared: Sequence[PreparedDataset], samples: PreparedImages | None
) -> MaskSet | None:
    """Return the masks that are given, or that prepared data bring; None: there are none."""
    folder = config.masks
    if folder is None:
        found = next((data for data in prepared if config.split in data.splits()), None)
        if config.labels is not None and found is None:
            raise UserError("--labels is given without --masks; give the folder of the masks")
        return None if found is None else PreparedMasks.of_split(found, config.split)
    if is_prepared(folder):
        return PreparedMasks.of_split(PreparedDataset.open(folder), config.split)
    if config.labels is not None:
        return FolderMasks.open(folder, read_label_file(config.labels), config.masks_as)
    owner = next(iter([*prepared, *([samples.data] if samples else [])]), None)
    if owner is None:
        beside = find_label_file(folder, folder.parent) if folder.is_dir() else None
        which = f" ({beside}?)" if beside else ""
        raise UserError(
            f"{folder}: the meaning of the ids in its masks is unknown; give a label file as "
            f"--labels{which}, "
            "such as labels.yaml with ids, names and 'ignore'"
        )
    value = {
        "ignore": owner.labels.ignore_id,
        "labels": {
            label.id: {"name": label.name, "color": list(label.color)}
            for label in owner.labels.labels
        },
    }
    return FolderMasks.open(folder, label_file(value, str(owner.root)), config.masks_as)


def _open_training(config: EvaluateConfig, prepared: Sequence[PreparedDataset]) -> ImageSet | None:
    """Return the training images, at most --max; None: there are none."""
    images: ImageSet | None = None
    if config.train is not None:
        images = _open_set(config.train, config.train_split, "--train")
    else:
        split = config.train_split
        for data in prepared:
            there = split in data.splits() and split != config.split and data.stems(split)
            if there and data.has_images(split):
                images = PreparedImages(data, split, data.stems(split))
                break
    return None if images is None else images.of(spread(list(images.stems), config.max))


def _masks_of_training(images: ImageSet | None, masks: MaskSet | None) -> MaskSet | None:
    """Return the masks of prepared training images, if they have the labels of ``masks``."""
    if masks is None or not isinstance(images, PreparedImages):
        return None
    own = PreparedMasks.of_split(images.data, images.split)
    try:
        check_same_labels(own.labels, masks.labels, own.where, masks.where)
    except UserError as difference:
        logger.info(f"the masks of the training images are not used: {difference}")
        return None
    return own


def _pairs(
    config: EvaluateConfig,
    generated: ImageSet,
    samples: PreparedImages | None,
    masks: MaskSet | ImageSet,
) -> tuple[dict[str, str], dict[str, Any], str]:
    """Return the mask of each sample, what the manifest says of all, and how masks were found."""
    rule = None if config.match == "auto" else config.match
    names = (generated.where, masks.where)
    lines = [] if samples is None else read_manifest(samples.data.root)
    known = set(generated.stems)
    manifest = {
        str(line["stem"]): line
        for line in lines
        if line["split"] == config.split and line["stem"] in known
    }
    if manifest.keys() == known:
        pairs = {stem: str(line["source"]) for stem, line in manifest.items()}
        there = set(masks.stems)
        wrong = next((stem for stem, mask in pairs.items() if mask not in there), None)
        if wrong is not None:
            raise UserError(
                f"{generated.where}: sample '{wrong}' is of mask '{pairs[wrong]}', which "
                f"{masks.where} does not have; give the data that the samples were generated from"
            )
        return pairs, _common(list(manifest.values())), "manifest"
    pairs, used = match(generated.stems, masks.stems, names, rule)
    return pairs, _common(list(manifest.values())), used


def _say_matches(
    where: str, by_mask: dict[str, list[str]], stems: Sequence[str], rule: str
) -> None:
    """Say in a line how many images are of how many masks, by which rule, and what has none."""
    counts = sorted({len(samples) for samples in by_mask.values()})
    each = "1" if counts == [1] else " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    left = len(stems) - len(by_mask)
    rest = f"; {left} without generated images are left out" if left else ""
    total = sum(map(len, by_mask.values()))
    logger.info(f"{where}: {total} images of {len(by_mask)} masks, {each} each, by {rule}{rest}")


def _common(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the values that all entries share."""
    if not entries:
        return {}
    first = entries[0]
    return {
        key: value
        for key, value in first.items()
        if key not in ("stem", "source", "split", "seed")
        and all(entry.get(key) == value for entry in entries)
    }

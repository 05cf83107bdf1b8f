"""Whether evaluation images were used in a training: by content, and by sequence or field.

A gain on images that the generator, or the filter of its labels, was trained on does not count.
Neither does one over n images if the generator started from others of the same sequences, fields or
tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.draws import Part, pool_stems
from semsynth.augmentation.experiment.unlabelled import open_unlabelled
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_json
from semsynth.core.logging import logger
from semsynth.core.outputs import INPUTS
from semsynth.data.content import ALL_KINDS, KINDS
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import check_same_labels
from semsynth.data.sources.streets import StreetSource
from semsynth.evaluation.metrics.blocks import sequences_of
from semsynth.pipelines.formats.model_file import load_checkpoint
from semsynth.pipelines.formats.pretrained import find_model, is_of_package
from semsynth.segmentation.seen import SeenImages
from semsynth.segmentation.seen import image_digests as digests_by_stem
from semsynth.segmentation.segmenter import Segmenter

FLAG = "--allow-overlap"
STREETS = StreetSource.name
OTHER = "other-"
"""Before the names of the generator's other images, which may be those of the draw's."""
_NAMED = 3

_SPLIT_AGAIN = "split again"

Digests = Mapping[bytes, str]
"""``seen.pixel_digest`` and digests of raw files: the stem of the image."""


def find_overlap(config: ExperimentConfig, data: PreparedDataset, others: Part | None) -> list[str]:
    """Return what was seen that must not be, in sentences for the report; empty as it should be.

    Args:
        others: ``other_images``.

    Raises:
        UserError: there is some, and ``allow_overlap`` is not given.
    """
    stems = pool_stems(data, config.eval_split, config.kind)
    pool = pool_stems(data, config.split, config.kind)
    if config.split == config.eval_split:
        raise UserError(f"--eval-split {config.eval_split}: is also --split; choose another")
    digests = image_digests(data, config.eval_split, stems)
    evaluation = (data, config.eval_split, stems)
    lines = _between(data, config.split, pool, evaluation, digests)
    if others is not None:
        text = _between(others.data, config.split, others.stems, evaluation, digests)
        lines += [f"--generator-data {config.generator_data}: {line}" for line in text]
    if config.unlabelled is not None:
        lines += _of_unlabelled(config, evaluation)
    # What was seen, and what to do about it.
    found = [(line, _SPLIT_AGAIN) for line in lines]
    if config.from_checkpoint is not None:
        streets = "" if _same_set(STREETS, data) else ", or from built-in streets"
        remedy = f"train from scratch{streets}"
        found += [(line, remedy) for line in _of_start(config.from_checkpoint, config, data)]
    if config.teacher is not None:
        remedy = "give one that was not, or leave it to the draw's own"
        found += [(line, remedy) for line in _of_teacher(config.teacher, data, digests)]
    if found and not config.allow_overlap:
        line, remedy = found[0]
        raise UserError(
            f"{line}; a gain would be meaningless: {remedy}, or continue with {FLAG}; the report "
            "says so"
        )
    for line, _ in found:
        logger.warning(f"overlap: {line}")
    return [line for line, _ in found]


def image_digests(data: PreparedDataset, split: str, stems: Sequence[str]) -> dict[bytes, str]:
    """Return the digests of images, of their pixels and of the raw files that were theirs alone."""
    found = digests_by_stem(data, split, stems)
    return {digest: stem for stem, digests in found.items() for digest in digests}


def other_images(config: ExperimentConfig, data: PreparedDataset) -> Part | None:
    """Return the images of ``--generator-data`` that are none of the pool's."""
    if config.generator_data is None:
        return None
    other = PreparedDataset.open(config.generator_data)
    pool = image_digests(data, config.split, pool_stems(data, config.split, config.kind))
    stems = without(other, config.split, other.stems(config.split), pool)
    return Part(other, config.split, stems, OTHER)


def unlabelled_images(
    config: ExperimentConfig, data: PreparedDataset, labelled: Sequence[str] = ()
) -> Part:
    """Return the images of ``--unlabelled`` that are no evaluation images.

    Those are never training images, with a mask or without.

    Args:
        config: of the experiment.
        data: the pool.
        labelled: images of the pool that are left out, too.
    """
    other = open_unlabelled(config, data)
    split = other.splits()[0]
    known = image_digests(data, config.eval_split, data.stems(config.eval_split))
    known |= image_digests(data, config.split, labelled)
    return Part(other, split, without(other, split, other.stems(split), known))


def without(data: PreparedDataset, split: str, stems: Sequence[str], digests: Digests) -> list[str]:
    """Return the images that are not among those of ``digests``."""
    same = {stem for digest, stem in image_digests(data, split, stems).items() if digest in digests}
    return [stem for stem in stems if stem not in same]


def _between(
    seen: PreparedDataset,
    split: str,
    stems: Sequence[str],
    evaluation: tuple[PreparedDataset, str, Sequence[str]],
    digests: Digests,
) -> list[str]:
    """Say which images of ``seen`` are evaluation images, or of their sequences or fields."""
    data, eval_split, eval_stems = evaluation
    lines = []
    same = [
        f"{split}/{stem} is {eval_split}/{digests[digest]}"
        for digest, stem in image_digests(seen, split, stems).items()
        if digest in digests
    ]
    if same:
        lines.append(
            f"{len(same)} images of '{split}' are evaluation images ({abbreviate(same, _NAMED)})"
        )
    groups = _groups(seen, split, stems, data, eval_split, eval_stems)
    if groups:
        lines.append(
            f"'{split}' and '{eval_split}' have images of the same sequence, field or tile "
            f"({abbreviate(groups, _NAMED)})"
        )
    return lines


def _of_unlabelled(
    config: ExperimentConfig, evaluation: tuple[PreparedDataset, str, Sequence[str]]
) -> list[str]:
    """Say which images without masks are of the evaluation images' sequences or fields."""
    part = unlabelled_images(config, evaluation[0])
    if not part.stems:
        raise UserError(
            f"--unlabelled {config.unlabelled}: all images of '{part.split}' are evaluation "
            "images; give others, or drop the flag"
        )
    groups = _groups(part.data, part.split, part.stems, *evaluation)
    if not groups:
        return []
    return [
        f"--unlabelled {config.unlabelled}: '{part.split}' and '{config.eval_split}' have images "
        f"of the same sequence, field or tile ({abbreviate(groups, _NAMED)})"
    ]


def _groups(
    one: PreparedDataset,
    split: str,
    stems: Sequence[str],
    two: PreparedDataset,
    eval_split: str,
    eval_stems: Sequence[str],
) -> list[str]:
    """Return the sequences, fields or tiles of which both have images."""
    recorded = [one.record(split, stem).group for stem in stems]
    recorded += [two.record(eval_split, stem).group for stem in eval_stems]
    names = sequences_of([*stems, *eval_stems], recorded)
    mine, theirs = set(names[: len(stems)]), set(names[len(stems) :])
    return sorted(name for name in mine & theirs if name is not None)


def _of_start(start: Path, config: ExperimentConfig, data: PreparedDataset) -> list[str]:
    """Say what the model that generators start from has seen.

    Built-in streets are like no images but themselves.
    """
    path = find_model(start)
    metadata = load_checkpoint(path).metadata
    name = metadata.get("dataset")
    while name == STREETS and isinstance(metadata.get("from"), dict):
        metadata = metadata["from"]
        name = metadata.get("dataset")
    if name == STREETS and not _same_set(STREETS, data):
        return []
    run = path if path.is_dir() else path.parent
    if not is_of_package(path) and (run / INPUTS).is_file():
        inputs = read_json(run / INPUTS)
        trained = set(inputs.get("content", {}).values()) | set(inputs.get("held_out", {}).values())
        splits = [config.split, config.eval_split]
        # A run records the larger copies of images, too, where it cut crops from them.
        seen = sorted(
            {
                stem
                for kinds in (KINDS, ALL_KINDS)
                for stem, digest in data.digests(splits, kinds).items()
                if digest in trained
            }
        )
        if not seen and "from" not in metadata and not _same_set(name, data):
            return []
        if seen:
            names = abbreviate(seen, _NAMED)
            return [
                f"--from {start}: {len(seen)} of these images were used in its training, or to "
                f"validate it ({names})"
            ]
    return [
        f"--from {start}: was trained on {name or 'images that it does not name'}, and may have "
        "seen images of the same sequences, fields or tiles"
    ]


def _same_set(name: object, data: PreparedDataset) -> bool:
    """Whether a model's data set has this name: prepared otherwise it has other digests."""
    return name is None or name == data.info.name


def _of_teacher(path: Path, data: PreparedDataset, digests: Digests) -> list[str]:
    """Say which of the evaluation images the segmenter of ``--teacher`` was trained on."""
    segmenter = Segmenter.load(path, "cpu")
    check_same_labels(segmenter.labels, data.labels, f"--teacher {path}", str(data.root))
    seen = SeenImages.from_json(segmenter.info.provenance)
    if seen is None:
        return [f"--teacher {path}: does not say which images it was trained on"]
    known = sorted({stem for digest, stem in digests.items() if digest in seen.real})
    if known:
        return [f"--teacher {path}: was trained on evaluation images ({abbreviate(known, _NAMED)})"]
    return []

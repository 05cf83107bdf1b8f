"""Real images without masks, as people have them: a folder of files, or a prepared data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.draws import claim_experiment, locked
from semsynth.augmentation.subset import SPLIT
from semsynth.core.errors import UserError
from semsynth.core.logging import progress
from semsynth.data.content import digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.info import INFO
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample
from semsynth.segmentation.unlabelled import UnlabelledImages

_KIND = "unlabelled"
# The end of a file's name; tiles of a file have their corner behind it.
_SUFFIX = re.compile(r"\.[A-Za-z0-9]+(?=(@\d+_\d+)?$)")


def open_unlabelled(config: ExperimentConfig, data: PreparedDataset) -> PreparedDataset:
    """Return the images of ``--unlabelled`` of an experiment as a prepared data set.

    Raises:
        UserError: as ``prepared_unlabelled``; the output belongs to something else.
    """
    assert config.unlabelled is not None
    if not (config.unlabelled / INFO).exists():
        claim_experiment(config.output, data.digest_of([config.split, config.eval_split]))
    return prepared_unlabelled(config.unlabelled, data, config.split, config.output)


def prepared_unlabelled(
    folder: Path, data: PreparedDataset, split: str, output: Path
) -> PreparedDataset:
    """Return real images without masks as a prepared data set; one that is one is only opened.

    A folder of image files is read as ``segment train --unlabelled`` reads it, and written as a
    data set whose masks are unlabelled: at the size of the labelled images, without those of its
    other splits.

    Args:
        folder: of prepared data, or of image files in any depth.
        data: the labelled images.
        split: theirs.
        output: where the data set is written, in a folder of its own.

    Raises:
        UserError: no such folder, no usable image in it, or images of other channels or bits.
    """
    if (folder / INFO).exists():
        return PreparedDataset.open(folder)
    return _of_files(folder, data.root, split, output)


@cache
def _of_files(folder: Path, labelled: Path, split: str, output: Path) -> PreparedDataset:
    """Read the files once in a process, and write them once."""
    data = PreparedDataset.open(labelled)
    if not data.pixels.is_rgb:
        raise UserError(
            f"--unlabelled {folder}: files are read as RGB of 8 bits here, images of {data.root} "
            f"have {data.pixels}; drop the flag"
        )
    images = UnlabelledImages(folder, data, split)
    form = replace(data.form, large=None, labels=data.labels.with_ignore("unlabelled"))
    key = {"images": images.digests(), "form": [form.labels.to_json(), *map(str, data.size())]}
    root = output / f"{_KIND}-{digest_json(key)[:12]}"
    with locked(output / "locks" / root.name, root.name):
        writer = PreparedWriter(root, form, "subset", {_KIND: digest_json(key)})
        if writer.is_finished:
            return PreparedDataset.open(root)
        mask = np.full(data.size(), form.labels.ignore_id, form.labels.mask_dtype)
        stems = stems_of(images.names)
        resize = data.resize_mode(split, data.stems(split)[0]) if form.resize == "paper" else None
        for i, stem in enumerate(progress(stems, "write unlabelled", unit="image")):
            if not writer.done(SPLIT, stem):
                part = images.part(i)
                sample = PreparedSample(part.pixels, mask, box=part.box, resize=resize)
                writer.add(write_sample(writer.root, form, SPLIT, stem, sample))
        return writer.finish(folder.name, "images without masks", "")


def stems_of(names: Sequence[str]) -> list[str]:
    """Return a name for each image file: its path without suffix, with ``__`` between the parts.

    Files that differ in their suffix alone keep it.
    """
    flat = [name.replace("/", "__") for name in names]
    short = [_SUFFIX.sub("", name) for name in flat]
    count = Counter(short)
    stems = [a if count[a] == 1 else b for a, b in zip(short, flat, strict=True)]
    twice = [stem for stem, n in Counter(stems).items() if n > 1]
    if twice:
        raise UserError(f"--unlabelled: two images would be called {twice[0]}; rename one")
    return stems

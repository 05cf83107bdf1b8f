"""Paint several images for each mask and leave them as a data set of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from semsynth.core.distributed.shards import Shard, this_shard
from semsynth.core.errors import UserError
from semsynth.core.files import require_space, sha256_file, write_bytes
from semsynth.core.logging import logger
from semsynth.core.progress import progress_bar
from semsynth.data.dataset import INFO, PreparedDataset
from semsynth.data.labels import Array, LabelSet
from semsynth.diffusion.config import SamplerSettings
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.contact_sheet import ContactRow, contact_sheet
from semsynth.pipelines.generate.geometry import OutputGeometry, enlarged
from semsynth.pipelines.generate.sample_specs import (
    SampleSpec,
    check_same_labels,
    chunks,
    list_samples,
    spread,
)
from semsynth.pipelines.generate.sample_store import SampleStore

if TYPE_CHECKING:
    from semsynth.pipelines import SemanticDiffusionPipeline

CONTACT_SHEET = "contact_sheet.png"
_CONTACT_ROWS, _CONTACT_SAMPLES = 12, 6


class Generator(Protocol):
    """What paints: `SemanticDiffusionPipeline`, or anything that does the same."""

    @property
    def labels(self) -> LabelSet:
        """The labels that it was trained with."""

    @property
    def height(self) -> int:
        """Height of its images in pixels."""

    @property
    def width(self) -> int:
        """Width of its images in pixels."""

    @property
    def checkpoint_sha256(self) -> str:
        """What it is: the hash of its checkpoint."""

    @property
    def licence(self) -> str:
        """The licence that its training data put on it."""

    @property
    def instance_edges(self) -> bool:
        """Whether it wants the edges between objects."""

    def generate(
        self,
        mask_BHW: Array,
        seeds: Sequence[int],
        settings: SamplerSettings,
        edges_BHW: Array | None = None,
    ) -> Array:
        """Paint label ids, one seed a mask: (B, H, W, 3) uint8 RGB."""


def generate(config: GenerateConfig, painter: Generator | None = None) -> dict[str, Any]:
    """Paint ``config.per_mask`` images for each mask and write them in the prepared layout.

    An image depends on checkpoint, mask, seed and sampler settings alone. What is already there
    is not painted again. Several processes may share the work (``runtime.shards``), at one time
    or one after the other; the one that finds all images there writes the lists.

    Args:
        config: what to paint, and where to.
        painter: paints instead of the checkpoint ``config.model``.

    Returns:
        JSON values: output, n_masks, n_generated (all that were asked for), n_new (painted now),
        n_missing (left to other processes), finished, contact_sheet.

    Raises:
        UserError: no such checkpoint, data set or split; labels or size of the two differ; the
            output belongs to something else; the disk is too small.
    """
    shard = this_shard(config.shard)
    data = PreparedDataset.open(config.data)
    shots = list_samples(config, data)
    checkpoint = painter.checkpoint_sha256 if painter else _checkpoint_hash(config)
    # How large masks become is told by the model alone.
    pipe = _load(config) if painter is None and config.small_masks == "enlarge" else None
    frame = _frame(config, data, painter or pipe)
    store = SampleStore(config.output, frame, _key(config, checkpoint))
    if store.is_complete(shots):
        return _summary(config, store, shots, n_new=0, finished=True)
    if painter is None:
        painter = pipe = pipe or _load(config)
    _check_fit(painter, data, config)
    size = _batch_size(config, len(shots))
    batches = _batches(shots, store, size, shard)
    missing = [shot for batch in batches for shot in batch if not store.has(shot)]
    n_bytes = 4 * frame.form.height * frame.form.width  # PNGs of noise are no smaller than pixels
    require_space(config.output, n_bytes * len(missing), f"painting {len(missing)} images")
    store.open(shard)
    if pipe is not None:
        _settle(pipe, store, frame, config, size)
    n_new = _paint(config, painter, frame, store, batches, size)
    finished = all(store.has(shot) for shot in shots)
    if finished:
        store.list_all(shots, {**_settings(config), "checkpoint": checkpoint})
        write_bytes(config.output / CONTACT_SHEET, _contact_sheet(config, data, store, shots))
        store.finish(_source(painter, data))
    return _summary(config, store, shots, n_new, finished)


def _frame(
    config: GenerateConfig, data: PreparedDataset, painter: Generator | None
) -> OutputGeometry:
    size = None
    if config.small_masks == "enlarge" and painter is not None:
        size = enlarged((data.height, data.width), (painter.height, painter.width))
    return OutputGeometry(data, config.native_size, config.split, size)


def _batches(
    shots: Sequence[SampleSpec], store: SampleStore, size: int, shard: Shard
) -> list[Sequence[SampleSpec]]:
    """Return a process's part of the work.

    Kernels depend on the shape and perhaps on what else is in a batch: the plan is cut into
    batches first, and they are dealt out, so that an image has the same bytes whoever paints it.
    What an earlier run has listed is left out, for all processes alike.
    """
    listed = store.listed()
    new = [shot for shot in shots if (shot.split, shot.stem) not in listed]
    mine = shard.of(list(chunks(new, size)))
    lost = [
        shot
        for shot in shard.of(shots)
        if (shot.split, shot.stem) in listed and not store.has(shot)
    ]
    return [*mine, *chunks(lost, size)]


def _batch_size(config: GenerateConfig, count: int) -> int:
    """Return how many of ``count`` images are painted at once: whole masks, where several fit."""
    size, each = min(config.batch_size, count), config.per_mask
    return size - size % each if size > each else size


def _paint(
    config: GenerateConfig,
    painter: Generator,
    frame: OutputGeometry,
    store: SampleStore,
    batches: Sequence[Sequence[SampleSpec]],
    size: int,
) -> int:
    """Paint those batches of which images are missing; return how many were."""
    n_new, total = 0, sum(map(len, batches))
    with progress_bar(total, "generating", unit="image") as bar:
        for batch in batches:
            missing = [shot for shot in batch if not store.has(shot)]
            if missing:
                # All of a batch is painted for one image of it, and a short one filled up.
                filled = [*batch, *[batch[-1]] * (size - len(batch))]
                masks = np.stack([frame.mask(shot.split, shot.source) for shot in filled])
                edges = None
                if painter.instance_edges:
                    edges = np.stack([frame.edges(shot.split, shot.source) for shot in filled])
                seeds = [shot.seed for shot in filled]
                images = painter.generate(masks, seeds, config.settings, edges)
                for shot, image in zip(batch, images, strict=False):
                    store.write(shot, image)
                n_new += len(missing)
            bar.update(len(batch))
    return n_new


def _checkpoint_hash(config: GenerateConfig) -> str:
    from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256

    return checkpoint_sha256(config.model)


def _load(config: GenerateConfig) -> SemanticDiffusionPipeline:
    from semsynth.pipelines import SemanticDiffusionPipeline

    pipe = SemanticDiffusionPipeline.from_checkpoint(config.model, device=config.device)
    if config.reference == "plain":
        pipe.plain = True
        return pipe
    pipe.cache = config.cache
    pipe.set_precision(config.precision)
    pipe.set_compile(config.compile)
    return pipe


def _settle(
    pipe: SemanticDiffusionPipeline,
    store: SampleStore,
    frame: OutputGeometry,
    config: GenerateConfig,
    size: int,
) -> None:
    """Agree with other processes on what ``auto`` may choose otherwise, and say what is done."""
    pipe.use_precision(store.agree("precision", pipe.precision))
    if text := pipe.describe_size(*frame.size):
        logger.info(text)
    if config.reference == "none":
        logger.info(pipe.describe_cache(size // math.gcd(size, config.per_mask), frame.size))


def _check_fit(painter: Generator, data: PreparedDataset, config: GenerateConfig) -> None:
    split = config.split
    check_same_labels(painter.labels, data.labels, str(data.root))
    small = data.height < painter.height and data.width < painter.width
    if small and config.small_masks == "refuse":
        raise UserError(
            f"{data.root}: masks are {data.width}x{data.height} (width x height), the model "
            f"paints {painter.width}x{painter.height}; run 'semsynth prepare' with "
            f"--height {painter.height} --width {painter.width}, or say --small-masks enlarge "
            "(nearest) or paint"
        )
    if painter.instance_edges and not data.has_instances(split):
        raise UserError(
            f"{data.root}: masks of split '{split}' have no instance maps, whose edges the model "
            "was trained with; prepare data that have instances"
        )


def _settings(config: GenerateConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "sampler": config.sampler,
        "steps": config.steps,
        "guidance_scale": config.guidance_scale,
    }
    # Said only where they act, so that folders from before they existed can go on.
    if config.guidance_interval != (0.0, 1.0):
        settings["guidance_interval"] = list(config.guidance_interval)
    if config.precision != "auto":
        settings["precision"] = config.precision
    if config.reference != "none":
        settings["reference"] = config.reference
    return settings


def _key(config: GenerateConfig, checkpoint: str) -> dict[str, Any]:
    """What decides the images; which and how many of them may grow from run to run."""
    return {
        "checkpoint": checkpoint,
        "data": sha256_file(config.data / INFO),
        "seed": config.seed,
        "native_size": config.native_size,
        **({"small_masks": "enlarge"} if config.small_masks == "enlarge" else {}),
        **_settings(config),
    }


def _source(painter: Generator, data: PreparedDataset) -> dict[str, str]:
    licences = dict.fromkeys(text for text in (data.info.licence, painter.licence) if text)
    return {
        "name": f"{data.info.name} (generated)",
        "source": f"checkpoint {painter.checkpoint_sha256}, masks of {data.info.source}",
        "licence": "; ".join(licences),
    }


def _contact_sheet(
    config: GenerateConfig, data: PreparedDataset, store: SampleStore, shots: Sequence[SampleSpec]
) -> bytes:
    by_source: dict[str, list[SampleSpec]] = {}
    for shot in shots:
        by_source.setdefault(shot.source, []).append(shot)
    rows = []
    for source in spread(list(by_source), _CONTACT_ROWS):
        shown = [store.read(shot) for shot in by_source[source][:_CONTACT_SAMPLES]]
        has_real = data.record(config.split, source).image
        rows.append(
            ContactRow(
                mask=data.labels.colorize(shown[0][0]),
                real=data.read_image(config.split, source) if has_real else None,
                samples=[image for _, image in shown],
            )
        )
    title = (
        f"{data.info.name}, {config.split}: {config.sampler}, {config.steps} steps, "
        f"guidance {config.guidance_scale:g}"
    )
    return contact_sheet(rows, title)


def _summary(
    config: GenerateConfig,
    store: SampleStore,
    shots: Sequence[SampleSpec],
    n_new: int,
    finished: bool,
) -> dict[str, Any]:
    n_missing = 0 if finished else sum(not store.has(shot) for shot in shots)
    if not finished:
        logger.info(
            f"{config.output}: {n_missing} of {len(shots)} images are left to other processes; "
            "the last of them writes dataset.json (should one have died, run the command again)"
        )
    return {
        "output": str(config.output),
        "n_masks": len({shot.source for shot in shots}),
        "n_generated": len(shots),
        "n_new": n_new,
        "n_missing": n_missing,
        "finished": finished,
        "contact_sheet": str(config.output / CONTACT_SHEET) if finished else None,
    }

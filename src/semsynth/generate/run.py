"""Paint several pictures for each mask and leave them as a data set of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from semsynth.data.labels import Array, LabelSet
from semsynth.data.layout import INFO
from semsynth.data.prepared import PreparedDataset
from semsynth.diffusion.settings import SamplerSettings
from semsynth.generate.config import GenerateConfig
from semsynth.generate.contact import ContactRow, contact_sheet
from semsynth.generate.frame import Frame
from semsynth.generate.plan import Shot, check_same_labels, plan_shots, spread
from semsynth.generate.store import SampleStore
from semsynth.runtime.artifacts import require_space, sha256_file, write_bytes
from semsynth.runtime.errors import UserError
from semsynth.runtime.progress import progress_bar, say

CONTACT_SHEET = "contact_sheet.png"
_CONTACT_ROWS, _CONTACT_SAMPLES = 12, 6


class Painter(Protocol):
    """What paints: `SemanticDiffusionPipeline`, or anything that does the same."""

    @property
    def labels(self) -> LabelSet:
        """The labels that it was trained with."""

    @property
    def height(self) -> int:
        """Height of its pictures in pixels."""

    @property
    def width(self) -> int:
        """Width of its pictures in pixels."""

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


def generate(config: GenerateConfig, painter: Painter | None = None) -> dict[str, Any]:
    """Paint ``config.per_mask`` pictures for each mask and write them in the prepared layout.

    A picture depends on checkpoint, mask, seed and sampler settings alone. What is already there
    is not painted again. Several processes may share the work (``RANK``, ``WORLD_SIZE``); the
    last of them to finish writes the lists.

    Args:
        config: what to paint, and where to.
        painter: paints instead of the checkpoint ``config.model``.

    Returns:
        JSON values: output, n_masks, n_generated (all that were asked for), n_new (painted now),
        finished (False while other processes are still at work), contact_sheet.

    Raises:
        UserError: no such checkpoint, data set or split; labels or size of the two differ; the
            output belongs to something else; the disk is too small.
    """
    data = PreparedDataset.open(config.data)
    shots = plan_shots(config, data)
    checkpoint = painter.checkpoint_sha256 if painter else _checkpoint_hash(config)
    frame = Frame(data, config.native_size, config.split)
    rank, world_size = _rank()
    store = SampleStore(config.output, frame, _key(config, checkpoint), rank)
    if store.is_complete(shots):
        return _summary(config, shots, n_new=0, finished=True)
    painter = painter or _load(config)
    _check_fit(painter, data, config.split)
    missing = [shot for shot in shots[rank::world_size] if not store.has(shot)]
    n_bytes = 4 * frame.form.height * frame.form.width  # PNGs of noise are no smaller than pixels
    require_space(config.output, n_bytes * len(missing), f"painting {len(missing)} pictures")
    store.open()
    _paint(config, painter, data, store, missing)
    finished = all(store.has(shot) for shot in shots)
    if finished:
        made = {**_settings(config), "checkpoint": checkpoint}
        samples = store.finish(shots, made, _source(painter, data))
        write_bytes(config.output / CONTACT_SHEET, _contact_sheet(config, data, samples, shots))
    return _summary(config, shots, n_new=len(missing), finished=finished)


def _paint(
    config: GenerateConfig,
    painter: Painter,
    data: PreparedDataset,
    store: SampleStore,
    shots: Sequence[Shot],
) -> None:
    size = config.batch_size
    with progress_bar(len(shots), "generating", unit="picture") as bar:
        for start in range(0, len(shots), size):
            batch = shots[start : start + size]
            # Kernels depend on the shape: a short batch is filled up, so that a picture has the
            # same bytes whichever pictures are still to be painted.
            filled = [*batch, *[batch[-1]] * (size - len(batch))]
            masks = np.stack([data.read_mask(shot.split, shot.source) for shot in filled])
            edges = None
            if painter.instance_edges:
                edges = np.stack([data.read_edges(shot.split, shot.source) for shot in filled])
            seeds = [shot.seed for shot in filled]
            images = painter.generate(masks, seeds, config.settings, edges)
            for shot, image in zip(batch, images, strict=False):
                store.write(shot, image)
            bar.update(len(batch))


def _rank() -> tuple[int, int]:
    """Return the number of this process and how many share the work (as torchrun sets them)."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _checkpoint_hash(config: GenerateConfig) -> str:
    from semsynth.pipeline.folder import checkpoint_sha256

    return checkpoint_sha256(config.model)


def _load(config: GenerateConfig) -> Painter:
    import torch

    from semsynth.pipeline import SemanticDiffusionPipeline

    device, local_rank = config.device, os.environ.get("LOCAL_RANK")
    if device == "auto" and local_rank is not None and torch.cuda.is_available():
        device = f"cuda:{int(local_rank) % torch.cuda.device_count()}"
    pipe = SemanticDiffusionPipeline.from_checkpoint(config.model, device=device)
    if config.reference == "plain":
        pipe.plain = True
        return pipe
    pipe.cache = config.cache
    pipe.set_precision(config.precision)
    pipe.set_compile(config.compile)
    say(pipe.describe_cache(-(-config.batch_size // config.per_mask)))
    return pipe


def _check_fit(painter: Painter, data: PreparedDataset, split: str) -> None:
    check_same_labels(painter.labels, data.labels, str(data.root))
    if (painter.height, painter.width) != (data.height, data.width):
        raise UserError(
            f"{data.root}: masks are {data.width}x{data.height} (width x height), the model "
            f"paints {painter.width}x{painter.height}; run 'semsynth prepare' with "
            f"--height {painter.height} --width {painter.width}"
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
    if config.guidance_rescale:
        settings["guidance_rescale"] = config.guidance_rescale
    if config.guidance_interval != (0.0, 1.0):
        settings["guidance_interval"] = list(config.guidance_interval)
    if config.precision != "auto":
        settings["precision"] = config.precision
    if config.reference != "none":
        settings["reference"] = config.reference
    return settings


def _key(config: GenerateConfig, checkpoint: str) -> dict[str, Any]:
    """What decides the pictures; which and how many of them may grow from run to run."""
    return {
        "checkpoint": checkpoint,
        "data": sha256_file(config.data / INFO),
        "seed": config.seed,
        "native_size": config.native_size,
        **_settings(config),
    }


def _source(painter: Painter, data: PreparedDataset) -> dict[str, str]:
    licences = dict.fromkeys(text for text in (data.info.licence, painter.licence) if text)
    return {
        "name": f"{data.info.name} (generated)",
        "source": f"checkpoint {painter.checkpoint_sha256}, masks of {data.info.source}",
        "licence": "; ".join(licences),
    }


def _contact_sheet(
    config: GenerateConfig, data: PreparedDataset, samples: PreparedDataset, shots: Sequence[Shot]
) -> bytes:
    by_source: dict[str, list[Shot]] = {}
    for shot in shots:
        by_source.setdefault(shot.source, []).append(shot)
    rows = []
    for source in spread(list(by_source), _CONTACT_ROWS):
        shown = by_source[source][:_CONTACT_SAMPLES]
        has_real = data.picture(config.split, source).image
        rows.append(
            ContactRow(
                mask=data.labels.colorize(samples.read_mask(config.split, shown[0].stem)),
                real=data.read_image(config.split, source) if has_real else None,
                samples=[samples.read_image(config.split, shot.stem) for shot in shown],
            )
        )
    title = (
        f"{data.info.name}, {config.split}: {config.sampler}, {config.steps} steps, "
        f"guidance {config.guidance_scale:g}"
    )
    return contact_sheet(rows, title)


def _summary(
    config: GenerateConfig, shots: Sequence[Shot], n_new: int, finished: bool
) -> dict[str, Any]:
    return {
        "output": str(config.output),
        "n_masks": len({shot.source for shot in shots}),
        "n_generated": len(shots),
        "n_new": n_new,
        "finished": finished,
        "contact_sheet": str(config.output / CONTACT_SHEET) if finished else None,
    }

"""`semsynth generate`: several images of each mask, as a data set of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, get_args

from semsynth.core.distributed.shards import Shard, chunks, this_shard
from semsynth.core.errors import UserError
from semsynth.core.files import require_space, write_bytes
from semsynth.core.logging import logger, progress_bar
from semsynth.core.outputs import Output
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import PixelForm
from semsynth.data.labels import Array, LabelSet
from semsynth.diffusion.config import SamplerSettings
from semsynth.pipelines.formats.model_file import training_origin
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.contact_sheet import CONTACT_SHEET, sheet_of_samples
from semsynth.pipelines.generate.labels import (
    Masks,
    Translation,
    read_given,
    translate_labels,
)
from semsynth.pipelines.generate.real_images import RealImages
from semsynth.pipelines.generate.sample_store import (
    KIND,
    OutputGeometry,
    SampleSpec,
    SampleStore,
    list_samples,
)

if TYPE_CHECKING:
    from semsynth.pipelines.from_image import FromImage
    from semsynth.pipelines.synthesizer import Synthesizer


class Generator(Protocol):
    """What generates images: a `Synthesizer`, or anything with the same methods."""

    labels: LabelSet
    """The labels that it was trained with."""
    height: int
    """Height of its training images in pixels."""
    width: int
    """Width of its training images in pixels."""
    checkpoint_sha256: str
    """What identifies it: the hash of its checkpoint."""

    @property
    def licence(self) -> str:
        """Licence of its training data."""

    @property
    def pixels(self) -> PixelForm:
        """What its images hold: channels and bits."""

    @property
    def instance_edges(self) -> bool:
        """Whether it takes the edges between objects."""

    def generate(
        self,
        mask_BHW: Array,
        seeds: Sequence[int],
        settings: SamplerSettings,
        edges_BHW: Array | None = None,
        real: FromImage | None = None,
    ) -> Array:
        """Generate images of label ids, one seed a mask: (B, H, W, C) uint8 or uint16.

        ``real`` is given with ``--from-image`` only.
        """


def generate(config: GenerateConfig, generator: Generator | None = None) -> dict[str, Any]:
    """Generate ``config.per_mask`` images of each mask and write them in the prepared layout.

    An image depends on checkpoint, mask, seed and sampler settings alone. Existing images are not
    generated again. Several processes may share the work (``core.distributed.shards``), at one
    time or one after the other; the one that finds all images there writes the lists.

    Args:
        config: what to generate, and where to.
        generator: generates instead of the checkpoint ``config.model``.

    Returns:
        JSON values: output, n_masks, n_generated (all that were asked for), n_new (generated now),
        n_missing (left to other processes), finished, contact_sheet.

    Raises:
        UserError: no such checkpoint, data set or split; labels of the data that the model does
            not have, or another size; the output belongs to something else; the disk is too small.
    """
    if config.masks is None:
        return _generate(config, generator, PreparedDataset.open(config.data))
    synthesizer = None
    if generator is None:
        generator = synthesizer = _load(config)
    if generator.instance_edges:
        raise UserError(
            f"{config.masks}: a folder of masks has no instance maps, whose edges the model was "
            "trained with; prepare data with instances (semsynth prepare) and give them as --data"
        )
    size = (generator.height, generator.width)
    masks = (config.masks, generator.labels, size, config.split, config.masks_as)
    from semsynth.pipelines.generate.mask_folder import masks_of_folder  # with readers of raw files

    with masks_of_folder(*masks) as data:
        return _generate(config, generator, data, synthesizer)


def _generate(
    config: GenerateConfig,
    generator: Generator | None,
    data: PreparedDataset,
    synthesizer: Synthesizer | None = None,
) -> dict[str, Any]:
    """Generate for ``data``; ``synthesizer`` is the generator, if it was loaded for this run."""
    config = config.of_model(_evaluations(config, generator))
    shard = this_shard(config.shard)
    specs = list_samples(config, data)
    checkpoint = generator.checkpoint_sha256 if generator else _checkpoint_hash(config)
    geometry = OutputGeometry(data, config.native_size, config.split)
    real = RealImages(config, data, specs) if config.from_image else None
    store = SampleStore(_output(config, checkpoint, data, real), geometry)
    if store.is_complete(specs):
        return _summary(config, store, specs, n_new=0, finished=True)
    if generator is None:
        generator = synthesizer = _load(config)
    _check_fit(generator, data, config)
    if real is not None:
        real.check_form(generator.pixels)
    labels = _labels_for(generator, data, specs, config)
    geometry.set_pixels(generator.pixels)
    geometry.set_kept(None if labels is None else labels.kept)
    size = _batch_size(config, len(specs))
    batches = _batches(specs, store, size, shard)
    missing = [spec for batch in batches for spec in batch if not store.has(spec)]
    # PNGs of noise are no smaller than pixels.
    n_bytes = geometry.bytes_each
    require_space(config.output, n_bytes * len(missing), f"{len(missing)} images")
    store.open(shard)
    if synthesizer is not None:
        _agree_and_report(synthesizer, store, (data.height, data.width), config, size)
    masks = Masks(data, None if labels is None else labels.to_model, generator.instance_edges)
    inputs = _Inputs(config, generator, masks, real)
    n_new = _generate_batches(inputs, store, batches, size)
    finished = all(store.has(spec) for spec in specs)
    if finished:
        made = {"generator_seed": config.seed, "checkpoint": checkpoint, **_origin(generator)}
        if labels is not None:
            made["labels"] = labels.names
        store.list_all(specs, {**config.record(), **made}, {} if real is None else real.listed)
        write_bytes(
            config.output / CONTACT_SHEET,
            sheet_of_samples(config, data, store, specs, generator.pixels),
        )
        store.finish(_source(generator, data))
    return _summary(config, store, specs, n_new, finished)


def _batches(
    specs: Sequence[SampleSpec], store: SampleStore, size: int, shard: Shard
) -> list[Sequence[SampleSpec]]:
    """Return a process's part of the work.

    Kernels depend on the shape and perhaps on what else is in a batch: the list is cut into
    batches first, which are then dealt out, so that an image has the same bytes whichever process
    generates it. What an earlier run has listed is omitted, for all processes alike.
    """
    listed = store.listed()
    new = [spec for spec in specs if (spec.split, spec.stem) not in listed]
    mine = shard.of(chunks(new, size))
    lost = [
        spec
        for spec in shard.of(specs)
        if (spec.split, spec.stem) in listed and not store.has(spec)
    ]
    return [*mine, *chunks(lost, size)]


def _batch_size(config: GenerateConfig, count: int) -> int:
    """Return how many of ``count`` images are generated at once: whole masks, if several fit."""
    size, each = min(config.batch_size, count), config.per_mask
    return size - size % each if size > each else size


@dataclass(frozen=True)
class _Inputs:
    """What a batch is generated from."""

    config: GenerateConfig
    generator: Generator
    masks: Masks
    real: RealImages | None

    def generate(self, batch: Sequence[SampleSpec]) -> Array:
        """Generate the images of a batch, (B, H, W, C)."""
        names = [(spec.split, spec.source) for spec in batch]
        ids, edges = self.masks.read(names)
        given = (ids, [spec.seed for spec in batch], self.config.settings, edges)
        if self.real is None:
            return self.generator.generate(*given)
        return self.generator.generate(*given, self.real.read(names))


def _generate_batches(
    inputs: _Inputs,
    store: SampleStore,
    batches: Sequence[Sequence[SampleSpec]],
    size: int,
) -> int:
    """Generate the batches that miss images; return how many images were missing."""
    n_new, total = 0, sum(map(len, batches))
    with progress_bar(total, "generating", unit="image") as bar:
        for batch in batches:
            missing = [spec for spec in batch if not store.has(spec)]
            if missing:
                # A whole batch is generated even for one image of it, and a short one is padded:
                # kernels of another shape would round differently.
                padded = [*batch, *[batch[-1]] * (size - len(batch))]
                for spec, image in zip(batch, inputs.generate(padded), strict=False):
                    store.write(spec, image)
                n_new += len(missing)
            bar.update(len(batch))
    return n_new


def _evaluations(config: GenerateConfig, generator: Generator | None) -> int:
    from semsynth.pipelines.formats.model_file import read_diffusion
    from semsynth.pipelines.synthesizer import Synthesizer

    if generator is None:
        return read_diffusion(config.model).evaluations
    return generator.diffusion.evaluations if isinstance(generator, Synthesizer) else 0


def _checkpoint_hash(config: GenerateConfig) -> str:
    from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256

    return checkpoint_sha256(config.model)


def _load(config: GenerateConfig) -> Synthesizer:
    from semsynth.pipelines.synthesizer import Synthesizer

    synthesizer = Synthesizer.load(config.model, device=config.device)
    if config.reference == "plain":
        synthesizer.use_reference = True
        return synthesizer
    synthesizer.cache = config.cache
    synthesizer.set_precision(config.precision)
    synthesizer.set_compile(config.compile)
    return synthesizer


def _agree_and_report(
    synthesizer: Synthesizer,
    store: SampleStore,
    mask_size: tuple[int, int],
    config: GenerateConfig,
    batch_size: int,
) -> None:
    """Agree with other processes on what ``auto`` chooses, and log what will be done."""
    from semsynth.core.devices import Precision

    known = get_args(Precision)
    synthesizer.use_precision(store.agree("precision", synthesizer.precision, known))
    if text := synthesizer.describe_size(*mask_size):
        logger.info(text)
    if config.reference == "none":
        masks = batch_size // math.gcd(batch_size, config.per_mask)
        logger.info(synthesizer.describe_cache(masks, mask_size))


def _labels_for(
    generator: Generator,
    data: PreparedDataset,
    specs: Sequence[SampleSpec],
    config: GenerateConfig,
) -> Translation | None:
    masks = [(spec.split, spec.source) for spec in specs]
    return translate_labels(data, masks, generator.labels, config.label_map)


def _check_fit(generator: Generator, data: PreparedDataset, config: GenerateConfig) -> None:
    split = config.split
    small = data.height < generator.height and data.width < generator.width
    if small and config.small_masks == "refuse":
        raise UserError(
            f"{data.root}: masks are {data.width}x{data.height} (width x height), the model was "
            f"trained on {generator.width}x{generator.height}; run 'semsynth prepare' with "
            f"--height {generator.height} --width {generator.width}, or say --small-masks allow "
            "for images of their own size"
        )
    if generator.instance_edges and not data.has_instances(split):
        raise UserError(
            f"{data.root}: masks of split '{split}' have no instance maps, whose edges the model "
            "was trained with; prepare data that have instances"
        )


def _origin(generator: Generator) -> dict[str, Any]:
    """Return what an evaluation asks of the generator.

    The side of the codec's blocks in pixels, at whose borders it looks; and, for a model of ours,
    the seed of its training and a key of all else that decided it: models that differ in the seed
    alone are known by them.
    """
    from semsynth.pipelines.synthesizer import Synthesizer

    if not isinstance(generator, Synthesizer):
        return {}
    return {"codec_block": generator.codec.downscale, **training_origin(generator.metadata)}


def _output(
    config: GenerateConfig, checkpoint: str, data: PreparedDataset, real: RealImages | None
) -> Output:
    """Return the folder and what decides the images; their number may grow from run to run."""
    kinds = ("masks", "instances")
    inputs = {"masks": data.digests([config.split], kinds)}
    key = {
        "format": 2,
        "checkpoint": checkpoint,
        "masks": data.info.digest_of(inputs["masks"]),
        "seed": config.seed,
        "native_size": config.native_size,
        **config.record(),
    }
    if (given := read_given(config.label_map)) is not None:
        key["label_map"] = given
    if real is not None:
        key |= real.key
        inputs |= real.inputs
    return Output(config.output, KIND, key, inputs, config.overwrite)


def _source(generator: Generator, data: PreparedDataset) -> dict[str, str]:
    licences = dict.fromkeys(text for text in (data.info.licence, generator.licence) if text)
    return {
        "name": f"{data.info.name} (generated)",
        "source": f"checkpoint {generator.checkpoint_sha256}, masks of {data.info.source}",
        "licence": "; ".join(licences),
    }


def _summary(
    config: GenerateConfig,
    store: SampleStore,
    specs: Sequence[SampleSpec],
    n_new: int,
    finished: bool,
) -> dict[str, Any]:
    n_missing = 0 if finished else sum(not store.has(spec) for spec in specs)
    if not finished:
        logger.info(
            f"{config.output}: {n_missing} of {len(specs)} images are left to other processes; "
            "the last of them writes dataset.json (should one have died, run the command again)"
        )
    return {
        "output": str(config.output),
        "n_masks": len({spec.source for spec in specs}),
        "n_generated": len(specs),
        "n_new": n_new,
        "n_missing": n_missing,
        "finished": finished,
        "contact_sheet": str(config.output / CONTACT_SHEET) if finished else None,
    }

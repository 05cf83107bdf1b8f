"""`semsynth filter`: a synthetic set whose labels can be believed, and filter.json."""

from __future__ import annotations

from typing import Any

from semsynth.augmentation.filter.config import FilterConfig
from semsynth.augmentation.filter.finish import RESULT, write_set
from semsynth.augmentation.filter.task import KIND, Task, open_task
from semsynth.augmentation.filter.write import preview
from semsynth.core.distributed.shards import this_shard
from semsynth.core.files import read_json, require_space, sha256_file, write_bytes
from semsynth.core.logging import logger
from semsynth.core.outputs import Output, check_result
from semsynth.data.dataset import PreparedDataset
from semsynth.data.info import INFO
from semsynth.data.manifest import MANIFEST

Json = dict[str, Any]
PREVIEW = "filter.png"
# That are kept of a pixel until the set is written.
_BYTES = 10


def filter_samples(config: FilterConfig) -> Json:
    """Run `semsynth filter`; go on where an earlier call with the same content stopped.

    Several processes may share the work (``core.distributed.shards``): each measures its part of
    the images, and the process that finds all parts finished writes the set.

    Returns:
        The content of filter.json with ``output``, the folder. While parts of other processes are
        missing: ``finished`` (False), ``output`` and ``left``, the number of images.

    Raises:
        UserError: samples, data and segmenter do not belong together, the segmenter was trained on
            the samples, no image would be left, or the output belongs to something else.
    """
    task = open_task(config)
    output = _output(task)
    if output.is_ours() and (stored := _stored(task)) is not None:
        logger.info(f"{config.output}: is already filtered")
        return stored
    size = task.samples.height * task.samples.width
    require_space(config.output, len(task.names) * size * _BYTES, "filtering")
    output.claim()
    left = task.measurements.measure(task.items, this_shard(config.shard))
    if left:
        logger.info(
            f"{config.output}: this part is done; the process that finishes last writes the set "
            f"({len(left)} images are left; if their process has died, run it again)"
        )
        return {"finished": False, "output": str(config.output), "left": len(left)}
    try:
        write_set(task, output)
    except FileNotFoundError:
        # Another process finished at the same moment, and has removed what it no longer needs.
        if _stored(task) is None:
            raise
    output.complete()
    stored = _stored(task)
    assert stored is not None, "it was just written"
    return stored


def _stored(task: Task) -> Json | None:
    """Return the result of a finished set, and make the preview if it is asked for; or None."""
    folder = task.config.output
    if not (folder / RESULT).exists() or not (folder / INFO).exists():
        return None
    if task.config.preview and not (folder / PREVIEW).exists():
        filtered = PreparedDataset.open(folder)
        sheet = preview(filtered, task.samples, task.teacher, task.config.border)
        write_bytes(folder / PREVIEW, sheet)
    check_result(
        folder, [RESULT], "remove it and run the command again, which measures everything again"
    )
    return {"output": str(folder), **read_json(folder / RESULT)}


def _output(task: Task) -> Output:
    """Return the folder, and what decides its content: no paths."""
    config, samples, real = task.config, task.samples, task.real
    splits = list(dict.fromkeys((*config.splits, config.val_split)))
    splits = [split for split in splits if split in real.splits()]
    kinds, manifest = ("images", "masks"), samples.root / MANIFEST
    inputs = {"samples": samples.digests(samples.splits()), "real": real.digests(splits, kinds)}
    key = {
        "format": 1,
        **config.settings,
        "samples": samples.digest,
        "real": real.digest_of(splits, kinds),
        "teacher": task.teacher.network.sha256,
        "features": task.measurements.features.name,
        "manifest": sha256_file(manifest) if manifest.exists() else None,
    }
    return Output(config.output, KIND, key, inputs, config.overwrite)

"""Masks without images: a folder of mask files as the data set that `generate` reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.logging import logger, progress
from semsynth.core.paths import path_name
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.images import read_metadata
from semsynth.data.image_files.masks import MasksAs, decide_masks, mask_ids
from semsynth.data.image_files.raw_masks import open_mask, unread_mask
from semsynth.data.info import INFO
from semsynth.data.labels import LabelSet
from semsynth.data.prepare.sizes import size_notes
from semsynth.data.raw.published import list_images
from semsynth.data.records import PreparedFormat
from semsynth.data.resize import Size, content_box, fit
from semsynth.data.writer import PreparedWriter


@contextmanager
def masks_of_folder(
    folder: Path, labels: LabelSet, size: Size, split: str, masks_as: MasksAs = "auto"
) -> Iterator[PreparedDataset]:
    """Give the masks of a folder as a prepared data set without images, while the context lasts.

    Masks hold ids or the colours of ``labels``; what of the two is decided for all of them, as
    `semsynth prepare` does. Those of another size are brought to ``size``, and padded if they have
    another shape, never stretched.

    Args:
        folder: with the mask files; their names become those of the samples.
        labels: of the model.
        size: height and width of the images to generate, in pixels.
        split: the split that they become.
        masks_as: how to read them.

    Raises:
        UserError: no masks there, one that cannot be read or has ids outside the labels, or one
            that must be padded while the labels have no ignored id.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {found}; --masks takes a folder of mask files")
    if (folder / INFO).exists():
        raise UserError(f"{folder}: is a prepared data set; give it as --data, not as --masks")
    files = list_images(folder)
    raw = [unread_mask(path, read_metadata(path, str(path))) for path in files.values()]
    sizes = [mask.metadata.size() for mask in raw]
    _check_shapes(list(files.values()), sizes, size, labels)
    decision = decide_masks(raw, labels, masks_as, colors_given=True)
    others = sum(bool(size_notes("pad", original, size)) for original in sizes)
    changed = f"; {others} brought to {size[1]}x{size[0]}" if others else ""
    logger.info(f"{len(files)} masks, read as {decision.reading} ({decision.because}){changed}")
    with TemporaryDirectory(prefix="semsynth-masks-", ignore_cleanup_errors=True) as temporary:
        form = PreparedFormat(labels, *size, "pad" if others else "stretch")
        writer = PreparedWriter(Path(temporary) / "masks", form, "masks")
        for stem, path in progress(files.items(), "read masks", unit="mask", total=len(files)):
            ids, _ = mask_ids(open_mask(path, str(path)), labels, decision)
            original = (ids.shape[0], ids.shape[1])
            ids = fit(ids.astype(labels.mask_dtype), "pad", size, True, labels.ignore_id or 0)
            box = content_box("pad", original, size)
            writer.write_pair(split, path_name(stem, str(path)), None, ids, original, box)
        yield writer.finish(folder.name, "a folder of masks", "")


def _check_shapes(
    paths: Sequence[Path], sizes: Sequence[Size], size: Size, labels: LabelSet
) -> None:
    """Refuse masks that would be padded, where no id marks padding."""
    if labels.ignore_id is not None:
        return
    whole = (0, 0, *size)
    pairs = zip(paths, sizes, strict=True)
    other = [str(path) for path, found in pairs if content_box("pad", found, size) != whole]
    if other:
        raise UserError(
            f"{abbreviate(other, 3)}: has another shape than the model's {size[1]}x{size[0]}, and "
            "its labels have no ignored id to pad with; crop or resize the masks to this shape"
        )

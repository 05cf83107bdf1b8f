"""Your own images: folders of images and masks, under any of their usual names.

``images/`` and ``masks/``, mmsegmentation's ``img_dir/`` and ``ann_dir/``, masks beside their
images (``x.jpg`` and ``x_mask.png``, as Roboflow writes them), splits as folders around or below
them, cities, and endings (``x_leftImg8bit`` and ``x_gtFine_labelIds``). Lists of names
(``train.txt``) decide the split where there are some. Maps of objects may lie in ``instances/``.
"""

from __future__ import annotations

from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.data.annotations.json_forms import annotation_files
from semsynth.data.config import PrepareConfig
from semsynth.data.pairing.arrange import Arranged, arrange, source_of
from semsynth.data.pairing.found_labels import find_labels
from semsynth.data.pairing.mask_choice import candidates_of, folder_of
from semsynth.data.pairing.sides import Sides, sides_of
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.splits import read_split_lists
from semsynth.data.raw.tree import FileTree
from semsynth.data.sources import mapillary, voc
from semsynth.data.sources.known_sets import with_known_labels
from semsynth.data.sources.part_masks import find_parts, open_parts


def recognise(tree: FileTree) -> str | None:
    """Return what the layout is known by: folders of images and of masks, or endings of masks."""
    if voc.recognise(tree) or mapillary.recognise(tree):
        return None
    if annotation_files(tree, "panoptic", "segments"):
        return None  # their masks are numbers of segments
    sides = sides_of(tree)
    if sides is None:
        return None
    roles = (sides.images[0].place.role, sides.masks[0].place.role)
    sure = roles == ("image", "mask") or any(
        one.found.is_sure
        for one in candidates_of(sides.images, sides.masks, PrepareConfig(path=tree.root))
    )
    return sides.because if sure else None


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Pair the files, find out what the masks hold, and split the images.

    Raises:
        UserError: nothing pairs, two sets of masks differ, or the labels are wrong.
    """
    sides = sides_of(tree, config)
    if sides is None:
        raise UserError(
            f"{tree.root}: has no folder of images with a folder of masks beside it, nor masks "
            "beside images (x.jpg, x_mask.png); say which they are with --images and --masks"
        )
    lists = read_split_lists(tree)
    parts = None if lists.masks else find_parts(tree, sides, config)
    if parts is not None:
        return open_parts(tree, config, sides, parts, lists)
    arranged = arrange(tree, sides, config, lists)
    found = find_labels(tree, config, arranged.masks, arranged.folders)
    found = with_known_labels(arranged, found)
    because = sides.because
    role, folder = sides.images[0].place.role, arranged.chosen.folder
    if folder and (role or "*" in folder) and not (config.images or config.masks):
        images = f"{folder_of(sides.images[0])}/" if role else "images"
        because = f"{images} and {arranged.chosen.title}"
    return source_of(tree, config, arranged, (_title(arranged, sides), because), found)


def _title(arranged: Arranged, sides: Sides) -> str:
    first: Path = arranged.records[0].payload.image
    if ".rf." in first.name or any(
        (folder / "_classes.csv").exists() for folder in arranged.folders
    ):
        return "Roboflow (semantic masks)"
    kinds = {folder_of(side[0]) for side in (sides.images, sides.masks)}
    if kinds == {"img_dir", "ann_dir"}:
        return "mmsegmentation"
    if arranged.chosen.found.suffix.startswith("_gtFine"):
        return "files named as in Cityscapes"
    return "folders of images and masks"

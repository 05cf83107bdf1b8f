"""Pascal VOC's folders, and CVAT's "Segmentation mask 1.1", which has them and a labelmap.txt.

``JPEGImages/``, ``SegmentationClass/`` (palettes, ids, or colours of the label map),
``SegmentationObject/`` and lists in ``ImageSets/Segmentation/``. Images without a mask are those of
detection.
"""

from __future__ import annotations

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.pairing.arrange import arrange, source_of
from semsynth.data.pairing.found_labels import find_labels, voc_labels
from semsynth.data.pairing.sides import sides_of
from semsynth.data.raw.files import PairSource
from semsynth.data.raw.splits import read_split_lists
from semsynth.data.raw.tree import FileTree

_FOLDERS = ("JPEGImages", "SegmentationClass")


def recognise(tree: FileTree) -> str | None:
    """Return what the layout is known by: JPEGImages/ and SegmentationClass/."""
    folders = {part for name in tree.names() for part in name.split("/")[:-1]}
    classes = sorted(name for name in folders if name.startswith(_FOLDERS[1]))
    lists = any("ImageSets/Segmentation/" in name for name in tree.names())
    if not classes or not (_FOLDERS[0] in folders or lists):
        return None
    images = f"{_FOLDERS[0]}/ and " if _FOLDERS[0] in folders else "ImageSets/Segmentation/ and "
    return f"{images}{'/, '.join(classes)}/"


def open_layout(tree: FileTree, config: PrepareConfig) -> PairSource:
    """Pair images with their masks, by the lists if there are some.

    Raises:
        UserError: no image has a mask, a list contradicts another, or the labels are wrong.
    """
    because = recognise(tree) or "--source voc"
    sides = sides_of(tree, config)
    if sides is None:
        raise UserError(
            f"{tree.root}: has no images in JPEGImages/ for masks in SegmentationClass/; export "
            "again with images, or give --images FOLDER"
        )
    arranged = arrange(tree, sides, config, read_split_lists(tree))
    found = find_labels(tree, config, arranged.masks, arranged.folders)
    title = (
        "CVAT, Segmentation mask 1.1" if found.origin.startswith("labelmap.txt") else "Pascal VOC"
    )
    if found.values is not None:
        found = voc_labels(found, str(tree.root))
    return source_of(tree, config, arranged, (title, because), found)

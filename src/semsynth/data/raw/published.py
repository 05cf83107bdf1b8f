"""Folders of published data sets: images and masks of equal stems, all of them there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from semsynth.core.errors import UserError, abbreviate
from semsynth.data.raw.files import EXTENSIONS, Pair


def require_folder(path: Path | None, flag: str, layout: str) -> Path:
    """Return ``path``; UserError if it is None or not a folder (``layout``: its content)."""
    if path is None:
        raise UserError(f"{flag} is missing: the folder with {layout}")
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; {flag} must be the folder with {layout}")
    return path


def list_images(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Return the images of a folder by stem; with ``suffix``, only stems that end in it.

    Raises:
        UserError: no such folder, no images in it, or two of the same stem.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        usable = path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
        if not usable or not path.stem.endswith(suffix):
            continue
        stem = path.stem.removesuffix(suffix)
        if stem in found:
            raise UserError(f"{path}: has the same stem as {found[stem].name}; rename one")
        found[stem] = path
    if not found:
        wanted = f"*{suffix} " if suffix else ""
        raise UserError(f"{folder}: has no {wanted}images ({', '.join(sorted(EXTENSIONS))})")
    return found


def pair_up(images: Mapping[str, Path], masks: Mapping[str, Path]) -> list[tuple[str, Pair]]:
    """Match images and masks by stem, in the order of the stems.

    Raises:
        UserError: files without a partner: names the first three, and how many there are.
    """
    for what, other, alone in (
        ("image", "mask", sorted(images.keys() - masks.keys())),
        ("mask", "image", sorted(masks.keys() - images.keys())),
    ):
        if alone:
            paths = images if what == "image" else masks
            names = abbreviate([str(paths[stem]) for stem in alone], 3)
            raise UserError(f"{names}: {what} without {other} of the same stem")
    return [(stem, Pair(images[stem], masks[stem])) for stem in sorted(images)]

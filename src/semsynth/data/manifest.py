"""``manifest.jsonl``, ``edits.jsonl``: how each generated or edited image of a folder was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes, read_text
from semsynth.core.paths import path_name
from semsynth.data.content import digest_bytes
from semsynth.data.info import INFO, read_info

MANIFEST = "manifest.jsonl"
EDITS = "edits.jsonl"
# The kinds of folders whose images were made here (core.outputs).
SYNTHETIC = ("samples", "edited", "filtered")


def is_made(folder: Path) -> bool:
    """Whether the images of a folder were generated or edited: it says how each was made."""
    return any((folder / name).exists() for name in (MANIFEST, EDITS))


def manifest_path(folder: Path) -> Path | None:
    """Return the list of a folder whose images were made here; None: it has none."""
    there = [folder / name for name in (MANIFEST, EDITS) if (folder / name).exists()]
    return there[0] if there else None


def _check_written(path: Path) -> None:
    """Check a list that is not newer than ``dataset.json``, in which its digest is."""
    info = path.with_name(INFO)
    if not info.exists() or path.stat().st_mtime_ns > info.stat().st_mtime_ns:
        return
    found = read_info(info)
    recorded = found.get("manifest") if isinstance(found, dict) else None
    if recorded is not None and digest_bytes(read_bytes(path)) != recorded:
        raise UserError(
            f"{path}: is damaged: not what {INFO} was written with; remove both and generate again "
            "(images that exist are kept)"
        )


def made_from_image(line: Mapping[str, Any]) -> bool:
    """Return whether an image was made from a real one: ``generate --from-image``, or an edit.

    Args:
        line: of ``read_manifest``.
    """
    started = bool(line.get("from_image")) or "image_digest" in line
    return started or line.get("image") in ("pasted", "to be generated")


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a folder's ``manifest.jsonl``, or ``edits.jsonl``; none without one.

    Raises:
        UserError: a line is broken, or names a file outside of the folder; or the file is damaged.
    """
    path = manifest_path(folder)
    if path is None:
        return []
    _check_written(path)
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(read_text(path).splitlines(), 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = None
        if not isinstance(line, dict) or not line.keys() >= {"stem", "source", "split"}:
            raise UserError(
                f"{path}: line {number} is broken; remove the file and generate again "
                "(images that exist are kept)"
            )
        for key in ("stem", "source", "split"):
            path_name(line[key], f"{path}: line {number}")
        lines.append(line)
    return lines

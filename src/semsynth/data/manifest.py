"""``manifest.jsonl``, ``edits.jsonl``: how each generated or edited image of a folder was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.paths import path_name

MANIFEST = "manifest.jsonl"
EDITS = "edits.jsonl"
# The kinds of folders whose images were made here (core.outputs).
SYNTHETIC = ("samples", "edited", "filtered")


def is_made(folder: Path) -> bool:
    """Whether the images of a folder were generated or edited: it says how each was made."""
    return any((folder / name).exists() for name in (MANIFEST, EDITS))


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
        UserError: a line is broken, or names a file outside of the folder.
    """
    there = [folder / name for name in (MANIFEST, EDITS) if (folder / name).exists()]
    if not there:
        return []
    path = there[0]
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
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

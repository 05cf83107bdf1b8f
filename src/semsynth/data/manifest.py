"""``manifest.jsonl``: how each generated image of a folder was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.paths import path_name

MANIFEST = "manifest.jsonl"


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a folder's ``manifest.jsonl``; none where there is no such file.

    Raises:
        UserError: a line is broken, or names a file outside of the folder.
    """
    path = folder / MANIFEST
    if not path.exists():
        return []
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

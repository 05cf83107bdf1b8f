"""Names that come from files, archives and the hub, before they become part of a path."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from semsynth.core.errors import UserError

# Of the 255 bytes of most file systems; the rest is for suffixes and temporary names.
MAX_NAME_BYTES = 200
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\xb9\xb2\xb3])", re.I)
_FORBIDDEN = '<>:"|?*'
# Line and paragraph separators, surrogates (bytes that are not UTF-8), unassigned: no names.
_CATEGORIES = {"Cc", "Zl", "Zp", "Cs"}
# Most names: nothing to find in them.
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_ .,+=()@~-]{0,198}[A-Za-z0-9_+=()@~-])?")
# They turn the direction of writing, so that a name looks like another.
_BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def path_name(name: str, where: str) -> str:
    """Return a name that a file, an archive or the hub gives, for use as one part of a path.

    Such a name is valid on every usual file system, and stays in the folder it is put in.

    Args:
        name: the name, with or without a suffix.
        where: what gives it; begins the message.

    Returns:
        The name in NFC: the same characters in one form.

    Raises:
        UserError: not text, empty, hidden, too long, with a separator, a drive, control or
            forbidden characters, or a name that Windows reserves.
    """
    if isinstance(name, str) and _PLAIN.fullmatch(name) and not _reserved(name):
        return name
    wrong = _what_is_wrong(name)
    if wrong:
        where = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in where)
        raise UserError(f"{where}: {name!r} cannot be a file name: {wrong}; rename it")
    return unicodedata.normalize("NFC", name)


def may_be_hub_id(name: str, *, owner: bool = True) -> bool:
    """Return whether a name that is no file or folder can be meant as an id of the Hub.

    An id is ``OWNER/NAME``. A path can look like one: if its first part is a folder that exists, it
    is meant as a path.

    Args:
        owner: whether ``NAME`` alone, as some old models have it, is none.
    """
    path = Path(name)
    if name.startswith((".", "~", "/")) or path.exists():
        return False
    parts = name.split("/")
    if len(parts) == 1:
        return not owner and bool(name)
    return len(parts) == 2 and all(parts) and not path.parent.exists()


def inside(root: str | Path, relative: str, where: str) -> Path:
    """Return the path of a member of ``root`` that an archive or a list names.

    Args:
        root: the folder that the member is in.
        relative: its path in there, with ``/`` or ``\\`` between the parts.
        where: what names it; begins the message.

    Raises:
        UserError: the path is absolute, has a part that ``path_name`` refuses, or passes through a
            link that leaves ``root``.
    """
    if not isinstance(relative, str):
        raise UserError(f"{where}: {relative!r} is not the path of a file")
    parts = [part for part in re.split(r"[/\\]", relative) if part != "."]
    if not parts or not parts[0]:
        raise UserError(f"{where}: {relative!r} is not a path inside of the folder; rename it")
    for part in parts:
        path_name(part, where)
    path = Path(root, *parts)
    # Names are kept as they are written: a file whose name is in another form exists as that.
    real = os.path.realpath(root)
    if os.path.commonpath([real, os.path.realpath(path)]) != real:
        raise UserError(f"{where}: {relative!r} is a link out of {root}; put the file itself there")
    return path


def _reserved(name: str) -> bool:
    return _RESERVED.fullmatch(name.partition(".")[0].rstrip()) is not None


def _what_is_wrong(name: object) -> str:
    if not isinstance(name, str):
        return f"it is {type(name).__name__}, not text"
    if not name.strip():
        return "it is empty"
    if name in (".", "..") or set(name) & set("/\\"):
        return "it would leave its folder"
    if name.startswith("."):
        return "it would be hidden"
    if bad := sorted(set(name) & set(_FORBIDDEN)):
        return f"{bad[0]} is not allowed in names on Windows"
    if any(unicodedata.category(c) in _CATEGORIES or c in _BIDI for c in name):
        return "it has control characters, or bytes that are not UTF-8"
    if name[-1] in ". ":
        return "Windows removes a dot or space at the end"
    if _reserved(name):
        return "Windows reserves it for a device"
    size = len(unicodedata.normalize("NFC", name).encode())
    if size > MAX_NAME_BYTES:
        return f"it has {size} bytes, at most {MAX_NAME_BYTES} fit"
    return ""

"""JSON that holds a digest of itself: damage never gives another result.

    {"miou": 0.41, "sealed": "6b1f..."}

A flipped bit in a number is another number, and no parser sees it. Objects without the entry are of
others, or of earlier versions, and are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from semsynth.core.errors import UserError

SEAL = "sealed"
# Hexadecimal digits of SHA-256 that are kept: 128 bits.
DIGITS = 32
_ENCODE = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object of JSON values, all keys text, with its digest as the last entry.

    Example:
        >>> opened({**sealed({"miou": 0.41}), "miou": 0.61}, "report.json")
        Traceback (most recent call last):
            ...
        semsynth.core.errors.UserError: report.json: is not what was written: ...
    """
    plain = {name: inner for name, inner in value.items() if name != SEAL}
    return {**plain, SEAL: digest_json(plain)}


def is_whole(value: Mapping[str, Any]) -> bool:
    """Return whether an object is what was sealed, or was never sealed."""
    plain = {name: inner for name, inner in value.items() if name != SEAL}
    return SEAL not in value or value[SEAL] == digest_json(plain)


def opened(value: Any, where: str) -> Any:
    """Return a value that was read, without its seal; ``where`` (a file name) begins the message.

    Raises:
        UserError: it is not what was sealed.
    """
    if not isinstance(value, dict) or SEAL not in value:
        return value
    if not is_whole(value):
        raise UserError(
            f"{where}: is not what was written: damaged, or changed by hand; remove it and run the "
            f"command that makes it (or, if it is meant so, remove its entry {SEAL})"
        )
    return {name: inner for name, inner in value.items() if name != SEAL}


def digest_json(value: Any) -> str:
    """Return the digest of a JSON value; the order of the keys of objects does not count."""
    return digest_pieces((json_of(value),))


def json_of(value: Any) -> str:
    """Return the one text of a JSON value that digests are of."""
    return _ENCODE(value)


def digest_pieces(pieces: Iterable[str]) -> str:
    """Return the digest of a text that is never there as a whole; names may be undecodable."""
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece.encode(errors="surrogatepass"))
    return sha.hexdigest()[:DIGITS]

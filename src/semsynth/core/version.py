"""The version of the package; the root, the build and every file that records it read it here."""

import hashlib
from pathlib import Path

__version__ = "0.1.0"


def is_newer(version: str) -> bool:
    """Return whether ``version``, of what wrote a file, is above this one; False if unreadable.

    Example:
        >>> is_newer("999.0"), is_newer(__version__), is_newer("unknown")
        (True, False, False)
    """
    return _numbers(version) > _numbers(__version__)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.partition("+")[0].split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def source_digest() -> str:
    """Return 12 digits of the SHA-256 of this package's Python files, wherever it is installed."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]

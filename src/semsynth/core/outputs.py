"""Output folders that know what they are and what they are made from.

A marker in the folder has its kind and a key of everything that decides its content. The same key
may resume; another one is refused, or, with ``overwrite``, the old folder is moved aside until the
new one is complete. Keys hold digests of the inputs, never paths: a second file has the digest of
each image, so that what differs can be named.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import (
    read_bytes,
    read_json,
    remove_left_over,
    sha256_file,
    write_json,
    write_once,
    write_text,
)
from semsynth.core.logging import logger
from semsynth.core.strict import json_pieces, opened, parse_json, sealed

MARKER, INPUTS, DIGESTS = ".semsynth.json", ".semsynth.inputs.json", ".semsynth.digests.json"
CHOOSE = "choose another output folder or remove this one"
OVERWRITE = (
    "choose another folder with --output, or give --overwrite (the old one is kept until the new "
    "one is complete)"
)
# Of commands that are at work in a folder before they know what it will be: lock, unpacked archive.
UNPACKED = ".unpacked"
_PASSING = (".owner.", "..owner.", ".ranks", UNPACKED)
_ASIDE = ".replaced-"
_NAMED = 3
# Other than in the key before it: keys with other fields cannot be compared field by field.
_FORMAT = "format"


@dataclass(frozen=True)
class Output:
    """A folder that a command writes.

    Attributes:
        folder: where it is.
        kind: what it is, in a word or two.
        key: what decides its content: JSON values.
        inputs: for fields of the key that are digests of many images: the digest of each one.
        overwrite: what to do with a folder of this kind and another key: move it aside (True),
            refuse it and mention the flag (False), or refuse it (None: there is no flag).
    """

    folder: Path
    kind: str
    key: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    overwrite: bool | None = None

    def claim(self) -> Path:
        """Make the folder ours, or check that it already is, before anything is written into it.

        Raises:
            UserError: the folder belongs to something else, or was made from something else; the
                message says what differs.
        """
        if self.overwrite:
            self._move_aside()
        self.check()
        remove_left_over(self.folder)
        first = write_once(self.folder / MARKER, self._wanted)
        self.check_same(first)
        if self.inputs and not (self.folder / INPUTS).exists():
            write_json(self.folder / INPUTS, sealed(self.inputs))
        return self.folder

    def check(self, found: Any = None) -> None:
        """Check that ``claim`` would have the folder; nothing is changed.

        Args:
            found: what its marker is taken to say; None: what it says.

        Raises:
            UserError: as ``claim``.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder}: is a file, not a folder; choose another output")
        marker = self.folder / MARKER
        # A marker that another process is writing at this moment is not a stranger's file.
        names = [path.name for path in self.folder.iterdir()] if self.folder.exists() else []
        others = [name for name in names if not name.startswith((f".{MARKER}.", *_PASSING))]
        if others and not marker.exists():
            raise UserError(
                f"{self.folder}: is not empty and was not made by semsynth; choose another output "
                "folder"
            )
        if marker.exists():
            self.check_same(read_json(marker) if found is None else found)

    def is_ours(self) -> bool:
        """Return whether the folder is there, and was made from the same."""
        marker = self.folder / MARKER
        return marker.is_file() and read_json(marker) == self._wanted

    def complete(self) -> None:
        """Remove what ``overwrite`` moved aside: the new folder is complete."""
        place = self.folder.absolute()
        for old in place.parent.glob(f"{glob.escape(place.name)}{_ASIDE}*"):
            with suppress(UserError, AttributeError):
                if read_json(old / MARKER).get("kind") == self.kind:
                    shutil.rmtree(old, ignore_errors=True)

    def recorded(self, name: str) -> dict[str, str] | None:
        """Return the digests of an input that the folder was made from; None: not recorded."""
        path = self.folder / INPUTS
        found = read_json(path) if path.exists() else {}
        entries = found.get(name) if isinstance(found, dict) else None
        return entries if isinstance(entries, dict) else None

    @property
    def _wanted(self) -> dict[str, Any]:
        return json.loads(json.dumps({"kind": self.kind, "key": dict(self.key)}))  # type: ignore[no-any-return]

    def _move_aside(self) -> None:
        marker = self.folder / MARKER
        if not marker.is_file():
            return
        try:
            found, wanted = read_json(marker), self._wanted
        except UserError:
            if marker.exists():
                raise
            return  # another process has moved it aside at this moment
        if not isinstance(found, dict) or found.get("kind") != self.kind or found == wanted:
            return
        # The name says which one it is: of processes that start at once, none moves the new one.
        text = json.dumps(found, sort_keys=True).encode()
        place = self.folder.absolute()
        aside = place.with_name(f"{place.name}{_ASIDE}{hashlib.sha256(text).hexdigest()[:8]}")
        try:
            os.rename(place, aside)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise UserError(
                    f"{self.folder}: cannot be moved aside ({error.strerror}); {CHOOSE}"
                ) from None
        else:
            logger.info(f"{self.folder}: moved to {aside.name} until the new one is complete")

    def check_same(self, found: Any) -> None:
        """Check what the marker of a folder says; UserError: of another kind, or another key."""
        kind = found.get("kind") if isinstance(found, dict) else None
        if kind != self.kind:
            raise UserError(
                f"{self.folder}: holds {kind or 'something else'!s}, not {self.kind}; "
                "choose another output folder"
            )
        remedy = CHOOSE if self.overwrite is None else OVERWRITE
        old, new = found.get("key", {}), self._wanted["key"]
        if old.get(_FORMAT) != new.get(_FORMAT):
            raise UserError(
                f"{self.folder}: was made by another version of semsynth, whose record of what it "
                f"was made from cannot be compared; {remedy}"
            )
        differences = self._differences(_flat(old), _flat(new))
        if differences:
            raise UserError(
                f"{self.folder}: was made with {abbreviate(differences, _NAMED, '; ')}; {remedy}"
            )

    def _differences(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
        other = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        texts = []
        for name in other:
            before = self.recorded(name) if name in self.inputs else None
            if before is None and name in self.inputs:
                texts.append(f"other {name}")
            elif before is not None:
                what = difference(before, self.inputs[name]) or "its labels or its size"
                texts.append(f"other {name} (since then: {what})")
            else:
                texts.append(f"{name}={old.get(name)!r}, now {new.get(name)!r}")
        return texts


def write_result(folder: Path, name: str, value: Any, others: Sequence[str] = ()) -> None:
    """Write the JSON file that is the sign of a finished result.

    Digests of it and of ``others``, which are there already, are written before it, into a file
    beside it: so damage of what is read again is found, and the file is nothing but the result.
    """
    text = "".join(json_pieces(value))
    found = {other: sha256_file(folder / other) for other in others if (folder / other).exists()}
    write_json(folder / DIGESTS, {name: hashlib.sha256(text.encode()).hexdigest(), **found})
    write_text(folder / name, text)


def read_result(path: Path, others: Sequence[str] = ()) -> Any:
    """Read what ``write_result`` wrote, after ``check_result`` of it and of ``others``."""
    check_result(path.parent, (path.name, *others))
    return read_json(path)


def read_cache(path: str | Path) -> dict[str, Any]:
    """Read what ``write_json`` wrote sealed, and what can be made again.

    Returns:
        Nothing where there is no file, and, with a warning, where it is damaged.
    """
    if not Path(path).exists():
        return {}
    data = read_bytes(path)  # a disk that fails is not damage
    try:
        found = opened(parse_json(data, str(path)), str(path))
    except UserError as error:
        logger.warning(f"{error} (it is made again)")
        return {}
    return found if isinstance(found, dict) else {}


def check_result(
    folder: Path, names: Sequence[str], remedy: str = "run the command that makes it again"
) -> None:
    """Check files of a result against the digests that ``write_result`` wrote, as far as it did.

    Raises:
        UserError: one is missing, or is not what was written; ``remedy`` says what to do.
    """
    digests = read_json(folder / DIGESTS) if (folder / DIGESTS).is_file() else {}
    if not isinstance(digests, dict):
        raise UserError(f"{folder / DIGESTS}: is damaged: not a JSON object; {remedy}")
    for name in names:
        path = folder / name
        if name in digests and (not path.is_file() or sha256_file(path) != digests[name]):
            raise UserError(
                f"{path}: is damaged: not what was written; {remedy} (or, if it was changed on "
                f"purpose, remove {DIGESTS} beside it)"
            )


def claim_output_dir(folder: str | Path, kind: str, key: Mapping[str, Any]) -> Path:
    """Make a folder that of ``kind`` and ``key``, as ``Output.claim`` does; return it."""
    return Output(Path(folder), kind, key).claim()


def difference(old: Mapping[str, str], new: Mapping[str, str], unit: str = "image") -> str:
    """Say how two states of a data set differ: counts and three names of each kind.

    Args:
        old: digest by ``split/stem``, as ``PreparedDataset.digests`` returns.
        new: the same, now.
        unit: what one of them is called.

    Returns:
        Such as ``1 image added (train/b), 2 images changed (train/a, train/c)``; empty if equal.

    Example:
        >>> difference({"train/a": "1", "train/b": "2"}, {"train/a": "3", "train/c": "4"})
        '1 image added (train/c), 1 image removed (train/b), 1 image changed (train/a)'
    """
    kinds: dict[str, Sequence[str]] = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
    return ", ".join(
        f"{len(names)} {unit}{'s' * (len(names) > 1)} {kind} ({abbreviate(names, _NAMED)})"
        for kind, names in kinds.items()
        if names
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, ``{"a": {"b": 1}}`` as ``{"a.b": 1}``: to name one field."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= (
            _flat(inner, f"{prefix}{name}.")
            if isinstance(inner, dict) and inner
            else {prefix + name: inner}
        )
    return flat

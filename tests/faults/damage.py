"""Damage of files that commands read: cut short, flipped bits, others in their place."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# The number of a format, in a text of JSON.
_NUMBER = re.compile(rb'("format": )(\d+)')


@dataclass(frozen=True)
class Read:
    """A file that a command reads.

    Attributes:
        command: its name.
        path: below the inputs.
        ours: whether semsynth wrote it: then no damage may give another result. What users write
            may be another valid file with one bit changed.
    """

    command: str
    path: str
    ours: bool = True


READS = (
    Read("prepare", "raw/images/train/street_0.png", ours=False),
    Read("prepare", "raw/masks/train/street_1.png", ours=False),
    Read("prepare", "raw/labels.yaml", ours=False),
    Read("train", "tiny.yaml", ours=False),
    Read("train", "prepared/dataset.json"),
    Read("train", "prepared/images/train/street_0.png"),
    Read("train", "prepared/masks/train/street_1.png"),
    Read("segment train", "prepared/dataset.json"),
    Read("segment train", "prepared/masks/train/street_2.png"),
    Read("generate", "run/final_model.pth"),
    Read("generate", "prepared/dataset.json"),
    Read("generate", "prepared/masks/val/street_4.png"),
    Read("generate folder", "folder/model_index.json", ours=False),
    Read("generate folder", "folder/config.json", ours=False),
    Read("generate folder", "folder/unet/config.json", ours=False),
    Read("generate folder", "folder/scheduler/scheduler_config.json", ours=False),
    Read("generate folder", "folder/unet/diffusion_pytorch_model.safetensors"),
    Read("evaluate", "segmenter/segmenter.pth"),
    Read("evaluate", "samples/manifest.jsonl"),
    Read("evaluate", "samples/dataset.json"),
    Read("evaluate", "samples/images/val/street_4__000.png"),
    Read("augment", "samples_train/manifest.jsonl"),
    Read("augment", "samples_train/masks/train/street_0__000.png"),
    Read("export", "samples/dataset.json"),
    Read("export", "samples/masks/val/street_5__001.png"),
    Read("export model", "run/final_model.pth"),
    Read("import", "official.pt", ours=False),
    Read("compare", "report/report.json"),
    Read("compare", "report/per_mask.npz"),
)


def kinds(content: bytes, rng: random.Random) -> Iterator[str]:
    """Yield names of damages without end: each is a function of its name and of the file."""
    yield from ("empty", "one byte", "zero byte", "another file", "folder")
    if _NUMBER.search(content):
        yield from ("old format", "new format")
    size = len(content)
    while True:
        if rng.random() < 0.1:
            yield f"cut {rng.randrange(size)}"
        else:
            yield f"flip {rng.randrange(8 * size)}"


@contextmanager
def damaged(path: Path, kind: str, other: Path) -> Iterator[None]:
    """Have a file damaged while inside, with the time that it had, as a disk leaves it."""
    content, times = path.read_bytes(), path.stat()
    try:
        if kind == "folder":
            path.unlink()
            path.mkdir()
        else:
            path.write_bytes(_changed(content, kind, other))
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _changed(content: bytes, kind: str, other: Path) -> bytes:
    word, _, number = kind.partition(" ")
    if word == "cut":
        return content[: int(number)]
    if word == "flip":
        changed = bytearray(content)
        changed[int(number) // 8] ^= 1 << int(number) % 8
        return bytes(changed)
    if word in ("old", "new"):
        step = 1 if word == "new" else -1
        return _NUMBER.sub(lambda found: b"%s%d" % (found[1], int(found[2]) + step), content, 1)
    return {
        "empty": b"",
        "one byte": b"1",
        "zero byte": b"\0",
        "another file": other.read_bytes(),
    }[kind]

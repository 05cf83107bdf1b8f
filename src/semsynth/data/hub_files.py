"""What `datasets.load_dataset(FOLDER)` reads in a prepared folder: a card, a list for each split.

The card is README.md: YAML for the Hub, which also says which list and which images are a split;
then text for people. A line of a list has ``file_name`` and ``mask_file_name``, which become the
columns ``image`` and ``mask``, and the columns ``split`` and ``source``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from semsynth.core.files import read_bytes, write_pieces, write_text
from semsynth.data.labels import hex_color
from semsynth.data.manifest import MANIFEST

if TYPE_CHECKING:
    from semsynth.data.info import DatasetInfo

Origin = Literal["real", "synthetic"]
README = "README.md"
# A card with it is ours, and may be replaced.
MADE_BY = "<!-- Made by semsynth from the facts of the data. -->"

_HUB_LICENCE = re.compile(
    r"cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.[05]|mit|apache-2\.0|bsd-[23]-clause|odbl|unlicense"
)
_HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


def hub_licence(stated: str) -> tuple[str, str | None]:
    """Return the Hub's word for a licence, and the name of one that has none (then it is "other").

    A licence that is not known is "unknown".
    """
    if stated.strip().casefold() in ("", "unknown", "none", "-", "?"):
        return "unknown", None
    slug = re.sub(r"[^a-z0-9.]+", "-", stated.lower()).strip("-")
    slug = "cc0-1.0" if slug == "cc0" else slug
    return (slug, None) if _HUB_LICENCE.fullmatch(slug) else ("other", slug)


def hub_splits(splits: Iterable[str]) -> dict[str, str]:
    """Return the Hub's names for splits: ``val`` is ``validation``, and signs become ``_``.

    Two never get the same name.
    """
    found: dict[str, str] = {}
    for split in splits:
        plain = re.sub(r"\W+", "_", split)
        name = _HUB_SPLITS.get(split, plain)
        name = plain if name in found.values() else name
        while name in found.values():
            name += "_"
        found[split] = name
    return found


def list_names(splits: Iterable[str]) -> dict[str, str]:
    """Return the names of the lists by split."""
    return {split: f"metadata_{name}.jsonl" for split, name in hub_splits(splits).items()}


def front_matter(
    name: str, licences: Iterable[str], origins: Iterable[Origin], count: int
) -> dict[str, Any]:
    """Return the card's YAML: licence, task, size, name, where the images come from."""
    words = list(dict.fromkeys(licences))
    licence, other = hub_licence(words[0] if len(words) == 1 else "; ".join(words))
    synthetic = "synthetic" in set(origins)
    return {
        "pretty_name": name,
        "license": licence,
        **({"license_name": other} if other else {}),
        "task_categories": ["image-segmentation"],
        "task_ids": ["semantic-segmentation"],
        "size_categories": [next((text for n, text in _SIZES if count < n), "1M<n<10M")],
        "tags": ["semantic-segmentation", *(["synthetic"] if synthetic else [])],
    }


def card(front: Mapping[str, Any], title: str, sections: Mapping[str, str]) -> str:
    """Return a card: YAML, title, then the sections by their headings."""
    head = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{head}---", MADE_BY, f"# {title}"]
    parts += [f"## {heading}\n\n{text}" if heading else text for heading, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def write_hub_files(root: Path, info: DatasetInfo, origin: Origin) -> None:
    """Write the card and the lists of a prepared folder; masks without an image are in no list.

    A README.md of another origin stays, and so does a folder that has no images at all.
    """
    readme = root / README
    if readme.exists() and MADE_BY not in read_bytes(readme).decode(errors="replace"):
        return
    counts = {
        split: sum(image.image for image in info.images[split].values())
        for split in info.splits
        if split in info.images
    }
    splits = [split for split, count in counts.items() if count]
    if not splits:
        return
    names, lists = hub_splits(info.splits), list_names(info.splits)
    known = _known_of_images(info)
    for split in splits:
        columns = {"split": names[split], "source": origin}
        lines = (
            {**_files(info, split, stem), "name": stem, **columns}
            | {key: getattr(image, key) for key in known}
            for stem in info.splits[split].stems
            if (image := info.images[split][stem]).image
        )
        write_pieces(root / lists[split], (f"{json.dumps(line)}\n" for line in lines))
    front = front_matter(info.name, [info.licence], [origin], sum(counts.values()))
    front["configs"] = [
        {
            "config_name": "default",
            # The cache of `datasets` has the folder's name and this YAML as its key, not its path.
            "description": f"content {_digest(root, info)}",
            "metadata_filenames": [lists[split] for split in splits],
            "data_files": [
                # Most of the files must be images for them to be read as such.
                {
                    "split": names[split],
                    "path": [lists[split], f"images/{split}/*", f"masks/{split}/*"],
                }
                for split in splits
            ],
        }
    ]
    write_text(readme, card(front, info.name, _sections(info, origin, names[splits[0]])))


def _digest(root: Path, info: DatasetInfo) -> str:
    """Return a hash of what the data are: ``info`` has the digests of all files."""
    digest = hashlib.sha256()
    for piece in info.compact_pieces():
        digest.update(piece.encode())
    manifest = root / MANIFEST
    digest.update(read_bytes(manifest) if manifest.exists() else b"")
    return digest.hexdigest()[:16]


def _files(info: DatasetInfo, split: str, stem: str) -> dict[str, str]:
    return {
        "file_name": f"images/{split}/{stem}.{info.image_format}",
        "mask_file_name": f"masks/{split}/{stem}.png",
    }


def _known_of_images(info: DatasetInfo) -> list[str]:
    """Return which of group and kind some images of a data set have."""
    return [
        name
        for name in ("group", "kind")
        if any(
            getattr(image, name) is not None
            for found in info.images.values()
            for image in found.values()
        )
    ]


def _sections(info: DatasetInfo, origin: Origin, split: str) -> dict[str, str]:
    made = (
        "Synthetic images with their masks; manifest.jsonl, or edits.jsonl, says how each was made."
        if origin == "synthetic"
        else "Images and masks of one size."
    )
    if info.large is not None:
        made += (
            f" In images_large/ and masks_large/ are those of the split train once more, "
            f"{info.large:g} times as large; the lists leave them out."
        )
    ignored = "" if info.ignore_id is None else f" Pixels of {info.ignore_id} are unlabelled."
    rows = [(label.id, label.name, hex_color(label.color)) for label in info.labels]
    return {
        "": made,
        "Load": (
            "```python\nfrom datasets import load_dataset\n\n"
            'data = load_dataset("path/to/this/folder")\n'
            f'row = data["{split}"][0]\n'
            'row["image"], row["mask"], row["split"], row["source"]\n```\n\n'
            f"The values of a mask are the ids below.{ignored} For ids without gaps, as trainers "
            "want them: `semsynth export THIS_FOLDER --to hf`. After this folder was moved, call "
            '`load_dataset(FOLDER, download_mode="force_redownload")` once: `datasets` remembers '
            "where it was."
        ),
        "Labels": table(("id", "name", "colour"), rows),
        "Origin": f"{info.source}. Licence: {info.licence}.",
    }

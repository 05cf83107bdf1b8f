"""What data sets and samples are exported to: one small file for each format, and the table.

A format is a module with a function ``write(collection, folder)`` that writes everything but
provenance.json and returns what its README.md says about its use. To add one, write the module,
add a line to ``FORMATS``, and a name to ``FormatName``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from semsynth.core.errors import UserError
from semsynth.core.files import atomic_folder, read_json, require_space, write_json
from semsynth.core.logging import logger
from semsynth.core.outputs import Output
from semsynth.core.version import __version__
from semsynth.data.content import digest_json
from semsynth.data.exports.base import HERE, Collection
from semsynth.data.exports.collect import collect
from semsynth.data.exports.provenance import counts_text, origin_text, provenance
from semsynth.data.hub_files import MADE_BY, README, hub_licence

FormatName = Literal["hf", "mmseg", "ultralytics", "coco-panoptic", "voc", "cvat"]

# Modules by the names of --to; only the one that is used is imported.
FORMATS: dict[FormatName, str] = {
    "hf": "semsynth.data.exports.hf",
    "mmseg": "semsynth.data.exports.mmseg",
    "ultralytics": "semsynth.data.exports.ultralytics",
    "coco-panoptic": "semsynth.data.exports.coco_panoptic",
    "voc": "semsynth.data.exports.voc",
    "cvat": "semsynth.data.exports.cvat",
}
# Their images of all splits are in one folder.
_FLAT: tuple[FormatName, ...] = ("voc", "cvat")
PROVENANCE = "provenance.json"
# Not the marker of results: what was exported may be prepared as raw data are.
KIND, MARKER = "export", ".semsynth.export.json"


@dataclass(frozen=True)
class Push:
    """Where an exported data set is published.

    Attributes:
        repository: OWNER/NAME on the Hugging Face Hub; it is created if need be.
        private: create it for its owner only.
    """

    repository: str
    private: bool = False


def export_dataset(
    folders: Sequence[Path],
    to: FormatName,
    output: Path,
    synthetic_split: str | None = None,
    push: Push | None = None,
) -> dict[str, Any]:
    """Write data sets and samples as another program reads them; complete or absent.

    Where the same call has written the folder already, it stays as it is.

    Args:
        folders: what is exported together, of one label set.
        to: the format.
        output: the new folder.
        synthetic_split: the split of all synthetic images; "keep": that of their masks. None: so
            too, unless real images are held out in the same split, which is refused.
        push: publish the folder on the Hub as well (format hf only).

    Returns:
        JSON values: output, to, images (by split and kind), classes, notes, how to use it, and
        the address of what was published.

    Raises:
        UserError: not a data set, labels that differ, the output holds something else, classes
            that the format cannot have, a licence that is unknown (to publish), or a full disk.
    """
    collection = collect(folders, to in _FLAT, synthetic_split)
    if push is not None:
        check_publishable(collection, to)
    usage = _write(collection, to, output)
    for note in collection.notes:
        logger.info(note)
    result = summary(collection, to, output)
    result["use"] = usage.replace(HERE, str(output)).replace("`", "")
    if push is not None:
        result["published"] = publish(output, push)
    return result


def _write(collection: Collection, to: FormatName, output: Path) -> str:
    """Write the folder, unless it is there; return how it is used."""
    made = Output(output, KIND, _key(collection, to))
    if (output / MARKER).is_file():
        found = read_json(output / MARKER)
        made.check_same(found)
        logger.info(f"{output}: exists already, made from the same images")
        collection.notes[:] = found["notes"]
        return str(found["use"])
    # Masks are small beside images.
    n_bytes = sum(item.size for item in collection.items)
    with atomic_folder(output) as folder:
        require_space(output.parent, n_bytes + n_bytes // 8, "the export")
        usage = str(import_module(FORMATS[to]).write(collection, folder))
        write_json(folder / PROVENANCE, provenance(collection))
        if not (folder / README).exists():
            (folder / README).write_text(readme(collection, usage), encoding="utf-8")
        done = {"kind": KIND, "key": dict(made.key), "use": usage, "notes": collection.notes}
        write_json(folder / MARKER, done, seal=True)
    return usage


def _key(collection: Collection, to: FormatName) -> dict[str, Any]:
    """Return what decides the content of an export."""
    parts, about = [part.data for part in collection.parts], provenance(collection)
    return {
        "to": to,
        "images": digest_json([data.digest_of(data.splits()) for data in parts]),
        "labels": digest_json([data.labels.to_json() for data in parts]),
        "origin": digest_json([about["data_sets"], about["images"]]),
        "semsynth": __version__,
    }


def readme(collection: Collection, usage: str) -> str:
    """Return the text that lies beside the data."""
    notes = "\n".join(f"- {note}" for note in collection.notes)
    parts = [
        MADE_BY,
        f"# {collection.name}",
        counts_text(collection),
        f"## Use\n\n{usage}",
        *([f"## Notes\n\n{notes}"] if notes else []),
        f"## Origin\n\n{origin_text(collection)}",
    ]
    return "\n\n".join(parts) + "\n"


def summary(collection: Collection, to: FormatName, output: Path) -> dict[str, Any]:
    """Return what `semsynth export` prints: JSON values."""
    images = {
        split: dict(Counter(item.part.origin for item in items))
        for split, items in collection.splits().items()
    }
    words = [
        f"{split} {' + '.join(f'{n} {kind}' for kind, n in counts.items())}"
        for split, counts in images.items()
    ]
    return {
        "output": str(output),
        "to": to,
        "summary": ", ".join(words),
        "images": images,
        "classes": len(collection.classes),
        "notes": collection.notes,
    }


def check_publishable(collection: Collection, to: FormatName) -> None:
    """Check that a data set may be published, before anything is written.

    Raises:
        UserError: another format than hf, or an unknown licence.
    """
    if to != "hf":
        raise UserError(f"--push-to-hub is for --to hf, not for --to {to}")
    for part in collection.parts:
        if hub_licence(part.data.info.licence)[0] == "unknown":
            raise UserError(
                f"{part.data.root}: its licence is unknown, so it is not published; prepare the "
                "data with --licence"
            )


def publish(folder: Path, push: Push) -> str:
    """Upload a folder as a data set of the Hub; return the address of the commit.

    Raises:
        UserError: the Hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        created = api.create_repo(
            push.repository, repo_type="dataset", private=push.private, exist_ok=True
        )
        return str(
            api.upload_folder(
                folder_path=folder,
                repo_id=created.repo_id,
                repo_type="dataset",
                commit_message="Exported by semsynth",
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{push.repository}: was not published ({reason}); the export is in {folder}, where "
            "`hf upload` or the same command with another --output can go on"
        ) from error

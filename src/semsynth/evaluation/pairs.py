"""Which generated image was painted for which mask."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.evaluation.config import EvaluateConfig
from semsynth.segmentation.loader import check_same_labels

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Pairs:
    """The generated images of a split and the real images of the same masks.

    Attributes:
        data: the real images.
        samples: the generated images.
        split: of both.
        by_mask: stems of the samples by the stem of their mask; both in a fixed order.
        made: what the manifest says of all samples alike (checkpoint, sampler, steps, ...).
    """

    data: PreparedDataset
    samples: PreparedDataset
    split: str
    by_mask: dict[str, list[str]]
    made: dict[str, Any]

    @property
    def masks(self) -> list[str]:
        """Stems of the masks."""
        return list(self.by_mask)

    @property
    def shots(self) -> list[tuple[str, str]]:
        """Stem and mask's stem of every sample."""
        return [(stem, mask) for mask, stems in self.by_mask.items() for stem in stems]


def open_pairs(config: EvaluateConfig) -> Pairs:
    """Open data and samples and match them.

    Without a ``manifest.jsonl`` (images of another system) the stems say which mask is meant.

    Raises:
        UserError: one is missing or unfinished, they have other labels or sizes, or a sample's
            mask has no real image.
    """
    data, samples = PreparedDataset.open(config.data), PreparedDataset.open(config.samples)
    check_same_labels(samples.labels, data.labels, str(samples.root), str(data.root))
    if (samples.height, samples.width) != (data.height, data.width):
        raise UserError(
            f"{samples.root}: images are {samples.width}x{samples.height}, in {data.root} "
            f"{data.width}x{data.height}; generate them without --native-size"
        )
    known, stems = set(data.stems(config.split)), samples.stems(config.split)
    if not samples.has_images(config.split) or not data.has_images(config.split):
        raise UserError(f"split '{config.split}' of data or samples has masks without images")
    manifest = _read_manifest(samples.root / MANIFEST, config.split)
    by_mask: dict[str, list[str]] = {}
    for stem in stems:
        mask = str(manifest[stem]["source"]) if stem in manifest else stem.rpartition("__")[0]
        if mask not in known:
            raise UserError(
                f"{samples.root}: sample '{stem}' is of mask '{mask}', which split "
                f"'{config.split}' of {data.root} does not have"
            )
        by_mask.setdefault(mask, []).append(stem)
    order = [mask for mask in data.stems(config.split) if mask in by_mask]
    made = _common([manifest[stem] for stem in stems if stem in manifest])
    return Pairs(data, samples, config.split, {m: sorted(by_mask[m]) for m in order}, made)


def _read_manifest(path: Path, split: str) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            if entry["split"] == split:
                found[str(entry["stem"])] = {"source": entry["source"], **entry}
        except (json.JSONDecodeError, KeyError, TypeError):
            raise UserError(
                f"{path}: line {number} is not an entry with stem, source and split; "
                "generate the samples again"
            ) from None
    return found


def _common(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the values that all entries share."""
    if not entries:
        return {}
    first = entries[0]
    return {
        key: value
        for key, value in first.items()
        if key not in ("stem", "source", "split", "seed")
        and all(entry.get(key) == value for entry in entries)
    }

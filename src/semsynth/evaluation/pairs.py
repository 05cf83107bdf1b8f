"""Which generated image belongs to which mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import check_same_labels
from semsynth.data.manifest import read_manifest
from semsynth.evaluation.config import EvaluateConfig


@dataclass(frozen=True)
class Pairs:
    """The generated images of a split and the real images of the same masks.

    Attributes:
        data: the real images.
        samples: the generated images.
        split: the split of both.
        by_mask: stems of the samples by the stem of their mask; both in a fixed order.
        settings: what the manifest says of all samples (checkpoint, sampler, steps, ...).
    """

    data: PreparedDataset
    samples: PreparedDataset
    split: str
    by_mask: dict[str, list[str]]
    settings: dict[str, Any]

    @property
    def masks(self) -> list[str]:
        """Stems of the masks."""
        return list(self.by_mask)

    @property
    def samples_with_masks(self) -> list[tuple[str, str]]:
        """Stem of every sample, and the stem of its mask."""
        return [(stem, mask) for mask, stems in self.by_mask.items() for stem in stems]


def open_pairs(config: EvaluateConfig) -> Pairs:
    """Open data and samples and match them.

    Without a ``manifest.jsonl`` (images of another system) the names say which mask is meant.

    Raises:
        UserError: one is missing or unfinished, their labels or sizes differ, or a sample's mask
            has no real image.
    """
    data, samples = PreparedDataset.open(config.data), PreparedDataset.open(config.samples)
    check_same_labels(samples.labels, data.labels, str(samples.root), str(data.root))
    if (samples.height, samples.width) != (data.height, data.width):
        raise UserError(
            f"{samples.root}: images are {samples.width}x{samples.height}, in {data.root} "
            f"{data.width}x{data.height}; generate them without --native-size"
        )
    if samples.pixels != data.pixels:
        raise UserError(
            f"{samples.root}: images have {samples.pixels}, in {data.root} {data.pixels}; give the "
            "data that the model was trained on"
        )
    data.say_what_is_shown()
    known, stems = set(data.stems(config.split)), samples.stems(config.split)
    for folder in (samples, data):
        if not folder.has_images(config.split):
            raise UserError(
                f"{folder.root}: split '{config.split}' has masks without images; choose another "
                "--split"
            )
    lines = read_manifest(samples.root)
    manifest = {str(line["stem"]): line for line in lines if line["split"] == config.split}
    by_mask: dict[str, list[str]] = {}
    for stem in stems:
        mask = str(manifest[stem]["source"]) if stem in manifest else stem.rpartition("__")[0]
        if mask not in known:
            raise UserError(
                f"{samples.root}: sample '{stem}' is of mask '{mask}', which split "
                f"'{config.split}' of {data.root} does not have; give the data that the samples "
                "were generated from"
            )
        by_mask.setdefault(mask, []).append(stem)
    order = [mask for mask in data.stems(config.split) if mask in by_mask]
    settings = _common([manifest[stem] for stem in stems if stem in manifest])
    return Pairs(data, samples, config.split, {m: sorted(by_mask[m]) for m in order}, settings)


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

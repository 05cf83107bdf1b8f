"""The strip of a model card: masks, real images where they may be shown, generated images."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.hub_files import hub_licence
from semsynth.data.labels import LabelSet
from semsynth.data.manifest import MANIFEST, read_manifest
from semsynth.pipelines.generate.contact_sheet import ContactRow, contact_sheet

EXAMPLES = "examples.png"
ROWS, SAMPLES = 3, 3
# The terms of each of these allow that parts of the data are passed on, with their origin.
_MAY_SHOW = re.compile(
    r"cc0-1\.0|cc-by(-nc)?(-sa)?-[234]\.[05]|mit|apache-2\.0|bsd-[23]-clause|odbl|unlicense"
)
# Published to be looked at by researchers, whatever somebody has entered as its licence.
_NEVER = re.compile(r"camvid", re.I)


@dataclass(frozen=True)
class Examples:
    """A strip.

    Attributes:
        png: its file's bytes.
        text: what it shows, for the card.
    """

    png: bytes
    text: str


def read_examples(
    samples: Path, data: Path | None, labels: LabelSet, checkpoint_sha256: str
) -> Examples:
    """Make a strip of some of a model's samples.

    Args:
        samples: folder of `semsynth generate`.
        data: prepared data with the real images of the same masks; None: without them.
        labels: the model's, in whose colours masks are shown.
        checkpoint_sha256: of the model, which must have generated the samples.

    Raises:
        UserError: no samples, samples of another model, or data of other masks.
    """
    folder = PreparedDataset.open(samples)
    lines = read_manifest(folder.root)
    if not lines:
        raise UserError(f"{samples}: has no {MANIFEST}; give a folder of semsynth generate")
    made_by = {str(line.get("checkpoint")) for line in lines}
    if made_by != {checkpoint_sha256}:
        raise UserError(
            f"{samples}: is of checkpoint {', '.join(sorted(made_by))}, not of this one "
            f"({checkpoint_sha256 or 'not loaded by from_checkpoint'})"
        )
    stems: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in lines:
        stems[line["split"], line["source"]].append(line["stem"])
    masks = sorted(stems)
    picked = masks[:: max(1, len(masks) // ROWS)][:ROWS]
    real, note = _real_images(data, picked)
    # Samples have the labels of the masks' data, which may have other ids than the model's.
    shown_in = labels if labels.names == folder.labels.names else folder.labels
    rows = [
        ContactRow(
            shown_in.colorize(folder.read_mask(split, stems[split, mask][0])),
            None if real is None else real.read_image(split, mask),
            [folder.read_image(split, stem) for stem in stems[split, mask][:SAMPLES]],
        )
        for split, mask in picked
    ]
    shown = "mask, real image, generated images" if real else "mask, generated images"
    split = ", ".join(sorted({split for split, _ in picked}))
    text = f"From left to right: {shown}; masks of the split {split}, not selected by hand.{note}"
    return Examples(contact_sheet(rows, f"masks of {folder.info.name}, {split}"), text)


def may_show(name: str, licence: str) -> bool:
    """Return whether images of a data set may be part of what is published.

    Only with a licence that says so; of several (`a; b`) each must. CamVid's are never.
    """
    words = [hub_licence(part)[0] for part in licence.split(";")]
    allowed = all(_MAY_SHOW.fullmatch(word) for word in words)
    return allowed and not _NEVER.search(name)


def _real_images(
    data: Path | None, masks: list[tuple[str, str]]
) -> tuple[PreparedDataset | None, str]:
    """Return the data whose images may be shown beside the masks; or None, and why in a text."""
    if data is None:
        return None, ""
    found = PreparedDataset.open(data)
    missing = [
        mask
        for split, mask in masks
        if split not in found.splits() or mask not in found.stems(split)
    ]
    if missing:
        raise UserError(f"{data}: has no mask {missing[0]}; the samples are of other data")
    if not may_show(found.info.name, found.info.licence):
        note = (
            f" The real images are not shown: the licence of {found.info.name} "
            f"({found.info.licence}) does not say that they may be passed on."
        )
        return None, note
    if not all(found.has_images(split) for split, _ in masks):
        return None, ""
    return found, f" Real images: {found.info.name}, {found.info.licence}."

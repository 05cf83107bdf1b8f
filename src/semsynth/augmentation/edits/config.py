"""The flags of `semsynth edit` (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from semsynth.core.errors import UserError

Kind = Literal["transplant", "move", "remove", "swap", "partial", "foreign"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def usual_margin(height: int) -> int:
    """Return how many pixels around an edit belong to its region, in images of a height."""
    return max(2, round(height / 48))


@dataclass(frozen=True)
class EditConfig:
    """Make new training pairs by editing those of a prepared data set: image and mask together.

    The output is a data set: `semsynth generate --from-image` makes its images look right.

    Raises:
        UserError: a value outside its range, or an unknown kind.
    """

    data: Path = Path("./data/sidewalk_processed")
    """Prepared data set; only pairs of its training split are edited."""
    output: Path = Path("./results/edited")
    """Folder for the edited pairs: a data set with edits.jsonl and regions/; the same command
    resumes, and a larger --count adds pairs."""
    overwrite: bool = False
    """Replace edits of other data or settings; they stay until the new ones are complete."""
    split: str = "train"
    """Split whose pairs are edited; held-out ones are never to be."""
    count: int = 100
    """Number of edited pairs."""
    kinds: str = ""
    """Kinds of edits, with commas, drawn equally often: transplant (an object of another pair),
    move, remove, swap (another class), partial (parts unlabelled), foreign (masks of --donors).
    Default: all that the data allow."""
    objects: int = 1
    """Most objects that are transplanted into one image; their number is drawn from 1 to it."""
    classes: tuple[str, ...] = ()
    """Classes whose objects are transplanted, moved, removed or swapped. Default: those that the
    data mark as things, or else those that come in small pieces."""
    rare_weight: float = 1.0
    """Classes are drawn with 1 / frequency to this power; 0: all alike."""
    hard: Path | None = None
    """JSON file with the IoU of each class (of segment train, segment score, or a report): those
    with a low one are drawn more often."""
    donors: Path | None = None
    """Data set whose masks `foreign` takes; labels are matched by name. Default: other kinds of
    images of --data itself."""
    donor_split: str = "train"
    """Split of the donors; held-out ones are never to be."""
    donor_kind: str | None = None
    """Take only masks of this kind of images from the donors (of a set with several, such as
    fluorescence)."""
    to_kind: str | None = None
    """Edit only pairs of this kind of images, and make foreign masks ones of this kind."""
    label_map: Path | None = None
    """YAML file, `label of the donors: label of the data` a line, for names that differ."""
    upright: Literal["auto", "yes", "no"] = "auto"
    """Whether images have an up and a down, as streets do, and objects a row for their size; auto:
    as the layout of the classes tells."""
    margin: int | None = None
    """Pixels around what was edited that belong to its region. Default: a 48th of the height, at
    least 2."""
    preview: bool = False
    """Make only 12 edits and write them to edits.png in the output folder, before and after; no
    data set."""
    workers: int | None = None
    """Processes; the edits are the same with any number. Default: one for each core."""
    seed: int = 0
    """Seed of all draws; an edit depends on it and its number only."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.count < 1:
            raise UserError(f"--count is {self.count}: must be at least 1")
        if not 1 <= self.objects <= 100:
            raise UserError(f"--objects is {self.objects}: must be from 1 to 100")
        if not 0 <= self.rare_weight <= 4:
            raise UserError(f"--rare-weight is {self.rare_weight}: must be from 0 to 4")
        if self.margin is not None and not 0 <= self.margin <= 1000:
            raise UserError(f"--margin is {self.margin}: must be from 0 to 1000 pixels")
        for flag, split in (("split", self.split), ("donor-split", self.donor_split)):
            if split in ("val", "test"):
                raise UserError(
                    f"--{flag} is {split}: held-out pairs are never edited, or a segmenter that is "
                    "trained on them would be scored on them; give the split of training"
                )
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers is {self.workers}: must be at least 1")
        _ = self.chosen

    def margin_of(self, height: int) -> int:
        """Return the margin of regions in images of a height, in pixels."""
        return usual_margin(height) if self.margin is None else self.margin

    @property
    def chosen(self) -> tuple[Kind, ...]:
        """The kinds that were asked for; empty: all that the data allow.

        Raises:
            UserError: one is unknown.
        """
        names = [name.strip() for name in self.kinds.split(",") if name.strip()]
        for name in names:
            if name not in KINDS:
                raise UserError(f"--kinds: '{name}' is unknown; they are {', '.join(KINDS)}")
        return tuple(kind for kind in KINDS if kind in names)

"""The arms of an experiment in one table: what a segmenter of a draw is trained on (no torch)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from semsynth.core.errors import UserError

BASELINE = "strong"
"""The arm that all others are compared with."""
MORE_LABELS = 30
"""So many images are named to be labelled next."""

# What masks images are made for, and from what.
Masks = Literal["own", "edited", "foreign", "predicted", "pool"]
Start = Literal["noise", "image"]


@dataclass(frozen=True)
class Arm:
    """What distinguishes the training of an arm from that of ``strong``, and nothing else does.

    Attributes:
        name: as in flags and files.
        meaning: in words, for the table of results.
        plain: without the strong augmentation.
        part: share of the draw's real images.
        longer: trained as much longer as the draw's generator took.
        larger: with another encoder, as ``--larger`` says.
        masks: of the synthetic images: the draw's own, edited ones, those of the generator's other
            data, those predicted for images without masks, or those of the rest of the pool.
        start: synthetic images are sampled from noise, or from the masks' (pasted) images; None:
            images as they are, without synthesis.
        fresh: new synthetic images are generated each time that a mask is drawn, during training.
        filtered: labels of the synthetic images are filtered.
        real: real images that are added: the generator's other data, the rest of the pool, or a few
            of it (``MORE_LABELS``): those to label next, or as many by chance.
        unlabelled: with real images without masks, by a mean teacher.
    """

    name: str
    meaning: str
    plain: bool = False
    part: float = 1.0
    longer: bool = False
    larger: bool = False
    masks: Masks | None = None
    start: Start | None = None
    fresh: bool = False
    filtered: bool = False
    real: Literal["generator_data", "pool", "next", "random"] | None = None
    unlabelled: bool = False

    @property
    def synthetic(self) -> bool:
        """Whether it has images that the draw's generator made."""
        return self.start is not None

    @property
    def needs_other_data(self) -> bool:
        """Whether there must be ``--generator-data``."""
        return self.real == "generator_data" or self.masks == "foreign"

    @property
    def adds(self) -> bool:
        """Whether it has more than the n labelled images of the pool: what a gain is asked of."""
        return self.masks is not None or self.needs_other_data or self.unlabelled

    @property
    def needs_unlabelled(self) -> bool:
        """Whether there must be real images without masks."""
        return self.unlabelled or self.masks == "predicted"

    @property
    def more_labels(self) -> bool:
        """Whether it has a few more labelled images of the pool."""
        return self.real in ("next", "random")

    @property
    def curve(self) -> bool:
        """Whether it is a point of the curve of real images alone, below n."""
        return self.part < 1


ARMS = {
    arm.name: arm
    for arm in (
        Arm("real", "n real images, plain augmentation", plain=True),
        Arm("quarter", "a quarter of them, strong augmentation", part=0.25),
        Arm("half", "half of them, strong augmentation", part=0.5),
        Arm(BASELINE, "n real images, strong augmentation, ClassMix, copy-paste"),
        Arm("strong_longer", "as strong, the generator's CPU time on longer training", longer=True),
        Arm("strong_larger", "as strong, a larger encoder (--larger)", larger=True),
        Arm("geometry", "+ edited pairs, pixels as pasted, without synthesis", masks="edited"),
        Arm(
            "synthetic", "+ images of own masks from noise, unfiltered", masks="own", start="noise"
        ),
        Arm(
            "fresh",
            "+ images of own masks from noise, new ones in each epoch, unfiltered",
            masks="own",
            start="noise",
            fresh=True,
        ),
        Arm(
            "filtered",
            "+ images of own masks from noise, labels filtered",
            masks="own",
            start="noise",
            filtered=True,
        ),
        Arm(
            "strength",
            "+ images of own masks from their own images, filtered",
            masks="own",
            start="image",
            filtered=True,
        ),
        Arm(
            "edits",
            "+ edited pairs, harmonised from their pasted pixels, filtered",
            masks="edited",
            start="image",
            filtered=True,
        ),
        Arm(
            "edits_noise",
            "+ images of edited masks from noise, filtered",
            masks="edited",
            start="noise",
            filtered=True,
        ),
        Arm(
            "foreign",
            "+ images of the masks of other data from noise, filtered",
            masks="foreign",
            start="noise",
            filtered=True,
        ),
        Arm(
            "predicted_real",
            "+ real images without masks, with the masks predicted for them, without synthesis",
            masks="predicted",
        ),
        Arm(
            "predicted",
            "+ images from noise of masks predicted for images without masks",
            masks="predicted",
            start="noise",
        ),
        Arm(
            "predicted_strength",
            "+ images without masks, made to fit the masks predicted for them",
            masks="predicted",
            start="image",
        ),
        Arm("unlabelled", "+ real images without masks, mean teacher", unlabelled=True),
        Arm(
            "unlabelled_edits",
            "+ real images without masks, and edits",
            masks="edited",
            start="image",
            filtered=True,
            unlabelled=True,
        ),
        Arm(
            "unlabelled_foreign",
            "+ real images without masks, and images of the masks of other data",
            masks="foreign",
            start="noise",
            filtered=True,
            unlabelled=True,
        ),
        Arm(
            "unlabelled_predicted",
            "+ real images without masks, and images from noise of masks predicted for them",
            masks="predicted",
            start="noise",
            unlabelled=True,
        ),
        Arm(
            "unlabelled_predicted_strength",
            "+ real images without masks, and images made from these for their predicted masks",
            masks="predicted",
            start="image",
            unlabelled=True,
        ),
        Arm("more_real", "+ the generator's other data as real pairs", real="generator_data"),
        Arm(
            "pool_masks",
            "+ images of the other masks of the pool from noise (real layouts, synthetic pixels)",
            masks="pool",
            start="noise",
        ),
        Arm(
            "label_next",
            f"+ {MORE_LABELS} more labelled real images: those that it says to label next",
            real="next",
        ),
        Arm(
            "label_random",
            f"+ {MORE_LABELS} more labelled real images, by chance",
            real="random",
        ),
        Arm("ceiling", "all real images of the pool", real="pool"),
    )
}
"""All arms, in the order in which they are run and shown."""

TEACHERS = {"whole": BASELINE, "half": "half"}
"""Whose segmenter filters labels, by the share of the draw's images that it was trained on."""
MASK_TEACHERS = ("unlabelled", BASELINE)
"""Whose segmenters predict the masks of images without masks: pixels on which they agree."""
CURVE = ("quarter", "half")
DEFAULT: tuple[str, ...] = (
    "real",
    *CURVE,
    BASELINE,
    "strong_longer",
    "geometry",
    "synthetic",
    "filtered",
)
DEFAULT += ("strength", "edits", "ceiling")


def chosen_arms(names: Sequence[str]) -> list[Arm]:
    """Return the arms of these names, ``strong`` among them, in the order of the table.

    Raises:
        UserError: an unknown name; says which are near.
    """
    for name in names:
        if name not in ARMS:
            near = difflib.get_close_matches(name, ARMS, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"they are {', '.join(ARMS)}"
            raise UserError(f"--arms {name}: no such arm; {hint}")
    wanted = {*names, BASELINE}
    return [arm for arm in ARMS.values() if arm.name in wanted]

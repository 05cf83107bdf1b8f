"""The models that are open: what pages call them, what they can do, and why not."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.app.cache import CACHE_BYTES, Cache
from semsynth.app.label_view import unlabelled_id
from semsynth.app.uploads import scaled
from semsynth.core.errors import UserError
from semsynth.data.image_files.masks import read_ids
from semsynth.data.instances import instance_edges, objects_of
from semsynth.data.label_files.files import read_label_file
from semsynth.data.labels import MAX_ID, Array, LabelSet
from semsynth.diffusion.config import (
    EVALUATIONS,
    FEW_STEP,
    SAMPLERS,
    SamplerSettings,
    count_of,
)
from semsynth.models.config import Size
from semsynth.pipelines.formats.model_file import (
    trained_with_cfg_dropout,
    trained_with_partial_masks,
)
from semsynth.pipelines.synthesizer import Synthesizer

# While a mask is being drawn, by a model of any number of steps: without guidance, which takes two
# evaluations a step.
LIVE_STEPS = 4
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
_FLOW_SAMPLERS = ("dpm++", "unipc", "euler")


def _recent() -> Cache[Array]:
    return Cache(CACHE_BYTES, lambda image: image.nbytes)


@dataclass(frozen=True)
class StudioModel:
    """A model that is open in the studio.

    Attributes:
        id: what pages call it.
        name: what people see.
        path: where it was loaded from, as it was given.
        synthesizer: the model.
        recent: images that it generated, by all that they were made of: undo shows them at once,
            and objects are made part of the image that is there.
    """

    id: str
    name: str
    path: Path
    synthesizer: Synthesizer
    recent: Cache[Array] = field(default_factory=_recent, repr=False, compare=False)

    @property
    def labels(self) -> LabelSet:
        """The labels that it was trained with."""
        return self.synthesizer.labels

    @property
    def mask_labels(self) -> LabelSet:
        """What its masks may hold: ``labels``, and an ignored id where it knows partial masks."""
        return self.synthesizer.mask_labels

    @property
    def size(self) -> Size:
        """Height and width of its images."""
        return self.synthesizer.height, self.synthesizer.width

    @property
    def evaluations(self) -> int:
        """Of a distilled model; 0: any number."""
        evaluations: int = self.synthesizer.diffusion.evaluations
        return evaluations

    @cached_property
    def unlabelled(self) -> int:
        """What unlabelled pixels have in its masks: the ignored id, or one that no label has."""
        return unlabelled_id(self.mask_labels)

    def edges(self, mask_HW: Array, instances_HW: Array | None = None) -> Array | None:
        """Return the borders of the objects in a mask, for a model that was trained with them.

        An object is what has one number, or, of pixels without a number, what is connected. Its
        border is where a class of things ends, or another object begins; where no class is said to
        be of things, where any class ends.

        Args:
            mask_HW: ids of the model.
            instances_HW: numbers of the objects that the page knows, 0: none.

        Returns:
            (H, W) uint8, 1 at borders; None for other models.
        """
        if not self.synthesizer.instance_edges:
            return None
        numbers = mask_HW.astype(np.int64) + 1
        if instances_HW is not None:
            numbers += (MAX_ID + 2) * instances_HW.astype(np.int64)
        return instance_edges(np.where(self._of_things(mask_HW), numbers, 0))

    def _of_things(self, mask_HW: Array) -> npt.NDArray[np.bool_]:
        """Return which pixels are of objects: of classes of things, or of all if none is said."""
        things = [label.id for label in self.labels.labels if label.thing]
        found: npt.NDArray[np.bool_]
        found = np.isin(mask_HW, things) if things else np.ones(mask_HW.shape, bool)
        return found

    def objects(self, mask_HW: Array, instances_HW: Array | None) -> Array | None:
        """Return the map of objects whose borders are ``edges``: (H, W) uint16, 0: none.

        None for models that were trained without them.

        Raises:
            UserError: there are more than 65,535.
        """
        if not self.synthesizer.instance_edges:
            return None
        numbers, count = np.zeros(mask_HW.shape, np.int64), 0
        things = self._of_things(mask_HW)
        for label in np.unique(mask_HW[things]).tolist():
            for _, place, found in objects_of(things & (mask_HW == label), instances_HW):
                count += 1
                numbers[place][found] = count
        if count > np.iinfo(np.uint16).max:
            raise UserError(f"the mask has {count:,} objects; a map of objects holds 65,535")
        return numbers.astype(np.uint16)

    @cached_property
    def example(self) -> Array | None:
        """A mask to begin with, of the package's example images; None for models of other labels.

        The one with most classes, and of those the one that shares the image most evenly.
        """
        own = {label.name: label.id for label in self.mask_labels.labels}
        for folder in sorted(EXAMPLES.glob("*/labels.yaml")):
            names = read_label_file(folder).labels.names
            if not set(names.values()) <= own.keys():
                continue
            lut = np.zeros(max(names) + 1, np.int64)
            lut[list(names)] = [own[name] for name in names.values()]
            paths = sorted(folder.parent.glob("val/masks/*.png"))
            masks = [lut[read_ids(path, str(path))] for path in paths]
            best = max(masks, key=_evenness)
            return scaled(best, self.size).astype(self.mask_labels.mask_dtype)
        return None

    @property
    def knows_partial(self) -> bool:
        """Whether it was trained with partly unlabelled masks."""
        return trained_with_partial_masks(self.synthesizer.metadata)

    def why_not_partial(self) -> str | None:
        """Return why it does not know partly unlabelled masks; None where it does."""
        if self.knows_partial:
            return None
        return (
            f"{self.name} was trained with whole masks (no region dropout): what it makes of "
            "unlabelled pixels is arbitrary"
        )

    def why_no_choice(self) -> str | None:
        """Return why it has no choice of scheduler and guidance; None where it has."""
        if not self.evaluations:
            return None
        return (
            f"{self.name} is distilled: it generates in {count_of(self.evaluations)} of its "
            "network, by its own sampler and without guidance"
        )

    def why_no_guidance(self) -> str | None:
        """Return why guidance does nothing sensible; None where it does."""
        if self.evaluations:
            return self.why_no_choice()
        if trained_with_cfg_dropout(self.synthesizer.metadata):
            return None
        return f"{self.name} never saw dropped masks in training, which guidance needs"

    def schedulers(self) -> list[str]:
        """Return the names of the samplers that it can be sampled with, its default first."""
        if self.evaluations:
            return []
        if self.synthesizer.diffusion.schedule == "flow":
            return list(_FLOW_SAMPLERS)
        return [name for name in SAMPLERS if name != FEW_STEP]

    def live_settings(self) -> SamplerSettings:
        """Return its cheapest sampler."""
        if self.evaluations:
            return SamplerSettings(steps=1).of_model(self.evaluations)
        return SamplerSettings(steps=LIVE_STEPS, guidance_scale=1.0)

    def facts(self) -> dict[str, Any]:
        """Return what the page needs to know of it, JSON values."""
        final = self.synthesizer.complete(SamplerSettings())
        live = self.live_settings()
        refines = live != final
        return {
            "id": self.id,
            "name": self.name,
            "labels": [
                {
                    "id": label.id,
                    "name": label.name,
                    "color": list(label.color),
                    "ignored": label.id == self.labels.ignore_id,
                    "thing": label.thing,
                }
                for label in self.labels.labels
            ],
            "unlabelled": self.unlabelled,
            "size": list(self.size),
            "multiple": self.synthesizer.model.size_multiple,
            "max_size": list(self.size),
            "evaluations": self.evaluations or None,
            "steps": final.steps,
            "steps_choices": list(EVALUATIONS) if self.evaluations else None,
            "max_steps": self.synthesizer.diffusion.timesteps - 1,
            "guidance": final.guidance_scale,
            "why_no_guidance": self.why_no_guidance(),
            "schedulers": self.schedulers(),
            "scheduler": final.sampler,
            "why_no_scheduler": self.why_no_choice(),
            "live_steps": live.steps,
            "refines": refines,
            "why_not_refined": None if refines else self._why_not_refined(),
            "partial": self.knows_partial,
            "why_not_partial": self.why_not_partial(),
            "instance_edges": self.synthesizer.instance_edges,
            "example": self.example is not None,
            "licence": self.synthesizer.licence,
        }

    def _why_not_refined(self) -> str:
        return (
            f"{self.name} generates in {count_of(self.evaluations or LIVE_STEPS)}: what is shown "
            "while you draw is final"
        )


def _evenness(mask_HW: Array) -> tuple[int, float]:
    """Return the number of classes of a mask, and the entropy of their shares."""
    shares = np.unique(mask_HW, return_counts=True)[1] / mask_HW.size
    return len(shares), float(-(shares * np.log(shares)).sum())


def open_models(paths: tuple[str, ...], device: str) -> list[StudioModel]:
    """Load models; their ids and names are short and their own.

    Args:
        paths: as `--model` takes them.
        device: as `--device`.

    Raises:
        UserError: there is no such model, or it cannot be loaded.
    """
    found: list[StudioModel] = []
    for path in dict.fromkeys(paths):
        given = Path(path)
        name = given.parent.name if given.name == "final_model.pth" else given.stem
        name = name or given.resolve().name
        same = sum(model.name.partition(" (")[0] == name for model in found)
        name = f"{name} ({same + 1})" if same else name
        synthesizer = Synthesizer.load(path, device)
        if trained_with_partial_masks(synthesizer.metadata):
            synthesizer.allow_unlabelled()
        found.append(StudioModel(f"m{len(found)}", name, given, synthesizer))
    return found

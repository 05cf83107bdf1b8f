"""The models that are open: what pages call them, what they can do, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import (
    EVALUATIONS,
    FEW_STEP,
    SAMPLERS,
    SamplerSettings,
    count_of,
)
from semsynth.models.config import Size
from semsynth.pipelines.formats.provenance import (
    trained_with_cfg_dropout,
    trained_with_partial_masks,
)
from semsynth.pipelines.synthesizer import Synthesizer

# While a mask is being drawn, by a model of any number of steps: without guidance, which takes two
# evaluations a step.
LIVE_STEPS = 4
UNLABELLED = 255
_FLOW_SAMPLERS = ("dpm++", "unipc", "euler")


@dataclass(frozen=True)
class StudioModel:
    """A model that is open in the studio.

    Attributes:
        id: what pages call it.
        name: what people see.
        path: where it was loaded from, as it was given.
        synthesizer: the model.
    """

    id: str
    name: str
    path: Path
    synthesizer: Synthesizer

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
        """What unlabelled pixels have in its masks: the ignored id, or one that is no label's."""
        ignored = self.mask_labels.ignore_id
        if ignored is not None:
            return ignored
        known, candidates = self.labels.by_id, (UNLABELLED, *range(65535, -1, -1))
        free: int = next(i for i in candidates if i not in known)
        return free

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
            "licence": self.synthesizer.licence,
        }

    def _why_not_refined(self) -> str:
        return (
            f"{self.name} generates in {count_of(self.evaluations or LIVE_STEPS)}: what is shown "
            "while you draw is final"
        )


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

"""What the phase ``distill`` adds to the state of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from semsynth.data.dataset import PreparedDataset
from semsynth.models.lite2 import EfficientNetLite2
from semsynth.training.distill.discriminator import (
    Discriminator,
    FrozenFeatures,
    fresh_discriminator,
)
from semsynth.training.distill.diversity import Details
from semsynth.training.distill.losses import PixelLoss, class_weights
from semsynth.training.recipe import Recipe


@dataclass
class Progress:
    """What the checks on held-out images have found; of rank 0, but for ``stopped``.

    Attributes:
        stopped: the phase has ended before its last step.
        bad_checks: in a row, the last ones.
        good_step: of the last check that was not bad, or the first one; 0: there was none.
        good_weights: the averaged weights then.
    """

    stopped: bool = False
    bad_checks: int = 0
    good_step: int = 0
    good_weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Adversary:
    """The discriminator, its optimizer, and what the checks on held-out images have found.

    Attributes:
        discriminator: whole in each process, which average its gradients.
        optimizer: of its weights.
        features: what it sees of images, frozen.
        loss: of its logits.
        details: units of the details that images of a mask are to differ in; None: none are.
        progress: of the phase.
    """

    discriminator: Discriminator
    optimizer: torch.optim.Optimizer
    features: FrozenFeatures
    loss: PixelLoss
    details: Details | None
    progress: Progress = field(default_factory=Progress)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        return {
            "discriminator": get_model_state_dict(self.discriminator),
            "optimizer": get_optimizer_state_dict(self.discriminator, self.optimizer),
            **vars(self.progress),
        }

    def load_state_dict(self, saved: Mapping[str, Any], options: StateDictOptions) -> None:
        """Continue from a checkpoint; all processes call it.

        Args:
            saved: on rank 0, which sends it to the others.
            options: for that.
        """
        set_optimizer_state_dict(
            self.discriminator, self.optimizer, saved.get("optimizer", {}), options=options
        )
        set_model_state_dict(self.discriminator, saved.get("discriminator", {}), options=options)
        names = vars(self.progress).keys() & saved.keys()
        self.progress = Progress(**{name: saved[name] for name in names})


def make_adversary(
    recipe: Recipe,
    loss: PixelLoss,
    details: Details | None,
    features: EfficientNetLite2,
    device: torch.device,
) -> Adversary:
    """Return a fresh discriminator of a recipe, the same in all processes."""
    section = recipe.distill
    discriminator = fresh_discriminator(recipe, loss.classes)
    discriminator.to(device)
    optimizer = torch.optim.AdamW(
        discriminator.parameters(),
        lr=section.discriminator_learning_rate,
        betas=section.betas,
        weight_decay=0.0,
        fused=True,
    )
    frozen = FrozenFeatures(features, section.feature_upsampling, device)
    return Adversary(discriminator, optimizer, frozen, loss, details)


def adversary_for(recipe: Recipe, data: PreparedDataset, device: torch.device) -> Adversary:
    """Return the fresh discriminator of a recipe for a data set; see ``make_adversary``.

    Raises:
        Unavailable: the package of the features is not installed.
    """
    weights = class_weights(data, recipe.distill.class_balance).to(device)
    loss = PixelLoss(weights, data.labels.unlabelled_channel)
    features = EfficientNetLite2.from_package()
    section = recipe.distill
    has_details = section.diversity_weight > 0 and section.detail_weight > 0
    details = Details.of(data) if has_details else None
    return make_adversary(recipe, loss, details, features, device)

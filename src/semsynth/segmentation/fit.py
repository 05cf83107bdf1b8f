"""The loop of a segmenter's training: any objective, average of the weights, exact resume."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from torch import Tensor

from semsynth.core.errors import UserError
from semsynth.core.files import atomic_path
from semsynth.core.logging import logger, progress_bar
from semsynth.core.safe_load import load_torch_file, save_torch_file
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.segmenter import Segmenter

# The state in the middle of a training, and after how many steps it is written.
STATE, SAVE_EVERY = "segmenter_state.pt", 200
# Share of the steps in which the learning rate rises.
_WARM_UP = 0.15


OnSave = Callable[[], None]


class Objective(Protocol):
    """What is minimised: a function of the weights and the step, so that resuming is exact."""

    def loss(self, segmenter: Segmenter, averaged: Segmenter | None, step: int) -> Tensor:
        """Return the loss of a step, a scalar with gradients to the weights of ``segmenter``.

        Args:
            segmenter: in training mode, on its device.
            averaged: the moving average of its weights (``config.average_decay``), in evaluation
                mode and without gradients: the teacher of a mean teacher; None without an average.
            step: from 0 on; images and random numbers depend on it and on the seed alone.
        """


class Average:
    """Exponential moving average of a segmenter's weights and of its normalization's statistics.

    The decay rises from 0.1 to its value: short trainings do not keep the initial weights.
    """

    def __init__(self, segmenter: Segmenter, decay: float) -> None:
        """Start from the weights of ``segmenter``."""
        self.decay = decay
        self.segmenter = copy.deepcopy(segmenter).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, segmenter: Segmenter, step: int) -> None:
        """Move towards the weights of ``segmenter`` after a step (from 0 on)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self.segmenter.state_dict(), segmenter.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[n] for n in floats], [theirs[n] for n in floats], 1 - decay)
        for name in mine.keys() - set(floats):
            mine[name].copy_(theirs[name])


def fit(
    segmenter: Segmenter,
    objective: Objective,
    config: SegmentTrainConfig,
    state: Path,
    on_save: OnSave | None = None,
) -> float:
    """Train in place, from the file ``state`` on if it is there, and return the last loss.

    With ``config.average_decay`` the segmenter ends with the averaged weights. ``on_save`` is
    called after each time that the state was written.

    Raises:
        UserError: the loss becomes infinite or NaN.
    """
    training = _Training(segmenter, config)
    first = training.resume(state)
    segmenter.train()
    averaged = None if training.average is None else training.average.segmenter
    value = 0.0
    bar_of_steps = progress_bar(config.steps, "train segmenter", "step", initial=first)
    with _one_thread_of_opencv(), bar_of_steps as bar:
        for step in range(first, config.steps):
            loss = objective.loss(segmenter, averaged, step)
            training.step(loss, step)
            value = loss.item()
            if not value < float("inf"):
                raise UserError(f"segment train: the loss is {value} at step {step}; lower --lr")
            bar.set_postfix_str(f"loss {value:.3f}", refresh=False)
            bar.update()
            if (step + 1) % SAVE_EVERY == 0 and step + 1 < config.steps:
                training.save(state, step + 1)
                if on_save is not None:
                    on_save()
    if averaged is not None:
        segmenter.load_state_dict(averaged.state_dict())
    segmenter.eval()
    return value


@contextmanager
def _one_thread_of_opencv() -> Iterator[None]:
    """Let OpenCV start no threads: images are small, and PyTorch's threads need the cores."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class _Training:
    """Weights, their average, optimizer and schedule, which are saved together."""

    def __init__(self, segmenter: Segmenter, config: SegmentTrainConfig) -> None:
        self.segmenter = segmenter
        groups = _parameter_groups(segmenter, config)
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        # At least one step of warm-up and one of decay, however short the training.
        warm_up = max(_WARM_UP, 1.5 / config.steps) if config.steps > 2 else 1 / config.steps
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            [group["lr"] for group in self.optimizer.param_groups],
            total_steps=config.steps + 1,
            pct_start=warm_up,
        )
        decay = config.average_decay
        self.average = Average(segmenter, decay) if decay else None

    def step(self, loss: Tensor, step: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.segmenter, step)

    def save(self, path: Path, step: int) -> None:
        device = self.segmenter.device
        content = {
            "step": step,
            "segmenter": self.segmenter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
        }
        if self.average is not None:
            content["averaged"] = self.average.segmenter.state_dict()
        if device.type == "cuda":
            content["random_cuda"] = torch.cuda.get_rng_state(device)
        with atomic_path(path) as temporary:
            save_torch_file(content, temporary)

    def resume(self, path: Path) -> int:
        """Go back to the state in a file, if it is there; return how many steps were taken."""
        if not path.exists():
            return 0
        try:
            content = load_torch_file(path)
        except UserError as error:
            logger.warning(f"{error}; the segmenter is trained from the start")
            return 0
        self.segmenter.load_state_dict(content["segmenter"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        if self.average is not None:
            self.average.segmenter.load_state_dict(content["averaged"])
        torch.set_rng_state(content["random"])
        if "random_cuda" in content and self.segmenter.device.type == "cuda":
            torch.cuda.set_rng_state(content["random_cuda"], self.segmenter.device)
        logger.info(f"{path.parent}: resuming at step {content['step']}")
        return int(content["step"])


def _parameter_groups(segmenter: Segmenter, config: SegmentTrainConfig) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups: pretrained parameters get a lower learning rate."""
    if not config.is_pretrained:
        return [{"params": list(segmenter.parameters()), "lr": config.lr}]
    pretrained = segmenter.net.pretrained_parameters()  # type: ignore[operator]
    ids = {id(parameter) for parameter in pretrained}
    fresh = [parameter for parameter in segmenter.parameters() if id(parameter) not in ids]
    return [
        {"params": fresh, "lr": config.lr},
        {"params": pretrained, "lr": config.lr * config.pretrained_lr_share},
    ]

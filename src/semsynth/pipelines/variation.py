"""Neighbours of an image: its noise, turned towards the noise of another seed.

White noise of many dimensions lies close to a sphere. On the arc between two such points (slerp)
noise stays as strong as a model knows it; on the line between them it would be weaker.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from semsynth.core.config import is_number, plain_value
from semsynth.core.errors import UserError
from semsynth.pipelines.outputs import make_generators

Variation = tuple[int | Sequence[int], float]
"""(seed or seeds of the other noise, how far to go there: 0, not at all, to 1, all the way)."""


@dataclass(frozen=True)
class Turned:
    """Noise on the way to that of other seeds, wherever an image's own is drawn.

    That is at the start of sampling, and in each step of samplers that add noise: ``lcm`` of
    several evaluations, and ``ddpm``.

    Attributes:
        others: for each image's own generator, that of the other seed.
        amount: how far to go, 0 to 1.
    """

    others: dict[torch.Generator, torch.Generator]
    amount: float

    @classmethod
    def of(cls, generators: Sequence[torch.Generator], variation: Variation) -> Turned:
        """Check a variation of images.

        Args:
            generators: of the images, one each.
            variation: one seed for all of them, or one each.

        Raises:
            UserError: an amount outside of 0 to 1, or another number of seeds than images.
        """
        pair: Any = variation
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(f"variation is {pair!r}: must be (seed, amount), such as (7, 0.2)")
        seeds, amount = plain_value(pair[0]), plain_value(pair[1])
        if not is_number(amount) or not 0 <= amount <= 1:
            raise UserError(
                f"variation: the amount is {amount!r}; must be from 0 (the image itself) to 1 "
                "(that of the other seed)"
            )
        if len({id(generator) for generator in generators}) != len(generators):
            raise UserError("variation: needs a seed or a generator for each image: give seeds=")
        each = [seeds] * len(generators) if isinstance(seeds, int) else seeds
        others = make_generators(None, each, len(generators))
        return cls(dict(zip(generators, others, strict=True)), float(amount))

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Turn all normal noise that is drawn of the images' generators."""
        with _Drawn(self):
            yield

    def apply_to(self, scheduler: Any) -> None:
        """Turn the noise that a scheduler, of this call alone, adds in its steps."""
        step = scheduler.step

        @functools.wraps(step)
        def turned(*args: Any, **kwargs: Any) -> Any:
            with self.drawing():
                return step(*args, **kwargs)

        scheduler.step = turned


class _Drawn(TorchFunctionMode):
    """Replaces what ``torch.randn`` returns for the generators of images."""

    def __init__(self, turned: Turned) -> None:
        super().__init__()
        self.turned = turned

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        drawn = function(*args, **kwargs)
        other = self.turned.others.get(kwargs.get("generator"))
        if function is not torch.randn or other is None:
            return drawn
        return slerp(drawn, function(*args, **{**kwargs, "generator": other}), self.turned.amount)


def slerp(first: Tensor, second: Tensor, amount: float) -> Tensor:
    """Return the point ``amount`` of the way from one noise to another, on the arc between them.

    Exactly ``first`` for 0, and ``second`` for 1; halfway between independent white noise it is
    (first + second) / sqrt(2), white noise again.
    """
    if amount == 0:
        return first
    if amount == 1:
        return second
    one, two = first.double().flatten(), second.double().flatten()
    cosine = torch.dot(one, two) / (one.norm() * two.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if float(angle.sin()) < 1e-6:  # the same noise
        return first
    share = torch.sin((1 - amount) * angle) / angle.sin()
    other = torch.sin(amount * angle) / angle.sin()
    return (share * one + other * two).reshape(first.shape).to(first.dtype)

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.sample_store import list_samples, spread


@pytest.mark.parametrize("n", [1, 3, 7, 10])
def test_spread_is_even_and_in_order(n: int) -> None:
    chosen = spread(range(10), n)
    gaps = {b - a for a, b in pairwise(chosen)}
    assert len(chosen) == n
    assert all(gap >= 1 for gap in gaps) and max(gaps, default=0) - min(gaps, default=0) <= 1


def test_spread_of_more_than_all_is_all() -> None:
    assert spread("abc", 5) == ["a", "b", "c"] == spread("abc", None)


def test_a_seed_depends_on_mask_and_number_alone(
    tmp_path: Path, write_toy: Callable[..., Any]
) -> None:
    data = write_toy(tmp_path / "prepared", n=4)

    def seeds(**flags: Any) -> dict[str, int]:
        return {spec.stem: spec.seed for spec in list_samples(GenerateConfig(**flags), data)}

    many = seeds(per_mask=5)
    assert len(set(many.values())) == 20
    assert seeds(per_mask=2, limit=2).items() <= many.items()
    assert not set(seeds(seed=1).values()) & set(many.values())

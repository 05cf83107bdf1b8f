"""bfloat16 is used where it is faster, and the answer is the same every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semsynth.core import precision
from semsynth.core.precision import cache_file, cpu_gain, resolve_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("gain", "expected"), [(1.1, ("no", "no", "no")), (1.5, ("no", "bf16", "bf16"))]
)
def test_what_is_faster_is_used(
    gain: float,
    expected: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    monkeypatch.setattr(precision, "measure", lambda: gain)
    assert tuple(resolve_precision(p, CPU) for p in ("no", "auto", "bf16")) == expected
    assert ("computing in float32" in logged()) == (gain < 1.2)


def test_measured_once_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([1.7])
    monkeypatch.setattr(precision, "measure", lambda: next(answers))
    assert [cpu_gain(), cpu_gain()] == [1.7, 1.7]
    # Other threads, another answer.
    monkeypatch.setattr(torch, "get_num_threads", lambda: 12345)
    with pytest.raises(StopIteration):
        cpu_gain()


@pytest.mark.parametrize(
    "left", ["{", "[1.5]", "null", *(f'{{"KEY": {v}}}' for v in ("null", '"1.5"', "NaN", "true"))]
)
def test_a_damaged_memory_is_replaced(left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "measure", lambda: 1.7)
    cpu_gain()
    (key,) = json.loads(cache_file().read_text())
    cache_file().write_text(left.replace("KEY", key))
    assert resolve_precision("auto", CPU) == "bf16" and cpu_gain() == 1.7
    monkeypatch.setattr(precision, "measure", lambda: 9.9)
    assert cpu_gain() == 1.7


def test_the_measurement_is_a_ratio() -> None:
    assert 0.01 < precision.measure(repeats=2) < 100

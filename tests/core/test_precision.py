"""bfloat16 is used where a device has instructions for it, and the answer is always the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from semsynth.core import devices
from semsynth.core.devices import cpu_bfloat16, resolve_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    cpu_bfloat16.cache_clear()
    yield
    cpu_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("fma avx2 avx512f", ""),
        ("avx512_bf16", "AVX512-BF16"),
        ("avx512_bf16 amx_bf16 amx_tile", "AMX-BF16"),
        ("", ""),
    ],
)
def test_the_rule(
    flags: str, name: str, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    monkeypatch.setattr(devices, "_cpu_flags", lambda: set(flags.split()))
    assert cpu_bfloat16() == name
    short = "bf16" if name else "no"
    assert [resolve_precision(p, CPU) for p in ("no", "auto")] == ["no", short]
    assert not logged()
    assert resolve_precision("bf16", CPU) == short
    assert ("computing in float32" in logged()) == (not name)


def test_not_without_the_library_that_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cpu_flags", lambda: {"amx_bf16"})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resolve_precision("auto", CPU) == "no"


def test_on_a_system_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "Path", lambda _: Path("/nowhere"))
    assert devices._cpu_flags() == set()


def test_this_cpu_as_pytorch_sees_it() -> None:
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert bool(cpu_bfloat16()) == native

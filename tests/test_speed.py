"""`benchmarks/speed.py`: what is compared with what, and how it goes on after it was stopped."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semsynth.models.sdm.unet import SemanticUNet, reference_forward
from semsynth.planning.memory import Hardware, PeakMemory, memory_model
from semsynth.training.recipe import load_recipe

H100 = 78 * 2**30  # bytes that an H100 of 80 GB has free
TINY = {
    "label_channels": 3, "base_channels": 16, "channel_mult": (1, 2), "blocks_per_level": 1,
    "attention_factors": (2,), "head_channels": 16, "spade_hidden": 8,
}  # fmt: skip
FLAGS = ["--device", "cpu", "--precision", "no", "--no-published", "--rounds", "1"]


@pytest.fixture
def speed(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("speed", root / "benchmarks" / "speed.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "speed", module)
    spec.loader.exec_module(module)
    return module


def test_the_plain_path_has_a_network_of_its_own(
    speed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = []

    def plain(unet: SemanticUNet, x: Any, t: Any, hot: Any, *, with_null: bool) -> Any:
        assert all(p.stride() == torch.empty(p.shape).stride() for p in unet.parameters())
        masks.append(len(hot))
        return reference_forward(unet, x, t, hot, with_null=with_null)

    monkeypatch.setattr(speed, "reference_forward", plain)
    where = speed.Where(torch.device("cpu"), "bf16", 1)
    for name in (speed.PUBLISHED, speed.PUBLISHED_MANY):
        case = speed.CASES[name]
        monkeypatch.setitem(speed.CASES, name, speed.Case(16, case.batch, TINY, case.masks))
        row = speed.sampling(name, where)
        assert 0 < row["max_abs_diff"] < 0.1 * row["max_abs"]
    assert masks == [1, 1, 2, 2]


def test_both_paths_of_training_fit_into_a_gpu(speed: Any) -> None:
    recipe, case = load_recipe("paper_256"), speed.CASES[speed.TRAINING_LARGE]
    assert f"batch {case.batch}" in speed.TRAINING_LARGE

    def peak(**changes: Any) -> PeakMemory:
        changes |= {"validate_every": 0, "preview_every": 0}
        changed = recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})
        with memory_model(changed, 151, Hardware(True, 1, H100)) as model:
            return model.peak(case.batch, 1, checkpointing=False)

    plain = peak(compile="off", channels_last=False)
    fast = peak()
    assert plain.total + fast.state < 0.8 * H100
    assert fast.total + plain.state < 0.8 * H100


@pytest.fixture
def measured(speed: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cases that were measured; the fourth stops the run while it is alone."""
    names: list[str] = []

    def row(name: str, where: Any) -> dict[str, Any]:
        if name == speed.MIDDLE and name not in names:
            names.append(name)
            raise KeyboardInterrupt
        names.append(name)
        return speed._row(name, where, 2.0, 1.0) | {"max_abs_diff": 0.0, "max_abs": 1.0}

    for kind in ("sampling", "training"):
        monkeypatch.setattr(speed, kind, row)
    image: Callable[..., Any] = lambda where, plain: row(speed.IMAGE, where)  # noqa: E731
    monkeypatch.setattr(speed, "image", image)
    return names


def test_it_goes_on_where_it_was_stopped(speed: Any, measured: list[str], tmp_path: Path) -> None:
    output = tmp_path / "speed.json"
    flags = [*FLAGS, "--output", str(output)]
    every = [speed.SMALL, speed.SMALL_MANY, speed.IMAGE, speed.MIDDLE, speed.TRAINING]
    with pytest.raises(KeyboardInterrupt):
        speed.main(flags)
    assert measured == every[:4] and not output.exists()

    measured[:3] = []
    assert speed.main(flags) == 0
    assert measured == [speed.MIDDLE, speed.MIDDLE, speed.TRAINING]
    assert [row["name"] for row in json.loads(output.read_text())] == every
    assert list(tmp_path.iterdir()) == [output]

    measured[:] = [speed.MIDDLE]
    assert speed.main(flags) == 0  # one that came to its end is measured again
    assert measured[1:] == every


@pytest.mark.parametrize("change", ["--fresh", "--rounds", "code"])
def test_rows_of_another_kind_are_not_mixed(
    change: str,
    speed: Any,
    measured: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [*FLAGS, "--output", str(tmp_path / "speed.json")]
    with pytest.raises(KeyboardInterrupt):
        speed.main(flags)
    if change == "code":
        other = tmp_path / "other" / "__init__.py"
        other.parent.mkdir()
        other.write_text("")
        monkeypatch.setattr(speed.semsynth, "__file__", str(other))
    more = {"--fresh": ["--fresh"], "--rounds": ["--rounds", "2"], "code": []}[change]
    assert speed.main([*flags, *more]) == 0
    assert measured[4:7] == [speed.SMALL, speed.SMALL_MANY, speed.IMAGE]

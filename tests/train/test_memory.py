"""The memory of a step: closed forms, and what PyTorch's allocator sees of a real one."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from semsynth.train.config import Recipe, load_recipe
from semsynth.train.memory import StepMemory, largest_batch, step_memory
from semsynth.train.rehearsal import practice_run, random_batch
from semsynth.train.step import train_step

SMALL = (
    "model.base_channels=32",
    "model.head_channels=16",
    "model.channel_mult=[1]",
    "train.batch_size=4",
    "train.validate_every=0",
    "train.precision=no",
    "train.channels_last=false",
)


def small(*changes: str) -> Recipe:
    return load_recipe("streets_demo", (*SMALL, *changes))


def memory(recipe: Recipe, pictures: int = 4, world: int = 1, cuda: bool = False) -> StepMemory:
    return step_memory(recipe, 12, pictures, world, cuda)


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("train.gradient_checkpointing=true",),
        ("train.precision=bf16", "train.channels_last=true"),
        ("train.accumulation=2",),
    ],
    ids=lambda changes: changes[0] if changes else "fp32",
)
def test_it_is_what_pytorch_allocates_in_a_real_step(changes: tuple[str, ...]) -> None:
    recipe = small(*changes)
    batch = random_batch(recipe, 12)
    with practice_run(recipe, 12, torch.device("cpu")) as run:
        train_step(run, batch)  # now the optimizer has its moments
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            train_step(run, batch)
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    planned = memory(recipe, 4 // recipe.train.accumulation)
    assert most == pytest.approx(planned.gradients + planned.activations, rel=0.05)


def test_the_state_is_five_numbers_a_parameter_and_with_ddp_six() -> None:
    recipe = small()
    alone, shared = memory(recipe), memory(recipe, world=2)
    assert (alone.optimizer, alone.ema, alone.buckets) == (2 * alone.weights, alone.weights, 0)
    assert shared.buckets == shared.weights
    assert shared.total == alone.total + alone.weights


def test_gradients_of_earlier_micro_batches_are_there_all_the_time() -> None:
    one, two = memory(small()), memory(small("train.accumulation=2"))
    assert one.gradients < two.gradients == two.weights


def test_activations_grow_with_the_pictures_and_checkpointing_makes_them_few() -> None:
    recipe = small()
    four, eight = (memory(recipe, n).activations for n in (4, 8))
    assert eight == pytest.approx(2 * four, rel=0.02)
    checkpointed = memory(small("train.gradient_checkpointing=true"), 8)
    assert checkpointed.saved < 0.5 * memory(recipe, 8).saved
    assert checkpointed.activations < eight


def test_autocast_saves_less_on_a_cpu_than_on_cuda_whose_norms_are_float32() -> None:
    short = small("train.precision=bf16", "train.compile=off")
    assert memory(short).saved < 0.8 * memory(short, cuda=True).saved
    plain = small("train.compile=off")
    assert memory(plain, cuda=True) == memory(plain)


def test_compiled_norms_keep_less() -> None:
    kept = [memory(small(f"train.compile={c}"), cuda=True).saved for c in ("auto", "off")]
    assert kept[0] < kept[1]


def test_a_validation_can_be_the_most() -> None:
    changes = ("train.gradient_checkpointing=true", "train.accumulation=4")
    without = memory(small(*changes), 1)
    watched = memory(small(*changes, "train.validate_every=10"), 1)
    assert watched.total >= without.total
    assert watched.saved == without.saved


@pytest.mark.parametrize("start", [1, 7, 500])
@pytest.mark.parametrize("limit", [4.9, 5.0, 60.0, 1003.0])
def test_one_more_than_the_largest_batch_does_not_fit(limit: float, start: int) -> None:
    def taken(n: int) -> float:
        return max(3 + 2.0 * n, 2.5 * n)  # as the larger of two moments of a step

    n = largest_batch(taken, limit, start)
    assert n == 0 or taken(n) <= limit
    assert taken(n + 1) > limit


def test_the_largest_batch_of_a_recipe() -> None:
    recipe = small()
    limit = 30e6
    n = largest_batch(lambda count: memory(recipe, count).total, limit, start=4)
    assert memory(recipe, n).total <= limit < memory(recipe, n + 1).total
    assert n > 1

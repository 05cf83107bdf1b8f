"""Processes that meet: each number once, and all of one version."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from semsynth.core.distributed import rendezvous
from semsynth.core.errors import UserError


def meet(store: HashStore, world: int) -> None:
    with ThreadPoolExecutor(world) as pool:
        list(pool.map(lambda rank: rendezvous._wait(store, rank, world), range(world)))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_second_process_of_a_number_is_refused(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HashStore()
    meet(store, 2)
    with pytest.raises(UserError, match=rf"rank {rank} on .*: another process .* the same RANK"):
        rendezvous._wait(store, rank, 2)
    # What torchrun starts again is the same one.
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    meet(store, 2)


@pytest.mark.parametrize("rank", [-1, 2, 7])
def test_a_number_that_the_job_does_not_have_is_refused(rank: int) -> None:
    with pytest.raises(UserError, match="RANK must be from 0 to 1, since WORLD_SIZE is 2"):
        rendezvous._wait(HashStore(), rank, 2)


def test_several_versions_are_refused_by_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HashStore()
    store.set("here/1", "9.9.9")
    with pytest.raises(UserError, match=r"rank 1 of 9\.9\.9; install the same version"):
        rendezvous._wait(store, 0, 2)
    with pytest.raises(SystemExit) as ended:
        rendezvous._check_versions(["1", "2"], 1)
    assert ended.value.code == UserError.status

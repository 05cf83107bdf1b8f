"""A share of the campaign of two processes, and of what only strace can tell of one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

import pytest
import strace
from campaign import Campaign
from commands import COMMANDS
from pauses import interrupt_twice, stop
from ranks import Ranks
from workplace import Workplace

if sys.platform != "linux" or not (shutil.which("gcc") or shutil.which("cc")):
    pytest.skip("needs a C compiler, and Linux", allow_module_level=True)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    root = tmp_path_factory.mktemp("ranks")
    place = Workplace(root, ["train"])
    yield Campaign(place, root / "faults.jsonl", seed=0)
    place.close()


@pytest.fixture(scope="module")
def ranks(campaign: Campaign) -> Ranks:
    return Ranks(campaign)


@pytest.fixture(autouse=True)
def all_clear(campaign: Campaign) -> Iterator[None]:
    """All cases of a test are clear; how long they took is not asked."""
    yield
    bad = {name: counts for name, counts in campaign.table.items() if set(counts) - {"clear"}}
    campaign.table.clear()  # the next test has its own
    assert bad == {}, campaign.log.read_text()


@pytest.mark.parametrize(
    ("place", "rank", "number"),
    [("folder claimed", 1, 1), ("gradient there", 1, 3), ("state written", 0, 2)],
)
def test_a_killed_process_is_named_and_the_run_resumes(
    place: str, rank: int, number: int, ranks: Ranks
) -> None:
    ranks.kill(place, rank, number)


def test_a_stopped_process_goes_on_or_is_ended(ranks: Ranks) -> None:
    ranks.stop(1, seconds=2.0)
    ranks.stall("before a step", 0, 2)


@pytest.mark.parametrize(("place", "rank"), [("after the meeting", 0), ("folder claimed", 1)])
def test_a_process_that_is_stopped_before_its_first_heartbeat_is_named(
    place: str, rank: int, ranks: Ranks
) -> None:
    ranks.stall(place, rank, 1)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_of_one_process(rank: int, ranks: Ranks) -> None:
    ranks.fill_disk(rank, 3)


@pytest.mark.parametrize("what", ["code", "recipe", "output"])
def test_a_process_of_other_code_or_another_recipe_or_folder(what: str, ranks: Ranks) -> None:
    ranks.other(what)


def test_signals_that_are_not_the_end_at_once(campaign: Campaign) -> None:
    command = COMMANDS["prepare"]
    campaign.prepare(command)
    calls = len(campaign.calls[command.name])
    stop(campaign, command, calls // 3, 1.0)
    for share, seconds in ((0.3, 0.0), (0.7, 0.0), (0.9, 0.05)):
        interrupt_twice(campaign, command, int(share * calls), seconds)


@pytest.mark.parametrize("kind", ["open", "read", "rename"])
def test_the_library_ends_a_command_as_strace_does(kind: str, campaign: Campaign) -> None:
    if reason := strace.why_not():
        pytest.skip(reason)
    command, place = COMMANDS["prepare"], campaign.place
    call = strace.last_calls(place, command)[kind]
    by_library, by_strace = (strace.ends(place, command, call, by) for by in ("library", "strace"))
    assert by_library == by_strace
    assert by_library[0] == 2 and by_library[1].startswith("error: ")

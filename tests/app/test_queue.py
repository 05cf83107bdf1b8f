"""The queue: one at a time, lanes where the newest wins, positions, a limit, an end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from threading import Event
from typing import Any

import pytest

from semsynth.app.queue import SamplerQueue, Turn
from semsynth.app.refused import Refused


class Work:
    """Work that waits in its middle until it is let go, and can be seen to begin."""

    def __init__(self) -> None:
        self.begun, self.go = Event(), Event()
        self.steps_done = 0

    def __call__(self, turn: Turn) -> str:
        self.begun.set()
        assert self.go.wait(20)
        for step in range(3):
            self.steps_done = step
            turn.report(step + 1, 3)
        return turn.lane


@pytest.fixture
def queue() -> Iterator[SamplerQueue]:
    queue = SamplerQueue()
    yield queue
    queue.close()
    queue.join()


def submit(queue: SamplerQueue, lane: str, number: int, work: Any, live: bool = False) -> Future:
    return queue.submit(Turn("page", lane, number, live, work))


@pytest.fixture
def busy(queue: SamplerQueue) -> Work:
    """What is being computed: the queue behind it stands."""
    work = Work()
    submit(queue, "busy", 0, work)
    assert work.begun.wait(20)
    return work


def status(future: Future) -> int:
    error = future.exception(20)
    assert isinstance(error, Refused)
    return error.http


def test_a_newer_request_cancels_the_older_one_in_the_middle(queue: SamplerQueue) -> None:
    older, newer = Work(), Work()
    first = submit(queue, "image", 1, older)
    assert older.begun.wait(20)
    newer.go.set()
    second = submit(queue, "image", 2, newer)
    assert status(first) == 409  # at once, while it is still in its middle
    older.go.set()
    assert second.result(20) == "image"
    assert older.steps_done == 0  # it ended at its next step


def test_a_waiting_one_is_replaced_in_its_place(queue: SamplerQueue, busy: Work) -> None:
    order: list[tuple[str, int]] = []

    def note(turn: Turn) -> None:
        order.append((turn.lane, turn.number))

    first = submit(queue, "a", 1, note)
    last = submit(queue, "b", 1, note)
    second = submit(queue, "a", 2, note)
    assert status(first) == 409
    busy.go.set()
    second.result(20), last.result(20)
    assert order == [("a", 2), ("b", 1)]


def test_an_older_number_that_comes_late_is_refused(queue: SamplerQueue) -> None:
    assert submit(queue, "a", 5, lambda turn: 1).result(20) == 1
    for number in (4, 5):
        with pytest.raises(Refused) as refused:
            submit(queue, "a", number, lambda turn: 1)
        assert refused.value.http == 409
    assert queue.next_number("page", "a") == 6
    assert queue.next_number("other page", "a") == 0


def test_lanes_of_two_pages_do_not_meet(queue: SamplerQueue, busy: Work) -> None:
    mine = queue.submit(Turn("one", "image", 1, False, lambda turn: "one"))
    theirs = queue.submit(Turn("two", "image", 9, False, lambda turn: "two"))
    busy.go.set()
    assert (mine.result(20), theirs.result(20)) == ("one", "two")


def test_eight_wait_and_their_positions_are_known(queue: SamplerQueue, busy: Work) -> None:
    for index in range(8):
        submit(queue, f"grid-{index}", 0, lambda turn: None)
    with pytest.raises(Refused, match="8 images wait") as refused:
        submit(queue, "image", 0, lambda turn: None)
    assert refused.value.http == 429
    # One more of a lane that waits already takes no more room.
    submit(queue, "grid-3", 1, lambda turn: None)
    lanes = queue.lanes("page")
    assert lanes["busy"]["position"] == 0
    assert [lanes[f"grid-{index}"]["position"] for index in range(8)] == list(range(1, 9))
    assert queue.lanes("other page") == {}
    busy.go.set()


def test_live_images_go_before_slow_ones(queue: SamplerQueue, busy: Work) -> None:
    for lane, live in (("slow", False), ("live 1", True), ("slow 2", False), ("live 2", True)):
        submit(queue, lane, 0, lambda turn: None, live)
    lanes = queue.lanes("page")
    order = sorted(lanes, key=lambda lane: lanes[lane]["position"])
    assert order == ["busy", "live 1", "live 2", "slow", "slow 2"]
    busy.go.set()


def test_a_lane_can_be_cancelled_and_goes_on(queue: SamplerQueue, busy: Work) -> None:
    waiting = submit(queue, "a", 1, lambda turn: None)
    assert queue.cancel("page", "a") and not queue.cancel("page", "a")
    assert status(waiting) == 409
    assert queue.cancel("page", "busy")
    assert "busy" not in queue.lanes("page")
    busy.go.set()
    assert submit(queue, "a", 2, lambda turn: "next").result(20) == "next"


def test_what_fails_does_not_end_the_queue(queue: SamplerQueue) -> None:
    def fail(turn: Turn) -> None:
        raise ValueError("no")

    assert isinstance(submit(queue, "a", 1, fail).exception(20), ValueError)
    assert submit(queue, "a", 2, lambda turn: 2).result(20) == 2


def test_closing_answers_everybody(queue: SamplerQueue, busy: Work) -> None:
    waiting = submit(queue, "a", 1, lambda turn: None)
    queue.close()
    assert status(waiting) == 503
    busy.go.set()
    queue.join()
    with pytest.raises(Refused, match="closing"):
        submit(queue, "b", 1, lambda turn: None)

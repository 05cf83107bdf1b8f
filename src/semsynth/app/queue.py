"""One worker for everything that computes: a queue in lanes, where the newest request wins.

A lane is a place of a page that shows one thing at a time, such as its image. A newer request of a
lane cancels the older one, whether that waits or is being computed.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Event, Thread
from typing import Any

from semsynth.app.refused import Refused

MAX_WAITING = 8
# The lanes whose newest number is remembered.
MAX_LANES = 1024

logger = logging.getLogger(__name__)


@dataclass
class Turn:
    """A request's turn: what the work reports to, and asks whether to go on.

    Attributes:
        client: whose it is.
        lane: which of its lanes.
        number: newer requests of a lane have larger ones.
        live: goes before those that are not.
        work: computes the result; it is given the turn.
        step: how many steps are done.
        steps: how many there are; 0 where that is not known.
        done: its result or exception.
    """

    client: str
    lane: str
    number: int
    live: bool
    work: Callable[[Turn], Any]
    step: int = 0
    steps: int = 0
    done: Future[Any] = field(default_factory=Future)
    _cancelled: Event = field(default_factory=Event)

    def report(self, step: int, steps: int) -> None:
        """Say that ``step`` of ``steps`` are done, and go on only if it is still wanted.

        Raises:
            Refused: 409, it was cancelled.
        """
        self.step, self.steps = step, steps
        self.check()

    def check(self) -> None:
        """Go on only if it is still wanted.

        Raises:
            Refused: 409, it was cancelled.
        """
        if self._cancelled.is_set():
            raise _superseded()

    def stop(self, reason: Refused) -> None:
        """Cancel it: the answer is ``reason`` at once, the work ends at its next step."""
        self._cancelled.set()
        self.answer(reason)

    def answer(self, value: Any) -> None:
        """Set the result or exception, unless there is one."""
        if not self.done.done():
            if isinstance(value, BaseException):
                self.done.set_exception(value)
            else:
                self.done.set_result(value)


class SamplerQueue:
    """Runs one turn at a time, in a thread of its own, for all pages.

    PyTorch's threads belong to the thread that calls it: one thread keeps them warm.
    """

    def __init__(self, waiting: int = MAX_WAITING) -> None:
        """Let at most so many turns wait beside the one that runs."""
        self.max_waiting = waiting
        self._waiting: list[Turn] = []
        self._running: Turn | None = None
        self._newest: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._work, name="semsynth sampler", daemon=True)
        self._thread.start()

    def submit(self, turn: Turn) -> Future[Any]:
        """Queue a turn; it takes the place of an older one of its lane.

        Returns:
            The future of what its work returns.

        Raises:
            Refused: 409, there was a newer one; 429, too many wait; 503, it is closed.
        """
        with self._changed:
            if self._closed:
                raise Refused("the studio is closing", 503)
            key = (turn.client, turn.lane)
            if turn.number <= self._newest.get(key, turn.number - 1):
                raise _superseded()
            older = self._of_lane(*key)
            waiting = [each for each in self._waiting if each not in older]
            if len(waiting) >= self.max_waiting:
                raise Refused(
                    f"{len(waiting)} images wait already: try again when some are done", 429
                )
            self._newest[key] = turn.number
            self._newest.move_to_end(key)
            if len(self._newest) > MAX_LANES:
                self._newest.popitem(last=False)
            place = self._place(turn, older)
            self._cancel(older, _superseded())
            self._waiting.insert(place, turn)
            self._changed.notify()
        return turn.done

    def next_number(self, client: str, lane: str) -> int:
        """Return a number that is newer than all of a lane, for requests that have none."""
        with self._changed:
            return self._newest.get((client, lane), -1) + 1

    def cancel(self, client: str, lane: str) -> bool:
        """Cancel what a lane waits for or computes; return whether there was something."""
        with self._changed:
            older = self._of_lane(client, lane)
            self._cancel(older, Refused("cancelled", 409))
            return bool(older)

    def drop(self, turn: Turn) -> None:
        """Cancel a turn that nobody waits for any more."""
        with self._changed:
            self._cancel([turn], Refused("cancelled", 409))

    def lanes(self, client: str) -> dict[str, dict[str, int]]:
        """Return the lanes of a client with their position (0: being computed) and steps."""
        with self._changed:
            shown = [self._running, *self._waiting]
            return {
                turn.lane: {"position": position, "step": turn.step, "steps": turn.steps}
                for position, turn in enumerate(shown)
                if turn is not None and turn.client == client and not turn.done.done()
            }

    def close(self) -> None:
        """Cancel everything and end the thread."""
        with self._changed:
            self._closed = True
            running = [] if self._running is None else [self._running]
            self._cancel([*self._waiting, *running], Refused("the studio is closing", 503))
            self._changed.notify()

    def join(self, seconds: float = 60.0) -> None:
        """Wait until the thread has ended, after ``close``."""
        self._thread.join(seconds)

    def _of_lane(self, client: str, lane: str) -> list[Turn]:
        known = [*self._waiting, *([] if self._running is None else [self._running])]
        return [turn for turn in known if (turn.client, turn.lane) == (client, lane)]

    def _place(self, turn: Turn, older: list[Turn]) -> int:
        """Return where a turn waits: in the older one's place, or last of its kind."""
        for index, each in enumerate(self._waiting):
            if each in older and (turn.live or not each.live):
                return index
        if turn.live:
            return sum(each.live for each in self._waiting if each not in older)
        return len(self._waiting)

    def _cancel(self, turns: list[Turn], reason: Refused) -> None:
        for turn in turns:
            turn.stop(reason)
        self._waiting = [turn for turn in self._waiting if turn not in turns]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = None
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                turn = self._running = self._waiting.pop(0)
            try:
                answer = turn.work(turn)
            except Exception as error:
                answer = error
            with self._changed:
                turn.answer(answer)


def _superseded() -> Refused:
    return Refused("a newer request of this lane came", 409)

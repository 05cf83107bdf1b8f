"""A training of two processes: each killed, stopped, slowed down, on a full disk, of another code.

What is left of a job names the process that is missing and ends with the status for it; the same
command afterwards ends with the bytes of the undisturbed run.
"""

from __future__ import annotations

import errno
import platform
import signal
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any

from commands import COMMANDS
from moments import OF_ALL, PHASES
from verdict import CAUSES, Verdict, differences, half_written, not_one_line, result_of
from workplace import KINDS, SIGNAL, Result

from semsynth.cli.cluster.slurm import reserve_port
from semsynth.core.distributed.run_status import read_status
from semsynth.core.errors import LOST_STATUS, UserError

if TYPE_CHECKING:
    from campaign import Campaign

Case = Callable[[], None]
COMMAND = COMMANDS["train"]
NAMED_SECONDS = 60.0  # in which a process of this host that died is named
MINUTE = 60.0  # for which a process may be stopped
STALL = ("--set", "train.stall_minutes=0.2")  # twelve seconds, in place of ten minutes
# How often the run comes to the places of a phase.
TIMES = {"start": 1, "step": 6, "validation": 2, "checkpoint": 3, "end": 1}
_MEETING, _MEMBERS = "core.distributed.rendezvous", "core.distributed.members"
# Before all have met nobody knows the others, and five minutes are waited.
SHORT_MEETING = {f"{_MEETING}.MEETING_SECONDS": 15.0}
# In one process: other code, or another recipe.
OTHERS: dict[str, dict[str, Any]] = {
    "version": {"values": {f"{_MEMBERS}.__version__": "0.0.9"}},
    "code": {"values": {f"{_MEMBERS}.source_digest()": "0123456789ab"}},
    "recipe": {"words": [*COMMAND.words, "--set", "train.learning_rate=0.002"]},
    "output": {"words": [word if word != COMMAND.makes else "elsewhere" for word in COMMAND.words]},
}
SAID = {
    "recipe": "recipe.train.learning_rate 0.002, rank 0 with 0.001",
    "output": "was started with --output ",
}
# Where there are no heartbeats yet: who is stopped there is missed by what it says in the store.
BEFORE_HEARTBEATS = ("after the meeting", "folder claimed")


class Ranks:
    """The cases of several processes.

    Attributes:
        seconds: from a kill to the end of the process that named it, of each.
    """

    def __init__(self, campaign: Campaign) -> None:
        """Learn what two undisturbed processes make, and which file calls they make."""
        self.campaign, self.place, self.random = campaign, campaign.place, campaign.random
        self.seconds: list[float] = []
        self.place.clear()
        logs = [self.place.root / f"calls.{rank}" for rank in (0, 1)]
        count = [self.place.fault({"number": 0, "log": str(log)}) for log in logs]
        done = self.run(ranks={str(rank): {"fault": count[rank]} for rank in (0, 1)})
        assert done.status == [0, 0], done.output
        self.calls = [
            [call for call in log.read_text().splitlines() if not call.endswith(".so")]
            for log in logs
        ]
        self.expected = result_of(self.place.case)
        self.place.clear()
        assert self.run().status == [0, 0]
        if other := differences(self.expected, result_of(self.place.case)):
            raise AssertionError(f"two undisturbed runs differ: {other}")

    def run(self, words: tuple[str, ...] = COMMAND.words, **more: Any) -> Result:
        """Run the command in two processes."""
        with reserve_port() as port:
            return self.place.run(words, world=2, port=port, seconds=900.0, **more)

    def cases(self, every: bool) -> list[Iterator[Case]]:
        """Return the kinds of cases, drawn or all of them."""
        kills = [
            (phase, place, rank, number)
            for phase, places in PHASES.items()
            for place in places
            for rank in (0, 1)
            for number in range(1, TIMES[phase] + 1)
        ]
        if not every:
            kills = self._one_of_each_phase(kills)
        stalls = [one for one in kills if one[0] in ("step", "validation", "checkpoint")]
        starts = [(place, rank, 1) for place in BEFORE_HEARTBEATS for rank in (0, 1)]
        self.random.shuffle(starts)
        ranks = (0, 1) if every else (self.random.randrange(2),)
        return [
            iter([lambda one=one: self.kill(*one[1:]) for one in kills]),
            iter([lambda one=one: self.stall(*one[1:]) for one in stalls[:: 1 if every else 3]]),
            iter([lambda one=one: self.stall(*one) for one in starts[: None if every else 2]]),
            iter([lambda what=what: self.other(what) for what in OTHERS]),
            iter([lambda rank=rank: self.slow(rank) for rank in ranks]),
            iter([lambda rank=rank: self.stop(rank, MINUTE) for rank in ranks]),
            self._calls(self.fill_disk, 40 if every else 4, "write"),
            self._calls(self.kill_call, 40 if every else 4),
            iter([self.kill_both] * 20),
        ]

    def _one_of_each_phase(self, kills: list[Any]) -> list[Any]:
        self.random.shuffle(kills)
        chosen: dict[tuple[str, int], Any] = {}
        for one in kills:
            chosen.setdefault((one[0], one[2]), one)
        return list(chosen.values())

    def _calls(self, case: Callable[[int, int], None], n: int, kind: str = "") -> Iterator[Case]:
        """Yield cases at drawn calls of each process in turn."""
        for rank, _ in zip(cycle((0, 1)), range(n), strict=False):
            places = [i for i, call in enumerate(self.calls[rank]) if call.startswith(kind)]
            # Of a kind the library counts the calls of that kind alone.
            number = self.random.randrange(len(places)) + 1
            yield lambda rank=rank, number=number: case(rank, number)

    def at(self, place: str, rank: int, number: int, what: int) -> dict[str, Any]:
        """Return what sends a signal to a process at a moment of it, or else of rank 0."""
        moment = {"place": place, "number": number, "signal": what, "to": [rank]}
        return {"ranks": {str(rank if place in OF_ALL else 0): {"moment": moment}}}

    def kill(self, place: str, rank: int, number: int) -> None:
        """Kill a process at a place; the other one names it."""
        self.place.clear()
        values = SHORT_MEETING if place == "before the meeting" else {}
        result = self.run(values=values, **self.at(place, rank, number, signal.SIGKILL))
        case = f"rank {rank} {place} {number}"
        self.record("killed", case, self._named(result, rank) or self._after(), result)

    def kill_call(self, rank: int, number: int) -> None:
        """Kill a process at one of its file calls."""
        self.place.clear()
        fault = self.place.fault({"number": number, "error": SIGNAL + signal.SIGKILL})
        values = SHORT_MEETING
        result = self.run(ranks={str(rank): {"fault": fault}}, values=values)
        if result.status[0] == 0:  # rank 0 needed nothing more of the others
            verdict = self._compared()
        else:
            verdict = self._named(result, rank) or self._after()
        case = f"rank {rank} at call {number} {self.calls[rank][number - 1]}"
        self.record("killed", case, verdict, result)

    def kill_both(self) -> None:
        """Kill both at a drawn call of rank 0."""
        self.place.clear()
        number = self.random.randrange(len(self.calls[0])) + 1
        fault = self.place.fault({"number": number, "error": SIGNAL + signal.SIGKILL})
        then = [[self.random.choice((0.0, 0.2)), signal.SIGKILL, [1]]]
        result = self.run(ranks={"0": {"fault": fault}}, then=then)
        wrong = None
        if "Traceback" in result.output:
            wrong = Verdict("unclear", "traceback")
        case = f"both at call {number} {self.calls[0][number - 1]}"
        self.record("both killed", case, wrong or self._after(), result)

    def stall(self, place: str, rank: int, number: int) -> None:
        """Stop a process for good; the other one names and ends it."""
        self.place.clear()
        words, is_start = (*COMMAND.words, *STALL), place in BEFORE_HEARTBEATS
        values = SHORT_MEETING if is_start else {}
        result = self.run(words, values=values, **self.at(place, rank, number, signal.SIGSTOP))
        how = "does not answer" if is_start else "has not been heard of"
        wrong = self._named(result, rank, how)
        # A checkpoint from before holds the recipe of its time, with the short limit.
        verdict = wrong or self._after(but=r"/step_000000[24]/")
        self.record("stalled", f"rank {rank} {place} {number}", verdict, result)

    def stop(self, rank: int, seconds: float) -> None:
        """Stop a process for a while: nothing is lost and nobody ends."""
        self.place.clear()
        number = self.random.randrange(TIMES["step"]) + 1
        then = [[seconds, signal.SIGCONT, [rank]]]
        result = self.run(then=then, **self.at("before a step", rank, number, signal.SIGSTOP))
        wrong = self._undisturbed(result)
        self.record("stopped", f"rank {rank} for {seconds:.0f} s, step {number}", wrong, result)

    def slow(self, rank: int) -> None:
        """Let a process be 20 times as slow: it is warned of, and nobody ends."""
        self.place.clear()
        slow = {"slow": {"rank": rank, "times": 20}}
        values = {"core.distributed.pace.LEAST_SECONDS": 0.0}
        moment = self.at("before a step", rank, 1, signal.SIGCONT)
        result = self.run(values=values, **slow, **moment)
        wrong = self._undisturbed(result)
        if (
            wrong.kind == "clear"
            and f"rank {rank} on {platform.node()} is slow" not in result.output
        ):
            wrong = Verdict("unclear", "no warning")
        self.record("slow", f"rank {rank}", wrong, result)

    def fill_disk(self, rank: int, number: int) -> None:
        """Let no write of one process succeed any more: its disk is full, the others' are not."""
        self.place.clear()
        full = {"kind": KINDS.index("write"), "number": number, "stays": True}
        fault = self.place.fault({**full, "error": errno.ENOSPC})
        result = self.run(ranks={str(rank): {"fault": fault}})
        if result.status == [0, 0]:
            verdict = self._undisturbed(result)
        else:
            verdict = self._of_full_disk(result) or self._after()
        self.record("full disk", f"rank {rank}, write {number}", verdict, result)

    def other(self, what: str) -> None:
        """Start one process with other code or another recipe: refused in one line."""
        self.place.clear()
        result = self.run(ranks={"1": OTHERS[what]})
        wrong = self._refused(result)
        expected = SAID.get(what, "install the same version on all nodes")
        if wrong is None and expected not in result.output:
            wrong = Verdict("unclear", f"another line: {errors(result)}")
        folders = (self.place.case / name for name in (COMMAND.makes, "elsewhere"))
        if wrong is None and any(folder.exists() for folder in folders):
            wrong = Verdict("silent", "made its folder")
        self.record("other", what, wrong or self._after(), result)

    def record(self, kind: str, case: str, verdict: Verdict, result: Result) -> None:
        """Count a case."""
        case = case.replace(str(self.place.root), "")
        self.campaign.record(f"ranks {kind}", "train", case, verdict, result.output)

    def _named(self, result: Result, rank: int, how: str = "") -> Verdict | None:
        """Return what is wrong with the end of a job that lost a process; None: nothing."""
        statuses = [0, 0]
        statuses[rank], statuses[1 - rank] = -signal.SIGKILL, LOST_STATUS
        if result.status != statuses:
            return Verdict("unclear", f"statuses {result.status}, not {statuses}")
        if wrong := not_one_line(result.output):
            return Verdict("unclear", wrong)
        (line,) = errors(result)
        if not line.startswith(f"error: rank {rank} ") or how not in line:
            return Verdict("unclear", f"does not name rank {rank}: {line}")
        assert result.since is not None, "the moment was not noted"
        self.seconds.append(result.since)
        if result.since > NAMED_SECONDS and not how:
            return Verdict("unclear", f"named after {result.since} s")
        return None

    def _of_full_disk(self, result: Result) -> Verdict | None:
        """Return what is wrong with a job that ended as rank 0 could write no more."""
        lines = errors(result)
        if found := half_written(self.place.case / COMMAND.makes):
            return Verdict("silent", f"half-written: {found[:5]}")
        if result.status == [UserError.status, LOST_STATUS] and len(lines) == 2:
            # Its heartbeat could not be written either: rank 1 sees that it is gone, not why.
            if not lines[1].startswith(f"error: rank 0 on {platform.node()} died"):
                return Verdict("unclear", f"does not name rank 0: {lines[1]}")
        elif wrong := self._refused(result):
            return wrong
        return None if CAUSES.search(lines[0]) else Verdict("unclear", f"no cause: {lines[0]}")

    def _refused(self, result: Result) -> Verdict | None:
        """Return what is wrong with a job that a user's error ended; None: nothing."""
        if result.status != [UserError.status] * 2:
            return Verdict("unclear", f"statuses {result.status}")
        wrong = not_one_line(result.output)
        return Verdict("unclear", wrong) if wrong else None

    def _undisturbed(self, result: Result) -> Verdict:
        if result.status != [0, 0]:
            return Verdict("lost", f"statuses {result.status}")
        if errors(result) or "Traceback" in result.output:
            return Verdict("unclear", f"ended well and said {errors(result)}")
        return self._compared()

    def _after(self, but: str = "") -> Verdict:
        """Check the same command without a fault; of the files that match, all is allowed."""
        again = self.run()
        if again.status != [0, 0]:
            return Verdict("lost", f"again: {again.status}: {again.output[-300:]}")
        status = read_status(self.place.case / COMMAND.makes)
        if status is None or status.state != "finished":
            return Verdict("unclear", f"again: its status is {status and status.state}")
        return self._compared(but)

    def _compared(self, but: str = "") -> Verdict:
        other = differences(self.expected, result_of(self.place.case), but)
        return Verdict("silent", f"others: {other[:5]}") if other else Verdict("clear")


def errors(result: Result) -> list[str]:
    """Return the lines with which processes end."""
    return [line for line in result.output.splitlines() if line.startswith("error: ")]

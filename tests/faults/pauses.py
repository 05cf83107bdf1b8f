"""Signals that are not the end at once: a process that is stopped and goes on, Ctrl-C twice."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from verdict import Verdict, differences, result_of
from workplace import SIGNAL

if TYPE_CHECKING:
    from campaign import Campaign
    from commands import Command

MINUTE = 60.0


def pause_cases(campaign: Campaign, command: Command, every: bool) -> Iterator[Callable[[], None]]:
    """Yield signals at drawn calls; the first stop (of a sample: of ``train``) is of a minute."""
    campaign.prepare(command)
    calls, rng = len(campaign.calls[command.name]), campaign.random
    number = 0
    while number < (100 if every else 10**6):
        is_long = number == 0 and (every or command.name == "train")
        n, seconds = rng.randrange(calls), MINUTE if is_long else rng.uniform(0.1, 2.0)
        yield lambda n=n, seconds=seconds: stop(campaign, command, n, seconds)
        n, seconds = rng.randrange(calls), rng.choice((0.0, rng.uniform(0.0, 0.3)))
        yield lambda n=n, seconds=seconds: interrupt_twice(campaign, command, n, seconds)
        number += 1


def stop(campaign: Campaign, command: Command, n: int, seconds: float) -> None:
    """Stop a command at its n-th call (from 0) for a while: nothing is different."""
    place = campaign.place
    place.clear()
    fault = {"number": n + 1, "error": SIGNAL + signal.SIGSTOP}
    then = [[seconds, signal.SIGCONT, [0]]]
    result = place.run(command.words, fault, then=then, seconds=300.0)
    verdict = Verdict("clear")
    if result.status != 0:
        verdict = Verdict("lost", f"status {result.status}")
    elif other := differences(campaign.expected[command.name], result_of(place.case)):
        verdict = Verdict("silent", f"others: {other[:5]}")
    case = f"SIGSTOP for {seconds:.1f} s at {n}"
    campaign.record("stopped", command.name, case, verdict, result.output)


def interrupt_twice(campaign: Campaign, command: Command, n: int, seconds: float) -> None:
    """Press Ctrl-C at the n-th call, and once more: one line, and the same command goes on."""
    place = campaign.place
    place.clear()
    fault = {"number": n + 1, "error": SIGNAL + signal.SIGINT}
    then = [[seconds, signal.SIGINT, [0]]]
    result = place.run(command.words, fault, then=then, seconds=300.0)
    verdict = campaign.after(command)
    if verdict.kind == "clear" and result.status not in (0, 130, -signal.SIGINT):
        verdict = Verdict("unclear", f"status {result.status}")
    if verdict.kind == "clear" and "Traceback" in result.output:
        verdict = Verdict("unclear", "traceback")
    case = f"SIGINT at {n}, again after {seconds:.2f} s"
    campaign.record("SIGINT twice", command.name, case, verdict, result.output)

"""Damage of what a killed command left: the same command goes on from it, or says what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from commands import HALF
from damage import damaged, kinds
from verdict import Verdict, differences, result_of, said_clearly

if TYPE_CHECKING:
    from campaign import Campaign
    from commands import Command

# Of the damages of a file so many are drawn: those that are neither flips nor cuts come first.
_FEW, _MORE = 7, 20


def half_cases(campaign: Campaign, command: Command) -> Iterator[Callable[[], None]]:
    """Yield damages of drawn files that a command left when it was killed."""
    campaign.prepare(command)
    calls, rng = campaign.calls[command.name], campaign.random
    folder = campaign.place.half_of(command, int(HALF[command.name] * len(calls)))
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    paths = [path for path in paths if "logs" not in path.parts]
    while True:
        path = rng.choice(paths)
        damages = kinds(path.read_bytes(), rng)
        kind = rng.choice([*islice(damages, _FEW), *islice(damages, _MORE)])
        yield lambda path=path, kind=kind: go_on_from(campaign, command, folder, path, kind)


def go_on_from(campaign: Campaign, command: Command, folder: Path, path: Path, kind: str) -> None:
    """Run a command where it was killed, with one of its files damaged."""
    place, name = campaign.place, str(path.relative_to(folder))
    with damaged(path, kind, place.inputs / "tiny.yaml"):
        place.clear(folder)
    result = place.run(command.words, seconds=60.0)
    verdict = Verdict("clear")
    if result.status == 0:
        other = differences(campaign.expected[command.name], result_of(place.case))
        # One that is not read again stays as it is; its digest is known to who reads it. A damaged
        # checkpoint is set aside.
        if other := [found for found in other if found != name and "/corrupt_" not in found]:
            verdict = Verdict("silent", f"ended well with others: {other[:5]}")
    elif wrong := said_clearly(result, caused=False):
        verdict = Verdict("unclear", wrong)
    elif path.name not in result.output and path.parent.name not in result.output:
        verdict = Verdict("unclear", f"does not name it: {result.output[-200:]}")
    campaign.record("damaged halves", command.name, f"{name}: {kind}", verdict, result.output)

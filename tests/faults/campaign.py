"""The fault campaign: make file calls fail, end commands, damage files; see what comes of it.

python tests/faults/campaign.py --minutes 40        # a drawn sample
python tests/faults/campaign.py --all               # every call, for a night
"""

from __future__ import annotations

import argparse
import errno
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from commands import COMMANDS, HALF, ONLY_DAMAGED, Command
from damage import READS, Read, damaged, kinds
from halves import half_cases
from pauses import pause_cases
from ranks import Ranks
from verdict import (
    Verdict,
    differences,
    half_written,
    result_of,
    said_clearly,
    unreadable,
)
from workplace import SHORT, SIGNAL, Workplace

E = errno
# What a call can fail with.
ERRORS: dict[str, tuple[int, ...]] = {
    "open": (E.EIO, E.EMFILE, E.ENOSPC, E.EROFS, E.EINTR),
    "read": (E.EIO, E.EINTR),
    "write": (E.ENOSPC, E.EIO, SHORT, E.EINTR),
    "fsync": (E.EIO, E.ENOSPC),
    "rename": (E.EIO, E.ENOSPC, E.EROFS),
    "mkdir": (E.ENOSPC, E.EROFS, E.EIO),
    "link": (E.EIO, E.ENOSPC),
    "unlink": (E.EIO, E.EROFS),
    "list": (E.EIO, E.EMFILE),
}
NAMES = {
    SHORT: "short write",
    **{number: E.errorcode[number] for v in ERRORS.values() for number in v if number != SHORT},
}
MOST = 300  # calls of a command that are tried, evenly
# That a command takes to refuse a damaged file: seconds, and bytes beyond what the server has.
MOST_SECONDS, MOST_MEMORY = 10.0, 4_000_000_000
# With --all: of each command, and of each file.
SIGNALS, DAMAGES, LIMITS = 100, 225, 50
# Of a process that has no memory: its own line, or ended by the system, by the loader (127), or by
# a library.
NO_MEMORY = (1, 2, 127, -signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)
# As the server takes them (``fork_server``).
SURROUNDINGS: dict[str, dict[str, Any]] = {
    "no HOME": {"environment": {"HOME": None, "XDG_CACHE_HOME": None}},
    "HOME that is a file": {"environment": {"HOME": __file__, "XDG_CACHE_HOME": None}},
    "closed stdout": {"closed_stdout": True},
    "umask 077": {"umask": 0o077},
    "umask 000": {"umask": 0},
}
SHOWN_SECONDS = 300.0  # between two lines that say how far it is
Case = Callable[[], None]


class Campaign:
    """Runs cases until the time is over, and counts how they end."""

    def __init__(self, place: Workplace, log: Path, seed: int) -> None:
        """Take the undisturbed results first."""
        self.place, self.log, self.random = place, log, random.Random(seed)
        self.table: dict[str, Counter[str]] = defaultdict(Counter)
        self.expected: dict[str, dict[str, Any]] = {}
        self.calls: dict[str, list[str]] = {}
        self.ranks: Ranks | None = None

    def prepare(self, command: Command) -> None:
        """Learn what a command makes without a fault, and which calls it makes."""
        if command.name in self.calls:
            return
        self.calls[command.name] = self.place.calls_of(command)
        first = result_of(self.place.case)
        self.place.clear()
        again = self.place.run(command.words)
        assert again.status == 0, again.output
        if other := differences(first, result_of(self.place.case)):
            raise AssertionError(f"{command.name}: two undisturbed runs differ: {other}")
        self.expected[command.name] = first

    def record(self, group: str, command: str, case: str, verdict: Verdict, output: str) -> None:
        """Count a case, and keep what it printed if it went wrong."""
        self.table[f"{group}: {command}"][verdict.kind] += 1
        if verdict.kind != "clear":
            entry = {
                "group": group, "command": command, "case": case, "kind": verdict.kind,
                "why": verdict.why, "output": output[-3000:],
            }  # fmt: skip
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            print(f"{verdict.kind}: {command}: {case}: {verdict.why}", flush=True)

    def call_cases(self, command: Command, every: bool) -> Iterator[Case]:
        """Yield the failing calls of a command, drawn or all of them."""
        self.prepare(command)
        calls = self.calls[command.name]
        step = max(1.0, len(calls) / MOST)
        numbers = sorted({int(i * step) for i in range(int(len(calls) / step))})
        cases = [(n, error) for n in numbers for error in ERRORS[calls[n].split()[0]]]
        if not every:
            self.random.shuffle(cases)
        for n, error in cases:
            yield lambda n=n, error=error: self.fail_call(command, n, error)

    def fail_call(self, command: Command, n: int, error: int) -> None:
        """Let the n-th call (from 0) of a command fail once."""
        call = self.calls[command.name][n]
        self.place.clear()
        result = self.place.run(command.words, {"number": n + 1, "error": error})
        met = result.calls[0] if result.calls else "(not reached)"
        verdict = self._verdict(command, result, may_end_well=True)
        short = call.replace(str(self.place.root), "")
        self.record(
            "file calls",
            command.name,
            f"{NAMES[error]} at {n} {short} [{met.split()[0]}]",
            verdict,
            result.output,
        )

    def kill_cases(self, command: Command) -> Iterator[Case]:
        """Yield signals at drawn calls of a command."""
        self.prepare(command)
        calls = len(self.calls[command.name])
        while True:
            number = self.random.choice(
                [signal.SIGKILL] * 5 + [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
            )
            n = self.random.randrange(calls)
            yield lambda n=n, number=number: self.kill_at(command, n, number)

    def kill_at(self, command: Command, n: int, number: int) -> None:
        """Send a signal at the n-th call."""
        self.place.clear()
        result = self.place.run(command.words, {"number": n + 1, "error": SIGNAL + number})
        name = signal.Signals(number).name
        if result.status == 0:  # the signal came when nothing was left to do
            other = differences(self.expected[command.name], result_of(self.place.case))
            verdict = Verdict("silent", f"others: {other[:5]}") if other else Verdict("clear")
        elif result.status == -number:
            verdict = self.after(command)
        elif (number == signal.SIGINT and result.status == 130) or result.status == 75:
            # A training that stops for a signal makes a checkpoint, and keeps the newest two.
            verdict = self.after(command, but=r"/step_000000[1-5]/")
            if "Traceback" in result.output:
                verdict = Verdict("unclear", f"traceback after {name}")
        else:
            verdict = Verdict("unclear", f"status {result.status} after {name}")
        call = self.calls[command.name][n].replace(str(self.place.root), "")
        self.record("signals", command.name, f"{name} at {n} {call}", verdict, result.output)

    def damage_cases(self, read: Read) -> Iterator[Case]:
        """Yield damages of a file that a command reads."""
        command = COMMANDS[read.command]
        self.prepare(command)
        content = (self.place.inputs / read.path).read_bytes()
        for kind in kinds(content, self.random):
            yield lambda kind=kind: self.damage(command, read, kind)

    def damage(self, command: Command, read: Read, kind: str) -> None:
        """Run a command on a damaged file: one line that names it, or the right result."""
        path = self.place.inputs / read.path
        self.place.clear()
        with damaged(path, kind, self.place.inputs / "tiny.yaml"):
            result = self.place.run(command.words, seconds=30.0, memory=MOST_MEMORY)
        verdict = self._of_damage(command, read, result)
        self.record("damage", command.name, f"{read.path}: {kind}", verdict, result.output)

    def surrounding_cases(self, command: Command) -> Iterator[Case]:
        """Yield unusual surroundings of a command: it gives the same result in each."""
        self.prepare(command)
        for name in SURROUNDINGS:
            yield lambda name=name: self.surround(command, name)

    def surround(self, command: Command, name: str) -> None:
        """Run a command in unusual surroundings."""
        self.place.clear()
        result = self.place.run(command.words, **SURROUNDINGS[name])
        ends = (0, 141) if name == "closed stdout" else (0,)
        verdict = Verdict("clear")
        if result.status not in ends or "Traceback" in result.output:
            verdict = Verdict("unclear", f"status {result.status}")
        elif other := differences(self.expected[command.name], result_of(self.place.case)):
            verdict = Verdict("silent", f"others: {other[:5]}")
        elif hidden := unreadable(self.place.case / command.makes):
            verdict = Verdict("silent", f"not readable by others: {hidden[:5]}")
        self.record("surroundings", command.name, name, verdict, result.output)

    def memory_cases(self, command: Command) -> Iterator[Case]:
        """Yield limits of memory, from none to what a command takes: as if others had the rest."""
        self.prepare(command)
        self.place.clear()
        most = self.place.peak_of(command)
        while True:
            limit = self.random.randrange(most)
            yield lambda limit=limit: self.limit_memory(command, limit)

    def limit_memory(self, command: Command, limit: int) -> None:
        """Run a command with so many bytes of memory, and once more with all."""
        self.place.clear()
        result = self.place.run(command.words, memory=limit)
        lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
        half = half_written(self.place.case / command.makes)
        if result.status == 0:
            other = differences(self.expected[command.name], result_of(self.place.case))
            verdict = Verdict("silent", f"ended well with others: {other[:5]}")
            verdict = verdict if other else Verdict("clear")
        elif half:
            verdict = Verdict("silent", f"half-written: {half[:5]}")
        else:
            verdict = self.after(command)
        said = "Traceback" not in result.output and len(lines) == (result.status == 2)
        if verdict.kind == "clear" and not (result.status in (0, *NO_MEMORY) and said):
            verdict = Verdict("unclear", f"status {result.status}, {len(lines)} lines of error")
        self.record("memory", command.name, f"{limit >> 20} MiB", verdict, result.output)

    def _of_damage(self, command: Command, read: Read, result: Any) -> Verdict:
        if result.status == 0:
            other = differences(self.expected[command.name], result_of(self.place.case))
            said = re.search(rf"^warning: \S*{re.escape(read.path)}: ", result.output, re.M)
            if other and read.ours and not said:
                return Verdict("silent", f"ended well with others: {other[:5]}")
            return Verdict("clear")
        if half := half_written(self.place.case / command.makes):
            return Verdict("silent", f"half-written: {half[:5]}")
        if wrong := said_clearly(result, caused=False):
            return Verdict("unclear", wrong)
        if result.seconds > MOST_SECONDS:
            return Verdict("unclear", f"took {result.seconds} s")
        names = [Path(read.path).name, Path(read.path).stem, Path(read.path).parts[0]]
        if not any(name in result.output for name in names):
            return Verdict("unclear", f"does not name it: {result.output[-200:]}")
        return Verdict("clear")

    def _verdict(self, command: Command, result: Any, may_end_well: bool) -> Verdict:
        """Check a run with a fault, and the same command after it."""
        if changed := self.place.inputs_changed():
            raise AssertionError(f"{command.name} changed its inputs: {changed}")
        expected = self.expected[command.name]
        if result.status == 0 and may_end_well:
            other = differences(expected, result_of(self.place.case))
            return (
                Verdict("silent", f"ended well with others: {other[:5]}")
                if other
                else Verdict("clear")
            )
        if half := half_written(self.place.case / command.makes):
            return Verdict("silent", f"half-written: {half[:5]}")
        after = self.after(command)
        if after.kind != "clear":
            return after
        wrong = said_clearly(result)
        return Verdict("unclear", wrong) if wrong else Verdict("clear")

    def after(self, command: Command, but: str = "") -> Verdict:
        """Check the same command without a fault; of the files that match, all is allowed."""
        again = self.place.run(command.words)
        if again.status != 0:
            lines = again.output.strip().splitlines()
            return Verdict(
                "lost", f"again: status {again.status}: {lines[-1][:200] if lines else ''}"
            )
        if other := differences(self.expected[command.name], result_of(self.place.case), but):
            return Verdict("silent", f"again: others: {other[:5]}")
        return Verdict("clear")

    def run(self, groups: list[Iterator[Case]], minutes: float) -> None:
        """Take cases of all groups in turn until the time is over or none is left."""
        end = time.monotonic() + 60 * minutes
        shown = time.monotonic()
        while groups and time.monotonic() < end:
            for group in list(groups):
                if time.monotonic() >= end:
                    break
                if time.monotonic() - shown > SHOWN_SECONDS:
                    shown = time.monotonic()
                    n, left = sum(x.total() for x in self.table.values()), (end - shown) / 60
                    self.show()
                    print(f"{n} faults; {left:.0f} minutes left", flush=True)
                case = next(group, None)
                if case is None:
                    groups.remove(group)
                    continue
                case()

    def show(self) -> None:
        """Print the table."""
        kinds = ("clear", "unclear", "lost", "silent")
        print(f"\n{'kind':32}{'injected':>9}" + "".join(f"{kind:>9}" for kind in kinds))
        total: Counter[str] = Counter()
        for name, counts in sorted(self.table.items()):
            print(f"{name:32}{counts.total():9}" + "".join(f"{counts[kind]:9}" for kind in kinds))
            total += counts
        print(f"{'all':32}{total.total():9}" + "".join(f"{total[kind]:9}" for kind in kinds))
        if self.ranks is not None and (seconds := sorted(self.ranks.seconds)):
            middle = seconds[len(seconds) // 2]
            print(f"lost ranks named after {seconds[0]} to {seconds[-1]} s, median {middle} s")


def main() -> int:
    """Run the campaign; 0: nothing was lost, nothing silent, and all was said clearly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--all", action="store_true", help="every call, however long it takes")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", default="", help="commands, separated by commas")
    groups = "calls,signals,pauses,damage,halves,surroundings,memory,ranks"
    parser.add_argument("--groups", default=groups)
    parser.add_argument("--place", type=Path, default=None, help="keep the inputs here")
    parser.add_argument("--log", type=Path, default=Path("faults.jsonl"))
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    commands = [COMMANDS[name] for name in options.only.split(",") if name] or [*COMMANDS.values()]
    with tempfile.TemporaryDirectory(prefix="semsynth-faults-") as temporary:
        names = [command.name for command in commands]
        place = Workplace(options.place or Path(temporary), names)
        campaign = Campaign(place, options.log, seed)
        groups: list[Iterator[Case]] = []
        for command in commands:
            if command.name in ONLY_DAMAGED:
                continue
            if "calls" in options.groups:
                groups.append(campaign.call_cases(command, options.all))
            if "surroundings" in options.groups:
                groups.append(campaign.surrounding_cases(command))
            if "memory" in options.groups:
                groups.append(
                    islice(campaign.memory_cases(command), LIMITS if options.all else None)
                )
            if "signals" in options.groups:
                groups.append(
                    islice(campaign.kill_cases(command), SIGNALS if options.all else None)
                )
            if "halves" in options.groups and command.name in HALF:
                groups.append(
                    islice(half_cases(campaign, command), DAMAGES if options.all else None)
                )
            if "pauses" in options.groups:
                groups.append(pause_cases(campaign, command, options.all))
        if "ranks" in options.groups and COMMANDS["train"] in commands:
            campaign.ranks = Ranks(campaign)
            groups += campaign.ranks.cases(options.all)
        if "damage" in options.groups:
            damages = [campaign.damage_cases(read) for read in READS if read.command in names]
            groups += [islice(cases, DAMAGES if options.all else None) for cases in damages]
        try:
            campaign.run(groups, 10**6 if options.all else options.minutes)
        except KeyboardInterrupt:
            print("interrupted: what there is until now")
        place.close()
    campaign.show()
    bad = sum((counts for counts in campaign.table.values()), Counter())
    return int(bad["lost"] + bad["silent"] + bad["unclear"] > 0)


if __name__ == "__main__":
    sys.exit(main())

"""A share of the campaign (`make faults`): calls that fail, kills, damage, where it hurts most."""

from __future__ import annotations

import errno
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from campaign import Campaign
from commands import COMMANDS
from damage import Read
from halves import half_cases

if sys.platform != "linux" or not (shutil.which("gcc") or shutil.which("cc")):
    pytest.skip("needs a C compiler, and Linux", allow_module_level=True)

# Seeds are fixed here; `make faults` draws them again and prints them.
SHARE = ("prepare", "segment train", "generate")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    from workplace import Workplace

    root = tmp_path_factory.mktemp("faults")
    place = Workplace(root)
    yield Campaign(place, root / "faults.jsonl", seed=0)
    place.close()


def assert_clear(campaign: Campaign, log: Path) -> None:
    bad = {name: counts for name, counts in campaign.table.items() if set(counts) - {"clear"}}
    assert bad == {}, log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARE)
def test_calls_that_fail_and_signals(name: str, campaign: Campaign) -> None:
    command = COMMANDS[name]
    campaign.prepare(command)
    calls, rng = campaign.calls[name], random.Random(name)
    for kind, number in (
        ("open", errno.EMFILE), ("read", errno.EIO), ("write", errno.ENOSPC), ("write", 1000),
        ("fsync", errno.EIO), ("rename", errno.EROFS), ("list", errno.EIO),
    ):  # fmt: skip
        places = [n for n, call in enumerate(calls) if call.startswith(kind)]
        for n in rng.sample(places, min(2, len(places))):
            campaign.fail_call(command, n, number)
    for n in rng.sample(range(len(calls)), 3):
        campaign.kill_at(command, n, signal.SIGKILL)
    assert_clear(campaign, campaign.log)


@pytest.mark.slow
@pytest.mark.parametrize(
    "read",
    [Read("generate", "run/final_model.pth"), Read("generate", "prepared/masks/val/street_4.png")],
    ids=lambda read: read.path,
)
def test_damage_of_what_is_read(read: Read, campaign: Campaign) -> None:
    command = COMMANDS[read.command]
    campaign.prepare(command)
    size, rng = (campaign.place.inputs / read.path).stat().st_size, random.Random(1)
    flips = [f"flip {rng.randrange(8 * size)}" for _ in range(4)]
    for kind in ("empty", "folder", f"cut {size // 2}", *flips):
        campaign.damage(command, read, kind)
    assert_clear(campaign, campaign.log)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prepare", "generate"])
def test_damage_of_what_a_killed_command_left(name: str, campaign: Campaign) -> None:
    for case in islice(half_cases(campaign, COMMANDS[name]), 5):
        case()
    assert_clear(campaign, campaign.log)


def test_the_shim_meets_all_calls_of_a_program(tmp_path: Path) -> None:
    """Python's calls and those of C: each is counted, and the one that is asked for fails."""
    import subprocess

    from workplace import KINDS, build_shim

    library = build_shim(tmp_path)
    root = tmp_path / "work"
    root.mkdir()
    program = """
import ctypes, os, shutil, sys
from pathlib import Path
shim, (root, kind, number) = ctypes.CDLL(None), sys.argv[1:]
log = os.open(root + ".log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.chdir(root)
shim.fault_arm(root.encode(), int(kind), ctypes.c_long(int(number)), 5, 0, log)
Path("a").write_text("x"); os.mkdir("d"); os.rename("a", "d/a"); Path("d/a").read_bytes()
os.listdir("d"); os.link("d/a", "b"); os.unlink("b"); shutil.copyfile("d/a", "c")
with open("c", "ab") as file: os.fsync(file.fileno())
libc = ctypes.CDLL("libc.so.6")
"""
    words = [sys.executable, "-c", program, str(root)]
    environment = {"LD_PRELOAD": str(library), "PATH": "/usr/bin:/bin"}

    def run(kind: int, number: int) -> tuple[int, str, list[str]]:
        shutil.rmtree(root)
        root.mkdir()
        done = subprocess.run(
            [*words, str(kind), str(number)], capture_output=True, text=True, env=environment
        )
        log = Path(f"{root}.log").read_text().splitlines()
        return done.returncode, done.stderr, [line.split()[0] for line in log]

    status, _, counted = run(-1, 0)
    assert status == 0 and set(counted) == set(KINDS)
    for kind, name in enumerate(KINDS):
        status, error, met = run(kind, 1)
        assert met == [name]
        assert status == 1 and "Input/output error" in error, name

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from semsynth.core.distributed.shards import Shard, this_shard
from semsynth.core.errors import UserError
from semsynth.core.files import write_once
from semsynth.core.identity import local_rank, process_rank
from semsynth.core.outputs import MARKER, claim_output_dir

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}


def array(number: int, count: int, first: int = 0, step: int = 1) -> dict[str, str]:
    values = {
        "ID": number,
        "COUNT": count,
        "MIN": first,
        "MAX": first + (count - 1) * step,
        "STEP": step,
    }
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        (TORCHRUN, (3, 4)),
        (SRUN, (1, 2)),
        (TORCHRUN | SRUN, (3, 4)),
        # A batch script is one process, whatever --ntasks says.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1)),
        (array(2, 4), (2, 4)),
        (array(3, 4, first=1), (2, 4)),
        (array(6, 3, first=2, step=2), (2, 3)),
        # One task of an array that is submitted again alone does all that is missing.
        (array(7, 1, first=7), (0, 1)),
        (array(2, 3) | SRUN, (5, 6)),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}, (1, 2)),
    ],
)
def test_the_environment_says_which_part(
    environment: dict[str, str], expected: tuple[int, int]
) -> None:
    assert this_shard(None, environment) == Shard(*expected)
    assert this_shard("2/7", environment) == Shard(1, 7)


def test_an_array_with_gaps_is_refused() -> None:
    gaps = array(7, 3) | {"SLURM_ARRAY_TASK_MAX": "7"}
    with pytest.raises(UserError, match=r"evenly spaced; submit --array=0-2"):
        this_shard(None, gaps)


@pytest.mark.parametrize("flag", ["0/4", "5/4", "4", "a/b", "-1/4", "1/0", ""])
def test_a_flag_that_is_no_part_is_refused(flag: str) -> None:
    with pytest.raises(UserError, match="--shard"):
        this_shard(flag, {})


def test_ranks_on_a_machine() -> None:
    assert (process_rank(TORCHRUN | SRUN), local_rank(TORCHRUN | SRUN)) == ((3, 4), 1)
    assert (local_rank(SRUN), local_rank({}), local_rank(array(1, 2))) == (0, None, None)


def test_parts_are_all_of_it_and_do_not_overlap() -> None:
    parts = [Shard(i, 4).of(range(10)) for i in range(4)]
    assert sorted(item for part in parts for item in part) == list(range(10))
    assert [str(Shard(i, 2)) for i in range(2)] == ["1/2", "2/2"]


RACE = """
import sys, time
from pathlib import Path
from semsynth.core.files import write_once
from semsynth.core.outputs import claim_output_dir
folder, number = Path(sys.argv[1]), sys.argv[2]
while not (folder.parent / "go").exists():
    time.sleep(0.001)
claim_output_dir(folder, "samples", {"a": 1})
print(write_once(folder / "choice.json", number))
"""


def test_processes_that_claim_a_folder_at_once_all_get_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path / "out")]
    tasks = [
        subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(6)
    ]
    (tmp_path / "go").touch()
    chosen = {task.communicate(timeout=60)[0] for task in tasks}
    assert [task.returncode for task in tasks] == [0] * 6
    assert len(chosen) == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MARKER, "choice.json"]


def test_the_first_value_stays_and_a_strangers_folder_is_refused(tmp_path: Path) -> None:
    assert write_once(tmp_path / "a.json", {"x": 1}) == {"x": 1}
    assert write_once(tmp_path / "a.json", {"x": 2}) == {"x": 1}
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    with pytest.raises(UserError, match="was not made by semsynth"):
        claim_output_dir(tmp_path, "samples", {})

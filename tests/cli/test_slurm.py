"""What is made of SLURM's variables; the real thing is in tests/cluster."""

from __future__ import annotations

import socket
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from semsynth.cli.cluster import slurm
from semsynth.core.errors import UserError

JOB = {
    "SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_CPUS_PER_NODE": "64(x2)",
    "SLURM_NTASKS": "16", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_NODELIST": "gpu[03-04]",
}  # fmt: skip
TASK = {
    **JOB, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[03-04]", "SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1", "SLURM_CPUS_PER_TASK": "8", "MASTER_ADDR": "127.0.0.1",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
}  # fmt: skip


def test_where_a_process_runs() -> None:
    assert slurm.place({}) == "alone"
    assert slurm.place(JOB) == "job"
    assert slurm.place({**JOB, "SLURM_PROCID": "0"}) == "job"  # a batch script has it too
    assert slurm.place(TASK) == "task"
    # `srun --pty bash` and the shell of salloc on a node
    assert slurm.place({**TASK, "SLURM_STEP_NUM_TASKS": "1"}) == "alone"
    assert slurm.place({**JOB, "SLURM_STEP_ID": "4294967290"}) == "job"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[003-007,9],login1", "gpu003"),
        ("gpu[3,5]-ib", "gpu3-ib"),
        ("rack[1-2]node[07-09]", "rack1node07"),
        ("a-b[12]", "a-b12"),
    ],
)
def test_the_first_of_the_nodes(nodes: str, first: str) -> None:
    assert slurm.first_host(nodes) == first


def option(line: list[str], name: str) -> str:
    return line[line.index(name) + 1]


@pytest.fixture
def fake_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH on which `srun` is found; nothing here runs it."""
    (tmp_path / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("fake_path")
def test_a_task_a_gpu_on_all_nodes() -> None:
    line = slurm.srun(JOB, None, ["s.py", "--x"])
    assert line[0] == "srun"
    assert (option(line, "--nodes"), option(line, "--ntasks")) == ("2", "16")
    assert (option(line, "--ntasks-per-node"), option(line, "--cpus-per-task")) == ("8", "8")
    launch = [sys.executable, "-m", "semsynth.cli.cluster.launch"]
    assert line[line.index(launch[0]) :] == [*launch, "--nproc", "8", "s.py", "--x"]


@pytest.mark.usefixtures("fake_path")
def test_tasks_in_a_container(tmp_path: Path) -> None:
    inside = {**JOB, "SEMSYNTH_CONTAINER": "/images/a.sif"}
    with pytest.raises(UserError, match=r"a\.sif: neither apptainer nor singularity"):
        slurm.srun(inside, None, ["s.py"])
    for program in ("singularity", "apptainer"):
        (tmp_path / program).touch(0o755)
        line = slurm.srun(inside, None, ["s.py"])
        python = [str(tmp_path / program), "exec", "--nv", "/images/a.sif", "python3"]
        assert line[line.index(python[0]) :][:7] == [*python, "-m", "semsynth.cli.cluster.launch"]


@pytest.mark.usefixtures("fake_path")
def test_other_numbers_of_processes() -> None:
    assert option(slurm.srun(JOB, 2, ["s.py"]), "--ntasks") == "4"
    assert option(slurm.srun(JOB, 2, ["s.py"]), "--cpus-per-task") == "32"
    without = {**JOB, "SLURM_GPUS_ON_NODE": "0", "SLURM_NTASKS": "6"}
    assert option(slurm.srun(without, None, ["s.py"]), "--ntasks-per-node") == "3"
    # nodes of different sizes: what the smallest one has
    uneven = {**without, "SLURM_JOB_CPUS_PER_NODE": "12,9"}
    assert option(slurm.srun(uneven, None, ["s.py"]), "--cpus-per-task") == "3"
    # salloc without --ntasks gives one core
    assert "--overcommit" in slurm.srun({**JOB, "SLURM_JOB_CPUS_PER_NODE": "1(x2)"}, 8, ["s.py"])
    with pytest.raises(UserError, match="8 GPUs a node"):
        slurm.srun(JOB, 9, ["s.py"])
    for wanted in ("12", "a100:12", "a100:8,v100:4"):
        with pytest.raises(UserError, match=f"has {wanted} GPUs.*--gpus-per-node"):
            slurm.srun({**JOB, "SLURM_GPUS": wanted}, None, ["s.py"])
    for wanted in ("16", "a100:16", "gpu:a100:16", "a100:8,v100:8"):
        line = slurm.srun({**JOB, "SLURM_GPUS": wanted}, None, ["s.py"])
        assert option(line, "--ntasks-per-node") == "8"


def test_ranks_are_slurms() -> None:
    found = slurm.task_environment(TASK)
    assert (found["RANK"], found["WORLD_SIZE"]) == ("9", "16")
    assert (found["LOCAL_RANK"], found["LOCAL_WORLD_SIZE"]) == ("1", "8")
    assert found["MASTER_ADDR"] == "127.0.0.1"
    assert 10_000 <= int(found["MASTER_PORT"]) < 30_000
    ports = {
        slurm.task_environment({**TASK, "SLURM_JOB_ID": str(job)})["MASTER_PORT"]
        for job in range(100)
    }
    assert len(ports) == 100
    assert slurm.task_environment({**TASK, "MASTER_PORT": "5"})["MASTER_PORT"] == "5"


def test_a_single_node_does_not_need_a_name_with_an_address() -> None:
    task = {**TASK, "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "no.such.host.invalid"}
    del task["MASTER_ADDR"]
    assert slurm.task_environment(task)["MASTER_ADDR"] == "127.0.0.1"
    with pytest.raises(UserError, match=r"no\.such\.host\.invalid.*MASTER_ADDR"):
        slurm.task_environment({**task, "SLURM_STEP_NUM_NODES": "2"})


def test_a_task_without_a_gpu_is_refused() -> None:
    bound = {**TASK, "CUDA_VISIBLE_DEVICES": "0"}  # --gpus-per-task=1: each sees its own
    assert slurm.task_environment(bound)["LOCAL_RANK"] == "0"
    with pytest.raises(UserError, match=r"task 9.*1 GPUs"):
        slurm.task_environment({**bound, "SLURM_GPUS_ON_NODE": "1"})


def test_two_jobs_of_one_number_do_not_meet() -> None:
    """As of two clusters on one machine: neither listens yet when the other looks for a port."""
    with slurm.meeting_port({"SLURM_JOB_ID": "12"}) as first:
        assert 10_000 <= first < 30_000
        with slurm.meeting_port({"SLURM_JOB_ID": "12"}) as second:
            assert second != first


def test_only_a_server_gets_a_reserved_port_and_torch_is_one() -> None:
    with slurm.reserve_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("", port))
        minute = timedelta(seconds=60)
        server = TCPStore("127.0.0.1", port, is_master=True, timeout=minute)
        client = TCPStore("127.0.0.1", port, is_master=False, timeout=minute)
        server.set("key", "value")
        assert client.get("key") == b"value"


def test_the_next_port_is_tried_and_the_last_failure_raised() -> None:
    with slurm.reserve_port() as first:
        with slurm.reserve_port([first, 0]) as second:
            assert second not in (first, 0)
        with pytest.raises(OSError, match="in use"), slurm.reserve_port([first]):
            pass

"""`semsynth submit`: what it writes, and what it refuses before anything waits in a queue."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from semsynth.cli import main
from semsynth.cli.cluster.submit import SubmitConfig, script
from semsynth.core.distributed.run_status import Status
from semsynth.data.dataset import PreparedDataset
from semsynth.training.checkpoints.store import save_state
from semsynth.training.recipe import chosen_recipe
from semsynth.training.run_output import claim

RECIPE = {
    "name": "tiny",
    "height": 64,
    "width": 64,
    "model": {"codec": "haar", "haar_levels": 2, "base_channels": 32, "channel_mult": [1, 2]},
    "diffusion": {},
    "train": {"steps": 2, "batch_size": 32},
}


@pytest.fixture
def words(tmp_path: Path, tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A submission that could be made, but for `sbatch`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    return ["submit", "--recipe", "tiny.yaml", "--data", str(tiny_prepared), "--output", "runs/a b"]


def options(text: str) -> dict[str, str]:
    """The options as sbatch reads them: words as a shell's."""
    words = shlex.split("\n".join(re.findall(r"#SBATCH (.*)", text)))
    return dict(re.findall(r"--([\w-]+)=(.+)", "\n".join(words)))


def test_a_dry_run_prints_the_script_and_writes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--nodes", "2", "--partition", "gpu", "--account", "us", "--mail", "me@example.org"]
    assert main([*words, *more, "--set", "train.accumulation=2", "--dry-run"]) == 0
    text = capsys.readouterr().out
    found = options(text)
    assert found["nodes"] == "2" and found["ntasks-per-node"] == found["gpus-per-node"] == "8"
    assert found["partition"] == "gpu" and found["account"] == "us"
    assert found["mail-user"] == "me@example.org"
    assert found["signal"] == "B:USR1@120" and "--requeue" in text
    assert found["job-name"] == "a b" and found["output"] == f"{tmp_path}/runs/a b_%j.log"
    last = shlex.split(text[text.index("exec ") :].replace("\\\n", ""))
    assert last[:6] == ["exec", sys.executable, "-m", "semsynth.cli.cluster.launch", "--nproc", "8"]
    assert last[6:9] == ["-m", "semsynth", "train"]
    assert last[-4:] == ["--output", "runs/a b", "--set", "train.accumulation=2"]
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


def test_a_container_is_for_the_tasks(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a b.sif").touch()
    for given, seen in (("a b.sif", f"'{tmp_path}/a b.sif'"), ("docker://x/y:1", "docker://x/y:1")):
        assert main([*words, "--container", given, "--dry-run"]) == 0
        text = capsys.readouterr().out
        assert f"export SEMSYNTH_CONTAINER={seen}\nexec {sys.executable} -m" in text
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert main([*words, "--dry-run"]) == 0
    assert "CONTAINER" not in capsys.readouterr().out


def test_only_given_options_are_in_the_script(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--gpus", "0", "--dry-run"]) == 0
    found = options(capsys.readouterr().out)
    assert not {"partition", "account", "mail-user", "gpus-per-node"} & set(found)
    assert found["ntasks-per-node"] == "1"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--recipe", "no_such"], "no_such"),
        (["--data", "nowhere"], "nowhere"),
        (["--gpus", "5"], "train.batch_size=30 or 35"),
        (["--nodes", "0"], "--nodes is 0"),
        (["--time", "2 days"], "--time 2 days"),
        (["--memory", "lots"], "--memory lots"),
        (["--container", "no.sif"], "--container no.sif: no such file"),
        (["--set", "height=128"], "64x64"),
        (["--output", "/proc/nowhere/run"], "cannot be written"),
        (["--output", "tiny.yaml/run"], "cannot be written"),
        (["--set", "train.stepz=1"], "stepz"),
        (["--from", "nowhere"], "--from nowhere"),
        (["--fork", "nowhere"], "--fork nowhere: is not a run folder"),
        (["--fork", "nowhere", "--from", "nowhere"], "a run has one start"),
        (["--label-map", "tiny.yaml"], "needs --from"),
    ],
)
def test_what_cannot_run_does_not_wait_in_a_queue(
    words: list[str], more: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *more, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and part in error, error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


def test_without_sbatch_nothing_else_is_looked_at(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    assert main([*words, "--data", "nowhere"]) == 2
    assert "sbatch: not found" in capsys.readouterr().err


@pytest.fixture
def run(words: list[str], tmp_path: Path) -> Path:
    """A run of the recipe, with a checkpoint that is not read here."""
    config = SubmitConfig(recipe="tiny.yaml", data=Path(words[4]))
    folder = tmp_path / "runs/there"
    data = PreparedDataset.open(config.data)
    claim(folder, chosen_recipe(config.training), data, True, None)
    save_state(folder, 1, {"step": 1}, keep=1)
    return folder


def test_another_run_in_the_folder_does_not_wait_in_a_queue(
    words: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = [*words, "--output", str(run), "--dry-run"]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main([*again, "--set", "train.accumulation=2"]) == 0
    assert main([*again, "--set", "train.learning_rate=0.5"]) == 2
    error = capsys.readouterr().err
    assert "learning_rate=0.0001, now 0.5" in error and f"--fork {run} --output" in error
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_where_a_run_starts_from_is_passed_on(
    words: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--fork", str(run), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert shlex.split(text[text.index("--recipe") :])[-2:] == ["--fork", str(run)]
    start = {"from_checkpoint": Path("m.pth"), "label_map": Path("a b.yaml")}
    text = script(SubmitConfig(**start), run)  # type: ignore[arg-type]
    assert shlex.split(text)[-4:] == ["--from", "m.pth", "--label-map", "a b.yaml"]


@pytest.mark.parametrize(("state", "status"), [("PENDING", 2), ("RUNNING", 2), ("", 0)])
def test_a_run_whose_job_is_in_the_queue_is_not_submitted_again(
    state: str, status: int, words: list[str], run: Path, squeue_says: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    squeue_says(state)
    Status(state="preempted", job="31").write(run)
    assert main([*words, "--output", str(run), "--dry-run"]) == status
    error = capsys.readouterr().err
    assert (f"{run}: job 31 is {state} and trains in this folder" in error) == bool(status)


def test_what_slurm_would_read_otherwise_is_protected() -> None:
    text = script(SubmitConfig(), Path('/runs/50% "a" \\b'))
    lines = re.findall(r"#SBATCH --(?:job-name|output)=(.*)", text)
    assert lines == [r'"50% \"a\" \\b"', r'"/runs/50%% \"a\" \\b_%j.log"']


def test_sbatch_gets_the_script_and_the_job_is_printed(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The number as real SLURM prints it; the real one is in tests/cluster."""
    program = tmp_path / "bin/sbatch"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >asked.txt\necho "17;cluster"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert main([*words, "--json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["job"] == "17" and result["log"] == str(tmp_path / "runs/a b_17.log")
    script = Path(result["script"])
    assert script == Path("runs/a b.sbatch") and script.read_text() in shown.err
    assert (tmp_path / "asked.txt").read_text().split(None, 1)[1].strip() == str(script)

"""The commands in scripts/: their fixed flags, and what they launch."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image
from PIL import Image as PILImage

from semsynth.cli import scripts
from semsynth.cli.cluster.launch import command
from semsynth.core.errors import UserError

SCRIPTS = {
    "prepare_dataset.py": "prepare",
    "train_semantic_diffusion.py": "train",
    "generate_images.py": "generate",
    "evaluate_model.py": "evaluate",
}


@pytest.mark.parametrize(
    ("word", "flag"),
    [
        ("--output_dir", "--output"),
        ("--output-dir=a_b", "--output=a_b"),
        ("--model_path=m", "--model=m"),
        ("--data_dir", "--data"),
        ("--guidance_scale", "--guidance-scale"),
        ("./output_dir", "./output_dir"),
    ],
)
def test_the_scripts_flags_become_those_of_the_verbs(word: str, flag: str) -> None:
    assert scripts.translate(word) == flag


def test_given_flags_replace_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(scripts, "main", lambda argv: calls.append(argv) or 0)
    defaults = {"source": "sidewalk", "output": "./d"}
    assert scripts.run("prepare", defaults, []) == 0
    assert scripts.run("prepare", defaults, ["--output_dir", "x", "--width", "64"]) == 0
    assert scripts.run("prepare", defaults, ["--output_dir=x"]) == 0
    assert calls == [
        ["prepare", "--source", "sidewalk", "--output", "./d"],
        ["prepare", "--source", "sidewalk", "--output", "x", "--width", "64"],
        ["prepare", "--source", "sidewalk", "--output=x"],
    ]


def test_flags_of_the_environment_come_before_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(scripts, "main", lambda argv: calls.append(argv) or 0)
    monkeypatch.setenv("SEMSYNTH_SEGMENT_TRAIN_FLAGS", "--data_dir 'a b' --steps 3")
    assert scripts.run("segment train", {"data": "d", "output": "o"}, ["--steps", "4"]) == 0
    words = ["--output", "o", "--data", "a b", "--steps", "3", "--steps", "4"]
    assert calls == [["segment", "train", *words]]


def test_evaluate_trains_a_segmenter_once_on_the_same_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(scripts, "main", lambda argv: calls.append(argv) or 0)
    monkeypatch.chdir(tmp_path)
    assert scripts.evaluate(["--data_dir=d"]) == 0
    segmenter = ["segment", "train", "--data", "d", "--output", "./checkpoints/segmenter"]
    assert calls[0] == segmenter
    assert calls[1][0] == "evaluate"
    (tmp_path / "checkpoints/segmenter").mkdir(parents=True)
    (tmp_path / "checkpoints/segmenter/segmenter.pth").touch()
    assert scripts.evaluate([]) == 0
    (tmp_path / "checkpoints/segmenter/segmenter.pth").unlink()
    assert scripts.evaluate(["--segmenter", "mine"]) == 0
    assert [call[0] for call in calls] == ["segment", "evaluate", "evaluate", "evaluate"]
    # Folders of another system are scored as they are.
    assert scripts.evaluate(["--generated", "theirs", "--real", "photos"]) == 0
    assert calls[-1] == [
        *["evaluate", "--output", "./results/report"],
        *["--generated", "theirs", "--real", "photos"],
    ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_short_and_shows_the_help_of_its_verb(script: str, root: Path) -> None:
    path = root / "scripts" / script
    assert len(path.read_text().splitlines()) <= 15
    assert os.access(path, os.X_OK)
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"usage: semsynth {SCRIPTS[script]} " in done.stdout


def test_launch_is_one_process_a_gpu() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    assert command(["s.py", "--x", "1"], gpus=4) == [*torchrun, "4", "s.py", "--x", "1"]
    assert command(["s.py"], gpus=16) == [*torchrun, "8", "s.py"]
    assert command(["s.py", "--nproc", "16"], gpus=16) == [*torchrun, "16", "s.py"]
    assert command(["s.py", "--nproc=2", "--x"], gpus=0) == [*torchrun, "2", "s.py", "--x"]
    assert command(["s.py", "--x"], gpus=0) == [sys.executable, "s.py", "--x"]
    assert command(["s.py", "--nproc", "1"], gpus=8) == [sys.executable, "s.py"]


@pytest.mark.parametrize(
    ("words", "gpus", "part"),
    [
        (["s.py", "--nproc", "0"], 8, "--nproc"),
        (["s.py", "--nproc"], 8, "--nproc"),
        (["s.py", "--nproc=many"], 8, "many"),
        (["s.py", "--nproc", "9"], 8, "8 GPUs"),
        ([], 8, "no script"),
    ],
)
def test_launch_refuses_what_cannot_run(words: list[str], gpus: int, part: str) -> None:
    with pytest.raises(UserError, match=part):
        command(words, gpus)


@pytest.mark.skipif(os.name != "posix", reason="needs bash")
def test_the_shell_script_reports_a_missing_gpu_and_passes_flags_on(root: Path) -> None:
    script = root / "scripts" / "train_multi_gpu.sh"
    assert len(script.read_text().splitlines()) <= 15
    assert os.access(script, os.X_OK)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    run = [script, "--recipe", "no_such_recipe"]
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 2, done.stderr
    first, last = done.stderr.splitlines()
    assert "no GPU found" in first
    assert last.startswith("error: ") and "no_such_recipe" in last


# ---- all of them in a row, on a small data set

PIPELINE = [
    "python3 scripts/prepare_dataset.py --output_dir ./data/sidewalk_processed",
    "./scripts/train_multi_gpu.sh",
    """python3 scripts/generate_images.py \\
    --model_path ./checkpoints/semantic_diffusion_1024/final_model.pth \\
    --data_dir ./data/sidewalk_processed \\
    --output_dir ./results/generated""",
    "python3 scripts/evaluate_model.py",
]
SIZE = 32
RECIPE = {
    "name": "tiny",
    "height": SIZE,
    "width": SIZE,
    "model": {"codec": "haar", "haar_levels": 1, "base_channels": 32, "channel_mult": [1, 2]},
    "diffusion": {},
    "train": {"steps": 2, "batch_size": 2},
    "finetune": {"steps": 1},
}


def encoded(array: np.ndarray) -> dict[str, bytes]:
    buffer = io.BytesIO()
    PILImage.fromarray(array).save(buffer, "PNG")
    return {"bytes": buffer.getvalue()}


def write_hub_copy(folder: Path, rows: int) -> Path:
    """A copy of a data set repository with the schema of sidewalk-semantic: noise and stripes."""
    folder.mkdir()
    names = {0: "unlabeled", 1: "flat-road", 2: "sky"}
    (folder / "id2label.json").write_text(json.dumps(names))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(rows)]
    masks = [np.repeat(rng.integers(0, 3, (48, 1), dtype=np.uint8), 64, 1) for _ in range(rows)]
    columns = {"pixel_values": list(map(encoded, images)), "label": list(map(encoded, masks))}
    features = Features({"pixel_values": Image(), "label": Image()})
    Dataset.from_dict(columns, features).to_parquet(str(folder / "train.parquet"))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs bash")
def test_each_script_finds_the_outputs_of_those_before_it(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "scripts", tmp_path / "scripts")
    hub = write_hub_copy(tmp_path / "hub", rows=20)
    (tmp_path / "tiny.yaml").write_text(json.dumps(RECIPE))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HOME": str(tmp_path / "hf"),
        "SEMSYNTH_PREPARE_FLAGS": f"--data {hub} --height {SIZE} --width {SIZE} --workers 1",
        "SEMSYNTH_TRAIN_FLAGS": "--recipe ./tiny.yaml --device cpu",
        "SEMSYNTH_GENERATE_FLAGS": "--per-mask 2 --steps 2 --limit 2 --device cpu",
        "SEMSYNTH_SEGMENT_TRAIN_FLAGS": "--steps 2 --batch-size 2 --width 8 --device cpu",
        "SEMSYNTH_EVALUATE_FLAGS": "--no-download --rows 2 --device cpu",
    }
    for line in PIPELINE:
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "data/sidewalk_processed/dataset.json").is_file()
    assert (tmp_path / "checkpoints/semantic_diffusion_1024/final_model.pth").is_file()
    assert len(list((tmp_path / "results/generated/images/val").iterdir())) >= 2
    report = json.loads((tmp_path / "results/report/report.json").read_text())
    assert report["format"] == 1
    assert report["n_generated"] == 2 * report["n_masks"]
    assert (tmp_path / "results/report/report.html").is_file()

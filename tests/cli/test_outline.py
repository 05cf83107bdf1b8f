"""The commands of the outline that the project started from, word for word, on a small data set."""

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

COMMANDS = [
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
def test_the_outlines_commands_find_each_others_outputs(root: Path, tmp_path: Path) -> None:
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
    for command in COMMANDS:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "data/sidewalk_processed/dataset.json").is_file()
    assert (tmp_path / "checkpoints/semantic_diffusion_1024/final_model.pth").is_file()
    assert len(list((tmp_path / "results/generated/images/val").iterdir())) >= 2
    report = json.loads((tmp_path / "results/report/report.json").read_text())
    assert report["format"] == 1
    assert report["n_generated"] == 2 * report["n_masks"]
    assert (tmp_path / "results/report/report.html").is_file()

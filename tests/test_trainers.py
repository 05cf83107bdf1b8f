"""One epoch of other trainers on an export; they are not installed with us.

They need torchvision with its own torch, so they have an environment of their own::

    python -m venv trainers
    trainers/bin/pip install torch torchvision ultralytics segmentation-models-pytorch \
        transformers datasets accelerate mmengine mmcv-lite==2.1.0 ftfy 'setuptools<81'
    trainers/bin/pip install --no-deps mmsegmentation
    SEMSYNTH_TRAINERS=trainers/bin/python python -m pytest -m trainer tests/test_trainers.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from semsynth.cli import main
from semsynth.data.dataset import PreparedDataset
from semsynth.data.manifest import MANIFEST
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter

PYTHON = os.environ.get("SEMSYNTH_TRAINERS", "")
PAGES = Path(__file__).resolve().parents[1] / "docs" / "how-to"
pytestmark = [
    pytest.mark.trainer,
    pytest.mark.skipif(not PYTHON, reason="needs SEMSYNTH_TRAINERS, the Python of trainers"),
]
# mmcv without its compiled operations: whoever calls one is told.
NO_OPERATIONS = """
import sys, types
from importlib.machinery import ModuleSpec

class Missing(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        def call(*args, **kwargs):
            raise RuntimeError(f"mmcv._ext.{name} is not compiled")
        return call

module = Missing("mmcv._ext")
module.__spec__ = ModuleSpec("mmcv._ext", None)
sys.modules["mmcv._ext"] = module
"""


@pytest.fixture(scope="module")
def samples(tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic images for the masks of `train`, as `generate` writes them; here they are noise."""
    data = PreparedDataset.open(tiny_prepared)
    root = tmp_path_factory.mktemp("trainers") / "samples"
    form = PreparedFormat(data.labels, data.height, data.width)
    writer = PreparedWriter(root, form, "samples")
    rng, lines = np.random.default_rng(0), []
    for stem in data.stems("train"):
        image = rng.integers(0, 256, (data.height, data.width, 3), np.uint8)
        writer.write_pair("train", f"{stem}__000", image, data.read_mask("train", stem))
        lines.append({"stem": f"{stem}__000", "source": stem, "split": "train", "seed": 0})
    (root / MANIFEST).write_text("\n".join(map(json.dumps, lines)) + "\n")
    writer.finish("streets (generated)", "noise", "CC0-1.0")
    return root


def export(samples: Path, prepared: Path, to: str, output: Path) -> Path:
    words = ["--with", str(prepared), "--to", to, "--output", str(output)]
    assert main(["export", str(samples), *words]) == 0
    return output


def run(folder: Path, *words: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "2", "HF_HOME": str(folder / "hub"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def script(page: str, folder: Path, *changes: tuple[str, str]) -> Path:
    """The whole Python of a page, with few steps and no downloads."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (PAGES / page).read_text(), re.M | re.S)
    for old, new in changes:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    path = folder / "page.py"
    path.write_text(code)
    return path


def test_ultralytics(samples: Path, tiny_prepared: Path, tmp_path: Path) -> None:
    folder = export(samples, tiny_prepared, "ultralytics", tmp_path / "out")
    yolo = Path(PYTHON).with_name("yolo")
    flags = ["epochs=1", "imgsz=64", "batch=4", "device=cpu", "workers=0", "model=yolo26n-sem.yaml"]
    where = (f"data={folder / 'data.yaml'}", f"project={tmp_path / 'runs'}", "name=one")
    text = run(tmp_path, yolo, "semantic", "train", *flags, *where, YOLO_CONFIG_DIR=str(tmp_path))
    count = len(list((folder / "images/train").iterdir()))
    assert f"{count} images, 0 missing masks, 0 corrupt" in text
    names = [label.name for label in PreparedDataset.open(tiny_prepared).labels.trainable]
    assert all(name in text for name in names)
    assert (tmp_path / "runs/one/weights/best.pt").is_file()


def test_smp(samples: Path, tiny_prepared: Path, tmp_path: Path) -> None:
    export(samples, tiny_prepared, "mmseg", tmp_path / "for_mmseg")
    changes = (("50, 8", "1, 4"), ('"imagenet"', "None"), ('"resnet34"', '"resnet18"'))
    text = run(tmp_path, PYTHON, script("train-smp.md", tmp_path, *changes))
    assert re.search(r"epoch 1: loss \d+\.\d+, mIoU 0\.\d+", text)


def test_transformers(samples: Path, tiny_prepared: Path, tmp_path: Path) -> None:
    export(samples, tiny_prepared, "hf", tmp_path / "for_hub")
    changes = (
        ('"for_hub", 50, 512', '"for_hub", 1, 64'),
        ("SegformerForSemanticSegmentation.from_pretrained(\n    \"nvidia/mit-b0\", ",
         "SegformerForSemanticSegmentation(__import__('transformers').SegformerConfig("),
        ("label2id=label2id\n)", "label2id=label2id\n))"),
    )  # fmt: skip
    text = run(tmp_path, PYTHON, script("train-transformers.md", tmp_path, *changes))
    assert re.search(r"'eval_miou': '?0\.\d+", text) and "train_loss" in text
    stored = json.loads((tmp_path / "segformer" / "config.json").read_text())
    assert stored["id2label"]["0"] == "flat-road" and len(stored["id2label"]) == 12


def test_mmsegmentation(samples: Path, tiny_prepared: Path, tmp_path: Path) -> None:
    """The configuration of the page, by MMSegmentation's own tools/train.py."""
    export(samples, tiny_prepared, "mmseg", tmp_path / "before")
    shutil.move(tmp_path / "before", tmp_path / "for_mmseg")  # it may be moved
    (config,) = re.findall(
        r"^```text\n(.*?)^```", (PAGES / "train-mmsegmentation.md").read_text(), re.M | re.S
    )
    (tmp_path / "my_config.py").write_text(config)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_OPERATIONS)
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    place = "import mmseg, os; print(os.path.dirname(mmseg.__file__))"
    package = Path(run(tmp_path, PYTHON, "-c", place, **environment).splitlines()[-1])
    loaders = [f"{split}_dataloader" for split in ("train", "val", "test")]
    options = ["train_cfg.max_iters=6", "train_cfg.val_interval=6"]
    options += [f"{loader}.num_workers=0" for loader in loaders]
    options += [f"{loader}.persistent_workers=False" for loader in loaders]
    train = package / ".mim" / "tools" / "train.py"
    words = ["my_config.py", "--work-dir", "work", "--cfg-options", *options]
    text = run(tmp_path, PYTHON, train, *words, **environment)
    names = [label.name for label in PreparedDataset.open(tiny_prepared).labels.trainable]
    table = text[text.index("per class results") :]
    assert [name for name in names if name not in table] == [] and "mIoU" in table
    assert (tmp_path / "work" / "iter_6.pth").is_file()

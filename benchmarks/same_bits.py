"""Does a code change alter any number? Digests of the output of a short run of every stage.

    python benchmarks/same_bits.py before.json              # at the old commit
    python benchmarks/same_bits.py after.json before.json   # at the new one: compares

Everything runs through the command line on built-in data, on the CPU in one thread. Digests are of
pixels, weights and losses, not of files that carry versions or times. Compare on one machine with
one version of torch only: another processor rounds otherwise. About six minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

SMALL = (
    *("train.steps=20", "finetune.steps=4", "train.batch_size=8", "train.log_every=1"),
    *("train.checkpoint_every=10", "train.validate_every=10", "train.preview_every=10"),
    *("train.keep_checkpoints=9", "train.warmup_steps=2"),
)
# The features of a recipe like the paper's: pixels, noise, learned variance, nearest labels.
PAPER = (
    *("height=32", "width=32", "model.base_channels=64", "model.channel_mult=[1, 2]"),
    *("model.blocks_per_level=1", "model.attention_factors=[2]", "model.head_channels=64"),
    *("model.spade_hidden=128", "train.steps=6", "finetune.steps=2", "train.batch_size=4"),
    *("train.log_every=1", "train.checkpoint_every=4", "train.precision=no", "train.workers=0"),
    *("train.validate_every=0", "train.preview_every=0", "train.gradient_checkpointing=false"),
)
# Bands, crops at native resolution, colours, augmentation conditioning, dropout, regions.
VARIED = (
    *SMALL[:4], "train.checkpoint_every=10", "train.validate_every=10",
    "train.crop_size=[32, 48]", "train.scale=[0.8, 1.2]", "train.color=0.1",
    "model.augment_condition=true", "model.dropout=0.1", "finetune.region_dropout=0.5",
    "train.accumulation=2", "train.precision=bf16", "finetune.steps=6", "train.steps=12",
)  # fmt: skip
TIMES = ("images_per_second", "mfu", "seconds", "time")

# Files that were added after the first records: they hold nothing that others do not.
LATER = ("overlays.png", "config.json", "pipeline.py", "examples.png")


def run(folder: Path, *words: str, processes: int = 1) -> None:
    """Run the command of the installed package; stop where it fails."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", f"--nproc_per_node={processes}", "--standalone", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SEMSYNTH_PROGRESS": "0"}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "semsynth", *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"semsynth {' '.join(words)}: status {done.returncode}\n{done.stderr[-4000:]}")


def train(folder: Path, output: str, *more: str, sets: Iterable[str], processes: int = 1) -> None:
    """Train a small model."""
    words = ["train", "--data", "prepared", "--output", output, *more]
    run(folder, *words, *(word for s in sets for word in ("--set", s)), processes=processes)


def digest(value: Any) -> str:
    """Return a hash of nested values with arrays and tensors in them."""
    sha = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            value = value.detach().float().contiguous().numpy()
        if isinstance(value, np.ndarray):
            sha.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).data)
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                sha.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for part in value:
                add(part)
        else:
            sha.update(repr(value).encode())

    add(value)
    return sha.hexdigest()[:16]


def images(folder: Path) -> str:
    """Return the hash of the pixels and names of all images below a folder."""
    found_in = (path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))
    paths = sorted(path for path in found_in if path.name not in LATER)
    assert paths, f"{folder}: has no images"
    found = {}
    for path in paths:
        with Image.open(path) as image:
            found[path.relative_to(folder).as_posix()] = (image.mode, np.asarray(image))
    return digest(found)


def losses(run_folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the metrics without times."""
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [
        {key: value for key, value in line.items() if not any(time in key for time in TIMES)}
        for line in found
    ]


def model(path: Path) -> str:
    """Return the hash of the weights of a `.pth`, by name."""
    value = torch.load(path, map_location="cpu", weights_only=True)
    return digest(value.get("weights", value.get("state_dict", value)))


def checkpoint(run_folder: Path, step: int) -> str:
    """Return the hash of weights, average and optimizer of a checkpoint."""
    path = run_folder / f"step_{step:07d}" / "state.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)
    compared = ("step", "model", "ema", "ema_updates", "optimizer", "precision")
    state["optimizer"] = _by_number(state["optimizer"])
    return digest({key: state[key] for key in compared})


def _by_number(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an optimizer with its parameters by number, whose names may differ."""
    (group,) = optimizer["param_groups"]
    names = group["params"]
    moments = {number: optimizer["state"][name] for number, name in enumerate(names)}
    return {"state": moments, "param_groups": [{**group, "params": list(range(len(names)))}]}


def record(folder: Path) -> dict[str, Any]:
    """Run every stage in ``folder`` and return what came out."""
    out: dict[str, Any] = {}
    size = ("--height", "64", "--width", "64")
    counts = ("--train-count", "12", "--val-count", "4")
    run(folder, "prepare", "--source", "streets", "--output", "prepared", *size, *counts)
    out["prepared"] = images(folder / "prepared")
    info = json.loads((folder / "prepared" / "dataset.json").read_text())
    for image in (image for split in info["pictures"].values() for image in split.values()):
        image.pop("digests", None)  # of files, which another version of a library writes otherwise
    left_out = ("versions", "content", "duplicates")
    out["dataset.json"] = {key: info[key] for key in sorted(info) if key not in left_out}

    for name, precision in (("fp32", "no"), ("bf16", "bf16")):
        sets = (*SMALL, f"train.precision={precision}")
        train(folder, name, "--recipe", "streets_demo", sets=sets)
        out[f"train {name}"] = losses(folder / name)
        out[f"model {name}"] = model(folder / name / "final_model.pth")
        out[f"previews {name}"] = images(folder / name / "previews")
        shutil.copytree(folder / name, folder / f"{name}_again")
        again = folder / f"{name}_again"
        for late in (again / "step_0000020", again / "step_0000024"):
            shutil.rmtree(late)
        (again / "final_model.pth").unlink()
        train(folder, f"{name}_again", "--recipe", "streets_demo", sets=sets)
        out[f"resumed {name}"] = model(again / "final_model.pth")
        assert out[f"resumed {name}"] == out[f"model {name}"], "a resume is not exact"
        out[f"checkpoint {name}"] = checkpoint(again, 24)

    sets = (*SMALL, "train.precision=no")
    train(folder, "two", "--recipe", "streets_demo", sets=sets, processes=2)
    out["train two processes"] = losses(folder / "two")
    train(folder, "shares", "--recipe", "streets_demo", sets=(*sets, "train.sharding=full"),
          processes=2)  # fmt: skip
    out["train in shares"] = losses(folder / "shares")
    out["model in shares"] = model(folder / "shares" / "final_model.pth")
    train(folder, "varied", "--recipe", "streets_demo", sets=VARIED)
    out["train varied"] = losses(folder / "varied")
    out["model varied"] = model(folder / "varied" / "final_model.pth")
    train(folder, "from", "--recipe", "streets_demo", "--from", "fp32", sets=sets)
    out["model from"] = model(folder / "from" / "final_model.pth")
    train(folder, "fork", "--recipe", "streets_demo", "--fork", "fp32", sets=sets)
    out["model fork"] = model(folder / "fork" / "final_model.pth")

    run(folder, "prepare", "--source", "streets", "--output", "small", "--height", "32",
        "--width", "32", *counts)  # fmt: skip
    train(folder, "paper", "--recipe", "paper_256", "--data", "small", sets=PAPER)
    out["train paper"] = losses(folder / "paper")
    out["model paper"] = model(folder / "paper" / "final_model.pth")
    run(folder, "export", "paper", "--to", "official", "--output", "official.pt")
    out["official"] = model(folder / "official.pt")
    run(folder, "import", "official.pt", "--labels", "official.json", "--output", "imported")
    out["imported"] = _folder(folder / "imported")

    ways: dict[str, tuple[str, ...]] = {
        "default": (),
        "fp32": ("--precision", "no"),
        "uncached": ("--precision", "no", "--cache", "off"),
        "ddim": ("--sampler", "ddim", "--guidance-scale", "1"),
        "ddpm": ("--sampler", "ddpm", "--steps", "6"),
        "interval": ("--sampler", "unipc", "--guidance-interval", "0.2", "0.8"),
        "plain": ("--reference", "plain"),
    }
    for name, more in ways.items():
        words = ("--model", "fp32/final_model.pth", "--data", "prepared", "--per-mask", "3")
        run(folder, "generate", *words, "--steps", "4", *more, "--output", f"samples_{name}")
        out[f"samples {name}"] = images(folder / f"samples_{name}")
    run(folder, "generate", "--model", "imported", "--data", "small", "--steps", "4",
        "--output", "samples_imported")  # fmt: skip
    out["samples imported"] = images(folder / "samples_imported")

    run(folder, "export", "varied", "--to", "diffusers", "--output", "diffusers")
    out["diffusers"] = _folder(folder / "diffusers")
    run(folder, "segment", "train", "--data", "prepared", "--output", "segmenter",
        "--steps", "20", "--width", "8")  # fmt: skip
    run(folder, "evaluate", "--samples", "samples_default", "--data", "prepared", "--segmenter",
        "segmenter", "--output", "report", "--no-download")  # fmt: skip
    report = json.loads((folder / "report" / "report.json").read_text())
    out["report"] = numbers({key: report[key] for key in ("metrics", "controls", "diversity")})
    run(folder, "augment", "--data", "prepared", "--samples", "samples_default",
        "--samples-split", "val", "--val-split", "train", "--split", "val", "--real-images", "2",
        "--steps", "6", "--trials", "1", "--width", "8", "--output", "augment")  # fmt: skip
    gain = json.loads((folder / "augment" / "augmentation.json").read_text())
    out["augment"] = {key: gain[key] for key in ("arms", "gain")}
    return out


def numbers(value: Any) -> Any:
    """Return nested values without their texts, which may be reworded."""
    if isinstance(value, dict):
        return {key: numbers(part) for key, part in value.items() if not isinstance(part, str)}
    return [numbers(part) for part in value] if isinstance(value, list) else value


def _folder(folder: Path) -> dict[str, Any]:
    weights = sorted(folder.glob("unet/*.safetensors"))
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")]
    return {
        "files": sorted(name for name in names if name not in LATER),
        "weights": digest([load_file(path) for path in weights]),
    }


def main() -> int:
    """Record; with a second file, compare with it and name what differs."""
    if not 2 <= len(sys.argv) <= 3:
        print(__doc__)
        return 2
    with TemporaryDirectory() as folder:
        found = json.loads(json.dumps(record(Path(folder))))
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if len(sys.argv) == 2:
        return 0
    before = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    differs = [name for name in before if before[name] != found.get(name)]
    print(f"{len(before) - len(differs)} of {len(before)} are the same to the bit")
    for name in differs:
        print(f"differs: {name}")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())

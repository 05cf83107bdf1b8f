"""The commands of the campaign, as small as they can be, and what they read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

SIDE = "32"
RECIPE = f"""\
name: tiny
height: {SIDE}
width: {SIDE}
model:
  codec: haar
  haar_levels: 1
  base_channels: 16
  channel_mult: [1, 2]
  blocks_per_level: 1
  attention_factors: [2]
  head_channels: 16
  spade_hidden: 8
diffusion: {{}}
train:
  steps: 4
  batch_size: 2
  learning_rate: 1.0e-3
  ema_decay: 0.9
  log_every: 1
  checkpoint_every: 2
  validate_every: 2
  precision: "no"
finetune: {{steps: 2, learning_rate: 1.0e-4}}
"""


@dataclass(frozen=True)
class Command:
    """A command that is run in a folder beside ``in``, which has what it reads.

    Attributes:
        name: in tables.
        words: after ``semsynth``.
        makes: what it writes, in its folder.
    """

    name: str
    words: tuple[str, ...]
    makes: str = "out"


def _command(name: str, words: str, makes: str = "out") -> Command:
    return Command(name, tuple(words.split()), makes)


_CPU = "--device cpu"
COMMANDS = {
    command.name: command
    for command in (
        _command("prepare", f"prepare ../in/raw --output out --height {SIDE} --width {SIDE}"),
        _command(
            "train", f"train --recipe ../in/tiny.yaml --data ../in/prepared --output out {_CPU}"
        ),
        _command(
            "segment train",
            "segment train --data ../in/prepared --output out --width 4 --steps 4 "
            f"--batch-size 2 {_CPU}",
        ),
        _command(
            "generate",
            "generate --model ../in/run/final_model.pth --data ../in/prepared --output out "
            f"--per-mask 2 --steps 2 --batch-size 2 {_CPU}",
        ),
        _command(
            "evaluate",
            "evaluate --samples ../in/samples --data ../in/prepared --segmenter ../in/segmenter "
            f"--output out {_CPU}",
        ),
        _command(
            "augment",
            "augment --data ../in/prepared --samples ../in/samples_train --output out --trials 1 "
            f"--real-images 2 --steps 2 --batch-size 2 --width 4 {_CPU}",
        ),
        _command("export", "export ../in/samples --to mmseg --output out"),
        _command("export model", "export ../in/run --to diffusers --output out"),
        _command(
            "generate folder",
            "generate --model ../in/folder --data ../in/prepared --output out --per-mask 1 "
            f"--steps 2 {_CPU}",
        ),
        _command("compare", "evaluate compare ../in/report ../in/report_2 --output out"),
        _command("import", "import ../in/official.pt --output out --head-channels 16 --size 32"),
    )
}
# Killed at this share of their calls, they leave a folder with which they go on: its files are
# damaged too.
HALF = {
    **{"prepare": 0.7, "train": 0.75, "segment train": 0.9, "generate": 0.8},
    **{"evaluate": 0.8, "augment": 0.8},
}
# Of these not every call is made to fail: their files are damaged.
ONLY_DAMAGED = ("generate folder", "compare")
# In this order; the first ones are read by those that follow.
INPUTS = {
    "prepared": "prepare ../in/raw --output ../in/prepared --height 32 --width 32",
    "run": "train --recipe ../in/tiny.yaml --data ../in/prepared --output ../in/run --device cpu",
    "segmenter": "segment train --data ../in/prepared --output ../in/segmenter --width 4 --steps 4 "
    "--batch-size 2 --device cpu",
    "samples": "generate --model ../in/run/final_model.pth --data ../in/prepared "
    "--output ../in/samples --per-mask 2 --steps 2 --device cpu",
    "samples_train": "generate --model ../in/run/final_model.pth --data ../in/prepared "
    "--output ../in/samples_train --split train --per-mask 1 --steps 2 --device cpu",
    "samples_2": "generate --model ../in/run/final_model.pth --data ../in/prepared "
    "--output ../in/samples_2 --per-mask 2 --steps 3 --device cpu",
    "folder": "export ../in/run --to diffusers --output ../in/folder",
    "report": "evaluate --samples ../in/samples --data ../in/prepared --segmenter ../in/segmenter "
    "--output ../in/report --device cpu",
    "report_2": "evaluate --samples ../in/samples_2 --data ../in/prepared "
    "--segmenter ../in/segmenter --output ../in/report_2 --device cpu",
}


def write_raw(folder: Path) -> None:
    """Write six images with their masks, as a user has them: sky above road, and a car."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        for split in ("train", "val"):
            (folder / name / split).mkdir(parents=True)
    for number in range(6):
        split = "train" if number < 4 else "val"
        mask = np.full((32, 32), 1, np.uint8)
        mask[int(rng.integers(12, 20)) :] = 2
        mask[20:26, 4 + number : 14 + number] = 3
        image = (70 * mask[..., None] + rng.integers(0, 40, (32, 32, 3))).astype(np.uint8)
        for kind, pixels in (("images", image), ("masks", mask)):
            ok, data = cv2.imencode(".png", pixels)
            assert ok
            (folder / kind / split / f"street_{number}.png").write_bytes(data.tobytes())
    (folder / "labels.yaml").write_text("labels: [void, sky, road, car]\nignore: void\n")


def write_official(path: Path) -> None:
    """Write a checkpoint as the official code does."""
    import torch

    sys.path.append(str(Path(__file__).parents[1] / "models"))
    from official_figures import figures, state

    torch.save(state(figures("paper_tiny")[0]), path)

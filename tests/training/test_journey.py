"""How many files of the package a reader of a training has to open: a property, not a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# As in docs/architecture.md. If a change needs one more, first look for one that it makes needless.
MOST = 52

SCRIPT = """
import json, os, sys, threading
import semsynth
from semsynth.cli import main

root, entered = os.path.dirname(semsynth.__file__) + os.sep, []

def note(frame, event, _):
    # A function or a method: not the body of a module or class, which runs when it is imported.
    if event == "call" and frame.f_code.co_flags & 1:
        place = frame.f_code.co_filename
        name = place.removeprefix(root).replace(os.sep, "/")
        if place.startswith(root) and name not in entered:
            entered.append(name)

threading.setprofile(note)
sys.setprofile(note)
status = main(sys.argv[1:])
sys.setprofile(None)
print(json.dumps([status, entered]))
"""


def test_a_plain_training_enters_few_files(images: Path, recipe_file: Path, tmp_path: Path) -> None:
    words = ["train", "--recipe", recipe_file, "--data", images, "--output", tmp_path / "run"]
    steps = ["train.steps=2", "finetune.steps=0", "train.validate_every=2", "train.preview_every=2"]
    command = [sys.executable, "-c", SCRIPT, *map(str, words), "--device", "cpu", "--set", *steps]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    status, entered = json.loads(done.stdout.splitlines()[-1])
    assert status == 0
    assert "training/loop.py" in entered and "pipelines/synthesizer.py" in entered
    assert len(entered) <= MOST, "\n".join(entered)
    # What nobody asked for is not looked at.
    for name in ("cli/help.py", "training/scoring.py", "training/trackers.py", "data/large.py"):
        assert name not in entered
    assert not [name for name in entered if name.startswith("training/distill/")]

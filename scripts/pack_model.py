#!/usr/bin/env python3
"""Put a trained model into the package (src/semsynth/pretrained/NAME), with card and scores.

First the model; then, with what `semsynth evaluate` and `semsynth generate --model NAME` made of
that very file, its scores and images (docs/how-to/models.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semsynth.cli.common import guard
from semsynth.pipelines.formats.pretrained import FOLDER


def main() -> int:
    """Read the flags and write the folder; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the model: nuclei, aerial, streets")
    parser.add_argument("--model", type=Path, help="a run or final_model.pth; writes the model")
    parser.add_argument("--weights", choices=("int8", "fp16"), default="int8")
    parser.add_argument("--about", default="", help="what it is for, in a sentence or two")
    parser.add_argument("--command", action="append", default=[], help="that trained it; repeat")
    parser.add_argument("--citation", action="append", default=[], help="of the data; repeat")
    parser.add_argument("--report", type=Path, action="append", default=[], help="of the model")
    parser.add_argument("--samples", type=Path, help="of semsynth generate, for the card")
    parser.add_argument("--data", type=Path, help="prepared data with the samples' real images")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.model and not (flags.about and flags.command and flags.citation):
        parser.error("--model needs --about, --command and --citation for the card")
    return guard(lambda: _pack(flags))


def _pack(flags: argparse.Namespace) -> int:
    from semsynth.pipelines.convert.pack import Notes, add_to_card, pack_model

    folder = flags.folder / flags.name
    if flags.model:
        notes = Notes(flags.about, tuple(flags.command), tuple(flags.citation))
        pack_model(flags.model, folder, notes, flags.weights)
    if flags.report or flags.samples or not flags.model:
        add_to_card(folder, flags.report, flags.samples, flags.data)
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

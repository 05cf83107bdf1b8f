"""Every command that takes a file of weights: whatever lies there, one line and status 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from semsynth.cli import main
from semsynth.data.dataset import PreparedDataset
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedWriter

# DATA: a prepared data set, SAMPLES: images of its masks, FILE: the damaged file, OUT: nothing yet.
COMMANDS = {
    "segment score": "segment score --data DATA --segmenter FILE --device cpu",
    "generate": "generate --model FILE --data DATA --output OUT --device cpu",
    "evaluate": "evaluate --samples SAMPLES --data DATA --output OUT --segmenter FILE --device cpu",
    "codec": "evaluate --codec-only --model FILE --data DATA --output OUT --device cpu",
    "export": "export FILE --to diffusers --output OUT",
    "import": "import FILE --output OUT",
    "train": "train --recipe streets_demo --data DATA --output OUT --from FILE --device cpu "
    "--set height=64 --set width=64",
}
FILES = ("missing", "folder", "empty", "byte", "text", "short", "code", "other")


@pytest.fixture(scope="module")
def samples(tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real images as if they had been generated from their masks."""
    folder = tmp_path_factory.mktemp("samples") / "samples"
    data = PreparedDataset.open(tiny_prepared)
    writer = PreparedWriter(folder, PreparedFormat(data.labels, 64, 64), "samples")
    for stem in data.stems("val"):
        image, mask = data.read_image("val", stem), data.read_mask("val", stem)
        writer.write_pair("val", f"{stem}__000", image, mask)
    writer.finish("samples", "made here", "CC0-1.0")
    return folder


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", COMMANDS)
def test_one_line_and_status_2(
    command: str,
    name: str,
    damaged: Path,
    tiny_prepared: Path,
    samples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {
        "DATA": tiny_prepared,
        "SAMPLES": samples,
        "FILE": damaged / name,
        "OUT": tmp_path / "out",
    }
    words = [str(places.get(word, word)) for word in COMMANDS[command].split()]
    assert main(words) == 2
    shown = capsys.readouterr()
    assert re.fullmatch(r"error: [^\n]+\n", shown.err) and str(places["FILE"]) in shown.err
    assert not shown.out and not (damaged / "executed").exists()

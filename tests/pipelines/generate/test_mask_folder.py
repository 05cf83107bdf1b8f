"""`generate --masks`: a folder of mask files, without images and without preparing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate

Fake = Callable[..., Any]


@pytest.fixture
def drawn(tmp_path: Path, fake: Fake) -> Path:
    folder = tmp_path / "drawn"
    folder.mkdir()
    for i in range(3):
        mask = np.ones((16, 24), np.uint8)
        mask[:6], mask[8:12, 4 + i : 10 + i] = 2, 7
        Image.fromarray(mask).save(folder / f"mask {i}.png")
    return folder


def run(folder: Path, output: Path, generator: Any, **changes: Any) -> PreparedDataset:
    result = generate(GenerateConfig(masks=folder, output=output, per_mask=2, **changes), generator)
    assert result["finished"]
    return PreparedDataset.open(output)


def test_a_folder_gives_what_prepared_masks_give(drawn: Path, tmp_path: Path, fake: Fake) -> None:
    data = run(drawn, tmp_path / "o", fake())
    stems = data.stems("val")
    assert stems == [f"mask {i}__{k:03d}" for i in range(3) for k in range(2)]
    for stem in stems:
        mask = np.array(Image.open(drawn / f"{stem[:6]}.png"))
        assert (data.read_mask("val", stem) == mask).all()
    # The same masks in colours: the same samples, to the byte.
    colored = tmp_path / "colored"
    colored.mkdir()
    for path in drawn.iterdir():
        Image.fromarray(fake().labels.colorize(np.array(Image.open(path)))).save(
            colored / path.name
        )
    again = run(colored, tmp_path / "p", fake())
    for stem in stems:
        files = [d.image_path("val", stem).read_bytes() for d in (data, again)]
        assert files[0] == files[1]


def test_nothing_is_generated_again_and_a_changed_mask_is_noticed(
    drawn: Path, tmp_path: Path, fake: Fake
) -> None:
    run(drawn, tmp_path / "o", fake())
    moved = drawn.rename(tmp_path / "elsewhere")
    generator = fake()
    run(moved, tmp_path / "o", generator)
    assert generator.seeds == []
    Image.fromarray(np.full((16, 24), 2, np.uint8)).save(moved / "mask 1.png")
    with pytest.raises(UserError, match=r"mask 1.*--overwrite"):
        run(moved, tmp_path / "o", fake())


def test_other_sizes_are_fitted_and_other_shapes_padded(
    drawn: Path, tmp_path: Path, fake: Fake
) -> None:
    Image.fromarray(np.full((32, 48), 2, np.uint8)).save(drawn / "mask 0.png")
    Image.fromarray(np.full((16, 16), 2, np.uint8)).save(drawn / "mask 1.png")
    data = run(drawn, tmp_path / "o", fake())
    assert (data.read_mask("val", "mask 0__000") == 2).all()
    padded = data.read_mask("val", "mask 1__000")
    assert (padded[:, 4:20] == 2).all()
    assert (padded[:, :4] == 0).all() and (padded[:, 20:] == 0).all()
    assert data.original_size("val", "mask 1__000") == (16, 16)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda d: (d / "mask 1.png").write_bytes(b"nothing"), "mask 1.png: .*not an image|cannot"),
        (lambda d: Image.new("L", (24, 16), 9).save(d / "x.png"), r"x.png: .*9 \(384 pixels\)"),
        (lambda d: (d / "dataset.json").write_text("{}"), "give it as --data"),
        (lambda d: [p.unlink() for p in d.iterdir()], "has no images"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_written(
    spoil: Callable[[Path], Any], line: str, drawn: Path, tmp_path: Path, fake: Fake
) -> None:
    spoil(drawn)
    with pytest.raises(UserError, match=line):
        run(drawn, tmp_path / "o", fake())
    assert not (tmp_path / "o").exists()


def test_padding_needs_an_ignored_label(drawn: Path, tmp_path: Path, fake: Fake) -> None:
    labels = LabelSet.from_names({1: "road", 2: "sky", 7: "car"})
    run(drawn, tmp_path / "o", fake(labels=labels))
    Image.fromarray(np.full((16, 16), 2, np.uint8)).save(drawn / "mask 1.png")
    with pytest.raises(UserError, match=r"mask 1.png: has another shape than the model's 24x16"):
        run(drawn, tmp_path / "p", fake(labels=labels))


def test_masks_as_is_for_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--masks-as is for --masks"):
        GenerateConfig(data=tmp_path, masks_as="colors")


@pytest.mark.parametrize(("name", "line"), [("mask 0.png", "is a file"), ("x", "no such folder")])
def test_a_folder_is_asked_for(
    name: str, line: str, drawn: Path, tmp_path: Path, fake: Fake
) -> None:
    with pytest.raises(UserError, match=f"{name}: {line}; --masks takes a folder of mask files"):
        run(drawn / name, tmp_path / "o", fake())


def test_masks_alone_are_not_for_a_model_of_instances(
    drawn: Path, tmp_path: Path, fake: Fake
) -> None:
    """The line names the user's folder, not the copy that is generated from."""
    with pytest.raises(UserError) as found:
        run(drawn, tmp_path / "o", fake(instance_edges=True))
    assert str(found.value).startswith(f"{drawn}: a folder of masks has no instance maps")
    assert "give them as --data" in str(found.value) and not (tmp_path / "o").exists()


def test_masks_and_data_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--masks is in place of --data"):
        GenerateConfig(data=tmp_path, masks=tmp_path)

"""Hugging Face data sets in every form, with columns of other names and types."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.prepare.tables import encoded, find_columns, table_kind, unpacked_table
from semsynth.data.raw.tree import FileTree


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def image(seed: int) -> bytes:
    return png(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8))


def ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (6, 8)).astype(np.uint8)


def table(
    first: int, count: int, columns: tuple[str, str] = ("image", "annotation"), **more: Any
) -> datasets.Dataset:
    rows = range(first, first + count)
    content = {columns[0]: [image(i) for i in rows], columns[1]: [png(ids(i)) for i in rows]}
    content |= {name: [value(i) for i in rows] for name, value in more.items()}
    data = datasets.Dataset.from_dict(content)
    for column in columns:
        data = data.cast_column(column, datasets.Image())
    return data


def save(kind: str, folder: Path, columns: tuple[str, str]) -> None:
    parts = {"train": table(0, 3, columns), "validation": table(3, 2, columns)}
    if kind == "saved":
        datasets.DatasetDict(parts).save_to_disk(folder)
    elif kind == "one split":
        parts["train"].save_to_disk(folder)
    elif kind == "parquet":
        (folder / "data").mkdir(parents=True)
        for split, rows in parts.items():
            rows.to_parquet(folder / f"data/{split}-00000-of-00001.parquet")
    else:
        for split, start, count in (("train", 0, 3), ("validation", 3, 2)):
            (folder / split).mkdir(parents=True)
            lines = []
            for i in range(start, start + count):
                (folder / split / f"walk {i}.png").write_bytes(image(i))
                (folder / split / f"{i}-x.png").write_bytes(png(ids(i)))
                names = {
                    f"{columns[0]}_file_name": f"walk {i}.png",
                    f"{columns[1]}_file_name": f"{i}-x.png",
                }
                lines.append(json.dumps(names))
            (folder / split / "metadata.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize(
    "columns", [("image", "annotation"), ("pixel_values", "label"), ("photo", "semantic_mask")]
)
@pytest.mark.parametrize("kind", ["saved", "one split", "parquet", "image folder"])
def test_every_form_is_unpacked_byte_for_byte(
    kind: str, columns: tuple[str, str], tmp_path: Path
) -> None:
    save(kind, tmp_path / "raw", columns)
    (tmp_path / "raw/id2label.json").write_text('{"0": "background", "1": "road"}')
    assert table_kind(FileTree.open(tmp_path / "raw"))
    with unpacked_table(str(tmp_path / "raw"), tmp_path / "rows") as folder:
        for split, first, count in (("train", 0, 3), ("validation", 3, 2)):
            if split == "validation" and kind == "one split":
                assert not (folder / split).exists()
                continue
            rows = range(first, first + count)
            found = [sorted((folder / split / part).iterdir()) for part in ("images", "masks")]
            named = kind == "image folder"
            stems = [f"walk {i}" if named else f"row_{i - first:06d}" for i in rows]
            assert [[path.stem for path in paths] for paths in found] == [stems, stems]
            assert [path.read_bytes() for path in found[0]] == [image(i) for i in rows]
            assert [path.read_bytes() for path in found[1]] == [png(ids(i)) for i in rows]
        assert json.loads((folder / "id2label.json").read_text())["1"] == "road"
    assert not (tmp_path / "rows").exists()


def test_rows_that_are_there_are_not_written_again(tmp_path: Path) -> None:
    save("saved", tmp_path / "raw", ("image", "mask"))
    with unpacked_table(str(tmp_path / "raw"), tmp_path / "rows") as folder:
        shutil.copytree(folder, tmp_path / "kept", copy_function=shutil.copy2)
    (tmp_path / "kept").rename(tmp_path / "rows")
    (tmp_path / "rows/train/masks/row_000001.png").unlink()
    before = (tmp_path / "rows/train/images/row_000000.png").stat().st_mtime_ns
    with unpacked_table(str(tmp_path / "raw"), tmp_path / "rows") as folder:
        assert (folder / "train/images/row_000000.png").stat().st_mtime_ns == before
        assert (folder / "train/masks/row_000001.png").read_bytes() == png(ids(1))


def test_a_plain_folder_is_not_a_table(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(image(0))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "images/a.png", "weather": "dusk"}')
    assert table_kind(FileTree.open(tmp_path)) is None


@pytest.mark.parametrize("kind", ["saved", "parquet", "image folder"])
def test_prepare_takes_them_as_they_are(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(kind, tmp_path / "raw", ("image", "label"))
    names = {"0": "background", "1": "road", "2": "car", "3": "tree"}
    (tmp_path / "raw/id2label.json").write_text(json.dumps(names))
    size = ["--height", "12", "--width", "16"]
    words = ["prepare", str(tmp_path / "raw"), "--output", str(tmp_path / "o"), *size]
    assert main([*words, "--dry-run"]) == 0
    assert main(words) == 0
    data = PreparedDataset.open(tmp_path / "o")
    assert data.labels.names == {int(i): name for i, name in names.items()}
    assert {split: len(data.stems(split)) for split in data.splits()} == {"train": 3, "val": 2}
    for split, first in (("train", 0), ("val", 3)):
        for i, stem in enumerate(data.stems(split)):
            large = ids(first + i).repeat(2, 0).repeat(2, 1)
            assert (data.read_mask(split, stem) == large).all()
    digest = data.digest
    (tmp_path / "raw").rename(tmp_path / "moved")
    capsys.readouterr()
    words[1] = str(tmp_path / "moved")
    assert main(words) == 0
    assert PreparedDataset.open(tmp_path / "o").digest == digest
    assert not list((tmp_path / "o").glob(".unpacked*/*"))


def test_a_repository_is_named_by_its_flag(tmp_path: Path) -> None:
    save("parquet", tmp_path / "raw", ("photo", "target"))
    flags = ["--repo", str(tmp_path / "raw"), "--image-column", "photo", "--mask-column", "target"]
    words = ["prepare", "--source", "hf", *flags, "--output", str(tmp_path / "o")]
    assert main([*words, "--dry-run"]) == 0
    assert main(words) == 0
    data = PreparedDataset.open(tmp_path / "o")
    assert {split: len(data.stems(split)) for split in data.splits()} == {"train": 3, "val": 2}


A, B, C = ({"bytes": b"", "path": None} for _ in range(3))


@pytest.mark.parametrize(
    ("row", "given", "columns"),
    [
        ({"image": A, "label": B, "scene": "x"}, (None, None), ("image", "label", None)),
        ({"a": A, "seg_map": B}, (None, None), ("a", "seg_map", None)),
        ({"image": A, "other": B}, (None, None), ("image", "other", None)),
        ({"image": A, "depth": B, "mask": C}, (None, None), ("image", "mask", None)),
        ({"left": A, "right": B, "mask": C}, (None, None), None),
        ({"left": A, "right": B, "mask": C}, ("left", None), ("left", "mask", None)),
        ({"image": A, "mask": B, "instances": C}, (None, None), ("image", "mask", "instances")),
        ({"image": A, "mask": B, "label": C}, (None, None), None),
        ({"image": A, "mask": B, "label": C}, (None, "label"), ("image", "label", None)),
        ({"image": A, "mask": [[0, 1], [1, 0]]}, (None, None), ("image", "mask", None)),
        ({"image": A, "text": "x"}, (None, None), None),
    ],
)  # fmt: skip
def test_columns_are_found_or_asked_for(
    row: dict[str, Any],
    given: tuple[str | None, str | None],
    columns: tuple[str, str, str | None] | None,
) -> None:
    if columns is None:
        with pytest.raises(UserError, match=r"say --(image|mask)-column NAME \(columns: "):
            find_columns(row, "here", given)
    else:
        found = find_columns(row, "here", given)
        assert (found.image, found.mask, found.instances) == columns


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(UserError, match="--mask-column x: here has no such column; it has image"):
        find_columns({"image": A}, "here", (None, "x"))


def test_maps_of_numbers_become_files() -> None:
    deep = ids(0).astype(np.int64) * 300
    for value in (deep, deep.tolist()):
        assert (np.array(Image.open(io.BytesIO(encoded(value, "here")))) == deep).all()
    for wrong in ([[0.5, 1.0]], [[-1, 0], [0, 0]], [[70000, 0], [0, 0]]):
        with pytest.raises(UserError, match="here: a map of ids needs whole numbers"):
            encoded(wrong, "here")


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (None, "train, row 1: 'mask' is empty"),
        (b"not an image", "train, row 1, mask: cannot be read"),
    ],
)
def test_a_damaged_row_is_one_line_and_leaves_nothing(
    mask: bytes | None, line: str, tmp_path: Path
) -> None:
    masks = [png(ids(0)), mask, png(ids(2))]
    rows = datasets.Dataset.from_dict({"image": [image(i) for i in range(3)], "mask": masks})
    for column in ("image", "mask"):
        rows = rows.cast_column(column, datasets.Image())
    rows.save_to_disk(tmp_path / "raw")
    unpack = unpacked_table(str(tmp_path / "raw"), tmp_path / "rows")
    with pytest.raises(UserError, match=line), unpack:
        pass
    assert not (tmp_path / "rows").exists()


def test_a_column_that_is_empty_in_some_rows(tmp_path: Path) -> None:
    """Generated images have no instance map; the first row does not decide for all."""
    import datasets

    kinds = {name: datasets.Image() for name in ("image", "mask", "instances")}
    pixels = {"bytes": encoded(np.zeros((4, 4, 3), np.uint8), "x"), "path": None}
    ids = {"bytes": encoded(np.ones((4, 4), np.uint8), "x"), "path": None}
    rows = {"image": [pixels, pixels], "mask": [ids, ids], "instances": [None, ids]}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    (tmp_path / "table").mkdir()
    table.to_parquet(tmp_path / "table" / "train-00000-of-00001.parquet")
    with unpacked_table(str(tmp_path / "table"), tmp_path / "rows") as folder:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert names == [
        "train/images/row_000000.png",
        "train/images/row_000001.png",
        "train/instances/row_000001.png",
        "train/masks/row_000000.png",
        "train/masks/row_000001.png",
    ]

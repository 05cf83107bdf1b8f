"""Masks and images that are NumPy files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_folders import LABELS, Made, left_out, opened

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.arrays import array_metadata
from semsynth.data.image_files.images import read_metadata, read_rgb
from semsynth.data.image_files.masks import read_ids
from semsynth.data.prepare.run import prepare

SEEDS = range(6)
FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uint8": lambda mask: mask,
    "uint16": lambda mask: mask.astype(np.uint16),
    "big-endian": lambda mask: mask.astype(">u2"),
    "uint32": lambda mask: mask.astype(np.uint32),
    "int64": lambda mask: mask.astype(np.int64),
    "int8": lambda mask: mask.astype(np.int8),
    "float64": lambda mask: mask.astype(np.float64),
    "float16": lambda mask: mask.astype(np.float16),
    "first axis": lambda mask: mask[None],
    "last axis": lambda mask: mask[..., None].astype(np.int32),
    "by columns": lambda mask: np.asfortranarray(mask),
}


def save(made: Made, name: str, value: Any, **options: Any) -> Path:
    path = made.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, value, **options)
    return path


def pairs(made: Made, image: str, mask: str, form: str = "uint8") -> None:
    for seed in SEEDS:
        made.save(image.format(seed), made.image(seed))
        save(made, mask.format(seed), FORMS[form](made.mask(seed)))


def check(source: Any, made: Made) -> None:
    found = {}
    for record in source.records():
        sample = source.read(record)
        seed = int(re.sub(r"\D", "", record.stem))
        assert (sample.mask == made.mask(seed)).all()
        assert (sample.image == made.image(seed)).all()
        found[seed] = record
    assert sorted(found) == list(SEEDS)


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_ids_are_masks(form: str, made: Made) -> None:
    pairs(made, "images/a{}.png", "masks/a{}.npy", form)
    made.text("labels.yaml", LABELS)
    check(opened(made.root), made)


def test_a_header_tells_size_and_mode(made: Made) -> None:
    for form, mode, depth in (("uint8", "L", 8), ("big-endian", "I;16", 16), ("float64", "I", 32)):
        path = save(made, "mask.npy", FORMS[form](made.mask(0)))
        found = read_metadata(path, "mask")
        assert (found.mode, found.depth, found.size()) == (mode, depth, (24, 32))
    path = save(made, "mask.npy", np.zeros((24, 32), bool))
    assert read_metadata(path, "mask").depth == 1
    assert read_ids(path, "mask").dtype == np.uint8


def test_a_header_is_read_without_the_pixels(made: Made) -> None:
    """A file with holes, of more than there is memory."""
    path = made.root / "mask.npy"
    path.parent.mkdir()
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (8000, 20000), }"
    head = b"\x93NUMPY\x01\x00v\x00" + header.ljust(117) + b"\n"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 8 * 8000 * 20000)
    assert array_metadata(path, "mask").size() == (8000, 20000)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a{}.png", "masks/a{}.npy"),
        ("images/train/a{}.png", "labels/train/a{}_mask.npy"),
        ("all/a{}.png", "all/a{}_mask.npy"),
        ("all/a{}.png", "all/a{}.npy"),
        ("all/a{}.jpg", "all/a{}.npy"),
    ],
)
def test_arrays_pair_as_image_files_do(image: str, mask: str, made: Made) -> None:
    pairs(made, image, mask)
    source = opened(made.root)
    assert {record.files[1].suffix for record in source.records()} == {".npy"}
    assert len(list(source.records())) == len(SEEDS) and left_out(source) == {}


@pytest.mark.parametrize("flags", [{"masks": Path("b")}, {"images": Path("a"), "masks": Path("b")}])
def test_a_given_folder_may_have_arrays(flags: dict[str, Path], made: Made) -> None:
    pairs(made, "a/{}.png", "b/{}.npy")
    check(opened(made.root, **flags), made)


def test_lists_may_name_arrays(made: Made) -> None:
    pairs(made, "images/a{}.png", "masks/b{}.npy")
    for split, seeds in (("train", (0, 1, 2, 3)), ("val", (4, 5))):
        lines = [f"images/a{n}.png masks/b{n}.npy" for n in seeds]
        made.text(f"{split}.txt", "\n".join(lines))
    source = opened(made.root)
    assert [record.split for record in source.records()].count("val") == 2
    check(source, made)


def test_colours_in_arrays_are_read(made: Made) -> None:
    for seed in SEEDS:
        made.save(f"images/{seed}.png", made.image(seed))
        save(made, f"masks/{seed}.npy", made.colored(seed))
    colors = "{1: {name: road, color: [128, 64, 128]}, 2: {name: sky, color: [70, 130, 180]}"
    rest = "0: {name: nothing, color: [0, 0, 0]}, 5: {name: car, color: [0, 0, 142]}}"
    made.text("labels.yaml", f"labels: {colors}, {rest}")
    check(opened(made.root), made)


def test_true_and_false_are_two_classes(made: Made) -> None:
    for seed in SEEDS:
        made.save(f"images/{seed}.png", made.image(seed))
        save(made, f"masks/{seed}.npy", made.mask(seed) > 1)
    source = opened(made.root)
    assert source.labels.names == {0: "class_0", 1: "class_1"}
    for record in source.records():
        assert (source.read(record).mask == (made.mask(int(record.stem)) > 1)).all()


def test_many_numbers_are_a_question(made: Made) -> None:
    for seed in SEEDS:
        made.save(f"images/{seed}.png", made.image(seed))
        numbers = np.arange(6 * (8 - seed % 2), dtype=np.int64).reshape(6, -1)
        save(made, f"masks/{seed}.npy", np.zeros((24, 32), np.int64))
        found = np.zeros((24, 32), np.int64)
        found[: 4 * 6, : 4 * numbers.shape[1]] = numbers.repeat(4, 0).repeat(4, 1)
        save(made, f"masks/{seed}.npy", found)
    with pytest.raises(UserError, match="as if they numbered objects; say --masks-as instances"):
        opened(made.root)
    source = opened(made.root, masks_as="instances")
    sample = source.read(next(iter(source.records())))
    assert sample.instances is not None and sample.instances.max() == 47


@pytest.mark.parametrize("kind", ["uint8", "rgb", "uint16"])
def test_arrays_may_be_images(kind: str, made: Made) -> None:
    for seed in SEEDS:
        pixels = made.image(seed)
        if kind != "rgb":
            pixels = pixels[..., 0]
        if kind == "uint16":
            pixels = pixels.astype(np.uint16) * 257
        save(made, f"images/{seed}.npy", pixels)
        made.save(f"masks/{seed}.png", made.mask(seed))
    source = opened(made.root)
    for record in source.records():
        pixels = made.image(int(record.stem))
        expected = pixels if kind == "rgb" else pixels[..., :1].repeat(3, -1)
        assert (source.read(record).image == expected).all()


def test_a_prepared_set_is_that_of_image_files(made: Made, tmp_path: Path) -> None:
    pairs(made, "images/a{}.png", "masks/a{}.npy", "int64")
    made.text("labels.yaml", LABELS)
    config = PrepareConfig(path=made.root, output=tmp_path / "out", height=24, width=32, workers=1)
    data = prepare(config)
    assert isinstance(data, PreparedDataset)
    for split in data.splits():
        for stem in data.stems(split):
            assert (data.read_mask(split, stem) == made.mask(int(stem[1:]))).all()


def test_arrays_beside_images_and_masks_are_in_nobodys_way(made: Made) -> None:
    """Features, embeddings, what Cellpose keeps."""
    made.pairs("images/{}.png", "masks/{}.png")
    for seed in SEEDS:
        save(made, f"images/{seed}.npy", np.zeros((3, 512), np.float32))
        save(made, f"images/{seed}_seg.npy", {"masks": made.mask(seed)})
    source = opened(made.root)
    check(source, made)
    assert set(left_out(source).values()) == {"not part of the layout"}


def test_cellpose_files_beside_arrays_are_passed_over(made: Made) -> None:
    pairs(made, "all/{}.png", "all/{}_mask.npy")
    for seed in SEEDS:
        save(made, f"all/{seed}_seg.npy", {"masks": made.mask(seed)})
    source = opened(made.root)
    check(source, made)
    assert set(left_out(source).values()) == {"pickled objects, which are not loaded"}


CELLPOSE = r"0_seg\.npy: holds pickled Python objects, as Cellpose's .* as PNG or TIFF$"


@pytest.mark.parametrize("flags", [{}, {"images": Path("all"), "masks": Path("all")}])
def test_cellpose_files_alone_are_refused(flags: dict[str, Path], made: Made) -> None:
    for seed in SEEDS:
        made.save(f"all/{seed}.png", made.image(seed))
        save(made, f"all/{seed}_seg.npy", {"masks": made.mask(seed), "flows": [None]})
    with pytest.raises(UserError, match=CELLPOSE):
        opened(made.root, **flags)


NEEDED = "; a mask is (H, W) whole numbers or bool, an image"
BAD: dict[str, tuple[Any, str]] = {
    "fractions": (np.full((24, 32), 0.5), "holds float64 values that are not whole numbers (0.5)"),
    "not a number": (np.full((24, 32), np.nan), "that are not whole numbers (nan)" + NEEDED),
    "scores": (np.zeros((5, 24, 32)), "is an array of shape (5, 24, 32), float64" + NEEDED),
    "deep colours": (np.zeros((24, 32, 3), np.uint16), "of shape (24, 32, 3), uint16" + NEEDED),
    "a row": (np.zeros(768, np.uint8), "is an array of shape (768,), uint8"),
    "text": (np.full((24, 32), "road"), "is an array of shape (24, 32), <U4"),
    "nothing": (np.zeros((0, 32), np.uint8), "is an array of shape (0, 32), uint8"),
    "large": (np.full((24, 32), 1 << 40), "holds values from 1.09951e+12 to 1.09951e+12, beyond"),
    "size": (np.zeros((12, 16), np.uint8), "image and mask must have the same size"),
}


@pytest.mark.parametrize("kind", BAD)
def test_another_array_is_refused_in_a_line(
    kind: str, made: Made, command: Callable[..., tuple[int, str]]
) -> None:
    value, said = BAD[kind]
    pairs(made, "images/{}.png", "masks/{}.npy")
    save(made, "masks/3.npy", value)
    status, line = command("prepare", made.root, "--output", made.root.parent / "out")
    assert status == 2 and f"{made.root / 'masks/3.npy'}" in line and said in line


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (200, r"cannot be read \(mmap length .*\); was it cut short\?"),
        (60, r"cannot be read \(.*\); was it cut short\?"),
        (4, "is not an array that np.save wrote"),
        (0, r"is empty \(0 bytes\); get the file again"),
    ],
)
def test_a_file_that_is_cut_short_is_named(size: int, said: str, made: Made) -> None:
    pairs(made, "images/{}.png", "masks/{}.npy")
    path = made.root / "masks/3.npy"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=rf"masks/3\.npy: {said}$"):
        opened(made.root)


def test_another_file_of_the_name_is_refused(made: Made) -> None:
    path = made.root / "mask.npy"
    made.save("mask.png", made.mask(0))
    (made.root / "mask.png").rename(path)
    for read in (lambda: read_metadata(path, "x"), lambda: read_rgb(path, "x")):
        with pytest.raises(UserError, match=r"^x: is not an array that np.save wrote$"):
            read()
    with pytest.raises(UserError, match=r"^x: no such file$"):
        read_metadata(made.root / "other.npy", "x")


def test_as_many_pixels_as_pillow_reads(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(made, "mask.npy", made.mask(0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(UserError, match="has more than 600 pixels; if you trust it"):
        read_metadata(path, "mask")

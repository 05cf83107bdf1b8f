"""Sequences as the Cell Tracking Challenge stores them: folders and numbers that pair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_folders import Made, left_out, notes, opened, stems

from semsynth.core.errors import UserError
from semsynth.data.raw.source import Source

FRAMES = range(4)


def numbers(frame: int, sequence: str = "01") -> np.ndarray:
    """Objects of a frame, (24, 32) uint16: more of them in later frames and in sequence 02."""
    found = np.zeros((24, 32), np.uint16)
    for i in range(3 + frame + 3 * (sequence == "02")):
        y, x = 4 * (i // 7) + 1, 4 * (i % 7) + 1
        found[y : y + 3, x : x + 3] = i + 1
    return found


def challenge(made: Made, silver: bool = False) -> None:
    """Two sequences; every other frame has a gold mask, every frame has markers."""
    for sequence in ("01", "02"):
        for frame in FRAMES:
            mask = numbers(frame, sequence)
            made.save(f"{sequence}/t{frame:03d}.tif", made.image(frame + 10 * int(sequence)))
            made.save(f"{sequence}_GT/TRA/man_track{frame:03d}.tif", mask * (mask % 2))
            if frame % 2:
                made.save(f"{sequence}_GT/SEG/man_seg{frame:03d}.tif", mask)
            if silver:
                made.save(f"{sequence}_ST/SEG/man_seg{frame:03d}.tif", mask * (mask != 1))
        made.text(f"{sequence}_GT/TRA/man_track.txt", "1 0 3 0\n")


def files(source: Source) -> dict[str, tuple[str, str]]:
    """Image and mask of each record, relative to the folder."""
    assert source.tree is not None
    root = source.tree.root.absolute()
    return {
        record.stem: (
            record.files[0].absolute().relative_to(root).as_posix(),
            record.files[1].absolute().relative_to(root).as_posix(),
        )
        for record in source.records()
    }


def test_each_frame_has_the_mask_of_its_sequence_and_number(made: Made) -> None:
    challenge(made)
    source = opened(made.root, masks_as="instances")
    assert files(source) == {
        f"{sequence}_t{frame:03d}": (
            f"{sequence}/t{frame:03d}.tif",
            f"{sequence}_GT/SEG/man_seg{frame:03d}.tif",
        )
        for sequence in ("01", "02")
        for frame in (1, 3)
    }
    for record in source.records():
        sample = source.read(record)
        expected = numbers(int(record.stem[-3:]), record.stem[:2])
        assert sample.instances is not None and (sample.instances == expected).all()
    left = left_out(source)
    assert [n for n, why in left.items() if why == "image without mask"] == [
        f"{sequence}/t{frame:03d}.tif" for sequence in ("01", "02") for frame in (0, 2)
    ]
    assert left["01_GT/TRA/man_track001.tif"] == "beside masks, and not called so"
    assert "left out: 4 x image without mask" in notes(source)
    assert "--masks '*_GT/TRA' takes it" in notes(source)
    assert "pairs: by the number at the end of names, as " in notes(source)
    assert source.layout is not None and source.layout.because == "images and *_GT/SEG/"


def test_their_numbers_are_a_question(made: Made) -> None:
    challenge(made)
    with pytest.raises(UserError, match="as if they numbered objects; say --masks-as instances"):
        opened(made.root)


def test_sequences_may_be_kept_on_one_side(made: Made) -> None:
    challenge(made)
    found = stems(opened(made.root, masks_as="instances", group_by="1", val_share=0.5))
    assert sorted(found.values()) == [{"01_t001", "01_t003"}, {"02_t001", "02_t003"}]


def test_gold_or_silver_is_a_question_that_a_pattern_answers(made: Made) -> None:
    challenge(made, silver=True)
    with pytest.raises(UserError) as error:
        opened(made.root, masks_as="instances")
    message = str(error.value)
    assert "--masks '*_GT/SEG'" in message and "--masks '*_ST/SEG'" in message
    assert "TRA" not in message and "\n" not in message
    for folder, count in (("GT", 4), ("ST", 8)):
        source = opened(made.root, masks_as="instances", masks=Path(f"*_{folder}/SEG"))
        masks = [mask for _, mask in files(source).values()]
        assert len(masks) == count and all(f"_{folder}/SEG/" in mask for mask in masks)


@pytest.mark.parametrize("way", ["absolute", "in the data", "from inside"])
def test_folders_that_are_given_count_alone(
    way: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    challenge(made, silver=True)
    root, start = made.root, Path()
    if way == "absolute":
        start = made.root
    elif way == "from inside":
        monkeypatch.chdir(made.root)
        root = Path()
    flags = {"images": start / "02", "masks": start / "02_GT" / "SEG"}
    source = opened(root, masks_as="instances", **flags)
    assert files(source) == {
        f"t{frame:03d}": (f"02/t{frame:03d}.tif", f"02_GT/SEG/man_seg{frame:03d}.tif")
        for frame in (1, 3)
    }
    assert left_out(source)["01/t001.tif"] == "not part of the layout"


def test_a_given_folder_may_be_of_a_wrapped_one(made: Made) -> None:
    challenge(made)
    flags = {"images": Path("01"), "masks": Path("01_GT/SEG")}
    source = opened(made.root.parent, masks_as="instances", **flags)
    assert set(files(source)) == {"t001", "t003"}


def test_a_folder_that_is_nowhere_is_named(
    made: Made, command: Callable[..., tuple[int, str]]
) -> None:
    challenge(made)
    words = ("prepare", made.root, "--images", "01", "--masks", "01_GT/SEGG")
    assert command(*words, "--output", made.root.parent / "out") == (
        2,
        f"error: 01_GT/SEGG: is not a folder in {made.root}",
    )


def test_masks_of_slices_do_not_pair_and_markers_do_not_take_their_place(made: Made) -> None:
    challenge(made)
    for sequence in ("01", "02"):
        for frame in (1, 3):
            path = made.root / f"{sequence}_GT/SEG/man_seg{frame:03d}.tif"
            path.rename(path.with_name(f"man_seg_000_{frame:03d}.tif"))
    with pytest.raises(UserError, match=r"\*_GT/SEG/ has 4 whose names fit no image"):
        opened(made.root, masks_as="instances")
    with pytest.raises(UserError, match="image without mask of the same stem, like 8 of 8"):
        opened(made.root, masks_as="instances", masks=Path("*_GT/SEG"))


def test_an_ending_may_choose_the_files_of_one_folder(made: Made) -> None:
    made.pairs("01/x{}.png", "01_GT/SEG/x{}_seg.png")
    for n in range(6):
        made.save(f"01_GT/TRA/x{n}.png", made.mask(n + 1))
    found = files(opened(made.root, mask_suffix="_seg"))
    assert {mask for _, mask in found.values()} == {f"01_GT/SEG/x{n}_seg.png" for n in range(6)}


@pytest.mark.parametrize(
    ("images", "masks", "pairs"),
    [
        ("t{:03d}", "man_seg{:03d}", True),
        ("scan_{}", "outline-{:04d}", True),
        ("img_{:03d}", "seg_{:03d}", True),  # by words
        ("t{:03d}", "man_seg_000_{:03d}", False),  # which of two numbers?
    ],
)
def test_stems_that_share_a_number_pair(images: str, masks: str, pairs: bool, made: Made) -> None:
    for frame in FRAMES:
        made.save(f"images/{images.format(frame)}.png", made.image(frame))
        made.save(f"masks/{masks.format(frame)}.png", made.mask(frame))
    if not pairs:
        with pytest.raises(UserError, match="of the same stem, like 4 of 4"):
            opened(made.root)
        return
    source = opened(made.root)
    assert files(source) == {
        images.format(n): (f"images/{images.format(n)}.png", f"masks/{masks.format(n)}.png")
        for n in FRAMES
    }


@pytest.mark.parametrize("side", ["images", "masks"])
def test_numbers_of_several_texts_do_not_pair(side: str, made: Made) -> None:
    """There, a_1 and b_1 may be different things."""
    for frame in FRAMES:
        made.save(f"images/x_{frame}.png", made.image(frame))
        made.save(f"masks/y_{frame}.png", made.mask(frame))
    for path in sorted((made.root / side).iterdir())[:2]:
        path.rename(path.with_name(f"other_{path.name[2:]}"))
    with pytest.raises(UserError, match="of the same stem, like 4 of 4"):
        opened(made.root)


def test_a_number_that_is_there_twice_does_not_pair(made: Made) -> None:
    for name in ("x_1", "x_01", "x_2"):
        made.save(f"images/{name}.png", made.image(0))
    for name in ("y_1", "y_2"):
        made.save(f"masks/{name}.png", made.mask(0))
    with pytest.raises(UserError, match="of the same stem"):
        opened(made.root)


def test_folders_of_masks_are_called_after_those_of_their_images(made: Made) -> None:
    """The longest name counts: "a_b_masks" is of "a_b"."""
    for folder, seed in (("a", 0), ("a_b", 4)):
        for n in range(3):
            made.save(f"{folder}/{n}.png", made.image(seed + n))
            made.save(f"{folder}_masks/{n}.png", made.mask(seed + n))
    source = opened(made.root)
    assert files(source) == {
        f"{folder}_{n}": (f"{folder}/{n}.png", f"{folder}_masks/{n}.png")
        for folder in ("a", "a_b")
        for n in range(3)
    }


def test_palettes_beside_ids_are_no_markers(made: Made) -> None:
    """Folders meant for the eye are compared, as everywhere."""
    for n in range(3):
        made.save(f"01/{n}.png", made.image(n))
        made.save(f"01_GT/labels/{n}_mask.png", made.mask(n))
        made.save(f"01_GT/vis/{n}.png", Image.fromarray(made.colored(n)))
    source = opened(made.root)
    assert "says the same in another form" in notes(source)

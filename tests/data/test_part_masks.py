"""Several black and white masks for each image become one mask, or are a doubt."""

from __future__ import annotations

import numpy as np
import pytest
from raw_folders import Made, left_out, opened, stems

from semsynth.core.errors import UserError
from semsynth.data.annotations.drawing import OVERLAP
from semsynth.data.raw.names import class_words

NAMES = {1: "road", 2: "sky", 5: "car"}


def binary(made: Made, seed: int, value: int) -> np.ndarray:
    return ((made.mask(seed) == value) * 255).astype(np.uint8)


def names_at(made: Made, **flags: object) -> dict[str, np.ndarray]:
    """Return the name of the class of each pixel by stem."""
    source = opened(made.root, **flags)
    table = np.array([source.labels.names.get(i, "?") for i in range(256)], object)
    return {record.stem: table[source.read(record).mask] for record in source.records()}


def truth(made: Made, seed: int, one: str = "") -> np.ndarray:
    table = np.array(["background"] * 256, object)
    for value, name in NAMES.items():
        table[value] = one or name
    return table[made.mask(seed)]


@pytest.mark.parametrize(
    "pattern",
    [
        "masks/{name}/x{seed}.png",
        "{name}_masks/x{seed}.png",
        "masks/x{seed}_{name}.png",
        "masks/{name}/x{seed}_{name}.png",
        "masks/x{seed}/{name}.png",
    ],
)
def test_a_mask_for_each_class(made: Made, pattern: str) -> None:
    for seed in range(4):
        made.save(f"images/x{seed}.png", made.image(seed))
        for value, name in NAMES.items():
            made.save(pattern.format(name=name, seed=seed), binary(made, seed, value))
    found = names_at(made)
    for seed in range(4):
        np.testing.assert_array_equal(found[f"x{seed}"], truth(made, seed))
    assert not left_out(opened(made.root))


def test_a_mask_for_each_object(made: Made) -> None:
    for seed in range(4):
        name = f"{seed:08x}"
        made.save(f"stage1_train/{name}/images/{name}.png", made.image(seed))
        for value in NAMES:
            path = f"stage1_train/{name}/masks/{seed * 7 + value:016x}.png"
            made.save(path, binary(made, seed, value))
    found = names_at(made)
    assert len(found) == 4
    for seed in range(4):
        np.testing.assert_array_equal(found[f"{seed:08x}"], truth(made, seed, "foreground"))
    source = opened(made.root)
    sample = source.read(next(iter(source.records())))
    assert sample.instances is not None
    assert len(np.unique(sample.instances)) == 4  # three objects, and what is none


def test_a_class_that_some_images_lack_and_a_label_file(made: Made) -> None:
    for seed in range(6):
        split = "valid" if seed > 3 else "train"
        made.save(f"{split}/images/x{seed}.png", made.image(seed))
        for value, name in NAMES.items():
            if name != "car" or seed in (0, 5):
                made.save(f"{split}/masks/{name}/x{seed}.png", binary(made, seed, value))
    made.text("labels.yaml", "labels: {3: car, 8: sky, 0: background, 9: road}")
    source = opened(made.root)
    assert {name: len(found) for name, found in stems(source).items()} == {"train": 4, "val": 2}
    assert source.labels.names == {0: "background", 3: "car", 8: "sky", 9: "road"}
    found = names_at(made)
    np.testing.assert_array_equal(found["x5"], truth(made, 5))
    assert not (found["x1"] == "car").any()


def test_masks_that_cover_each_other_are_a_doubt(made: Made) -> None:
    for seed in range(4):
        made.save(f"images/x{seed}.png", made.image(seed))
        made.save(f"masks/organ/x{seed}.png", ((made.mask(seed) > 0) * 255).astype(np.uint8))
        made.save(f"masks/tumour/x{seed}.png", binary(made, seed, 5))
    with pytest.raises(UserError, match="--masks masks/organ or --masks masks/tumour"):
        opened(made.root)


def test_two_opinions_in_a_folder_for_each_image_are_refused(made: Made) -> None:
    for seed in range(4):
        made.save(f"x{seed}/images/x{seed}.png", made.image(seed))
        for opinion in "12":
            made.save(f"x{seed}/masks/{opinion}.png", binary(made, seed, 1))
    with pytest.raises(UserError, match=r"cover the same .* pixels; make one mask for each image"):
        opened(made.root)


def test_outlines_that_touch_are_counted_and_the_smaller_one_wins(made: Made) -> None:
    for seed in range(4):
        made.save(f"images/x{seed}.png", made.image(seed))
        road, car = np.zeros((2, 24, 32), np.uint8)
        road[:, :20] = car[5:20, 19:30] = 255
        made.save(f"masks/road/x{seed}.png", road)
        made.save(f"masks/car/x{seed}.png", car)
    source = opened(made.root)
    sample = source.read(next(iter(source.records())))
    assert OVERLAP in sample.notes
    assert source.labels.names[int(sample.mask[10, 19])] == "car"


def test_a_second_mask_of_the_same_image(made: Made) -> None:
    """Ultrasound images of BUSI: some have two tumours, each in a file."""
    for seed in range(4):
        made.save(f"benign ({seed}).png", made.image(seed))
        made.save(f"benign ({seed})_mask.png", binary(made, seed, 1))
        if seed == 2:
            made.save("benign (2)_mask_1.png", binary(made, seed, 5))
    found = names_at(made)
    assert len(found) == 4
    expected = np.isin(made.mask(2), (1, 5))
    np.testing.assert_array_equal(found["benign (2)"] == "foreground", expected)


def test_masks_of_left_and_right(made: Made) -> None:
    for seed in range(4):
        made.save(f"CXR_png/x{seed}.png", made.image(seed))
        made.save(f"ManualMask/leftMask/x{seed}.png", binary(made, seed, 1))
        made.save(f"ManualMask/rightMask/x{seed}.png", binary(made, seed, 2))
    assert opened(made.root).labels.names == {0: "background", 1: "left", 2: "right"}
    # Numbers that only the order of the names gives say nothing about other names.
    made.text("labels.yaml", "labels: [background, healthy, ill]")
    with pytest.raises(UserError, match=r"label 'left' is not in labels.yaml"):
        opened(made.root)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("road_masks", "road"),
        ("leftMask", "left"),
        ("_Road_2", "road"),
        ("mask_03", ""),
        ("label_viz", ""),
    ],
)
def test_words_of_a_class(name: str, words: str) -> None:
    assert class_words(name) == words


def test_a_view_of_a_label_is_not_its_mask(made: Made) -> None:
    """LabelMe's ``json_to_dataset``: img.png, label.png and label_viz.png in a folder each."""
    for seed in range(4):
        made.save(f"{seed:03d}/img.png", made.image(seed))
        made.save(f"{seed:03d}/label.png", made.mask(seed))
        made.save(f"{seed:03d}/label_viz.png", made.colored(seed))
    source = opened(made.root)
    for record in source.records():
        seed = int(record.stem[:3])
        np.testing.assert_array_equal(source.read(record).mask, made.mask(seed))
        np.testing.assert_array_equal(source.read(record).image, made.image(seed))
        made.text(f"{seed:03d}/label_names.txt", "_background_\nroad\nsky\n-\n+\ncar\n")
    assert opened(made.root).labels.names[5] == "car"
    made.text("002/label_names.txt", "_background_\nsky\nroad\n-\n+\ncar\n")
    with pytest.raises(UserError, match="contradict each other"):
        opened(made.root)

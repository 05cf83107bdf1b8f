"""Which masks are taken, and what their values are called, where no label file says it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_folders import COLORS, LAYOUTS, Made, left_out, notes, opened

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.raw.source import Source
from semsynth.data.sources import open_source


def test_black_and_white_masks(tmp_path: Path) -> None:
    truth = {p.stem: np.array(Image.open(p)) for p in (LAYOUTS / "binary/masks").iterdir()}

    def check(source: Source, white: int, name: str) -> None:
        assert source.labels.names == {0: "background", white: name}
        for record in source.records():
            found = source.read(record).mask
            assert (found == np.where(truth[record.stem] == 255, white, 0)).all()

    check(opened(LAYOUTS / "binary"), 255, "car")
    folders = {kind: tmp_path / "data" / kind for kind in ("images", "masks")}
    for kind, folder in folders.items():
        shutil.copytree(LAYOUTS / "binary" / kind, folder)
    bare = open_source(PrepareConfig(source="auto", **folders))  # type: ignore[arg-type]
    check(bare, 255, "foreground")
    assert "0 is called background and 255 foreground" in notes(bare)
    labels = tmp_path / "two.yaml"
    labels.write_text("labels: {0: background, 1: nucleus}")
    two = open_source(PrepareConfig(source="folder", labels=labels, **folders))  # type: ignore[arg-type]
    check(two, 1, "nucleus")
    assert "255 is read as 1, 'nucleus' (two.yaml)" in notes(two)


def test_the_names_of_voc_need_its_palette(made: Made) -> None:
    def color(i: int) -> tuple[int, int, int]:
        bits = [sum((i >> (3 * b + c) & 1) << (7 - b) for b in range(3)) for c in range(3)]
        return bits[0], bits[1], bits[2]

    for seed in range(3):
        made.save(f"JPEGImages/{seed}.jpg", made.image(seed))
        own = {i: color(i) for i in range(21)}
        made.save(f"SegmentationClass/{seed}.png", made.palette(seed, own))
    names = opened(made.root).labels.names
    assert (names[5], names[20]) == ("bottle", "tvmonitor")
    made.save("SegmentationClass/0.png", made.palette(0, {**own, 5: (1, 2, 3)}))
    with pytest.raises(UserError, match=r"index 5 is .*--masks-as ids if .*--masks-as colors if"):
        opened(made.root)
    assert opened(made.root, masks_as="ids").labels.names[5] == "class_5"


def test_two_folders_of_masks(made: Made) -> None:
    made.pairs("images/{}.png", "masks/{}.png")
    for seed in range(6):
        made.save(f"masks_color/{seed}.png", made.colored(seed))
    source = opened(made.root)
    assert "masks: masks/; masks_color/ says the same in another form" in notes(source)
    assert set(left_out(source).values()) == {"the same as masks/ in another form"}
    made.text(
        "labels.csv", "name,r,g,b\nnothing,0,0,0\nroad,128,64,128\nsky,70,130,180\ncar,0,0,142\n"
    )
    colored = opened(made.root)
    for record in colored.records():
        assert "masks_color" in record.where  # its ids are the order of the lines, not the masks'
    (made.root / "labels.csv").unlink()
    made.save("masks_color/3.png", made.colored(4))
    for seed in range(6):
        made.save(f"masks_color/{seed}.png", made.mask(seed + 7))
    doubt = "and they differ; say --masks masks or --masks masks_color"
    with pytest.raises(UserError, match=doubt):
        opened(made.root)
    chosen = opened(made.root, masks=Path("masks_color"))
    for record in chosen.records():
        assert (chosen.read(record).mask == made.mask(int(record.stem) + 7)).all()


def test_two_endings_of_masks(made: Made) -> None:
    for seed in range(4):
        base = f"city_{seed:06d}_000019"
        made.save(f"leftImg8bit/train/city/{base}_leftImg8bit.png", made.image(seed))
        place = f"gtFine/train/city/{base}_gtFine"
        made.save(f"{place}_labelIds.png", made.mask(seed))
        made.save(f"{place}_color.png", made.colored(seed))
        made.save(f"{place}_instanceIds.png", made.mask(seed).astype(np.uint16) * 1000)
        made.text(f"{place}_polygons.json", "{}")
    source = opened(made.root)
    assert all(record.payload.mask.stem.endswith("labelIds") for record in source.records())
    record = next(iter(source.records()))
    sample = source.read(record)
    assert sample.instances is not None
    assert (sample.instances == sample.mask.astype(int) * 1000).all()
    assert "--source cityscapes" in notes(source)
    for seed in range(4):
        name = f"gtFine/train/city/city_{seed:06d}_000019_gtFine_labelTrainIds.png"
        made.save(name, made.mask(seed) // 2)
    with pytest.raises(
        UserError, match=r"--mask-suffix _gtFine_labelIds or .*_gtFine_labelTrainIds"
    ):
        opened(made.root)
    source = opened(made.root, mask_suffix="_gtFine_labelTrainIds")
    assert source.labels.max_id == 2


def test_masks_without_names(made: Made) -> None:
    made.pairs("images/{}.png", "masks/{}.png", range(3))
    mask = made.mask(0)
    mask[0, 0] = 255
    made.save("masks/0.png", mask)
    source = opened(made.root)
    assert source.labels.names == {**{i: f"class_{i}" for i in (0, 1, 2, 5)}, 255: "ignored"}
    assert source.labels.ignore_id == 255
    assert "255 marks pixels without a label" in notes(source)
    for seed in range(3):
        made.save(f"masks/{seed}.png", made.colored(seed))
    source = opened(made.root)
    assert source.labels.names[0] == "color_000000"
    by_name = {label.name: label.color for label in source.labels.labels}
    assert by_name["color_804080"] == (128, 64, 128)
    for record in source.records():
        found = source.labels.colorize(source.read(record).mask)
        assert (found == made.colored(int(record.stem))).all()
    for seed in range(3):  # with an opacity that says nothing
        opaque = np.full((24, 32), 255, np.uint8)
        made.save(f"masks/{seed}.png", np.dstack([made.colored(seed), opaque]))
    assert opened(made.root).labels.names == source.labels.names
    smooth = np.linspace(0, 255, 32).astype(np.uint8)[None].repeat(24, 0)
    smooth[2:] = np.where(smooth[2:] > 99, 255, 0)
    made.save("masks/0.png", smooth)
    made.save("masks/1.png", smooth)
    made.save("masks/2.png", smooth)
    with pytest.raises(UserError, match=r"black and white with .* grey levels between"):
        opened(made.root)
    ramp = np.clip(np.linspace(-150, 255 + 150, 24 * 32), 0, 255).astype(np.uint8)
    for seed in range(3):  # of small masks that were enlarged
        made.save(f"masks/{seed}.png", ramp.reshape(24, 32))
    with pytest.raises(UserError, match=r"black and white with .* grey levels between"):
        opened(made.root)
    sparse = np.zeros((24, 32), np.uint8)
    sparse[0, :11], sparse[1, 0] = np.arange(1, 12), 255
    for seed in range(3):  # ids on much background are none of these
        made.save(f"masks/{seed}.png", sparse)
    assert opened(made.root).labels.ignore_id == 255


def test_palettes_that_differ_are_read_by_their_colours(made: Made) -> None:
    for seed in range(4):
        made.save(f"images/{seed}.png", made.image(seed))
        made.save(f"masks/{seed}.png", Image.fromarray(made.colored(seed)).quantize(dither=0))
        order = np.roll(np.arange(6), seed)
        mask = order[made.mask(seed)].astype(np.uint8)
        image = Image.fromarray(mask, mode="P")
        table = np.zeros((256, 3), np.uint8)
        for i, color in COLORS.items():
            table[order[i]] = color
        image.putpalette(table.ravel().tolist())
        made.save(f"masks/{seed}.png", image)
    source = opened(made.root)
    for record in source.records():
        found = source.labels.colorize(source.read(record).mask)
        assert (found == made.colored(int(record.stem))).all()


def test_published_sets_are_known_by_their_facts(made: Made) -> None:
    for seed in range(3):
        made.pairs(
            "ADE/images/training/ADE_train_0000000{}.jpg",
            "ADE/annotations/training/ADE_train_0000000{}.png",
            [seed],
        )
        made.pairs("Cam/train/images/0001TP_00{}.png", "Cam/train/labels/0001TP_00{}.png", [seed])
    assert opened(made.root / "ADE").labels.names[1] == "wall"
    cam = opened(made.root / "Cam")
    assert cam.labels.names[0] == "Sky" and "--source camvid" in notes(cam)
    mask = made.mask(0)
    mask[0, 0] = 77
    made.save("Cam/train/labels/0001TP_000.png", mask)
    assert opened(made.root / "Cam").labels.names[0] == "class_0"


@pytest.mark.parametrize("ignored", [False, True])
def test_the_labels_of_nnunet(made: Made, ignored: bool) -> None:
    made.pairs("imagesTr/c_{}_0000.png", "labelsTr/c_{}.png", range(4))
    names = {"background": 0, "road": 1, "sky": 2, "ignore" if ignored else "car": 5}
    known = {"channel_names": {"0": "R"}, "labels": names, "numTraining": 4, "file_ending": ".png"}
    made.text("dataset.json", json.dumps(known))
    source = opened(made.root)
    assert {name: i for i, name in source.labels.names.items()} == names
    assert source.labels.ignore_id == (5 if ignored else None)
    assert left_out(source) == {}
    assert {record.stem for record in source.records()} == {f"c_{n}" for n in range(4)}

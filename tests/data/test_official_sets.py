"""The paper's data sets in their published layouts, brought to the form its official code feeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.instances import instance_edges
from semsynth.data.prepare.run import prepare
from semsynth.data.resize import paper_fit
from semsynth.data.sources.celebamask import MAPPING, PARTS

Blocks = tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]
RNG = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def run(root: Path, source: Any, **options: Any) -> PreparedDataset:
    output = options.pop("output", root.parent / "prepared")
    return prepare(PrepareConfig(source=source, data=root, output=output, workers=1, **options))


def coarse(ids: np.ndarray, step: int) -> np.ndarray:
    """What nearest picks when every side is divided by an even ``step``."""
    return ids[step // 2 :: step, step // 2 :: step]


# ---------------------------------------------------------------------------------- the filters


def test_paper_halves_by_means_and_picks_ids_from_the_original() -> None:
    image = RNG.integers(0, 256, (64, 128, 3), np.uint8)
    fitted = paper_fit(image, "stretch", (16, 32), nearest=False)
    mean = image.reshape(16, 4, 32, 4, 3).mean((1, 3))
    assert np.abs(fitted - mean).max() <= 2  # four times rounded up
    ids = RNG.integers(0, 60_000, (64, 128)).astype(np.int32)
    assert (paper_fit(ids, "stretch", (16, 32), nearest=True) == coarse(ids, 4)).all()


def test_paper_crops_the_centre_after_resizing() -> None:
    ids = np.repeat(np.arange(96, dtype=np.uint8)[None], 32, 0)
    fitted = paper_fit(ids, "crop", (16, 16), nearest=True)
    assert fitted.dtype == np.uint8
    assert (fitted == np.arange(33, 64, 2)).all()
    image = np.repeat(np.repeat(np.arange(96, dtype=np.uint8)[None], 32, 0)[..., None], 3, -1)
    middle = paper_fit(image, "crop", (16, 16), nearest=False)
    assert np.abs(middle[..., 0] - np.arange(32.5, 64, 2)).max() <= 0.5


@pytest.mark.parametrize("shape", [(20, 31), (33, 16), (100, 203), (7, 9), (16, 16)])
@pytest.mark.parametrize("how", ["crop", "stretch"])
def test_paper_makes_the_size_of_any_image(shape: tuple[int, int], how: Any) -> None:
    ids = RNG.choice([3, 40_000], shape).astype(np.uint16)
    fitted = paper_fit(ids, how, (16, 16), nearest=True)
    assert fitted.shape == (16, 16) and set(np.unique(fitted)) <= {3, 40_000}
    image = np.full((*shape, 3), 77, np.uint8)
    assert (paper_fit(image, how, (16, 16), nearest=False) == 77).all()


# -------------------------------------------------------------------------------- the data sets


def cityscapes(root: Path, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Two images; in each, two cars that touch; gives the maps of the first."""
    ids = np.full(size, 7, np.uint8)
    instances = np.full(size, 7, np.uint16)
    ids[4:12, 4:20] = 26
    instances[4:12, 4:12], instances[4:12, 12:20] = 26_001, 26_002
    for split, city in (("train", "ulm"), ("val", "bern")):
        stem = f"{city}_000000_000019"
        truth = f"gtFine/{split}/{city}/{stem}_gtFine"
        image = RNG.integers(0, 256, (*size, 3), np.uint8)
        save(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", image)
        save(root / f"{truth}_labelIds.png", ids)
        save(root / f"{truth}_instanceIds.png", instances)
        save(root / f"{truth}_color.png", image)
    return {"ids": ids, "instances": instances}


def test_cityscapes_keeps_instances_whole(tmp_path: Path) -> None:
    maps = cityscapes(tmp_path / "cs", (24, 48))
    data = run(tmp_path / "cs", "cityscapes", height=24, width=48)
    assert data.stems("val") == ["bern_000000_000019"]
    assert data.has_instances("train") and data.has_instances("val")
    stem = "ulm_000000_000019"
    assert (data.read_mask("train", stem) == maps["ids"]).all()
    assert (data.read_instances("train", stem) == maps["instances"]).all()
    edges = data.read_edges("train", stem)
    assert edges[8, 11] and edges[8, 12]
    assert (edges == instance_edges(maps["instances"])).all()
    (tmp_path / "cs/gtFine/val/bern/bern_000000_000019_gtFine_instanceIds.png").unlink()
    with pytest.raises(UserError, match="instanceIds"):
        run(tmp_path / "cs", "cityscapes", output=tmp_path / "o2")


def test_cityscapes_clipped_as_an_8_bit_reading_does(tmp_path: Path) -> None:
    maps = cityscapes(tmp_path / "cs", (24, 48))
    data = run(tmp_path / "cs", "cityscapes", height=24, width=48, instances="clipped")
    stem = "ulm_000000_000019"
    # Pillow's reading of 16-bit greys as 8-bit ones; the two cars become one.
    eight = np.asarray(Image.fromarray(maps["instances"].astype(np.int32)).convert("L"))
    assert (data.read_instances("train", stem) == eight).all()
    assert not data.read_edges("train", stem)[8, 11]
    with pytest.raises(UserError, match="was made with"):
        run(tmp_path / "cs", "cityscapes", height=24, width=48)
    with pytest.raises(UserError, match="--instances is for --source cityscapes, not ade20k"):
        PrepareConfig(source="ade20k", instances="clipped")


def test_cityscapes_by_default_at_the_papers_size(tmp_path: Path) -> None:
    maps = cityscapes(tmp_path / "cs", (512, 1024))
    data = run(tmp_path / "cs", "cityscapes")
    assert (data.height, data.width, data.info.image_format) == (256, 512, "png")
    for split, stem in (("train", "ulm_000000_000019"), ("val", "bern_000000_000019")):
        assert (data.read_instances(split, stem) == coarse(maps["instances"], 2)).all()
        assert data.resize_mode(split, stem) == "stretch"


def test_ade20k_layout_and_paper_resizing(tmp_path: Path) -> None:
    root = tmp_path / "ade"
    columns = np.repeat((np.arange(96, dtype=np.uint8) + 1)[None], 32, 0)
    for part in ("training", "validation"):
        save(root / f"images/{part}/ADE_1.jpg", RNG.integers(0, 256, (32, 96, 3), np.uint8))
        save(root / f"annotations/{part}/ADE_1.png", columns)
    data = run(root, "ade20k", height=16, width=16)
    assert data.info.resize == "paper"
    assert data.resize_mode("train", "ADE_1") == "crop"
    assert data.resize_mode("val", "ADE_1") == "stretch"
    assert (data.read_mask("train", "ADE_1") == np.arange(34, 65, 2)).all()
    assert (data.read_mask("val", "ADE_1") == np.arange(4, 97, 6)).all()
    assert data.content_box("train", "ADE_1") == (0, 0, 16, 16)
    assert not data.has_instances("train")
    plain = run(root, "ade20k", height=16, width=16, resize="stretch", output=tmp_path / "o")
    assert plain.resize_mode("train", "ADE_1") == "stretch"
    assert plain.info.images["train"]["ADE_1"].resize is None


def faces(root: Path) -> dict[int, dict[str, np.ndarray]]:
    """Four faces of 32x32 and their parts of 16x16, some of them one upon the other."""
    originals = [119_613, 162_771, 182_637, 182_638]
    lines = [
        "idx orig_idx orig_file",
        *(f"{i} {n} {n + 1:06d}.jpg" for i, n in enumerate(originals)),
    ]
    root.mkdir(parents=True)
    (root / MAPPING).write_text("\n".join(lines))
    parts: dict[int, dict[str, np.ndarray]] = {}
    for number in range(4):
        save(root / f"CelebA-HQ-img/{number}.jpg", RNG.integers(0, 256, (32, 32, 3), np.uint8))
        parts[number] = {}
        for name in ("cloth", "skin", "nose", "hair"):
            covered = (RNG.random((16, 16)) < 0.5).astype(np.uint8) * 255
            parts[number][name] = covered
            save(root / f"CelebAMask-HQ-mask-anno/0/{number:05d}_{name}.png", covered)
    return parts


def merged(parts: dict[str, np.ndarray]) -> np.ndarray:
    mask = np.zeros((16, 16), np.uint8)
    for number, (name, _, _) in enumerate(PARTS):
        if name in parts:
            mask = np.where(parts[name] > 0, number, mask)
    return mask


def test_celebamask_lays_its_parts_together(tmp_path: Path) -> None:
    parts = faces(tmp_path / "down" / "CelebAMask-HQ")
    data = run(tmp_path / "down", "celebamask", height=16, width=16)
    found = {split: data.stems(split) for split in data.splits()}
    assert found == {"train": ["00000"], "val": ["00001", "00002"], "test": ["00003"]}
    for split, stems in found.items():
        for stem in stems:
            mask = merged(parts[int(stem)])
            assert len(np.unique(mask)) == 5
            assert (data.read_mask(split, stem) == mask).all()
            assert (data.read_instances(split, stem) == mask).all()
            assert (data.read_edges(split, stem) == instance_edges(mask)).all()
    assert data.labels.ignore_id is None
    assert "non-commercial" in data.info.licence


def test_celebamask_with_whole_masks(tmp_path: Path) -> None:
    root = tmp_path / "faces"
    parts = faces(root)
    by_parts = run(root, "celebamask", height=16, width=16)
    for number in range(4):
        save(root / f"CelebAMask-HQ-mask/{number}.png", merged(parts[number]))
    whole = run(root, "celebamask", height=16, width=16, output=tmp_path / "whole")
    for split in whole.splits():
        for stem in whole.stems(split):
            assert (whole.read_mask(split, stem) == by_parts.read_mask(split, stem)).all()
    for number, part in enumerate(("train", "train", "test")):
        split = tmp_path / "sdm" / part
        save(split / f"images/{number}.jpg", RNG.integers(0, 256, (32, 32, 3), np.uint8))
        save(split / f"labels/{number}.png", merged(parts[number]))
    data = run(tmp_path / "sdm", "celebamask", height=16, width=16, output=tmp_path / "o")
    assert {split: data.stems(split) for split in data.splits()} == {
        "train": ["0", "1"],
        "val": ["2"],
    }
    assert (data.read_mask("val", "2") == merged(parts[2])).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: (root / "CelebA-HQ-img/9.jpg").write_bytes(b""),
            "9.jpg: image without",
        ),
        (
            lambda root: (root / MAPPING).unlink(),
            "mapping.txt: is missing",
        ),
        (
            lambda root: (root / MAPPING).write_text("idx\n0 7\n"),
            "1.jpg: is not in .*mapping.txt",
        ),
        (
            lambda root: (root / MAPPING).write_text("idx\n0 x\n"),
            "mapping.txt: line 2",
        ),
        (
            lambda root: save(
                root / "CelebAMask-HQ-mask-anno/0/00000_beard.png", np.zeros((16, 16), np.uint8)
            ),
            "00000_beard.png: 'beard' is not a part; there are skin, nose",
        ),
        (
            lambda root: save(
                root / "CelebAMask-HQ-mask-anno/0/00001_skin.png", np.zeros((15, 16), np.uint8)
            ),
            "has another size than .*00001_",
        ),
        (
            lambda root: save(root / "CelebA-HQ-img/2.jpg", np.zeros((40, 40, 3), np.uint8)),
            r"2.jpg: the mask does not fit its image .* \(40x40\)",
        ),
    ],
)
def test_celebamask_says_what_is_wrong(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    faces(tmp_path / "faces")
    spoil(tmp_path / "faces")
    with pytest.raises(UserError, match=message):
        run(tmp_path / "faces", "celebamask", height=16, width=16)


def coco(root: Path, names: tuple[str, str], suffix: str) -> dict[str, np.ndarray]:
    masks = {}
    for split in ("train", "val"):
        stem = f"00000000{len(split)}"
        masks[split] = RNG.choice([0, 90, 181, 255], (16, 16)).astype(np.uint8)
        save(root / names[0].format(split) / f"{stem}.jpg", np.zeros((16, 16, 3), np.uint8))
        save(root / names[1].format(split) / f"{stem}{suffix}.png", masks[split])
    return masks


@pytest.mark.parametrize(
    "names",
    [
        ("images/{}2017", "annotations/{}2017"),
        ("{}2017", "stuffthingmaps_trainval2017/{}2017"),
        ("{}_img", "{}_label"),
    ],
)
def test_cocostuff_layouts(tmp_path: Path, names: tuple[str, str]) -> None:
    masks = coco(tmp_path / "coco", names, "")
    data = run(tmp_path / "coco", "cocostuff", height=16, width=16)
    for split, mask in masks.items():
        (stem,) = data.stems(split)
        read = data.read_mask(split, stem)
        assert (read == mask).all() and read.dtype == np.uint8
        # As the official code: 255 becomes channel 182.
        official = np.where(mask == 255, 182, mask)
        assert (data.labels.channel_lut()[read] == official).all()
    assert data.info.splits["train"].class_shares["wood"] > 0
    assert "Flickr" in data.info.licence


def test_cocostuff_with_instances_or_one_split_or_none(tmp_path: Path) -> None:
    root = tmp_path / "coco"
    masks = coco(root, ("{}_img", "{}_label"), "")
    for split in ("train", "val"):
        save(root / f"{split}_inst/00000000{len(split)}.png", masks[split] // 2)
    data = run(root, "cocostuff", height=16, width=16)
    (stem,) = data.stems("val")
    assert (data.read_instances("val", stem) == masks["val"] // 2).all()
    (root / "val_inst/000000003.png").rename(root / "val_inst/other.png")
    with pytest.raises(UserError, match="has no instance map 000000003"):
        run(root, "cocostuff", output=tmp_path / "o")
    few = tmp_path / "few"
    save(few / "images/val2017/000000003.jpg", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(UserError, match="val2017: has no masks beside it"):
        run(few, "cocostuff", output=tmp_path / "o")
    save(few / "stuffthingmaps/val2017/000000003.png", masks["val"])
    data = run(few, "cocostuff", height=16, width=16, output=tmp_path / "o")
    assert data.splits() == ["val"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none: has no folder images/train2017"):
        run(tmp_path / "none", "cocostuff", output=tmp_path / "o2")


# --------------------------------------------------------------------------------- the flags


def test_sizes_and_resizing_by_source() -> None:
    def chosen(**options: Any) -> tuple[int, int, str, str]:
        config = PrepareConfig(**options)
        return (*config.size, config.resize_rule, config.file_format)

    assert chosen(source="cityscapes") == (256, 512, "paper", "png")
    assert chosen(source="celebamask") == (256, 256, "paper", "png")
    assert chosen(source="sidewalk") == (1024, 1024, "stretch", "jpg")
    assert chosen(source="ade20k", height=512) == (512, 256, "paper", "png")
    assert chosen(source="ade20k", height=512, resize="pad") == (512, 256, "pad", "jpg")
    with pytest.raises(UserError, match=r"--resize paper is for .*, not for camvid; give stretch"):
        PrepareConfig(source="camvid", resize="paper")


def test_paper_images_go_back_to_their_size(tmp_path: Path) -> None:
    from semsynth.pipelines.generate.sample_store import OutputGeometry

    root = tmp_path / "ade"
    for part in ("training", "validation"):
        save(root / f"images/{part}/ADE_1.jpg", RNG.integers(0, 256, (32, 96, 3), np.uint8))
        save(root / f"annotations/{part}/ADE_1.png", np.ones((32, 96), np.uint8))
    data = run(root, "ade20k", height=16, width=16)
    image = np.zeros((16, 16, 3), np.uint8)
    sizes = {"train": (32, 32), "val": (32, 96)}
    for split, size in sizes.items():
        back = OutputGeometry(data, True, split).sample(split, "ADE_1", image)
        assert back.mask.shape == size and back.resize is None
        sample = OutputGeometry(data, False, split).sample(split, "ADE_1", image)
        assert sample.resize == data.resize_mode(split, "ADE_1")

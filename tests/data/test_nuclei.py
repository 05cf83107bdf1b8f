"""Nuclei, as published and as re-hosted: tiles, kinds, fields, splits."""

from __future__ import annotations

import csv
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from cut_sets import SIDE, run, save, source_of, texture

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.raw.fields import Borders, find_fields
from semsynth.data.sources import open_source
from semsynth.data.sources.nuclei import KINDS, draw, kind_of


def photograph(kind: str, seed: int, height: int = 64, width: int = 80) -> np.ndarray:
    """Return a photograph of a kind of microscopy, (height, width, 3) uint8."""
    grey = texture(seed, height, width)[..., None]
    if kind == "stained":
        return (np.array([230, 160, 210]) - 90 * grey * [1, 1, 0.5]).astype(np.uint8)
    low, high = (0, 60) if kind == "fluorescence" else (190, 250)
    return np.repeat((low + (high - low) * grey).astype(np.uint8), 3, -1)


def objects(seed: int, height: int, width: int) -> np.ndarray:
    """Return three nuclei that do not touch, (height, width) numbers from 1, 0 elsewhere."""
    found = np.zeros((height, width), np.uint16)
    for number in range(3):
        top, left = 2 + number * (height // 3), (seed * 5 + number * 7) % (width - 8)
        found[top : top + 4 + number, left : left + 5] = number + 1
    return found


def whole_nuclei() -> dict[str, tuple[np.ndarray, np.ndarray, str, str]]:
    """Return image, objects, kind and field by id: of each kind four fields of 1, 2 or 4 images."""
    found = {}
    for number, kind in enumerate(KINDS):
        for seed in range(4):
            whole = photograph(kind, 10 * number + seed)
            if kind == "bright field":
                parts = [whole]
            elif seed == 0:
                parts = [whole[:32, :40], whole[:32, 40:], whole[32:, :40], whole[32:, 40:]]
            else:
                parts = [whole[:, :40], whole[:, 40:]]
            names = [f"{number}{seed}{i}".ljust(12, "a") + "f" * 52 for i in range(len(parts))]
            for i, (name, part) in enumerate(zip(names, parts, strict=True)):
                found[name] = part, objects(seed + i, *part.shape[:2]), kind, names[0]
    return found


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The layout of the Data Science Bowl: RGBA images, a mask for each nucleus."""
    root = tmp_path / "dsb"
    for name, (image, numbers, _, _) in whole_nuclei().items():
        opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
        folder = root / "stage1_train" / name
        save(folder / "images" / f"{name}.png", np.concatenate([image, opaque], -1))
        for number in range(1, 4):
            save(folder / "masks" / f"{number:064x}.png", ((numbers == number) * 255).astype("u1"))
    for name in ("ab", "cd"):
        save(root / "stage1_test" / name / "images" / f"{name}.png", np.zeros((32, 32, 3), "u1"))
    return root


@pytest.fixture
def rehosted(tmp_path: Path) -> Path:
    """A file for each image, and a table of kinds and fields."""
    root = tmp_path / "nuclei"
    rows = ["stem,kind,height,width,nuclei,field"]
    words = dict(zip(KINDS, ("dark", "colour", "bright"), strict=True))
    for name, (image, numbers, kind, field) in whole_nuclei().items():
        stem = name[:12]
        save(root / "images" / f"{stem}.png", image)
        save(root / "masks" / f"{stem}.png", (numbers > 0).astype(np.uint8))
        save(root / "instances" / f"{stem}.png", numbers)
        rows.append(f"{stem},{words[kind]},{image.shape[0]},{image.shape[1]},3,{field[:12]}")
    (root / "pictures.csv").write_text("\n".join(rows) + "\n")
    return root


def test_both_layouts_of_nuclei_are_the_same_data(published: Path, rehosted: Path) -> None:
    first, second = run(published, "nuclei", "a"), run(rehosted, "nuclei", "b")
    assert first.labels == second.labels
    for split in ("train", "val"):
        assert first.stems(split) == second.stems(split)
        for stem in first.stems(split):
            for read in ("read_image", "read_mask"):
                one, other = (getattr(data, read)(split, stem) for data in (first, second))
                np.testing.assert_array_equal(one, other)
            one, other = (data.read_instances(split, stem) for data in (first, second))
            pairs = set(zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
            assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
            found = [data.record(split, stem) for data in (first, second)]
            assert found[0].kind == found[1].kind and found[0].group == found[1].group


def test_tiles_of_nuclei_are_at_their_own_scale_with_the_classes_of_their_kind(
    published: Path,
) -> None:
    data = run(published, "nuclei")
    raw = {name[:12]: value for name, value in whole_nuclei().items()}
    seen = set()
    for split in data.splits():
        for stem in data.stems(split):
            name, _, place = stem.partition("@")
            top, left = map(int, place.split("_")) if place else (0, 0)
            image, numbers, kind, field = raw[name]
            part = np.s_[top : top + SIDE, left : left + SIDE]
            np.testing.assert_array_equal(data.read_image(split, stem), image[part])
            ids = 2 * KINDS.index(kind) + (numbers[part] > 0)
            np.testing.assert_array_equal(data.read_mask(split, stem), ids)
            assert ((data.read_instances(split, stem) > 0) == (numbers[part] > 0)).all()
            assert data.record(split, stem).kind == kind
            assert data.record(split, stem).group == field[:12]
            seen.add(stem)
    names = ["000aaaaaaaaa", "020aaaaaaaaa", "200aaaaaaaaa"]
    places = [{s.partition("@")[2] for s in seen if s.startswith(name)} for name in names]
    assert places[0] == {"0_0", "0_8"}  # 32x40
    assert places[1] == {f"{top}_{left}" for top in (0, 32) for left in (0, 8)}  # 64x40
    assert places[2] == {f"{top}_{left}" for top in (0, 32) for left in (0, 24, 48)}  # 64x80
    assert data.labels.names == {
        2 * i + j: f"{kind} {what}"
        for i, kind in enumerate(KINDS)
        for j, what in enumerate(("background", "nucleus"))
    }
    assert data.info.licence == "CC0-1.0" and data.info.resize == "stretch"


def test_a_quarter_of_the_fields_of_each_kind_is_held_out(published: Path) -> None:
    source = source_of(published, "nuclei")
    sides: dict[str, set[str]] = defaultdict(set)
    kinds: dict[str, str] = {}
    for record in source.records():
        sides[record.group].add(record.split)
        kinds[record.group] = record.kind
    assert all(len(splits) == 1 for splits in sides.values())
    held = Counter(kinds[field] for field, splits in sides.items() if splits == {"val"})
    assert held == dict.fromkeys(KINDS, 1) and len(sides) == 12


def test_the_draw_depends_on_seed_and_share_and_not_on_the_kind_asked_for(rehosted: Path) -> None:
    kinds = {f"{kind}{i}": kind for kind in KINDS for i in range(8)}
    fields = {name: name for name in kinds}
    first = draw(fields, kinds, 0.25, 0)
    assert first == draw(dict(reversed(fields.items())), kinds, 0.25, 0)
    assert first != draw(fields, kinds, 0.25, 1)
    assert Counter(draw(fields, kinds, 0.5, 0).values()) == {"val": 12, "train": 12}
    assert set(draw(fields, kinds, 0, 0).values()) == {"train"}
    every = {r.stem: r.split for r in source_of(rehosted, "nuclei").records()}
    some = {r.stem: r.split for r in source_of(rehosted, "nuclei", kind="stained").records()}
    assert some == {stem: split for stem, split in every.items() if stem.startswith("1")}


def test_one_kind_and_plain_classes(rehosted: Path) -> None:
    data = run(rehosted, "nuclei", kind="stained", classes="plain")
    assert data.labels.names == {0: "background", 1: "nucleus"}
    stems = [stem for split in data.splits() for stem in data.stems(split)]
    assert {stem[0] for stem in stems} == {"1"}
    split, stem = "train", data.stems("train")[0]
    assert set(np.unique(data.read_mask(split, stem))) == {0, 1}
    with pytest.raises(UserError, match=r"other settings|different|another"):
        run(rehosted, "nuclei", kind="stained")


def test_a_smaller_image_is_padded_and_padding_is_no_class(rehosted: Path) -> None:
    data = run(rehosted, "nuclei", height=64, width=64)
    assert data.info.resize == "pad" and data.labels.ignore_id == 255
    stem = next(s for s in data.stems("train") if s.startswith("030"))  # 64x40
    split = "train"
    assert data.content_box(split, stem) == (0, 12, 64, 40)
    assert (data.read_mask(split, stem)[:, :12] == 255).all()


def test_as_data_of_ones_own_the_source_is_named(published: Path) -> None:
    source = open_source(PrepareConfig(path=published / "stage1_train"))
    assert source.layout is not None
    assert any("--source nuclei tells kinds" in note for note in source.layout.notes)


def test_a_corrected_mask_is_written_again_and_a_zip_is_the_same(published: Path) -> None:
    first = run(published, "nuclei")
    zipped = shutil.make_archive(str(published.parent / "set"), "zip", published)
    again = run(Path(zipped), "nuclei", "zipped")
    assert again.digest == first.digest
    path = next((published / "stage1_train").glob("000a*/masks/*1.png"))
    save(path, np.zeros((32, 40), np.uint8))
    changed = run(published, "nuclei")
    assert changed.digest != first.digest
    assert changed.stems("train") == first.stems("train")


def test_nuclei_say_what_is_wrong(published: Path, rehosted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data is missing: the folder with ID/images/ID"):
        open_source(PrepareConfig(source="nuclei"))
    save(tmp_path / "other" / "x.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="is not the Data Science Bowl 2018; it needs ID/images"):
        source_of(tmp_path / "other", "nuclei")
    with pytest.raises(UserError, match=r"cd/masks: no mask of a nucleus; only stage1_train"):
        source_of(published / "stage1_test", "nuclei")
    one = next((published / "stage1_train").iterdir())
    shutil.rmtree(one / "masks")
    with pytest.raises(UserError, match=f"{one.name}/masks: no mask of a nucleus"):
        source_of(published, "nuclei")
    table = rehosted / "pictures.csv"
    text = table.read_text()
    table.write_text(text.replace(",dark,", ",dim,", 1))
    with pytest.raises(UserError, match=r"pictures\.csv, line 2: kind 'dim' is not one of dark"):
        source_of(rehosted, "nuclei")
    table.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    with pytest.raises(UserError, match=r"pictures\.csv: has no row for 230aaaaaaaaa"):
        source_of(rehosted, "nuclei")
    table.write_text(text)
    save(rehosted / "instances" / "000aaaaaaaaa.png", np.ones((32, 40), np.uint16))
    with pytest.raises(UserError, match="has objects elsewhere than"):
        run(rehosted, "nuclei")
    (rehosted / "instances" / "000aaaaaaaaa.png").unlink()
    with pytest.raises(UserError, match=r"000aaaaaaaaa\.png: image without a map in"):
        source_of(rehosted, "nuclei")
    (rehosted / "masks" / "000aaaaaaaaa.png").unlink()
    with pytest.raises(UserError, match="image without mask of the same stem"):
        source_of(rehosted, "nuclei")
    save(rehosted / "masks" / "000aaaaaaaaa.png", np.arange(1280, dtype="u2").reshape(32, 40))
    with pytest.raises(UserError, match=r"000aaaaaaaaa\.png: is not black and white"):
        source_of(rehosted, "nuclei")
    with pytest.raises(UserError, match="--kind is for --source nuclei, not streets"):
        PrepareConfig(source="streets", kind="stained")


def test_fields_of_images_that_are_no_neighbours_stay_apart() -> None:
    images = {f"{kind}{i}": photograph(kind, i) for kind in KINDS for i in range(5)}
    borders = {
        name: Borders.of(image, name[:-1], name[:-1] == "stained") for name, image in images.items()
    }
    assert find_fields(borders) == {name: name for name in images}
    assert [kind_of(images[f"{kind}0"]) for kind in KINDS] == list(KINDS)


def test_kinds_and_fields_of_the_real_nuclei(shared: Path, tmp_path: Path) -> None:
    with (shared / "nuclei" / "pictures.csv").open() as file:
        table = {row["stem"]: row for row in csv.DictReader(file)}
    words = dict(zip(("dark", "colour", "bright"), KINDS, strict=True))
    shutil.copytree(shared / "nuclei", tmp_path / "bare")
    (tmp_path / "bare" / "pictures.csv").unlink()
    config = PrepareConfig(source="nuclei", data=tmp_path / "bare")
    found = {r.payload[0].stem: r for r in open_source(config).records()}
    assert {stem: record.kind for stem, record in found.items()} == {
        stem: words[row["kind"]] for stem, row in table.items()
    }
    members: dict[str, set[str]] = defaultdict(set)
    listed: dict[str, set[str]] = defaultdict(set)
    for stem, row in table.items():
        members[found[stem].group].add(stem)
        listed[row["field"]].add(stem)
    right = {stem for stem in table if members[found[stem].group] == listed[table[stem]["field"]]}
    assert {stem for stem in table if table[stem]["kind"] != "dark"} <= right
    assert len(right) >= 460

"""Draws by group, nested and linked with all files; overlaps that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.draws import (
    Part,
    draw_images,
    groups_of,
    make_draw,
    part_of,
    write_union,
)
from semsynth.augmentation.experiment.overlap import find_overlap, other_images
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample
from semsynth.evaluation.metrics.blocks import group_names

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky"}, ignore_id=0)
SIZE = 16


def image_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)


def write(folder: Path, images: dict[str, dict[str, int]], groups: bool = False) -> PreparedDataset:
    """Write noise of a seed by split and stem; the group is what a stem begins with."""
    form = PreparedFormat(LABELS, SIZE, SIZE)
    writer = PreparedWriter(folder, form, "prepared", {})
    mask = np.full((SIZE, SIZE), 1, np.uint8)
    mask[:8] = 2
    for split, stems in images.items():
        for stem, seed in stems.items():
            sample = PreparedSample(image_of(seed), mask, instances=mask.astype(np.uint16))
            record = write_sample(writer.root, form, split, stem, sample)
            if groups:
                object.__setattr__(record, "group", stem.partition("_")[0])
            writer.add(record)
    return writer.finish("toy", "made here", "CC0")


def fields(first: int, n: int, start: int = 0) -> dict[str, int]:
    """n fields of three images each: f<field>_<number>."""
    return {
        f"f{field:02d}_{i}": start + 10 * field + i
        for field in range(first, first + n)
        for i in range(3)
    }


@pytest.fixture
def data(tmp_path: Path) -> PreparedDataset:
    return write(tmp_path / "data", {"train": fields(0, 6), "val": fields(6, 4)}, groups=True)


def test_a_draw_takes_whole_groups(data: PreparedDataset) -> None:
    stems = data.stems("train")
    groups = groups_of(data, "train", stems)
    for number in range(5):
        drawn = draw_images(stems, groups, 7, seed=0, number=number)
        assert len(set(drawn)) == 7
        of_group = [sum(s.startswith(g) for s in drawn) for g in {s.split("_")[0] for s in drawn}]
        assert sorted(of_group) == [1, 3, 3]  # the last one is cut


def test_draws_are_nested_and_differ_and_repeat(data: PreparedDataset) -> None:
    stems = data.stems("train")
    groups = groups_of(data, "train", stems)
    draws = [draw_images(stems, groups, 8, 0, number) for number in range(4)]
    assert len(set(draws)) == 4
    for number, drawn in enumerate(draws):
        assert draw_images(stems, groups, 8, 0, number) == drawn
        assert draw_images(stems, groups, 4, 0, number) == drawn[:4]
    assert draw_images(stems, groups, 8, seed=1, number=0) != draws[0]
    assert [part_of(n, 0.25) for n in (4, 5, 6, 40)] == [1, 1, 2, 10]


def test_films_are_cut_into_ten_seconds() -> None:
    stems = [f"a_{frame:05d}" for frame in range(0, 1800, 30)]
    stems += [f"b_{frame:05d}" for frame in range(0, 900, 30)]
    names = group_names(stems, [None] * len(stems))
    assert len(set(names)) == 9
    assert len({name for name, stem in zip(names, stems, strict=True) if stem[0] == "a"}) == 6
    # Names without anything in common are groups of their own.
    assert group_names(["x", "house", "tree7"], [None] * 3) == ["x", "house", "tree7"]
    assert group_names(["a", "b", "c"], ["g", None, "g"]) == ["g", "b", "g"]


def test_a_union_has_all_files_of_its_images(data: PreparedDataset, tmp_path: Path) -> None:
    other = write(tmp_path / "other", {"train": fields(0, 2, start=500)}, groups=True)
    stems = data.stems("train")[:4]
    parts = [Part(data, "train", stems), Part(other, "train", other.stems("train"), "other-")]
    write_union(parts, tmp_path / "union")
    union = PreparedDataset.open(tmp_path / "union")
    assert union.stems("train") == sorted([*stems, *(f"other-{s}" for s in other.stems("train"))])
    assert union.has_instances("train")
    np.testing.assert_array_equal(
        union.read_image("train", "other-f01_2"), other.read_image("train", "f01_2")
    )
    assert union.record("train", "f00_1").group == "f00"
    found = union.info.splits["train"].class_pixels
    assert found == {"void": 0, "road": 10 * 128, "sky": 10 * 128}


def test_data_of_another_size_are_refused(data: PreparedDataset, tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "large", PreparedFormat(LABELS, 32, 32), "prepared", {})
    writer.write_pair("train", "a", np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), np.uint8))
    large = writer.finish("large", "made here", "CC0")
    with pytest.raises(UserError, match=r"images are 32x32.* 16x16.*prepare both in the same way"):
        write_union(
            [Part(data, "train", ["f00_0"]), Part(large, "train", ["a"])], tmp_path / "union"
        )


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    draw = make_draw(tmp_path, (["a", "b", "c", "d"], ["a", "b", "c", "d"]), 4, seed=0, number=0)
    calls = []

    def build(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        calls.append(folder)

    def fail(folder: Path) -> None:
        raise UserError("no")

    made = draw.plan("thing", {"strength": 0.5}, build)
    assert not made.finished
    assert made.make() == draw.plan("thing", {"strength": 0.5}, fail).make() == calls[0]
    other = draw.plan("thing", {"strength": 0.7}, build)
    assert other.root != made.root
    with pytest.raises(UserError, match="no"):
        draw.plan("broken", {}, fail).make()
    assert not draw.plan("broken", {}, fail).finished
    assert len(calls) == 1


# ---- overlap


def config(data: PreparedDataset, **flags: object) -> ExperimentConfig:
    return ExperimentConfig(data=data.root, output=data.root.parent / "out", n=(6,), **flags)  # type: ignore[arg-type]


def overlap(flags: ExperimentConfig, data: PreparedDataset) -> list[str]:
    return find_overlap(flags, data, other_images(flags, data))


def test_fields_that_are_apart_do_not_overlap(data: PreparedDataset) -> None:
    assert overlap(config(data), data) == []


def test_a_field_on_both_sides_is_refused(
    tmp_path: Path, warns: Callable[[str | None], object]
) -> None:
    data = write(tmp_path / "data", {"train": fields(0, 6), "val": fields(5, 3, 900)}, groups=True)
    with pytest.raises(UserError, match=r"same sequence, field or tile \(f05\).*--allow-overlap"):
        overlap(config(data), data)
    found = overlap(config(data, allow_overlap=True), data)
    assert len(found) == 1 and "f05" in found[0]


def test_an_image_on_both_sides_is_refused_by_its_content(tmp_path: Path) -> None:
    val = {"x": 999, "other_name": 12}  # that of train/f01_2
    data = write(tmp_path / "data", {"train": fields(0, 6), "val": val})
    with pytest.raises(UserError, match=r"train/f01_2 is val/other_name"):
        overlap(config(data), data)


def test_other_data_of_the_generator_must_not_be_evaluation_images(
    data: PreparedDataset, tmp_path: Path
) -> None:
    bad = write(tmp_path / "bad", {"train": {"n1": 71}})  # that of val/f07_1
    with pytest.raises(UserError, match=r"--generator-data.*train/n1 is val/f07_1"):
        overlap(config(data, generator_data=bad.root), data)
    good = write(tmp_path / "good", {"train": {"n1": 7001, "n2": 20}})  # n2 is train/f02_0
    both = config(data, generator_data=good.root)
    assert overlap(both, data) == []
    others = other_images(both, data)
    assert others is not None and others.stems == ["n1"]


def test_images_without_masks_must_not_be_of_evaluation_fields(tmp_path: Path) -> None:
    parts = {"train": fields(0, 6), "val": fields(6, 3)}
    data = write(tmp_path / "data", parts, groups=True)
    # That of val/f06_0 is left out; the next one is of its field.
    same = write(tmp_path / "same", {"train": {"n_1": 60}}, groups=True)
    with pytest.raises(UserError, match=r"--unlabelled .*: all images of 'train' are evaluation"):
        overlap(config(data, unlabelled=same.root), data)
    near = write(tmp_path / "near", {"train": {"f06_8": 700, "f06_9": 701}}, groups=True)
    with pytest.raises(UserError, match=r"--unlabelled .* same sequence, field or tile \(f06\)"):
        overlap(config(data, unlabelled=near.root), data)
    assert len(overlap(config(data, unlabelled=near.root, allow_overlap=True), data)) == 1
    good = write(tmp_path / "good", {"train": {"f20_0": 700, "f20_1": 701}}, groups=True)
    assert overlap(config(data, unlabelled=good.root), data) == []


def test_only_images_without_a_mask_are_to_be_labelled_next(
    data: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semsynth.augmentation.experiment import label_next as module
    from semsynth.augmentation.experiment.stages import Stages

    stems = tuple(data.stems("train"))
    drawn, left = data.read_rgb("train", stems[0]), data.read_rgb("train", stems[-1])
    judged = data.read_rgb("val", data.stems("val")[0])
    form = PreparedFormat(LABELS, SIZE, SIZE)
    writer = PreparedWriter(tmp_path / "photos", form, "prepared", {})
    for name, image in (("drawn", drawn), ("left", left), ("judged", judged), ("new", judged + 1)):
        writer.write_pair("train", name, image, np.ones((SIZE, SIZE), np.uint8))
    photos = writer.finish("photos", "made here", "CC0")
    flags = config(data, unlabelled=photos.root, seeds=2)
    draw = make_draw(tmp_path / "draw", (stems[:6], stems[:6]), 6, 0, 0)
    stages = Stages(flags, data, stems, draw)
    monkeypatch.setattr(module, "_disagreement", lambda part, *_: dict.fromkeys(part.stems, 1.0))
    found = module.label_next(stages.to_label(), stages.committee(), "cpu")
    assert [image["stem"] for image in found["images"]] == ["left", "new"]


def test_the_evaluation_split_is_not_drawn_from(data: PreparedDataset) -> None:
    with pytest.raises(UserError, match=r"--eval-split train: is also --split"):
        overlap(config(data, eval_split="train"), data)


def test_models_of_the_package_are_refused(data: PreparedDataset) -> None:
    from semsynth.pipelines.formats.pretrained import pretrained_names

    names = set(pretrained_names()) - {"streets"}
    if not names:
        pytest.skip("the checkout is without the models of the package")
    for name in names:
        with pytest.raises(UserError, match=rf"--from {name}: was trained on.*may have seen"):
            overlap(config(data, from_checkpoint=Path(name)), data)


def test_what_filters_labels_is_of_the_draw_alone(data: PreparedDataset, tmp_path: Path) -> None:
    """The masks of the teacher, and of its measure, are those of the n images."""
    from semsynth.augmentation.experiment.stages import HALF, Stages

    stems = tuple(data.stems("train"))
    flags = ExperimentConfig(data=data.root, output=tmp_path, n=(8,), teacher_part="half")
    draw = make_draw(tmp_path / "draw", (stems, groups_of(data, "train", stems)), 8, 0, 0)
    stages = Stages(flags, data, stems, draw)
    found = PreparedDataset.open(stages.real_of_filter().make())
    assert set(found.stems("train")) == set(draw.stems)
    assert set(found.stems(HALF)) == set(draw.stems[4:])
    assert set(PreparedDataset.open(stages.real(0.5).make()).stems("train")) == set(draw.stems[:4])
    groups = dict(zip(stems, groups_of(data, "train", stems), strict=True))
    drawn = {groups[stem] for stem in draw.stems}
    others = {stem for stem in stems if groups[stem] not in drawn} or set(stems) - set(draw.stems)
    assert set(found.stems("val")) == others


def test_a_teacher_of_other_labels_or_of_evaluation_images_is_refused(
    data: PreparedDataset, tmp_path: Path
) -> None:
    from semsynth.segmentation.config import SegmentTrainConfig
    from semsynth.segmentation.train import train_segmenter

    small: dict[str, Any] = {"steps": 1, "batch_size": 2, "width": 4, "device": "cpu"}
    good = train_segmenter(SegmentTrainConfig(data=data.root, output=tmp_path / "good", **small))
    assert overlap(config(data, teacher=good), data) == []
    on_val = SegmentTrainConfig(data=data.root, split="val", output=tmp_path / "val", **small)
    with pytest.raises(UserError, match=r"--teacher.*was trained on evaluation images \(f06_0"):
        overlap(config(data, teacher=train_segmenter(on_val)), data)
    others = LabelSet.from_names({0: "void", 1: "road", 2: "tree"}, ignore_id=0)
    writer = PreparedWriter(tmp_path / "o", PreparedFormat(others, SIZE, SIZE), "prepared", {})
    for i in range(2):
        writer.write_pair("train", f"x{i}", image_of(i), np.full((SIZE, SIZE), 1 + i, np.uint8))
    writer.finish("others", "made here", "CC0")
    other = SegmentTrainConfig(data=tmp_path / "o", output=tmp_path / "other", **small)
    with pytest.raises(UserError, match=r"--teacher.*(sky|tree)"):
        overlap(config(data, teacher=train_segmenter(other)), data)

"""Streets of three colours and a segmenter that knows them: planted errors are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from semsynth.augmentation.filter import measure
from semsynth.augmentation.filter.config import FilterConfig
from semsynth.augmentation.filter.run import filter_samples
from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.train import train

LABELS = LabelSet.from_names({0: "road", 1: "sky", 2: "car", 9: "void"}, ignore_id=9)
WITHOUT = LabelSet.from_names({0: "road", 1: "sky", 2: "car"})
COLOURS = np.array([(90, 90, 90), (120, 180, 250), (200, 30, 30)] + [(0, 0, 0)] * 7)
H, W = 24, 32
# Where the masks of half of the samples say car, and there is sky.
WRONG = (slice(2, 8), slice(4, 14))


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sky above a road with a car, in noise; each class has its colour."""
    rng = np.random.default_rng(number)
    mask = np.ones((H, W), np.uint8)
    mask[H // 2 + rng.integers(-2, 3) :] = 0
    top, left = rng.integers(H // 2 + 3, H - 6), rng.integers(0, W - 10)
    mask[top : top + 5, left : left + 9] = 2
    return (COLOURS[mask] + rng.normal(0, 12, (H, W, 3))).clip(0, 255).astype(np.uint8), mask


def write(
    folder: Path,
    images: dict[str, list[tuple[np.ndarray, np.ndarray]]],
    labels: LabelSet = LABELS,
    kind: str = "prepared",
) -> PreparedDataset:
    writer = PreparedWriter(folder, PreparedFormat(labels, H, W), kind)
    for split, pairs in images.items():
        for i, (image, mask) in enumerate(pairs):
            instances = (mask == 2).astype(np.uint16)
            sample = PreparedSample(image, mask, instances=instances)
            writer.add(write_sample(folder, writer.form, split, f"{split}_{i:02d}", sample))
    return writer.finish("toy", "checkpoint 1" if kind == "samples" else "made here", "CC0-1.0")


def planted(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a scene whose mask is wrong in ``WRONG`` if its number is even."""
    image, mask = scene(number)
    if number % 2 == 0:
        mask[WRONG] = 2
    return image, mask


def samples_of(folder: Path, labels: LabelSet = LABELS) -> PreparedDataset:
    made = write(folder, {"train": [planted(1000 + i) for i in range(8)]}, labels, "samples")
    lines = [{"stem": s, "source": s, "split": "train", "seed": 1} for s in made.stems("train")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "manifest.jsonl").write_text(text)
    return made


def real_of(folder: Path, labels: LabelSet = LABELS) -> PreparedDataset:
    pairs = {
        "train": [scene(i) for i in range(12)],
        "val": [scene(100 + i) for i in range(24)],
    }
    return write(folder, pairs, labels)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images, samples, and a segmenter of the real ones."""
    folder = tmp_path_factory.mktemp("filter")
    real_of(folder / "real")
    samples_of(folder / "samples")
    config = SegmentTrainConfig(
        data=folder / "real", output=folder / "teacher", steps=120, batch_size=4, width=8
    )
    assert train(config)["miou"] > 0.9
    return folder


@pytest.fixture
def config(toy: Path, tmp_path: Path) -> FilterConfig:
    return FilterConfig(
        samples=toy / "samples",
        segmenter=str(toy / "teacher"),
        real=toy / "real",
        output=tmp_path / "out",
        tolerance=5.0,
        border=0,
        drop_far=0.0,
        device="cpu",
    )


def masks(folder: Path) -> dict[str, np.ndarray]:
    data = PreparedDataset.open(folder)
    return {s: data.read_mask(split, s) for split in data.splits() for s in data.stems(split)}


def test_planted_errors_are_ignored_and_the_rest_stays(config: FilterConfig) -> None:
    result = filter_samples(config)
    before, after = masks(config.samples), masks(config.output)
    assert before.keys() == after.keys()
    for number, stem in enumerate(before):
        wrong = np.zeros((H, W), bool)
        wrong[WRONG] = number % 2 == 0
        assert (after[stem][wrong] == 9).sum() >= 0.9 * wrong.sum()
        changed = after[stem] != before[stem]
        assert (after[stem][changed] == 9).all()
        assert changed[~wrong].mean() < 0.1
    car = result["classes"]["car"]
    assert car["pixels"] == sum((mask == 2).sum() for mask in before.values())
    assert car["ignored"] == sum(((before[s] == 2) & (after[s] == 9)).sum() for s in before)
    assert car["kept"] == sum((after[s] == 2).sum() for s in before)
    assert car["ignored_share"] == pytest.approx(car["ignored"] / car["pixels"], abs=1e-6)
    stored = json.loads((config.output / "filter.json").read_text())
    assert {"output": str(config.output), **stored} == result
    assert result["ignored_label"] is None and result["dropped"] == {}


def test_the_filtered_set_is_one_of_samples_with_linked_images(config: FilterConfig) -> None:
    filter_samples(config)
    made, samples = PreparedDataset.open(config.output), PreparedDataset.open(config.samples)
    for stem in samples.stems("train"):
        assert made.image_path("train", stem).samefile(samples.image_path("train", stem))
        mask, objects = made.read_mask("train", stem), made.read_instances("train", stem)
        assert not objects[mask != 2].any()
        assert np.array_equal(
            made.labels.colorize(mask),
            cv2.imread(str(made.colored_path("train", stem)))[..., ::-1],
        )
    lists = [(folder / "manifest.jsonl").read_text() for folder in (config.samples, config.output)]
    assert lists[0] == lists[1]
    assert "synthetic" in (config.output / "README.md").read_text()
    assert not (config.output / ".measured").exists()


def test_where_the_teacher_is_sure_its_class_is_taken(config: FilterConfig) -> None:
    result = filter_samples(replace(config, rule="relabel", relabel_above=0.7))
    after = masks(config.output)
    for number, stem in enumerate(after):
        if number % 2 == 0:
            assert (after[stem][WRONG] == 1).mean() > 0.8
    classes = result["classes"]
    assert classes["car"]["relabelled"] > 100
    assert sum(x["gained"] for x in classes.values()) == sum(
        x["relabelled"] for x in classes.values()
    )
    assert "relabelled" in result["shares"] and not result["quotas"]


def test_a_class_keeps_its_share_and_it_is_said(
    config: FilterConfig, logged: Callable[[], str]
) -> None:
    # Without planted errors two thirds of the cars would be too few: nearly all have to stay.
    result = filter_samples(replace(config, keep_at_least=0.9))
    car = result["classes"]["car"]
    assert car["kept_share"] >= 0.9 > car["kept_share_without_quota"]
    assert car["tolerance"] > 5 and result["quotas"]["car"]["kept"] == car["kept_share"]
    assert "1 of 3 classes would have kept less than 90% of their pixels (car" in logged()


def test_a_class_that_vanishes_is_named(config: FilterConfig, logged: Callable[[], str]) -> None:
    result = filter_samples(replace(config, tolerance=0.0, keep_at_least=0.0))
    assert result["vanished"] == ["road", "sky", "car"]
    assert "missing from the filtered set: road, sky, car" in logged()


def test_the_border_is_that_of_the_mask(config: FilterConfig) -> None:
    result = filter_samples(replace(config, rule="none", border=1, keep_at_least=0.0))
    before, after = masks(config.samples), masks(config.output)
    for stem, mask in before.items():
        same = [np.roll(np.pad(mask, 1, "edge"), s, (0, 1))[1:-1, 1:-1] == mask for s in SHIFTS]
        assert np.array_equal(after[stem] == 9, ~np.all(same, 0))
    assert result["shares"]["ignored"] == 0 and result["shares"]["border"] > 0.05


SHIFTS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a filtered set by their paths in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_two_processes_give_what_one_gives(config: FilterConfig, tmp_path: Path) -> None:
    whole = replace(config, rule="relabel", border=1, drop_far=0.2)
    alone = filter_samples(whole)
    parts = replace(whole, output=tmp_path / "parts")
    first = filter_samples(replace(parts, shard="1/2"))
    assert not first["finished"] and first["left"] > 0
    both = filter_samples(replace(parts, shard="2/2"))
    assert both | {"output": ""} == alone | {"output": ""}
    assert contents(parts.output) == contents(whole.output)


def test_an_interrupted_command_goes_on_and_a_finished_one_does_nothing(
    config: FilterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = filter_samples(config)
    resumed = replace(config, output=tmp_path / "resumed")
    seen: list[str] = []
    look = measure.Measurements._sample

    def stop(self: measure.Measurements, split: str, stem: str) -> Any:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(stem)
        return look(self, split, stem)

    monkeypatch.setattr(measure.Measurements, "_sample", stop)
    with pytest.raises(KeyboardInterrupt):
        filter_samples(resumed)

    def go_on(self: measure.Measurements, split: str, stem: str) -> Any:
        assert stem not in seen
        return look(self, split, stem)

    monkeypatch.setattr(measure.Measurements, "_sample", go_on)
    assert filter_samples(resumed) | {"output": ""} == alone | {"output": ""}
    assert contents(resumed.output) == contents(config.output)
    monkeypatch.setattr(measure.Measurements, "measure", None)
    assert filter_samples(config) == alone
    preview = filter_samples(replace(config, preview=True))
    assert preview == alone and cv2.imread(str(config.output / "filter.png")) is not None
    with pytest.raises(UserError, match=r"was made with tolerance=5\.0, now 2\.0"):
        filter_samples(replace(config, tolerance=2.0))


def test_a_damaged_result_is_refused_and_made_again_when_it_is_removed(
    config: FilterConfig,
) -> None:
    found, path = filter_samples(config), config.output / "filter.json"
    text = path.read_text()
    path.write_text(text.replace('"tolerance": 5.0', '"tolerance": 5.4'))
    with pytest.raises(UserError, match=r"filter\.json: is damaged.* remove it and run"):
        filter_samples(config)
    path.unlink()
    assert filter_samples(config) == found and path.read_text() == text


def test_data_without_an_ignored_id_get_one_that_a_training_takes(
    config: FilterConfig, tmp_path: Path
) -> None:
    real_of(tmp_path / "real", WITHOUT)
    samples_of(tmp_path / "samples", WITHOUT)
    here = replace(config, real=tmp_path / "real", samples=tmp_path / "samples")
    result = filter_samples(here)
    assert result["ignored_label"] == 255
    made = PreparedDataset.open(here.output)
    assert made.labels.names[255] == "ignored" and made.labels.trainable == WITHOUT.trainable
    assert any((mask == 255).any() for mask in masks(here.output).values())
    training = SegmentTrainConfig(
        data=here.real, extra=here.output, output=tmp_path / "segmenter", steps=2, width=4
    )
    assert "miou" in train(training)


def test_copies_are_counted_and_left_out_if_asked(config: FilterConfig, tmp_path: Path) -> None:
    pairs = [scene(3), *(planted(1000 + i) for i in range(4))]
    write(tmp_path / "samples", {"train": pairs}, kind="samples")
    here = replace(config, samples=tmp_path / "samples")
    copies = filter_samples(here)["copies"]
    assert copies["stems"] == {"train/train_00": "train_03"} and copies["n"] == 5
    assert copies["within_mask"]["n"] == 1 and copies["unseen_masks"]["n"] == 4
    # The threshold is fitted on one half of the held-out images, and tested on the other. Two of
    # the 24 have the mask of a training image.
    assert copies["held_out"]["n_fitted"] == copies["held_out"]["n"] == 11
    without = filter_samples(replace(here, drop_copies=True, output=tmp_path / "without"))
    assert without["dropped"] == {"train/train_00": "copy of train/train_03"}
    assert "train_00" not in masks(tmp_path / "without")
    road = without["classes"]["road"]
    assert road["dropped"] == (pairs[0][1] == 0).sum()


@pytest.mark.parametrize("how", ["from_image", "edits"])
def test_images_that_were_made_from_real_ones_are_no_copies(
    how: str,
    config: FilterConfig,
    tmp_path: Path,
    logged: Callable[[], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first two are made from training images, which they are equal to."""
    pairs = [scene(3), scene(4), *(planted(1000 + i) for i in range(4))]
    made = write(tmp_path / "samples", {"train": pairs}, kind="samples")
    lines = [{"stem": s, "source": s, "split": "train"} for s in made.stems("train")]
    for line in lines[:2] if how == "from_image" else lines:
        line |= {"from_image": True} if how == "from_image" else {"image": "pasted"}
    name = "manifest.jsonl" if how == "from_image" else "edits.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "samples" / name).write_text(text)
    here = replace(config, samples=tmp_path / "samples", drop_copies=True)
    result = filter_samples(here)
    copies, n = result["copies"], 2 if how == "from_image" else 6
    assert copies["n_not_applicable"] == n
    assert copies["not_applicable"].startswith(f"made from real images: {n} of 6 images ")
    # None is called a copy, so none is left out, and that is said.
    assert copies["stems"] == {} and result["dropped"] == {} and result["n_kept"] == 6
    assert f"--drop-copies is not applicable: made from real images: {n} of 6" in logged()
    if how == "from_image":
        assert (copies["n"], copies["n_copies"]) == (4, 0)
    else:
        assert "share" not in copies and "n_copies" not in copies
    # The table of the terminal says the same of the finished set.
    folders = {"samples": here.samples, "real": here.real, "output": here.output}
    flags = [x for name, folder in folders.items() for x in (f"--{name}", str(folder))]
    flags += ["--segmenter", here.segmenter, "--tolerance", "5", "--border", "0", "--drop-far", "0"]
    assert main(["filter", *flags, "--drop-copies", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"not applicable: made from real images: {n} of 6" in out
    assert ("0 of 4 (95%: " in out) is (how == "from_image")


def test_an_image_that_is_far_is_left_out(config: FilterConfig, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (H, W, 3)).astype(np.uint8)
    pairs = [*(planted(1000 + i) for i in range(4)), (noise, scene(5)[1])]
    write(tmp_path / "samples", {"train": pairs}, kind="samples")
    here = replace(config, samples=tmp_path / "samples", drop_far=0.2)
    result = filter_samples(here)
    assert list(result["dropped"]) == ["train/train_04"]
    assert result["dropped"]["train/train_04"].startswith("far: ")
    assert result["far"]["n_dropped"] == 1 and result["n_kept"] == 4
    assert PreparedDataset.open(here.output).info.excluded == result["dropped"]


def test_a_teacher_of_other_labels_is_refused(config: FilterConfig, tmp_path: Path) -> None:
    other = LabelSet.from_names({0: "road", 1: "sky", 2: "lorry", 9: "void"}, ignore_id=9)
    real_of(tmp_path / "real", other)
    samples_of(tmp_path / "samples", other)
    here = replace(config, real=tmp_path / "real", samples=tmp_path / "samples")
    with pytest.raises(UserError, match=r"other classes than the data \(lacks lorry; also has car"):
        filter_samples(here)
    with pytest.raises(UserError, match="label 2 is 'lorry'"):
        filter_samples(replace(config, samples=tmp_path / "samples"))
    assert not here.output.exists()


def test_a_teacher_that_learned_the_samples_is_refused(
    config: FilterConfig, toy: Path, tmp_path: Path
) -> None:
    training = SegmentTrainConfig(
        data=toy / "real",
        extra=toy / "samples",
        output=tmp_path / "biased",
        steps=1,
        width=4,
        val_split="none",
    )
    train(training)
    with pytest.raises(UserError, match="was trained on 8 of the 8 samples"):
        filter_samples(replace(config, segmenter=str(tmp_path / "biased")))
    # Samples that were copied elsewhere without their manifest are still known by their pixels.
    shutil.copytree(toy / "samples", tmp_path / "copied")
    (tmp_path / "copied" / "manifest.jsonl").unlink()
    copied = replace(config, segmenter=str(tmp_path / "biased"), samples=tmp_path / "copied")
    with pytest.raises(UserError, match="was trained on 8 of the 8 samples"):
        filter_samples(copied)


@pytest.mark.parametrize(
    "flags",
    [{"tolerance": -1}, {"relabel_above": 0.2}, {"keep_at_least": 1.5}, {"border": -1}],
)
def test_flags_out_of_range_are_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(flags)).replace("_", "-")):
        FilterConfig(**flags)


def test_missing_splits_and_images_are_said_before_the_work(
    config: FilterConfig, toy: Path
) -> None:
    with pytest.raises(UserError, match="has no split 'nothing'"):
        filter_samples(replace(config, split="nothing"))
    with pytest.raises(UserError, match="no such folder"):
        filter_samples(replace(config, samples=toy / "none"))
    with pytest.raises(UserError, match=r"neither segmenter\.pth"):
        filter_samples(replace(config, segmenter=str(toy / "none")))
    assert not config.output.exists()

"""The whole experiment on small streets: tasks, resuming, freezing, the result and its page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semsynth.augmentation.experiment.arms import ARMS, DEFAULT, chosen_arms
from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.copies import copies_in_words
from semsynth.augmentation.experiment.draws import costing, read_seconds
from semsynth.augmentation.experiment.plan import Left
from semsynth.augmentation.experiment.run import open_experiment, run_experiment
from semsynth.augmentation.experiment.score import _stored
from semsynth.augmentation.experiment.settings import (
    all_settings,
    check_settings,
    segment_settings,
)
from semsynth.augmentation.experiment.speeds import Speeds
from semsynth.augmentation.experiment.stages import Stages
from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.dataset import PreparedDataset
from semsynth.data.prepare.run import prepare
from semsynth.training import loop

RECIPE = (
    *("height=32", "width=32", "model.base_channels=32", "model.channel_mult=[1, 2]"),
    *("train.steps=2", "train.batch_size=4", "train.warmup_steps=1", "finetune.steps=0"),
)
SEGMENT = ("arch=unet", "steps=2", "batch_size=4", "width=4")


@pytest.fixture(scope="module")
def streets(small_streets: Callable[[int, int], PreparedDataset]) -> Path:
    return small_streets(16, 16).root


def config(streets: Path, output: Path, **flags: Any) -> ExperimentConfig:
    small: dict[str, Any] = {
        **{"n": (8,), "seeds": 2, "recipe": "streets_demo", "set": RECIPE, "segment": SEGMENT},
        **{"generate": ("steps=1",), "images_per_real": 1, "min_class_images": 4},
        **{"arms": ("half", "strong", "synthetic", "ceiling"), "device": "cpu"},
    }
    return ExperimentConfig(data=streets, output=output, **{**small, **flags})


@pytest.fixture(scope="module")
def finished(
    streets: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """All arms in one go, in a task of a job array, which is to make the whole of each folder."""
    output = tmp_path_factory.mktemp("experiment") / "out"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ID", 2), ("MIN", 1), ("MAX", 4), ("COUNT", 4), ("STEP", 1)):
            patch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        return output, run_experiment(config(streets, output))


def test_the_result_has_all_arms_and_draws(finished: tuple[Path, dict[str, Any]]) -> None:
    output, summary = finished
    assert (summary["tasks"], summary["done"]) == (8, 8)
    result = json.loads((output / "experiment.json").read_text())
    entry = result["n"]["8"]
    assert list(entry["arms"]) == ["half", "strong", "synthetic", "ceiling"]
    assert (result["draws"], result["stage"], result["overlap"]) == ([0, 1], "development", [])
    for arm in entry["arms"].values():
        assert len(arm["draws"]) == 2
        low, high = arm["interval"]
        assert 0 <= low <= arm["miou"] <= high <= 1
    gain = entry["arms"]["synthetic"]["gain"]
    own, base = (entry["arms"][name] for name in ("synthetic", "strong"))
    assert gain["miou"] == pytest.approx(own["miou"] - base["miou"], abs=2e-6)
    assert gain["draws"] == pytest.approx(
        [a - b for a, b in zip(own["draws"], base["draws"], strict=True)], abs=2e-6
    )
    assert set(entry["label_equivalent"]) == {"synthetic"}
    assert entry["label_equivalent"]["synthetic"]["sizes"] == [4, 8]
    assert entry["label_equivalent_measured"]["synthetic"]["sizes"] == [8, 16]
    assert len(entry["label_next"]["images"]) == 8  # the pool has 16
    copies = entry["arms"]["synthetic"]["copies"]
    assert (copies["n"], len(copies["draws"])) == (16, 2)
    assert copies["interval"][0] <= copies["share"] <= copies["interval"][1]
    assert [name for name, arm in entry["arms"].items() if "copies" in arm] == ["synthetic"]
    assert set(entry["per_class"] if "per_class" in entry else entry["classes"])
    train = result["settings"]["recipe"]["train"]
    assert train["steps"] == 2
    assert train["judge"] is None and "evaluator" not in train  # digests are of the file's keys


def test_the_page_stands_alone(finished: tuple[Path, dict[str, Any]]) -> None:
    page = (finished[0] / "experiment.html").read_text()
    assert "What synthesis adds: streets" in page
    assert "<svg" in page and "<script" not in page
    # Of the draw and of one arm four pairs each, and what is left of the pool, to label next.
    assert page.count("src=") == page.count('src="data:image/') == 2 * 8 + 8
    assert "These draws are for choosing settings" in page
    for name in ("half", "strong", "synthetic", "ceiling"):
        assert ARMS[name].meaning in page


def test_a_generator_that_memorised_its_images_is_named(
    streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the generated images are the training images themselves."""
    monkeypatch.setattr(Stages, "samples", lambda stages, which, start, limit=None: stages.real())
    arms = ("strong", "synthetic")
    summary = run_experiment(config(streets, tmp_path / "out", arms=arms, seeds=1, draws=(0,)))
    assert "8 of 8 of its images are copies" in summary["n = 8, synthetic"]
    entry = json.loads((tmp_path / "out" / "experiment.json").read_text())["n"]["8"]
    copies = entry["arms"]["synthetic"]["copies"]
    assert copies["share"] == 1 and copies["many"]
    # Some kinds of images look alike: as many as held-out real ones have mean nothing.
    assert copies_in_words({**copies, "many": False}) == copies_in_words(None) == ""
    assert "of training images, 95%" in (tmp_path / "out" / "experiment.html").read_text()


def test_a_generator_saw_its_own_draw_alone(
    streets: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    from semsynth.data.dataset import PreparedDataset

    pool = PreparedDataset.open(streets)
    images = []
    for draw in (0, 1):
        folder = finished[0] / "n8" / f"draw_{draw}"
        (run,) = folder.glob("generator-*")
        recorded = json.loads((run / ".semsynth.inputs.json").read_text())["content"]
        assert len(recorded) == 8
        digests = set(pool.digests(["train"]).values())
        assert set(recorded.values()) <= digests
        images.append(set(recorded))
    assert images[0] != images[1]


def test_what_is_finished_is_not_made_again(
    streets: Path, finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(loop, "train", fail)
    monkeypatch.setattr("semsynth.segmentation.train.train", fail)
    monkeypatch.setattr("semsynth.pipelines.generate.run.generate", fail)
    before = (finished[0] / "experiment.json").read_text()
    assert run_experiment(config(streets, finished[0])) == finished[1]
    assert (finished[0] / "experiment.json").read_text() == before
    assert len((finished[0] / "tries.jsonl").read_text().splitlines()) == 1


def test_the_plan_counts_what_is_left(
    streets: Path, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    def left_in(output: Path, **flags: Any) -> Left:
        experiment = open_experiment(config(streets, output, **flags))
        work = [(experiment.stages(task.n, task.draw), task.arm) for task in experiment.tasks]
        return Left.of(work, experiment.eval_images, Speeds(1.0, 10.0, 5.0, 2.0, 0.5))

    left = left_in(tmp_path / "out")
    # Of 2 draws: 2 steps of a generator, 8 images of own masks, 4 arms of 2 segmenters of 2 steps.
    assert left.counts == {"segmenter": 32, "generator": 4, "distill": 0, "image": 16}
    arm = 2 * 2 + 16 * 2 * 0.5  # seconds: steps, and 16 evaluation images for each segmenter
    draw = (arm, arm, 20 + 8 * 2 + arm, arm)
    assert left.of_task == (*draw, *draw)
    assert left_in(finished[0]).total == 0
    longer = left_in(tmp_path / "out", arms=("strong_longer",), draws=(0,))
    assert longer.counts["segmenter"] == 2 * 2 + 2 * (2 + 20)  # in the generator's 20 seconds
    capped = left_in(tmp_path / "out", arms=("strong_longer",), draws=(0,), longer_most=3.0)
    assert capped.counts["segmenter"] == 2 * 2 + 2 * 3 * 2


def test_the_speed_is_measured_once(
    streets: Path, tmp_path: Path, logged: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = config(streets, tmp_path / "out", arms=("synthetic",), draws=(0,), plan=True)
    found = run_experiment(few)
    assert found["steps"] == 10 and found["seconds"] >= 0
    assert not (tmp_path / "out" / "trial").exists() and not (tmp_path / "out" / "n8").exists()
    speeds = json.loads((tmp_path / "out" / "speeds.json").read_text())["speeds"]
    # The least that is believed is the time of what was there already.
    assert all(speeds[name] > 1e-4 for name in ("segmenter", "generator", "image", "scored"))
    assert re.search("n = 8: 1 draw of 2 arms, 2 segmenters each: 2 tasks, 0 done", logged())
    monkeypatch.setattr("semsynth.augmentation.experiment.speeds._measure", None)
    assert run_experiment(few) == found
    path = tmp_path / "out" / "speeds.json"
    path.write_text(path.read_text().replace('"scored": ', '"scored": 1'))
    with pytest.raises(TypeError, match="not callable"):  # it would be measured
        run_experiment(few)
    assert "speeds.json: is not what was written" in logged()


def test_no_mask_is_predicted_to_measure_speeds(
    streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsynth.augmentation.experiment.pseudo_labels.write_predicted", None)
    flags: dict[str, Any] = {"arms": ("predicted_strength",), "generator_unlabelled": True}
    found = run_experiment(config(streets, tmp_path / "out", **flags, draws=(0,), plan=True))
    assert found["steps"] > 0
    speeds = json.loads((tmp_path / "out" / "speeds.json").read_text())["speeds"]
    assert all(speeds[name] > 0 for name in ("segmenter", "generator", "image"))


def test_damaged_scores_and_seconds_are_found(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, logged: Callable[[], str]
) -> None:
    """Scores are made again; of what took how long nobody knows better."""
    path = tmp_path / "scores.npz"
    data = next(finished[0].rglob("scores/*.npz")).read_bytes()
    path.write_bytes(data)
    found = _stored(path)
    assert found is not None and found["counts"].sum() > 0
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert _stored(path) is None and "trained and scored again" in logged()
    assert _stored(tmp_path / "none.npz") is None
    with costing(tmp_path / "seconds.json", "cpu"):
        pass
    text = (tmp_path / "seconds.json").read_text()
    (tmp_path / "seconds.json").write_text(text.replace('"seconds": ', '"seconds": 1'))
    with pytest.raises(UserError, match=r"seconds\.json: is not what was written"):
        read_seconds(tmp_path / "seconds.json")


def test_tasks_are_parts_of_the_whole(
    streets: Path, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    output = tmp_path / "out"
    few = config(streets, output, arms=("strong", "half"), draws=(0,))
    listed = run_experiment(replace(few, list_=True))
    assert listed == {"1": "n=8 draw=0 half", "2": "n=8 draw=0 strong", "array": "1-2"}
    first = run_experiment(replace(few, task="2"))
    assert (first["tasks"], first["done"]) == (2, 1)
    assert not (output / "experiment.json").exists()
    assert run_experiment(replace(few, list_=True))["2"] == "n=8 draw=0 strong (done)"
    last = run_experiment(replace(few, task="1/2"))
    assert last["done"] == 2
    # The same numbers as in one go.
    mine, whole = (
        json.loads((folder / "experiment.json").read_text())["n"]["8"]["arms"]["strong"]["draws"][0]
        for folder in (output, finished[0])
    )
    assert mine == whole
    for bad in ("0", "3", "x", "3/2"):
        with pytest.raises(UserError, match=f"--task is '{bad}'"):
            run_experiment(replace(few, task=bad))


def test_final_draws_run_with_the_frozen_settings_alone(streets: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    mine = config(streets, output, arms=("strong",), seeds=1)
    final = replace(mine, stage="final", draws=(2,))
    with pytest.raises(UserError, match=r"frozen.json does not exist.*--freeze"):
        run_experiment(final)
    assert run_experiment(replace(mine, freeze=True)) == {"frozen": str(output / "frozen.json")}
    run_experiment(replace(mine, freeze=True))  # the same again: nothing happens
    with pytest.raises(UserError, match=r"other settings are frozen \(strength was 0.5, now 0.7\)"):
        run_experiment(replace(mine, strength=0.7, freeze=True))
    with pytest.raises(UserError, match=r"settings differ.*strength was 0.5, now 0.7"):
        run_experiment(replace(final, strength=0.7))
    with pytest.raises(UserError, match=r"recipe.train.steps was 2, now 3"):
        run_experiment(replace(final, set=(*RECIPE, "train.steps=3")))
    with pytest.raises(UserError, match=r"segment.*steps=3"):
        run_experiment(replace(final, segment=(*SEGMENT, "steps=3")))
    assert not (output / "n8").exists()  # nothing was made
    assert run_experiment(final)["done"] == 1
    result = json.loads((output / "experiment.json").read_text())
    assert (result["stage"], result["draws"]) == ("final", [2])
    assert result["n"]["8"]["arms"]["strong"]["interval"] is not None


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"n": (3,)}, r"--n is 3: must be at least 4"),
        ({"n": (17,)}, r"has 16 images, --n asks for 17; ask for fewer"),
        ({"arms": ("syntetic",)}, r"--arms syntetic: no such arm; did you mean synthetic"),
        ({"arms": ("more_real",)}, r"needs --generator-data"),
        ({"n": (16,), "arms": ("pool_masks",)}, r"--n 16 is the whole pool; drop the arm"),
        ({"n": (16,), "arms": ("label_random",)}, r"--n 16 is the whole pool; drop the arm"),
        ({"n": (16,), "arms": ("unlabelled",)}, r"--n 16 is the whole pool; give --unlabelled"),
        ({"seeds": 1, "arms": ("label_next",)}, r"--arms label_next: one segmenter alone cannot"),
        ({"draws": (2,)}, r"--draws 2: is not one of --stage development, which has 0, 1"),
        ({"strength": 0.0}, r"--strength is 0.0: must be above 0 and at most 1"),
        ({"strength": 1.5}, r"--strength is 1.5"),
        ({"segment": ("stepz=3",)}, r"--segment stepz: no such flag; did you mean steps"),
        ({"segment": ("steps=many",)}, r"--segment steps is 'many': must be a whole number"),
        ({"segment": ("data=x",)}, r"--segment data: is decided by the experiment"),
        ({"segment": ("steps",)}, r"--segment steps: must be flag=value"),
        (
            {"segment": ("arch=foo",)},
            r"--segment arch is 'foo': must be unet or lite2",
        ),
        ({"segment": ("scale=[1]",)}, r"--segment scale is \[1\]: must be a list of 2, each a num"),
        ({"segment": ("ema=x",)}, r"--segment ema is 'x': must be a number or null"),
        ({"edit": ("classes=car",)}, r"--edit classes is 'car': must be a list, as in \[a, b\]"),
        ({"filter": ("rule=foo",)}, r"--filter rule is 'foo': must be freemask or relabel or none"),
        ({"n": (8, 8)}, r"--n 8: is given more than once"),
        ({"plan": True, "task": "1"}, r"--plan: is of all tasks that are left; drop --task"),
        ({"from_checkpoint": Path("streets")}, r"--from streets: was trained on streets.*may have"),
        ({"segment": ("steps=0",)}, r"steps must be at least 1"),
        ({"edit": ("kinds=foreign",)}, r"--edit kinds=foreign: is an arm of its own"),
        ({"edit": ("rare_weight=9.0",)}, r"--rare-weight is 9"),
        ({"filter": ("border=-1",)}, r"--border is -1"),
        ({"set": ("train.stepz=3",)}, r"stepz"),
        ({"recipe": "nothing"}, r"unknown recipe `nothing`"),
        ({"kind": "stained"}, r"--kind stained: no image of 'train'"),
        ({"eval_split": "test"}, r"has no split 'test'; it has train, val"),
        ({"min_class_images": 17}, r"no class is in 17 images of 'val' \(most: 16\)"),
        ({"teacher": Path("nowhere.pth")}, r"nowhere.pth"),
    ],
)
def test_what_is_wrong_is_a_line_before_the_work(
    streets: Path, tmp_path: Path, flags: dict[str, Any], match: str
) -> None:
    with pytest.raises(UserError, match=match):
        run_experiment(config(streets, tmp_path / "out", **flags))
    assert not (tmp_path / "out").exists()


def test_other_data_that_do_not_fit_are_a_line_before_the_work(
    streets: Path, tmp_path: Path
) -> None:
    size: dict[str, Any] = {"height": 32, "width": 48, "train_count": 2, "val_count": 2, "seed": 7}
    prepare(PrepareConfig(source="streets", output=tmp_path / "wide", workers=1, **size))
    for folder, match in (
        (tmp_path / "wide", r"wide: images are 48x32.*prepare both in the same way"),
        (streets, r"--generator-data .*: has no image in split 'train' that the pool does not"),
    ):
        mine = config(streets, tmp_path / "out", generator_data=folder, arms=("more_real",))
        with pytest.raises(UserError, match=match):
            run_experiment(mine)
    # A mean teacher takes images of any size; pairs with predicted masks stay as they are.
    flags = {"unlabelled": tmp_path / "wide", "arms": ("predicted_real",)}
    with pytest.raises(UserError, match=r"wide: images are 48x32.*prepare both in the same way"):
        run_experiment(config(streets, tmp_path / "out", **flags))
    assert not (tmp_path / "out").exists()


def test_the_folder_of_a_teacher_is_its_file(streets: Path, tmp_path: Path) -> None:
    from semsynth.segmentation.config import SegmentTrainConfig
    from semsynth.segmentation.train import train_segmenter

    small: dict[str, Any] = {"steps": 1, "batch_size": 2, "width": 4, "device": "cpu"}
    file = train_segmenter(SegmentTrainConfig(data=streets, output=tmp_path / "teacher", **small))
    data = PreparedDataset.open(streets)
    found = []
    for teacher in (file, file.parent):
        mine = config(streets, tmp_path / "out", teacher=teacher, arms=("filtered",))
        made = open_experiment(mine).stages(8, 0).segmenter(ARMS["filtered"], 0)
        found.append((all_settings(mine, data)["teacher"], made.key))
    assert found[0] == found[1]


def test_the_table_of_arms_is_whole() -> None:
    assert set(DEFAULT) <= set(ARMS)
    assert [arm.name for arm in chosen_arms(())] == ["strong"]
    assert [arm.name for arm in chosen_arms(("synthetic", "real"))] == [
        "real",
        "strong",
        "synthetic",
    ]
    with pytest.raises(UserError, match="they are real, quarter"):
        chosen_arms(("zzz",))


def test_settings_of_other_arms_leave_a_training_as_it_is(streets: Path, tmp_path: Path) -> None:
    """So a share of synthetic images is tried without training the baseline again."""
    given = ("mix_share_end=0.25", "unlabelled_weight=0.5")
    arms = chosen_arms(("unlabelled", "synthetic"))
    mine = config(streets, tmp_path / "out", segment=(*SEGMENT, *given))
    settings = [segment_settings(mine, arm, arm.masks is not None) for arm in arms]
    assert [s.get("mix_share_end") for s in settings] == [None, 0.25, None]
    assert [s.get("unlabelled_weight") for s in settings] == [None, None, 0.5]
    check_settings(mine, arms, PreparedDataset.open(streets))
    with pytest.raises(UserError, match="confidence must be at least 0"):
        bad = replace(mine, segment=(*SEGMENT, "confidence=2.0"))
        check_settings(bad, arms, PreparedDataset.open(streets))


def test_other_data_in_the_folder_are_refused(
    streets: Path, tmp_path: Path, finished: tuple[Path, dict[str, Any]], logged: Callable[[], str]
) -> None:
    size: dict[str, Any] = {"height": 32, "width": 32, "train_count": 8, "val_count": 16}
    other = tmp_path / "other"
    prepare(PrepareConfig(source="streets", output=other, workers=1, **size))
    with pytest.raises(UserError, match="was made with"):
        run_experiment(config(other, finished[0]))

"""Scores during training: they change no weights, survive interruptions, and keep the best."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import Jobs, stop_at
from test_stopping import signal_in
from test_trackers import events

from semsynth.cli import main
from semsynth.core.errors import Preempted, UserError
from semsynth.core.files import read_json, sha256_file
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import SamplerSettings
from semsynth.evaluation.evaluators import Evaluator, open_evaluators
from semsynth.pipelines.formats.model_file import load_model_file
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.segmentation.metrics import ConfusionMatrix
from semsynth.segmentation.segmenter import Segmenter, SegmenterInfo, unet_arch
from semsynth.training import loop, scoring
from semsynth.training.checkpoints.store import complete_checkpoints
from semsynth.training.loop import train
from semsynth.training.metrics import read_metrics
from semsynth.training.recipe import TrainConfig, load_recipe
from semsynth.training.scoring import BEST, BestCheckpoint, Scorer

Configure = Callable[..., TrainConfig]
Same = Callable[[Path, Path], None]
NAMES = ("miou", "miou_real", "fd", "kd")


def segmenter(labels: LabelSet, path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    arch = unet_arch(4, 16, 16)
    return Segmenter(SegmenterInfo(arch, labels, 16, 16, "CC0-1.0")).eval().save(path)


@pytest.fixture(scope="module")
def evaluator(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter that was not trained: its scores are low, and as exact as any."""
    labels = PreparedDataset.open(images).labels
    return segmenter(labels, tmp_path_factory.mktemp("evaluator") / "segmenter.pth")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sampling: the images are noise anyway."""
    monkeypatch.setattr(scoring, "PREVIEW_STEPS", 2)


@pytest.fixture
def every_two(evaluator: Path) -> tuple[str, ...]:
    return ("train.score_every=2", f"train.evaluator={evaluator}", "train.keep_checkpoints=1")


def opened(path: Path, data: PreparedDataset) -> Evaluator:
    return open_evaluators([path], data.labels, None, "cpu")[0]


def scores_of(run: Path) -> dict[int, tuple[float, ...]]:
    lines = [line for line in read_metrics(run) if "miou" in line]
    assert len({line["step"] for line in lines}) == len(lines)
    return {line["step"]: tuple(line[name] for name in NAMES) for line in lines}


def test_the_weights_are_those_of_a_run_without_scores(
    configure: Configure, every_two: tuple[str, ...], tmp_path: Path, assert_same_weights: Same
) -> None:
    train(configure("without"))
    train(configure("scored", *every_two))
    assert_same_weights(tmp_path / "without", tmp_path / "scored")
    first, second = (complete_checkpoints(tmp_path / name)[-1] for name in ("without", "scored"))
    a, b = (torch.load(x / "state.pt", weights_only=True) for x in (first, second))
    for name in ("model", "ema"):
        assert all(torch.equal(a[name][key], b[name][key]) for key in a[name])
    assert list(scores_of(tmp_path / "scored")) == [2, 4, 6, 8, 10]
    assert scores_of(tmp_path / "without") == {} and not (tmp_path / "without" / BEST).exists()


def test_random_states_stay(
    images: Path, evaluator: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, data = load_recipe(str(recipe_file)), PreparedDataset.open(images)
    scorer = Scorer(opened(evaluator, data), data, recipe, batch_size=4)

    class Noisy:
        """Generates what a network with dropout would: it draws from every global state."""

        device, instance_edges = torch.device("cpu"), False

        def preview_settings(self, steps: int) -> SamplerSettings:
            return SamplerSettings(steps=steps)

        def generate(self, masks: np.ndarray, *_: Any) -> np.ndarray:
            random.random()
            np.random.rand()
            torch.rand(1)
            return np.zeros((*masks.shape, 3), np.uint8)

    def states() -> list[Any]:
        return [
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        ]

    before = states()
    noisy: Any = Noisy()
    assert scorer.score(noisy) is not None
    assert states() == before


def test_what_the_numbers_are(
    images: Path, evaluator: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that returns the real images has their mIoU, and no distance to them."""
    recipe, data = load_recipe(str(recipe_file)), PreparedDataset.open(images)
    network = Segmenter.load(evaluator, "cpu")
    scorer = Scorer(opened(evaluator, data), data, recipe, batch_size=4)
    assert scorer.stems == data.stems("train")
    monkeypatch.setattr(
        scorer,
        "_generate",
        lambda _, stems: np.stack([data.read_rgb("train", stem) for stem in stems]),
    )
    nothing: Any = type("Nothing", (), {"device": torch.device("cpu")})
    found = scorer.score(nothing)
    matrix = ConfusionMatrix.of(data.labels)
    for stem in data.stems("train"):
        predicted = network.predict(data.read_rgb("train", stem)[None])[0]
        matrix.add(predicted, data.read_mask("train", stem), data.labels.ignore_id)
    assert found is not None
    assert found["miou"] == found["miou_real"] == round(matrix.miou, 6)
    assert found["fd"] == pytest.approx(0, abs=1e-6)
    assert found["kd"] <= 0  # unbiased: of a set and itself a little below 0


def test_masks_are_fixed_and_of_the_training_split(
    evaluator: Path, images: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, data = load_recipe(str(recipe_file)), PreparedDataset.open(images)
    monkeypatch.setattr(scoring, "SCORED_MASKS", 3)
    scorer = Scorer(opened(evaluator, data), data, recipe, batch_size=2)
    assert len(scorer.stems) == 3 and set(scorer.stems) <= set(data.stems("train"))
    assert not set(scorer.stems) & set(data.stems("val"))
    seen: dict[int, list[int]] = {}

    class Recording:
        device, instance_edges = torch.device("cpu"), False

        def preview_settings(self, steps: int) -> SamplerSettings:
            return SamplerSettings(steps=steps)

        def generate(self, masks: np.ndarray, seeds: list[int], *_: Any) -> np.ndarray:
            seen.setdefault(len(seen), seeds)
            return np.zeros((*masks.shape, 3), np.uint8)

    recording: Any = Recording()
    first, second = scorer.score(recording), scorer.score(recording)
    assert first == second
    assert seen[0] + seen[1] == seen[2] + seen[3] and len({*seen[0], *seen[1]}) == 3


def test_killed_and_resumed_has_the_same_scores_and_the_same_best(
    configure: Configure, every_two: tuple[str, ...], tmp_path: Path, assert_same_weights: Same
) -> None:
    train(configure("straight", *every_two))
    for step in (4, 8):
        stop_at(configure("run", *every_two), step)
    train(configure("run", *every_two))
    straight, run = tmp_path / "straight", tmp_path / "run"
    assert_same_weights(straight, run)
    assert scores_of(straight) == scores_of(run)
    first, second = (read_json(x / BEST / "manifest.json")["scores"] for x in (straight, run))
    assert first == second


@pytest.mark.parametrize("call", [1, 3])
def test_a_signal_while_it_scores(
    call: int, configure: Configure, every_two: tuple[str, ...], tmp_path: Path,
    assert_same_weights: Same,
) -> None:  # fmt: skip
    """The scores of that step are made when the run is resumed."""
    train(configure("straight", *every_two))
    with pytest.MonkeyPatch.context() as patch:
        signal_in(patch, Scorer, "_generate", call)
        with pytest.raises(Preempted, match=r"stopped at step \d of 10, with a checkpoint"):
            train(configure("run", *every_two))
    train(configure("run", *every_two))
    assert_same_weights(tmp_path / "straight", tmp_path / "run")
    assert scores_of(tmp_path / "straight") == scores_of(tmp_path / "run")


def test_the_best_is_kept_while_others_are_thinned_out(
    configure: Configure, every_two: tuple[str, ...], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    wanted = iter([0.1, 0.5, 0.3, 0.5, 0.2])
    plain = Scorer.score

    def score(self: Scorer, *arguments: Any) -> Any:
        found = plain(self, *arguments)
        return None if found is None else {**found, "miou": next(wanted)}

    monkeypatch.setattr(Scorer, "score", score)
    run = tmp_path / "run"
    saved: dict[int, str] = {}
    train(
        configure("run", *every_two),
        lambda step, _: saved.update({step: sha256_file(run / f"step_{step:07d}" / "state.pt")}),
    )
    assert [folder.name for folder in complete_checkpoints(run)] == ["step_0000010"]
    manifest = read_json(run / BEST / "manifest.json")
    assert manifest["scores"]["step"] == manifest["step"] == 4  # of equals the first
    assert manifest["sha256"]["state.pt"] == sha256_file(run / BEST / "state.pt") == saved[4]
    best = load_model_file(run / BEST)
    state = torch.load(run / BEST / "state.pt", weights_only=True)
    assert all(torch.equal(best.weights[name], state["ema"][name]) for name in best.weights)
    assert best.metadata["scores"]["miou"] == 0.5 and best.metadata["step"] == 4
    assert load_model_file(run).metadata["scores"]["miou"] == 0.2
    # The same command again changes nothing.
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    train(configure("run", *every_two))
    assert (run / BEST / "state.pt") in before
    for path in (run / BEST).iterdir():
        assert path.stat().st_mtime_ns == before[path]


def test_a_best_that_was_being_replaced(tmp_path: Path) -> None:
    """Killed between two renames: the old best is there again; half of a new one goes."""
    (tmp_path / ".best.old").mkdir()
    (tmp_path / ".best.old/manifest.json").write_text('{"scores": {"miou": 0.5, "key": "k"}}')
    (tmp_path / ".best.partial").mkdir()
    best = BestCheckpoint(tmp_path, "k")
    nothing: Any = None
    best.keep(nothing, {"miou": 0.4, "step": 2})  # no better: nothing is read
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST]


def test_a_best_of_another_evaluator_is_replaced(
    configure: Configure, every_two: tuple[str, ...], images: Path, tmp_path: Path
) -> None:
    stop_at(configure("run", *every_two), 4)
    before = read_json(tmp_path / "run" / BEST / "manifest.json")["scores"]
    other = segmenter(PreparedDataset.open(images).labels, tmp_path / "other.pth", seed=5)
    train(configure("run", *every_two, f"train.evaluator={other}"))
    after = read_json(tmp_path / "run" / BEST / "manifest.json")["scores"]
    assert after["judge"] == sha256_file(other) != before["judge"]
    assert after["step"] > 4


def test_the_model_carries_its_scores_and_the_card_shows_them(
    configure: Configure, every_two: tuple[str, ...], tmp_path: Path, evaluator: Path
) -> None:
    train(configure("run", *every_two))
    pipe = SemanticDiffusionPipeline.from_checkpoint(tmp_path / "run")
    found = pipe.metadata["scores"]
    assert tuple(found[name] for name in NAMES) == scores_of(tmp_path / "run")[10]
    assert found["judge"] == sha256_file(evaluator) and found["n_masks"] == 6
    assert not {"judge", "evaluator"} & set(pipe.metadata["recipe"]["train"])  # a local path
    pipe.save_pretrained(tmp_path / "folder")
    card = (tmp_path / "folder/README.md").read_text(encoding="utf-8")
    assert f"{found['miou']:.1%}" in card and "trained on the real images of these masks" in card
    assert "model-index" not in card  # no result that could be compared with others'


@pytest.mark.parametrize("sharding", ["none", pytest.param("full", marks=pytest.mark.slow)])
def test_two_processes(
    sharding: str,
    jobs: Jobs,
    words: Any,
    every_two: tuple[str, ...],
    tmp_path: Path,
    assert_same_weights: Same,
) -> None:
    """The other one waits for longer than a step may take."""
    changes = ("train.steps=3", "finetune.steps=0", f"train.sharding={sharding}")
    assert jobs.start(2, *words("without", *changes)).wait() == [0, 0]
    stall = ("train.score_every=3", "train.stall_minutes=0.034")  # 2 seconds
    job = jobs.start(2, *words("scored", *changes, *every_two, *stall), SCORING_TAKES="4")
    assert job.wait() == [0, 0], job.outputs()
    assert_same_weights(tmp_path / "without", tmp_path / "scored")
    assert list(scores_of(tmp_path / "scored")) == [3]


def test_trackers_get_the_scores(
    configure: Configure, every_two: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    short = ("train.steps=2", "finetune.steps=2")
    train(configure("run", *every_two, *short, track=("tensorboard",)))
    found = events(tmp_path / "run")
    for i, name in enumerate(NAMES):
        shown = [(event.step, event.value) for event in found.Scalars(name)]
        wanted = [(step, values[i]) for step, values in scores_of(tmp_path / "run").items()]
        assert [step for step, _ in shown] == [2, 4]
        assert shown == [(step, pytest.approx(value, rel=1e-6)) for step, value in wanted]


def bad_evaluators(folder: Path, images: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    labels = PreparedDataset.open(images).labels
    names = {label.id: f"organ {label.id}" for label in labels.labels}
    other = segmenter(LabelSet.from_names(names, labels.ignore_id), folder / "other.pth")
    cut = folder / "cut.pth"
    cut.write_bytes(other.read_bytes()[:2000])
    every = "train.score_every=2"
    return {
        "not given": ((every,), "no train.evaluator is given"),
        "missing": ((every, f"train.evaluator={folder / 'none.pth'}"), "none.pth"),
        "other labels": ((every, f"train.evaluator={other}"), "no class of the data"),
        "cut short": ((every, f"train.evaluator={cut}"), "cut.pth"),
    }


@pytest.mark.parametrize("case", ["not given", "missing", "other labels", "cut short"])
def test_an_evaluator_that_cannot_be_used_is_one_line_before_training(
    case: str, words: Any, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, text = bad_evaluators(tmp_path, images)[case]
    assert main(["train", *words("run", *changes), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert text in error and "train.evaluator" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_off_by_default_and_in_all_recipes(root: Path) -> None:
    for path in sorted((root / "recipes").glob("*.yaml")):
        assert load_recipe(str(path)).train.score_every == 0, path.name


def test_scoring_may_be_changed_when_a_run_is_resumed(
    configure: Configure, every_two: tuple[str, ...], tmp_path: Path
) -> None:
    stop_at(configure("run"), 4)
    train(configure("run", *every_two))
    assert list(scores_of(tmp_path / "run")) == [4, 6, 8, 10]


def test_an_error_of_the_recipe_is_a_user_error(configure: Configure) -> None:
    with pytest.raises(UserError, match="score_every"):
        train(configure("run", "train.score_every=-1"))
    assert loop.train is train

"""A segmenter is resumed, finished, or refused: never replaced by another one unasked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.segmentation import fit
from semsynth.segmentation import train as module
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.train import train


@pytest.fixture
def config(make_data, tmp_path: Path) -> SegmentTrainConfig:
    return SegmentTrainConfig(
        data=make_data().root, output=tmp_path / "out", width=4, steps=7, batch_size=3, device="cpu"
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "segmenter.pth", weights_only=True)["state"])


STRONG = {"augment": "strong", "ema": 0.9, "rotate": True, "stain": True, "mix_share_end": 0.1}


@pytest.mark.parametrize(
    ("extra", "settings"),
    [
        (False, {}),
        (True, {}),
        (True, STRONG | {"extra_weight": 0.5, "workers": 2}),
    ],
)
def test_a_killed_training_resumes_to_the_bit(
    config: SegmentTrainConfig, make_data, extra: bool, settings: dict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if extra:
        settings = {"extra": make_data("extra", seed=1).root, "mix_share": 0.4, **settings}
    check_resumed(replace(config, **settings), monkeypatch)


def test_a_killed_training_with_batch_norms_resumes_to_the_bit(
    config: SegmentTrainConfig, make_data, monkeypatch: pytest.MonkeyPatch, features_extra: None
) -> None:
    extra = make_data("extra", seed=1).root
    check_resumed(replace(config, arch="lite2", extra=extra, **STRONG), monkeypatch)


def check_resumed(config: SegmentTrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = config.output.with_name("whole")
    expected = train(replace(config, output=whole))
    monkeypatch.setattr(fit, "SAVE_EVERY", 3)
    save, steps = fit._Training.save, []

    def killed(training: fit._Training, path: Path, step: int) -> None:
        save(training, path, step)
        steps.append(step)
        if steps == [3, 6]:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit._Training, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert not (config.output / "segmenter.pth").exists()
    found = train(config)
    assert {**found, "segmenter": ""} == {**expected, "segmenter": ""}
    one, two = weights(config.output), weights(whole)
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert not (config.output / "segmenter_state.pt").exists()


def test_a_damaged_state_starts_anew(config: SegmentTrainConfig, tmp_path: Path) -> None:
    train(replace(config, output=tmp_path / "whole"))
    output = module._output(config, module.PreparedDataset.open(config.data), None, None)
    output.claim()
    (config.output / "segmenter_state.pt").write_bytes(b"half a fil")
    train(config)
    one, two = weights(config.output), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_the_same_again_is_done_wherever_it_is(
    config: SegmentTrainConfig, tmp_path: Path, logged: Callable[[], str]
) -> None:
    first = train(config)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copytree(config.data, moved / "images", copy_function=shutil.copyfile)
    config.output.rename(moved / "out")
    shutil.rmtree(config.data)
    info = json.loads((moved / "images" / "dataset.json").read_text())
    (moved / "images" / "dataset.json").write_text(json.dumps({**info, "licence": "another"}))
    before = (moved / "out" / "segmenter.pth").read_bytes()
    again = train(replace(config, data=moved / "images", output=moved / "out"))
    assert {**again, "segmenter": ""} == {**first, "segmenter": ""}
    assert (moved / "out" / "segmenter.pth").read_bytes() == before
    assert "segmenter.pth: is already trained" in logged()


def test_damaged_scores_are_written_again_from_the_segmenter(
    config: SegmentTrainConfig, logged: Callable[[], str]
) -> None:
    first, path = train(config), config.output / "segmenter.json"
    text = path.read_text()
    path.write_text(text.replace('"steps": 7', '"steps": 9'))
    assert path.read_text() != text
    assert train(config) == first and path.read_text() == text
    assert "segmenter.json: is damaged: not what was written; written again" in logged()


def test_another_segmenter_is_not_overwritten_unasked(
    config: SegmentTrainConfig, tmp_path: Path
) -> None:
    train(config)
    before = (config.output / "segmenter.pth").read_bytes()
    with pytest.raises(UserError, match=r"was made with steps=7, now 8; .*or give --overwrite"):
        train(replace(config, steps=8))
    path = config.data / "masks" / "train" / "train_03.png"
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    pixels[0, 0] = 3 - pixels[0, 0]
    cv2.imwrite(str(path), pixels)
    said = r"other images \(since then: 1 image changed \(train/train_03\)\); choose another"
    with pytest.raises(UserError, match=said):
        train(config)
    assert (config.output / "segmenter.pth").read_bytes() == before
    train(replace(config, overwrite=True))
    assert (config.output / "segmenter.pth").read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_one_of_the_version_before_is_refused_in_one_line(config: SegmentTrainConfig) -> None:
    train(config)
    marker = config.output / ".semsynth.json"
    marker.write_text(json.dumps({"kind": "segmenter", "key": {"data": str(config.data)}}))
    with pytest.raises(UserError, match="was made by another version of semsynth"):
        train(config)

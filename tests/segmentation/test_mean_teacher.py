"""Unlabelled images teach what a sure teacher says of them, in every view, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.segmentation import fit as fit_module
from semsynth.segmentation import mean_teacher as module
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.loader import SegmentationDataset
from semsynth.segmentation.mean_teacher import (
    ChannelDropout,
    MeanTeacher,
    check_encoder,
    cut_boxes,
    cut_mix,
    measure,
    pseudo_labels,
)
from semsynth.segmentation.metrics import score_split
from semsynth.segmentation.seen import KEY as SEEN
from semsynth.segmentation.seen import SeenImages
from semsynth.segmentation.segmenter import Segmenter
from semsynth.segmentation.train import build_segmenter, supervised, train


def same_place(image, target, rng):
    return image, target


def same_look(image, rng):
    return image.astype(np.float32) / 255


class Images:
    """Unlabelled images with a border of padding, of known pixels."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        inside = np.zeros(self.pixels.shape[1:3], bool)
        inside[2:-2] = True
        return self.pixels[index], inside


@pytest.fixture
def config(make_data, tmp_path: Path) -> SegmentTrainConfig:
    return SegmentTrainConfig(
        data=make_data(n=4).root,
        output=tmp_path / "out",
        width=8,
        steps=40,
        batch_size=2,
        ema=0.9,
        unlabelled=tmp_path / "other",
        device="cpu",
    )


@pytest.fixture
def data(config: SegmentTrainConfig) -> PreparedDataset:
    return PreparedDataset.open(config.data)


def made(config: SegmentTrainConfig, data: PreparedDataset) -> tuple[Segmenter, MeanTeacher]:
    """Return a segmenter, and the loss whose views are all the image itself."""
    segmenter = build_segmenter(config, data.labels, (data.height, data.width))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3)).astype(np.uint8)
    images = Images(pixels)
    objective = supervised(SegmentationDataset(data, "train"), None, config)
    return segmenter, MeanTeacher(objective, images, config, same_place, same_look)


def sure_teacher(segmenter: Segmenter) -> Segmenter:
    """Return a teacher with opinions of its own, some of them sure."""
    teacher = copy.deepcopy(segmenter).eval()
    torch.manual_seed(1)
    torch.nn.init.normal_(teacher.net.head.weight, std=0.3)
    return teacher


def pixels_of(objective: MeanTeacher, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the unlabelled images of a step, and what is content."""
    pairs = [objective.images[int(i)] for i in objective._sampler.indices(2 * step, 2)]
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2) / 255
    return images, torch.from_numpy(np.stack([inside for _, inside in pairs]))


def without_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no channel be dropped and no box be cut."""
    monkeypatch.setattr(module, "_DROPPED", 0.0)
    monkeypatch.setattr(module, "_CUT", 0.0)


def test_where_all_views_are_the_image_it_is_the_entropy_with_sure_labels(
    config: SegmentTrainConfig, data: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_changes(monkeypatch)
    segmenter, objective = made(replace(config, confidence=0.5), data)
    teacher = sure_teacher(segmenter)
    images, inside = pixels_of(objective)
    with torch.no_grad():
        confidence, labels = pseudo_labels(teacher, images)
        counted = (confidence >= 0.5) & inside
        each = F.cross_entropy(segmenter(images)[0], labels, reduction="none")
        weights = objective.supervised.weights[labels]
        expected = (each * weights * counted).sum() / inside.sum()
        found = objective.consistency(segmenter, teacher, 0)
    assert 0 < counted.sum() < inside.sum()
    assert torch.allclose(found, expected)


def test_labelled_and_unlabelled_losses_are_added(
    config: SegmentTrainConfig, data: PreparedDataset
) -> None:
    segmenter, objective = made(replace(config, confidence=0.0, unlabelled_weight=0.5), data)
    teacher = sure_teacher(segmenter)
    with torch.no_grad():
        labelled = objective.supervised.loss(segmenter, teacher, 3)
        found = objective.loss(segmenter, teacher, 3)
        assert torch.equal(found, labelled + 0.5 * objective.consistency(segmenter, teacher, 3))
        # Without an average the student itself is the teacher, as in UniMatch.
        alone = labelled + 0.5 * objective.consistency(segmenter, segmenter, 3)
        assert torch.equal(objective.loss(segmenter, None, 3), alone)


def test_a_step_is_a_function_of_the_seed_and_its_number(
    config: SegmentTrainConfig, data: PreparedDataset
) -> None:
    config = replace(config, confidence=0.0)
    segmenter, objective = made(config, data)
    teacher = sure_teacher(segmenter)
    with torch.no_grad():
        first = [objective.consistency(segmenter, teacher, step) for step in range(3)]
        torch.manual_seed(5)
        again = [made(config, data)[1].consistency(segmenter, teacher, s) for s in (2, 1, 0)]
        other = made(replace(config, seed=1), data)[1].consistency(segmenter, teacher, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert len({float(x) for x in (*first, other)}) == 4


def test_nothing_sure_teaches_nothing(config: SegmentTrainConfig, data: PreparedDataset) -> None:
    segmenter, objective = made(replace(config, confidence=0.999), data)
    loss = objective.consistency(segmenter, copy.deepcopy(segmenter), 0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not any(p.grad.any() for p in segmenter.parameters() if p.grad is not None)


def test_the_teacher_gets_no_gradients_and_both_stay_in_their_mode(
    config: SegmentTrainConfig, data: PreparedDataset
) -> None:
    segmenter, objective = made(replace(config, confidence=0.0), data)
    teacher = copy.deepcopy(segmenter).eval()
    segmenter.train()
    objective.loss(segmenter, teacher, 0).backward()
    assert segmenter.training
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad.any() for p in segmenter.parameters() if p.grad is not None)


def test_statistics_are_those_of_the_labelled_images_alone(
    config: SegmentTrainConfig, data: PreparedDataset
) -> None:
    """With a batch norm in the network, unlabelled images leave no trace in it."""
    segmenter, objective = made(config, data)
    segmenter.net.stem[1] = torch.nn.BatchNorm2d(8)
    segmenter.train()
    alone = copy.deepcopy(segmenter)
    objective.supervised.loss(alone, None, 0)
    objective.loss(segmenter, copy.deepcopy(segmenter), 0)
    one, two = segmenter.net.stem[1], alone.net.stem[1]
    assert one.num_batches_tracked == 1
    assert torch.equal(one.running_mean, two.running_mean)


def test_half_of_the_channels_are_left_and_doubled() -> None:
    drop = ChannelDropout(torch.Generator().manual_seed(0))
    x = torch.ones(4, 64, 3, 5)
    found = drop(x)
    assert set(found.unique().tolist()) == {0.0, 2.0}
    by_channel = found.flatten(2)
    assert (by_channel == by_channel[..., :1]).all()
    assert 0.4 < (by_channel[..., 0] > 0).float().mean() < 0.6
    tokens = drop(torch.ones(2, 7, 64))
    assert (tokens == tokens[:, :1]).all()
    assert drop.calls == 2


def test_boxes_have_the_shares_of_the_paper() -> None:
    boxes = np.concatenate(cut_boxes(500, (40, 60), np.random.default_rng(0)))
    shares = boxes.mean((1, 2))
    cut = shares > 0
    assert 0.45 < cut.mean() < 0.55
    # Rounding to whole pixels changes an area by up to a tenth.
    assert shares[cut].min() > 0.015
    assert shares.max() < 0.44
    for box in boxes[cut][:20]:
        rows, columns = box.any(1).sum(), box.any(0).sum()
        assert rows * columns == box.sum()


def test_images_and_labels_are_cut_alike() -> None:
    images = torch.arange(3.0)[:, None, None, None].expand(3, 3, 8, 8)
    boxes = np.zeros((3, 8, 8), bool)
    boxes[0, 2:5, 1:7] = boxes[2, :4] = True
    found, labels = cut_mix(images, boxes), cut_mix(images[:, 0].long(), boxes)
    assert (found[:, 0] == labels).all()
    assert (labels[0][boxes[0]] == 1).all()
    assert (labels[0][~boxes[0]] == 0).all()
    assert (labels[1] == 1).all()
    assert (labels[2, :4] == 0).all()


def test_a_network_without_an_encoder_is_refused(
    config: SegmentTrainConfig, data: PreparedDataset
) -> None:
    segmenter, _ = made(config, data)
    check_encoder(segmenter)

    class Whole(torch.nn.Module):
        def forward(self, x, perturb=None):
            return x, x.mean((2, 3))

    segmenter.net = Whole()
    with pytest.raises(UserError, match="no encoder apart from its head"):
        check_encoder(segmenter)


def test_what_is_measured_has_known_values(
    config: SegmentTrainConfig, data: PreparedDataset, logged: Callable[[], str]
) -> None:
    segmenter, objective = made(config, data)
    teacher = sure_teacher(segmenter)
    found = measure(teacher, objective.images, data, "val", 0.0)
    assert found["share"] == found["val_share"] == 1
    assert sum(found["classes"].values()) == pytest.approx(1, abs=1e-5)
    matrix = score_split(teacher, data, "val")
    assert found["val_accuracy"] == pytest.approx(matrix.pixel_accuracy, abs=1e-6)
    assert "of held-out ones" in logged()
    none = measure(segmenter, objective.images, data, None, 0.999)
    assert none["share"] == 0
    assert "val_share" not in none
    assert "they contributed next to nothing; lower --confidence" in logged()


@pytest.fixture
def unlabelled(config: SegmentTrainConfig, make_data) -> SegmentTrainConfig:
    found = make_data("other", n=5, n_val=0, seed=7, images=other)
    return replace(config, unlabelled=found.root, unlabelled_batch=2, confidence=0.4, steps=7)


def other(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image that does not look like another one, and a mask that nobody reads."""
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height)), np.full((height, width), 2, np.uint8)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "segmenter.pth", weights_only=True)["state"])


def test_it_trains_and_says_what_it_learnt_from(unlabelled: SegmentTrainConfig, make_data) -> None:
    unlabelled = replace(unlabelled, extra=make_data("extra", n=3, n_val=0, seed=3).root)
    found = train(unlabelled)["unlabelled"]
    assert found["images"] == 5
    assert 0 <= found["pseudo_labels"]["share"] <= 1
    written = json.loads((unlabelled.output / "segmenter.json").read_text())
    assert written["unlabelled"] == found
    seen = Segmenter.load(unlabelled.output, "cpu").info.provenance[SEEN]
    assert len(SeenImages.from_json({SEEN: seen}).real) == 4 + 5 + 3
    assert train(unlabelled)["unlabelled"] == found  # it is finished


def test_a_killed_training_resumes_to_the_bit(
    unlabelled: SegmentTrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(replace(unlabelled, output=tmp_path / "whole"))
    monkeypatch.setattr(fit_module, "SAVE_EVERY", 3)
    loss = MeanTeacher.loss

    def killed(self, segmenter, averaged, step):
        if step == 5:
            raise KeyboardInterrupt
        return loss(self, segmenter, averaged, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MeanTeacher, "loss", killed)
        train(unlabelled)
    assert not (unlabelled.output / "segmenter.pth").exists()
    assert {**train(unlabelled), "segmenter": ""} == {**expected, "segmenter": ""}
    one, two = weights(unlabelled.output), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_other_unlabelled_images_make_another_segmenter(unlabelled: SegmentTrainConfig) -> None:
    train(unlabelled)
    image = next((unlabelled.unlabelled / "images").rglob("*.png"))
    pixels = cv2.imread(str(image))
    assert cv2.imwrite(str(image), pixels[:, ::-1])
    said = r"other unlabelled \(since then: 1 image changed \(train_00\)\)"
    with pytest.raises(UserError, match=said):
        train(unlabelled)
    with pytest.raises(UserError, match=r"confidence=0\.4, now 0\.5"):
        train(replace(unlabelled, confidence=0.5))
    with pytest.raises(UserError, match=r"ema=0\.9, now None"):
        train(replace(unlabelled, ema=0.0))


def test_the_teacher_is_an_average_unless_one_says_otherwise() -> None:
    folder = Path("photos")
    assert SegmentTrainConfig().average_decay == 0
    assert SegmentTrainConfig(unlabelled=folder).average_decay == 0.99
    assert SegmentTrainConfig(unlabelled=folder, ema=0.0).average_decay == 0
    assert SegmentTrainConfig(unlabelled=folder, ema=0.5).average_decay == 0.5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"confidence": 0.5}, "--confidence needs --unlabelled"),
        ({"unlabelled_batch": 2}, "--unlabelled-batch needs --unlabelled"),
        ({"unlabelled": Path("x"), "confidence": 1.0}, "confidence must be at least 0 and below"),
        ({"unlabelled": Path("x"), "unlabelled_weight": -1}, "unlabelled_weight must be at least"),
        ({"unlabelled": Path("x"), "classmix": 0.1}, "--classmix needs --augment strong"),
    ],
)
def test_wrong_values_are_one_line(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SegmentTrainConfig(**values)  # type: ignore[arg-type]


def test_views_may_turn_where_labelled_images_do_not() -> None:
    config = SegmentTrainConfig(unlabelled=Path("x"), rotate=True)
    assert config.augment == "plain"

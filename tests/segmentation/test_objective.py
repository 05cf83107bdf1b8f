"""The loss of mixed batches, whose statistics batch norms keep, and the average of the weights."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.models.lite2 import PACKAGE, EfficientNetLite2
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.fit import Average, fit
from semsynth.segmentation.loader import Batch
from semsynth.segmentation.objective import mixed_logits, segmentation_loss
from semsynth.segmentation.segmenter import Segmenter, SegmenterInfo, unet_arch
from semsynth.segmentation.train import build_segmenter, train

LABELS = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 7: "car"}, ignore_id=0)


class Normed(nn.Module):
    """One batch norm; logits are the normalized colours."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, momentum=1.0)

    def forward(self, x: torch.Tensor, perturb: object = None) -> tuple[torch.Tensor, torch.Tensor]:
        return self.norm(x), x.mean((2, 3))


def normed() -> Segmenter:
    arch = {**unet_arch(4, 8, 8), "mean": [0.0] * 3, "std": [1.0] * 3}
    segmenter = Segmenter(SegmenterInfo(arch, LABELS, 8, 8, ""))
    segmenter.net = Normed()
    return segmenter.train()


def test_batch_norms_keep_the_statistics_of_real_images_alone() -> None:
    segmenter, images = normed(), torch.rand(5, 3, 8, 8)
    images[3:] += 4  # the extra ones
    logits = mixed_logits(segmenter, Batch(images, torch.zeros(5, 8, 8).long(), 3))
    norm = segmenter.net.norm
    assert torch.allclose(norm.running_mean, images[:3].mean((0, 2, 3)))
    assert torch.allclose(norm.running_var, images[:3].transpose(0, 1).flatten(1).var(1))
    assert int(norm.num_batches_tracked) == 1 and norm.training
    # The real ones are normalized by their own statistics, and so are the extra ones: by theirs.
    assert torch.allclose(logits[:3].mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    mean, std = norm.running_mean.view(3, 1, 1), (norm.running_var + norm.eps).sqrt().view(3, 1, 1)
    assert torch.allclose(logits[3:], (images[3:] - mean) / std, atol=1e-5)
    assert torch.equal(logits[3], mixed_logits(segmenter, Batch(images[3:4], images[3:4], 1))[0])
    logits.sum().backward()
    before = copy.deepcopy(segmenter.state_dict())
    mixed_logits(segmenter, Batch(images, torch.zeros(5, 8, 8).long(), 0))
    after = segmenter.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pixels_of_extra_images_count_as_often_as_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, 6, 6, generator=generator)
    targets = torch.randint(-1, 3, (3, 6, 6), generator=generator)
    weights = torch.tensor([0.5, 1.0, 2.0])
    for counts, images in (([1, 1, 0], [0, 1]), ([1, 1, 2], [0, 1, 2, 2]), ([1, 1, 1], [0, 1, 2])):
        found = segmentation_loss(logits, targets, weights, torch.tensor(counts).float())
        expected = segmentation_loss(logits[images], targets[images], weights)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_bfloat16_gives_nearly_the_same_loss_in_float32() -> None:
    segmenter = build_segmenter(SegmentTrainConfig(width=8), LABELS, (16, 16)).train()
    batch = Batch(torch.rand(2, 3, 16, 16), torch.randint(0, 3, (2, 16, 16)), 2)
    exact, short = mixed_logits(segmenter, batch), mixed_logits(segmenter, batch, "bf16")
    assert short.dtype == torch.float32
    assert not torch.equal(exact, short)
    assert torch.allclose(exact, short, atol=0.1)


class Constant:
    """A loss whose gradient by the first parameter is 1."""

    def loss(self, segmenter: Segmenter, averaged: Segmenter | None, step: int) -> torch.Tensor:
        self.averaged = averaged
        return next(segmenter.parameters()).sum() + 100


def test_the_average_has_the_known_weights(tmp_path: Path) -> None:
    segmenter = normed()
    average = Average(segmenter, 0.25)
    with torch.no_grad():
        for step, value in enumerate((2.0, 3.0, 4.0)):
            segmenter.net.norm.weight.fill_(value)
            segmenter.net.norm.num_batches_tracked += 1
            average.update(segmenter, step)
    # Decays 1/10, 2/11 and 3/12 = 0.25, from 1 on.
    expected = 1.0
    for decay, value in ((1 / 10, 2.0), (2 / 11, 3.0), (1 / 4, 4.0)):
        expected = decay * expected + (1 - decay) * value
    assert torch.allclose(average.segmenter.net.norm.weight, torch.full((3,), expected))
    assert int(average.segmenter.net.norm.num_batches_tracked) == 3


def test_a_training_ends_with_the_average_if_it_is_asked_for(tmp_path: Path) -> None:
    ends = {}
    for ema in (0.0, 0.9):
        config = SegmentTrainConfig(width=4, steps=5, ema=ema, device="cpu", weight_decay=0.0)
        segmenter, objective = build_segmenter(config, LABELS, (8, 8)), Constant()
        fit(segmenter, objective, config, tmp_path / "state")
        ends[ema] = next(segmenter.parameters()).detach().clone()
        assert (objective.averaged is None) == (ema == 0)
        assert all(parameter.requires_grad for parameter in segmenter.parameters())
    # The weights fall from step to step: their average is behind.
    assert (ends[0.9] > ends[0.0]).all()


def test_lite2_starts_with_the_weights_of_imagenet_and_is_trained_as_a_whole(
    features_extra: None,
) -> None:
    config = SegmentTrainConfig(arch="lite2")
    segmenter = build_segmenter(config, LABELS, (24, 40)).train()
    theirs = EfficientNetLite2.from_package().state_dict()
    mine = segmenter.net.model.state_dict()
    assert len(mine) > 250 and all(torch.equal(mine[name], theirs[name]) for name in mine)
    batch = Batch(torch.rand(2, 3, 24, 40), torch.randint(0, 3, (2, 24, 40)), 2)
    logits = mixed_logits(segmenter, batch)
    assert logits.shape == (2, 3, 24, 40)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in segmenter.parameters())
    statistics = segmenter.net.model.state_dict()["_bn0.running_mean"]
    assert not torch.equal(statistics, theirs["_bn0.running_mean"])


def test_lite2_is_refused_in_one_line_where_it_is_not_installed(
    features_extra: None, make_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SegmentTrainConfig(
        data=make_data().root, output=tmp_path / "out", arch="lite2", steps=1, batch_size=2,
        device="cpu",
    )  # fmt: skip
    trained = train(replace(config, output=tmp_path / "there"))
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(UserError, match=r"^--arch lite2 needs .*: pip install '[^\n]*'$"):
        train(config)
    assert not config.output.exists()
    # What is trained needs no package.
    assert Segmenter.load(trained["segmenter"], "cpu").info.arch["kind"] == "lite2"

"""Samples of one mask against each other, and against real images."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from semsynth.core.distributed.shards import Shard
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.inputs import Inputs, open_inputs
from semsynth.evaluation.metrics.diversity import (
    ONE_SAMPLE,
    DiversityMeter,
    diversity_entries,
    open_meter,
)
from semsynth.evaluation.metrics.features import open_extractors
from semsynth.evaluation.metrics.perceptual import PerceptualDistance, open_perceptual


class Levels(torch.nn.Module):
    """A distance that can be computed by hand: of the first pixel's red, 0 to 255."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(1))

    def embed(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images[:, 0, 0, 0] * 255]

    def distance(self, first: list[torch.Tensor], second: list[torch.Tensor]) -> torch.Tensor:
        return (first[0] - second[0]).abs()


LEVELS = PerceptualDistance("lpips", "levels", "0", 1, Levels())


def unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def inputs_of(data: Any, samples: Any) -> Inputs:
    return open_inputs(EvaluateConfig(samples=samples.root, data=data.root))


def level(mask: np.ndarray, seed: int) -> np.ndarray:
    return np.full((*mask.shape, 3), (0, 1, 5)[seed % 10], np.uint8)


def test_pixel_std_is_0_for_equal_and_half_for_black_and_white_samples(data, make_samples) -> None:
    same = make_samples("same", render=lambda mask, seed: np.full((*mask.shape, 3), 7, np.uint8))
    values = DiversityMeter(inputs_of(data, same), [], unit).measure()
    assert values["pixel_std"] == dict.fromkeys(range(6), (0.0,))

    def black_or_white(mask: np.ndarray, seed: int) -> np.ndarray:
        return np.full((*mask.shape, 3), 255 * (seed % 2), np.uint8)

    most = make_samples("most", render=black_or_white)
    values = DiversityMeter(inputs_of(data, most), [], unit).measure()
    assert values["pixel_std"] == dict.fromkeys(range(6), (pytest.approx(0.5),))
    # The reference is of the real images alone.
    assert all(0 < spread < 0.5 for (spread,) in values["pixel_std_different"].values())


def test_one_sample_of_each_mask_has_no_diversity(data, make_samples) -> None:
    meter = DiversityMeter(inputs_of(data, make_samples(per_mask=1)), [LEVELS], unit)
    assert meter.missing() == dict.fromkeys(
        ("lpips_diversity", "pixel_std_within_mask"), ONE_SAMPLE
    )
    values = meter.measure()
    assert not {"lpips_within", "pixel_std"} & values.keys()
    assert len(values["lpips_to_real"]) == len(values["lpips_different"]) == 6


def test_lpips_is_over_all_pairs_of_a_mask_and_against_its_real_image(data, make_samples) -> None:
    inputs = inputs_of(data, make_samples(render=level, per_mask=3))
    values = DiversityMeter(inputs, [LEVELS], unit).measure()
    assert values["lpips_within"] == dict.fromkeys(range(6), (pytest.approx((1 + 5 + 4) / 3), 3))
    for number, stem in enumerate(inputs.masks_order):
        red = float(inputs.real.read_rgb(stem)[0, 0, 0])
        expected = np.mean([abs(red - value) for value in (0, 1, 5)])
        assert values["lpips_to_real"][number] == (pytest.approx(expected, abs=1e-3), 3)


def test_real_images_of_different_masks_are_compared_once_each(data, make_samples) -> None:
    inputs = inputs_of(data, make_samples(render=level))
    meter = DiversityMeter(inputs, [LEVELS], unit, seed=3)
    reds = [float(inputs.real.read_rgb(stem)[0, 0, 0]) for stem in inputs.masks_order]
    circle = [*meter.order, meter.order[0]]
    values = meter.measure()["lpips_different"]
    for here, there in pairwise(circle):
        assert values[here] == (pytest.approx(abs(reds[here] - reds[there]), abs=1e-3), 1)


def test_a_protocol_takes_the_first_samples_and_needs_so_many(data, make_samples) -> None:
    inputs = inputs_of(data, make_samples(render=level, per_mask=3))
    values = DiversityMeter(inputs, [LEVELS], unit, samples=2).measure()
    assert values["lpips_within"] == dict.fromkeys(range(6), (pytest.approx(1), 1))
    too_many = DiversityMeter(inputs, [LEVELS], unit, samples=10)
    assert too_many.missing() == {
        "lpips_diversity": "the protocol compares 10 samples of each mask, not 3"
    }
    assert "lpips_within" not in too_many.measure()


def test_parts_of_several_processes_are_the_same_values(data, make_samples) -> None:
    inputs = inputs_of(data, make_samples(per_mask=3))
    whole = DiversityMeter(inputs, [LEVELS], unit).measure()
    parts = [DiversityMeter(inputs, [LEVELS], unit).measure(Shard(i, 4)) for i in range(4)]
    assert {name: dict(value) for name, value in whole.items()} == {
        name: {key: value for part in parts for key, value in part[name].items()} for name in whole
    }


def test_entries_have_the_reference_and_no_interval_without_draws(data, make_samples) -> None:
    meter = DiversityMeter(inputs_of(data, make_samples(render=level, per_mask=3)), [LEVELS], unit)
    metrics, diversity = diversity_entries(meter.measure(), meter, None)
    entry = metrics["lpips_diversity"]
    assert (entry["value"], entry["n_pairs"]) == (pytest.approx(10 / 3, abs=1e-5), 18)
    assert entry["interval"] is None
    assert entry["different_masks"]["n_pairs"] == 6
    assert metrics["lpips_to_real"]["n_pairs"] == 18
    assert set(diversity) == {"pixel_std_within_mask", "pixel_std_different_masks"}


def test_stlpips_comes_with_its_package_and_lpips_needs_weights(
    data, make_samples, features_extra: None
) -> None:
    config = EvaluateConfig(download=False, device="cpu")
    distances, missing = open_perceptual(config, "vgg")
    assert [each.name for each in distances] == ["stlpips"]
    assert "vgg16-397923af.pth" in missing["lpips"]
    _, without = open_perceptual(config, None)
    assert without["lpips"] == "not part of this protocol"
    meter, missing = open_meter(config, inputs_of(data, make_samples()))
    assert {"lpips_diversity", "lpips_to_real"} == missing.keys()
    values = meter.measure()
    means = {
        name: np.mean([mean for mean, _ in values[f"stlpips_{name}"].values()])
        for name in ("within", "to_real", "different")
    }
    # Samples differ by noise alone, from each other and from the real image; masks by their shapes.
    assert means["within"] < means["different"]
    assert means["to_real"] < means["different"]


def test_without_the_packages_the_command_to_install_them_is_said(data, make_samples) -> None:
    config = EvaluateConfig(download=False, device="cpu")
    _, missing = open_meter(config, inputs_of(data, make_samples()))
    for name in ("stlpips_diversity", "stlpips_to_real"):
        assert "pip install 'semsynth[features]'" in missing[name]
    _, missing = open_extractors(config)
    for name in ("fd_lite2", "kd_lite2"):
        assert "pip install 'semsynth[features]'" in missing[name]

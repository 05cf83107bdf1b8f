"""The entries of the spectrum and of block borders, from images with known answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from semsynth.core.distributed.shards import Shard
from semsynth.data.dataset import PreparedDataset
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.inputs.inputs import open_inputs
from semsynth.evaluation.run import evaluate
from semsynth.evaluation.texture import GENERATED, measure_texture, texture_entries


@pytest.fixture
def config(data: PreparedDataset, make_samples, tmp_path: Path) -> EvaluateConfig:
    return EvaluateConfig(
        samples=make_samples().root,
        data=data.root,
        output=tmp_path / "report",
        download=False,
        device="cpu",
    )


def entries_of(config: EvaluateConfig) -> tuple[dict, dict]:
    inputs = open_inputs(config)
    return texture_entries(measure_texture(inputs, Shard(0)), inputs, None)


def test_the_report_has_both_with_intervals(config: EvaluateConfig) -> None:
    metrics = evaluate(config)["metrics"]
    octaves, borders = metrics["spectrum"]["octaves"], metrics["block_borders"]
    assert [octave["wavelength"] for octave in octaves] == ["2 to 4 px", "4 to 8 px"]
    # The toy images and the samples are drawn alike, with noise of one strength.
    for octave in octaves:
        low, high = octave["interval"]
        assert abs(octave["decibels"]) < 1 and low <= octave["decibels"] <= high
    assert borders["block"] == 4 and borders["assumed"]
    assert borders["value"] == pytest.approx(1, abs=0.1)
    assert borders["value"] == borders["by_block"]["4"]
    assert borders["value"] == pytest.approx(borders["generated"] / borders["real"], abs=1e-3)


def test_a_blur_lowers_the_finest_octave_most(config: EvaluateConfig, make_samples) -> None:
    def blurred(mask: np.ndarray, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(0, 40, (*mask.shape, 3))
        return (128 + ndimage.gaussian_filter(noise, (1, 1, 0), mode="wrap")).astype(np.uint8)

    def sharp(mask: np.ndarray, seed: int) -> np.ndarray:
        return (
            (128 + np.random.default_rng(seed).normal(0, 40, (*mask.shape, 3)))
            .clip(0, 255)
            .astype(np.uint8)
        )

    values = []
    for name, render in (("blurred", blurred), ("sharp", sharp)):
        samples = make_samples(name, render=render)
        entries, _ = entries_of(replace(config, samples=samples.root))
        values.append([octave["decibels"] for octave in entries["spectrum"]["octaves"]])
    change = np.subtract(*values)
    # Of a Gaussian of deviation 1, exp(-4 pi^2 f^2) is passed: the mean over each ring of f.
    edges = np.exp(-4 * np.pi**2 * np.array([0.5, 0.25, 0.125]) ** 2)
    passed = np.diff(edges) / (4 * np.pi) / (np.pi * np.array([0.1875, 0.046875]))
    assert np.allclose(change, 10 * np.log10(passed), atol=1.5)


def test_a_pattern_is_seen_where_images_are_large_enough(config: EvaluateConfig) -> None:
    entries, missing = entries_of(config)
    # The toy images have too few blocks of 4 pixels.
    assert missing["block_pattern"] == "needs images of at least 32 pixels a side"
    assert "block_pattern" not in entries


def test_the_manifest_says_which_blocks_the_codec_has(config: EvaluateConfig) -> None:
    path = Path(config.samples) / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for block, known in ((8, True), (1, False)):
        path.write_text("".join(json.dumps({**x, "codec_block": block}) + "\n" for x in lines))
        entries, missing = entries_of(config)
        assert ("block_borders" in entries) == known
        assert ("block_borders" in missing) != known
    assert "blocks of 1 pixels" in missing["block_borders"]
    assert "blocks of 1 pixels" in missing["block_pattern"]


def test_parts_of_several_processes_add_up(config: EvaluateConfig) -> None:
    inputs = open_inputs(config)
    whole = measure_texture(inputs, Shard(0))
    parts = [measure_texture(inputs, Shard(i, 3)) for i in range(3)]
    for name in whole:
        joined = {k: v for part in parts for k, v in part[name].items()}
        assert joined == whole[name]
    assert len(whole[GENERATED]) == 12

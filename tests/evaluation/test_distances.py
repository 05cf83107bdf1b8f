"""Which images enter a distance, and in which precision: what the protocol says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semsynth.evaluation.accumulate import SetStatistics
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.distances import FeatureSets, frechet_entry
from semsynth.evaluation.inputs.inputs import open_inputs
from semsynth.evaluation.protocols import load_protocol


@pytest.fixture
def measured(data, make_samples):
    """Inputs of 6 masks with 2 samples each, and features by the number of the image."""
    inputs = open_inputs(EvaluateConfig(samples=make_samples().root, data=data.root))
    rng = np.random.default_rng(0)

    def statistics(n: int) -> SetStatistics:
        rows = rng.normal(size=(n, 3)).astype(np.float32)
        return SetStatistics(n, {"fid": dict(enumerate(rows))})

    return inputs, {"generated": statistics(12), "real": statistics(6), "training": statistics(9)}


def test_all_images_enter_by_default(measured) -> None:
    inputs, sets = measured
    found = FeatureSets.of(sets, "fid", inputs)
    np.testing.assert_array_equal(found.generated, sets["generated"].rows("fid"))
    np.testing.assert_array_equal(found.first, sets["generated"].rows("fid")[::2])
    assert len(found.real) == len(found.first) == 6 and len(found.training) == 9
    assert found.sample_blocks.tolist() == np.repeat(found.blocks, 2).tolist()


def test_a_protocol_takes_first_samples_and_whole_batches(measured) -> None:
    inputs, sets = measured
    protocol = load_protocol().model_copy(update={"distance_batch": 4, "distance_samples": 1})
    found = FeatureSets.of(sets, "fid", replace(inputs, protocol=protocol))
    rows = sets["generated"].rows("fid")
    np.testing.assert_array_equal(found.generated, rows[[0, 2, 4, 6]])
    np.testing.assert_array_equal(found.first, rows[[0, 2, 4, 6]])
    np.testing.assert_array_equal(found.real, sets["real"].rows("fid")[:4])
    entry, _ = frechet_entry(found, "random")
    assert (entry["n_generated"], entry["n_real"], entry["to_training"]["n"]) == (4, 4, 4)


def test_single_precision_is_that_of_the_papers(measured) -> None:
    inputs, sets = measured
    double = FeatureSets.of(sets, "fid", inputs)
    single = replace(double, covariance="float32")
    rows = (1000 + double.generated).astype(np.float32)
    one, two = single.statistics(rows), double.statistics(rows)
    np.testing.assert_allclose(one.covariance, two.covariance, rtol=1e-2, atol=1e-2)
    assert np.abs(one.covariance - two.covariance).max() > 1e-8

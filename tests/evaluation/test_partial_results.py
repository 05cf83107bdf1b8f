"""Several processes evaluate one folder; the scores are those of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semsynth.core.distributed.shards import Shard
from semsynth.core.errors import UserError
from semsynth.evaluation import run
from semsynth.evaluation.accumulate import EvalSample, MetricAccumulator
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.evaluators import open_evaluators
from semsynth.evaluation.inputs.inputs import Inputs
from semsynth.evaluation.metrics.features import FID, FeatureExtractor
from semsynth.evaluation.partial_results import PartialResults
from semsynth.evaluation.report.entries import distances
from semsynth.evaluation.run import evaluate

BATCH = 2


@pytest.fixture
def config(data, segmenter, make_samples, tmp_path: Path, monkeypatch) -> EvaluateConfig:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return EvaluateConfig(
        samples=make_samples().root,
        data=data.root,
        segmenter=segmenter,
        output=tmp_path / "alone",
        download=False,
        device="cpu",
        batch_size=BATCH,
        rows=2,
    )


def close(found: Any, expected: Any) -> None:
    """Check that two reports are equal, numbers up to rounding in the last digit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            close(found[key], value)
    elif isinstance(expected, list) and expected and isinstance(expected[0], dict | list):
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(expected, list) and any(isinstance(x, str) for x in expected):
        assert found == expected
    elif isinstance(expected, float | list):
        assert found == pytest.approx(expected, abs=2e-6)
    else:
        assert found == expected


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("tasks", [2, 3])
def test_tasks_report_the_scores_of_one_process(config: EvaluateConfig, tasks: int) -> None:
    alone = evaluate(config)
    shared = replace(config, output=config.output.with_name("shared"))
    for k in range(tasks, 1, -1):
        result = evaluate(replace(shared, shard=f"{k}/{tasks}"))
        assert result["finished"] is False
        assert result["missing_parts"] == [f"{i}/{tasks}" for i in range(1, k)]
        assert not (shared.output / "report.json").exists()
    close(evaluate(replace(shared, shard=f"1/{tasks}")), alone)
    assert only(shared.output) == only(config.output)
    written = (shared.output / "report.json").read_text()
    close(json.loads(written), alone)
    tables = [(folder / "per_image.csv").read_text() for folder in (shared.output, config.output)]
    assert tables[0] == tables[1]
    pages = [(folder / "report.html").read_text() for folder in (shared.output, config.output)]
    assert pages[0].count("<img") == pages[1].count("<img")
    # A task that is started again finds the report.
    close(evaluate(replace(shared, shard=f"2/{tasks}")), alone)
    assert (shared.output / "report.json").read_text() == written
    assert only(shared.output) == only(config.output)


def test_more_tasks_than_batches(config: EvaluateConfig) -> None:
    alone = evaluate(config)
    shared = replace(config, output=config.output.with_name("shared"))
    results = [evaluate(replace(shared, shard=f"{k}/8")) for k in range(1, 9)]
    close(results[-1], alone)


def test_a_finished_part_is_not_measured_again(
    config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(replace(config, shard="1/2"))

    def never(*_: Any) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(run, "measure", never)
        assert evaluate(replace(config, shard="1/2"))["missing_parts"] == ["2/2"]
    (part,) = config.output.glob(".parts-*/part-1-of-2.npz")
    part.write_bytes(part.read_bytes()[:-100])  # a damaged part counts as missing
    assert evaluate(replace(config, shard="2/2"))["missing_parts"] == ["1/2"]
    assert "metrics" in evaluate(replace(config, shard="1/2"))


def test_parts_of_other_samples_are_not_mixed(
    config: EvaluateConfig, make_samples, noise_renderer
) -> None:
    evaluate(replace(config, shard="1/2"))
    other = replace(config, samples=make_samples("noise", render=noise_renderer).root)
    with pytest.raises(UserError, match="other samples"):
        evaluate(replace(other, shard="2/2"))
    good = evaluate(replace(config, shard="2/2"))["metrics"]["semantic_consistency"]["miou"]
    other = replace(other, overwrite=True)
    assert evaluate(replace(other, shard="2/2"))["missing_parts"] == ["1/2"]
    bad = evaluate(replace(other, shard="1/2"))["metrics"]["semantic_consistency"]["miou"]
    assert bad < good / 2


def test_fid_and_kid_of_parts(segmenter: Path, data) -> None:
    """KID draws images by their number, so the features of all parts must be in order."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 11, 24, 32, 3), np.uint8)
    extractor = FeatureExtractor(FID, "means", lambda x: x.mean((1, 2)).astype(np.float32) / 255)
    evaluators = open_evaluators([segmenter], data.labels, None, "cpu")
    accumulator = MetricAccumulator(evaluators, [extractor], BATCH)

    def measure(shard: Shard) -> PartialResults:
        part = replace(accumulator, shard=shard)
        names = zip(("real", "generated"), images, strict=True)
        return PartialResults(
            {n: part.measure(lambda i, x=x: EvalSample(x[i]), 11, n) for n, x in names}
        )

    alone = measure(Shard())
    parts = [PartialResults.from_bytes(measure(Shard(i, 3)).to_bytes()) for i in (2, 0, 1)]
    total = parts[0] + parts[1] + parts[2]
    stems = list("abcdefghijk")
    real: Any = SimpleNamespace(group=lambda stem: None)
    inputs = Inputs(real, real, None, None, None, {stem: [stem] for stem in stems})
    scores = [distances(f, [extractor], inputs, 0, {}) for f in (alone, total)]
    close(scores[1], scores[0])
    assert scores[0]["kid"]["subset_size"] == 5
    (rows, again) = (f.sets["real"].rows(FID) for f in (alone, total))
    assert np.array_equal(rows, again)


@pytest.mark.slow
@pytest.mark.usefixtures("features_extra")
def test_torchrun_reports_the_scores_of_one_process(config: EvaluateConfig) -> None:
    alone = evaluate(config)
    shared = replace(config, output=config.output.with_name("ranks"), download=True)
    words = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in asdict(shared).items()
        if name in ("samples", "data", "segmenter", "output", "device", "batch_size", "rows")
    ]
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "semsynth"]
    command = [sys.executable, "-m", *launch, "evaluate", *words, "--no-download"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    close(json.loads((shared.output / "report.json").read_text()), alone)
    assert only(shared.output) == only(config.output)

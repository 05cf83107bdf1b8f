"""`semsynth plan`: one-line errors, and a table that names what was assumed."""

from __future__ import annotations

import json

import pytest

from semsynth.cli import main

SMALL = [
    "--recipe",
    "streets_demo",
    "--set",
    "model.base_channels=32",
    "model.head_channels=16",
    "model.channel_mult=[1]",
    "train.validate_every=0",
]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "street_demo"], "did you mean `streets_demo`"),
        (["--gpus", "0"], "--gpus is 0: must be at least 1"),
        (["--memory", "0"], "--memory is 0: must be more than 0 GB"),
        (["--utilisation", "1.5"], "--utilisation is 1.5"),
        (["--gpu", "GTX 1080"], "--gpu GTX 1080: not in the table; known: B200"),
        ([*SMALL, "--gpus", "3"], "batch_size 16 must be a multiple of processes x accumulation"),
        ([*SMALL, "name=mine"], "give --data PREPARED or --classes N"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SMALL, "--gpus", "2", "--gpu", "T4", "--memory", "0.5"]) == 0
    text = capsys.readouterr().out
    assert "2 GPUs" in text and "TOO MUCH" in text
    assert "ESTIMATE, not measured: 25% of the peak" in text
    assert "take GPUs with more memory" in text
    assert "the peak is in" in text and "autoencoder" not in text


def test_an_autoencoder_that_cannot_be_counted_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    behind = ["model.codec=vae", "model.vae.source=someone/unknown", "train.preview_every=0"]
    assert main(["plan", *SMALL, *behind, "--gpus", "1", "--gpu", "L40S", "--classes", "5"]) == 0
    text = capsys.readouterr().out
    assert "without the autoencoder: the configuration of someone/unknown is not on this" in text
    (row,) = [line for line in text.splitlines() if line.startswith("  L40S")]
    assert row.endswith("  without the autoencoder")


def test_an_autoencoder_and_its_cache_of_latents_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    behind = ["model.codec=vae", "model.vae.source=stabilityai/sd-vae-ft-mse"]
    more = ["train.cache_latents=true", "train.preview_every=0"]
    where = ["--gpus", "1", "--gpu", "L40S", "--classes", "5"]
    assert main(["plan", *SMALL, *behind, *more, *where]) == 0
    text = capsys.readouterr().out
    assert "once for latents of 2,000 (1,000 images: assumed; --data PREPARED counts" in text
    assert "autoencoder (fp32)" in text and "GB at the most" in text and "the latents" in text
    assert "of training, once, the cache of latents: " in text


def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SMALL, "--gpus", "2", "--gpu", "l40s", "--classes", "7", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert plan["memory"]["limit"] == 48e9
    assert plan["classes"] == 7
    assert [row.get("device") for row in plan["time"]] == [None, "L40S"]
    assert plan["memory"]["used"] == plan["memory"]["plain"]

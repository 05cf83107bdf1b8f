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
    assert main(["plan", *SMALL, "--gpus", "2", "--memory", "0.5"]) == 0
    text = capsys.readouterr().out
    assert "2 GPUs" in text and "TOO MUCH" in text
    assert "hours not known: no such GPU is on this machine" in text
    assert "run `semsynth plan` on the machine" in text
    assert "take GPUs with more memory" in text
    assert "the peak is in" in text and "autoencoder" not in text


def test_hours_on_this_machine_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SMALL, "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "this CPU" in text and "images/s)" in text and "for 1,000 images" in text
    assert "measured on cpu, " in text and "not included: reading images" in text
    assert "not known" not in text


def test_an_autoencoder_that_cannot_be_counted_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    latent = ["model.codec=vae", "model.vae.source=someone/unknown", "train.preview_every=0"]
    assert main(["plan", *SMALL, *latent, "--gpus", "1", "--classes", "5"]) == 0
    text = capsys.readouterr().out
    assert "without the autoencoder: the configuration of someone/unknown is not on this" in text


def test_an_autoencoder_and_its_cache_of_latents_are_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    latent = ["model.codec=vae", "model.vae.source=stabilityai/sd-vae-ft-mse"]
    more = ["train.cache_latents=true", "train.preview_every=0", "--gpus", "1", "--classes", "5"]
    assert main(["plan", *SMALL, *latent, *more]) == 0
    text = capsys.readouterr().out
    assert "once for latents of 2,000 (1,000 images: assumed; --data PREPARED counts" in text
    assert "autoencoder (fp32)" in text and "GB at most" in text and "the latents" in text


def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SMALL, "--gpus", "2", "--memory", "48", "--classes", "7", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert plan["memory"]["limit"] == 48e9
    assert plan["classes"] == 7
    assert plan["time"]["device"] is None and plan["time"]["training_s"] is None
    assert plan["generation"] == {"images": 1000, "steps": 20}
    assert plan["memory"]["used"] == plan["memory"]["plain"]

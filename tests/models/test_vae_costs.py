"""An autoencoder by its configuration: where it is found, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from diffusers import AutoencoderKL

from semsynth.core.errors import UserError
from semsynth.models.codecs import vae_costs as module
from semsynth.models.codecs.vae_costs import KL_F8, KL_F8_NAMES, find_config, vae_costs
from semsynth.models.config import VaeConfig


def test_published_autoencoders_by_name() -> None:
    for name in KL_F8_NAMES:
        assert find_config(name) is not None
    costs = vae_costs(VaeConfig(source=KL_F8_NAMES[0]), 256, 256)
    assert costs is not None and costs.parameters == 83_653_863
    # At 1024x1024 it is 4.88 TFLOP; attention grows with the square of the area.
    assert 0.25 < costs.encode / 1e12 < 4.88 / 16
    assert costs.decode > 2 * costs.encode


def test_a_folder_and_the_hubs_cache_come_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {key: value for key, value in KL_F8.items() if not key.startswith("_")}
    small["block_out_channels"] = [32, 32, 64, 64]
    AutoencoderKL(**small).save_config(tmp_path)
    folder = vae_costs(VaeConfig(source=str(tmp_path)), 64, 64)
    asked = []

    def cached(name: str, file: str) -> str:
        asked.append((name, file))
        return str(tmp_path / "config.json")

    monkeypatch.setattr(module, "try_to_load_from_cache", cached)
    assert folder is not None and folder.parameters < 10_000_000
    assert vae_costs(VaeConfig(source="some/model/vae"), 64, 64) == folder
    assert asked == [("some/model", "vae/config.json")]


@pytest.mark.parametrize("source", ["someone/unknown", "someone/unknown/vae", "/nowhere/at/all"])
def test_nothing_is_fetched_for_a_plan(source: str) -> None:
    assert vae_costs(VaeConfig(source=source), 64, 64) is None


def test_what_is_not_the_autoencoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(UserError, match="is not an autoencoder of Diffusers"):
        vae_costs(VaeConfig(source=str(tmp_path)), 64, 64)
    with pytest.raises(UserError, match="its latents have 4 channels and cover 8 pixels per side"):
        vae_costs(VaeConfig(source=KL_F8_NAMES[0], channels=16), 64, 64)

"""Autoencoders that Diffusers saved, loaded the way that users' are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, ModelMixin, UNet2DModel
from huggingface_hub.errors import LocalEntryNotFoundError

from semsynth.core.config import parse
from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.codecs import vae as module
from semsynth.models.codecs.codec import open_codec
from semsynth.models.codecs.vae import VaeCodec, decode_tiled, load_vae, open_vae
from semsynth.models.config import ModelConfig, VaeConfig
from semsynth.pipelines.formats.model_file import ModelFile, load_model_file, save_model_file


def make_kl(**options: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4,
        **{"latent_channels": 4, **options},
    )  # fmt: skip


def make_tiny(**options: Any) -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3, decoder_block_out_channels=(8,) * 3,
        num_encoder_blocks=(1,) * 3, num_decoder_blocks=(1,) * 3, **options,
    )  # fmt: skip


def make_dc(**options: Any) -> AutoencoderDC:
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {
            "block_types": "ResBlock", "block_out_channels": (8,) * 6,
            "layers_per_block": (1,) * 6, "qkv_multiscales": ((),) * 6,
        }.items()
    }  # fmt: skip
    return AutoencoderDC(latent_channels=8, **sides, **options)


MAKERS = {"kl": (make_kl, 4, 2), "tiny": (make_tiny, 4, 4), "dc": (make_dc, 8, 32)}
Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a network as Diffusers does and returns its folder."""

    def write(network: ModelMixin, name: str = "vae") -> str:
        network.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return write


def image(side: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("kind", MAKERS)
def test_latents_are_the_networks_own(kind: str, save: Save) -> None:
    make, channels, downscale = MAKERS[kind]
    network = make(scaling_factor=0.5).eval()
    codec = load_vae(save(network))
    assert (codec.channels, codec.downscale) == (channels, downscale)
    x = image()
    latent = codec.encode(x)
    assert latent.shape == (2, channels, 64 // downscale, 64 // downscale)
    with torch.no_grad():
        output = network.encode(x)
        expected = output.latent_dist.mode() if kind == "kl" else output[0]
        decoded = network.decode(expected).sample
    torch.testing.assert_close(latent, expected * 0.5)
    torch.testing.assert_close(codec.decode(latent), decoded)
    assert torch.equal(codec.encode(x), latent)
    assert codec.clip(latent) is latent
    assert not any(p.requires_grad for p in codec.vae.parameters())


def test_shift_mean_and_deviation_are_used(save: Save) -> None:
    plain = make_kl(scaling_factor=1.0)
    x = image()
    z = VaeCodec(plain, "plain").encode(x)
    wanted = {
        "shift": ({"scaling_factor": 0.5, "shift_factor": 0.25}, (z - 0.25) * 0.5),
        "mean": (
            {"scaling_factor": 0.5, "latents_mean": [0.0, 1.0, 2.0, 3.0], "latents_std": [2.0] * 4},
            (z - torch.arange(4.0).view(1, 4, 1, 1)) * 0.25,
        ),
    }
    for name, (options, expected) in wanted.items():
        network = make_kl(**options)
        network.load_state_dict(plain.state_dict())
        codec = load_vae(save(network, name))
        torch.testing.assert_close(codec.encode(x), expected)
        torch.testing.assert_close(
            codec.decode(expected), VaeCodec(plain, "plain").decode(z), atol=1e-4, rtol=1e-4
        )


def test_weights_are_always_float32(save: Save) -> None:
    codec = load_vae(save(make_kl().half()))
    latent = codec.encode(image())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(image()), latent)
        assert codec.decode(latent.bfloat16()).dtype == torch.float32


def test_large_images_are_coded_in_tiles(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILED_ABOVE", 128 * 128)
    monkeypatch.setattr(module, "TILE", 128)
    torch.manual_seed(0)
    codec = load_vae(save(make_kl()))
    seen: list[int] = []
    codec.vae.decoder.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-1]))
    for side, largest in ((128, 64), (192, 64)):
        seen.clear()
        assert codec.decode(torch.zeros(1, 4, side // 2, side // 2)).shape[-2:] == (side, side)
        assert max(seen) == largest
    assert len(seen) > 1


def test_our_tiles_equal_the_whole_image(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    codec = load_vae(save(make_tiny()))
    z = torch.randn(2, 4, 70, 41)
    whole = codec.decode(z)
    sizes: list[int] = []
    codec.vae.decoder.register_forward_pre_hook(lambda _, x: sizes.append(x[0].shape[-2]))
    monkeypatch.setattr(module, "TILED_ABOVE", 64 * 64)
    # Three stages of a block of three convolutions, and one at each end: at most 13 latent pixels.
    monkeypatch.setattr(module, "OWN_TILE", 4 * 36)
    monkeypatch.setattr(module, "MARGIN", 4 * 13)
    monkeypatch.setattr(module, "RAMP", 4 * 4)
    tiled = codec.decode(z)
    assert len(sizes) > 3 and max(sizes) == 36
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


def test_seams_of_tiles_are_blended() -> None:
    """Of a decoder that gives another brightness in each tile, no step is larger than a ramp's."""
    calls: list[int] = []

    def decode(z: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return torch.full((1, 3, z.shape[2] * 2, z.shape[3] * 2), float(len(calls) % 2))

    image = decode_tiled(decode, torch.zeros(1, 4, 50, 64), tile=24, margin=3, ramp=8)
    assert len(calls) == 4 * 5
    steps = [image.diff(dim=axis).abs().max() for axis in (2, 3)]
    assert image.min() >= 0 and image.max() <= 1
    assert max(steps) <= 1.01 / 16
    one = decode_tiled(lambda z: z[:, :3] + 0.0, torch.arange(192.0).view(1, 3, 8, 8), 9, 1, 1)
    assert torch.equal(one, torch.arange(192.0).view(1, 3, 8, 8))


def test_the_hash_is_of_the_weights_not_of_the_file(save: Save, tmp_path: Path) -> None:
    network = make_kl()
    first = load_vae(save(network))
    network.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    assert load_vae(str(tmp_path / "pickled")).sha256 == first.sha256
    network.decoder.conv_out.bias.data += 1e-3
    other = load_vae(save(network, "other"))
    scaled = load_vae(save(make_kl(scaling_factor=1.5), "scaled"))
    assert len({first.sha256, other.sha256, scaled.sha256}) == 3
    assert first.key != other.key


def test_another_autoencoder_is_refused(save: Save) -> None:
    source = save(make_kl())
    values = {"codec": "vae", "vae": {"source": source, "downscale": 2}}
    model = ModelConfig.model_validate(values)
    codec = open_codec(model)
    assert (codec.channels, codec.downscale) == (model.latent_channels, model.downscale) == (4, 2)
    assert model.vae is not None
    known = model.vae.model_copy(update={"sha256": load_vae(source).sha256})
    assert open_vae(known).sha256 == known.sha256
    with pytest.raises(UserError, match=r"is not the autoencoder that the model was trained"):
        open_vae(known.model_copy(update={"source": save(make_kl(), "another")}))
    with pytest.raises(UserError, match=r"have 16 channels and cover 2 pixels .* needs 4 and 2"):
        wide = save(make_kl(latent_channels=16), "wide")
        open_vae(known.model_copy(update={"source": wide}))


def test_an_autoencoder_beside_the_model_is_found(save: Save, tmp_path: Path) -> None:
    source = save(make_kl())
    values = {"source": source, "downscale": 2, "sha256": load_vae(source).sha256}
    model = ModelConfig.model_validate({"codec": "vae", "vae": values})
    labels = LabelSet.from_names({0: "road"}, None)
    path = tmp_path / "moved" / "final_model.pth"
    save_model_file(path, ModelFile(model, DiffusionConfig(), labels, 16, 16, {}))
    assert load_model_file(path).model == model
    Path(source).rename(tmp_path / "moved" / "vae")
    found = load_model_file(path).model.vae
    assert found is not None and found.source == str(tmp_path / "moved" / "vae")
    assert open_vae(found).sha256 == found.sha256


def test_a_configuration_may_be_only_a_source() -> None:
    model = parse(ModelConfig, {"codec": "vae", "vae": "owner/name"}, "recipe")
    assert model.vae == VaeConfig(source="owner/name", channels=4, downscale=8)
    assert (model.downscale, model.size_multiple) == (8, 64)
    with pytest.raises(UserError, match=r"recipe: codec 'vae' needs model\.vae"):
        parse(ModelConfig, {"codec": "vae"}, "recipe")
    with pytest.raises(UserError, match="recipe: vae is given, but codec is 'haar'"):
        parse(ModelConfig, {"vae": "owner/name"}, "recipe")


def test_what_is_not_an_autoencoder_is_refused(save: Save, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pipeline").mkdir()
    save(make_kl(), "pipeline/vae")
    unet = UNet2DModel(
        block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )  # fmt: skip
    gray = make_kl(in_channels=1, out_channels=1)
    damaged = Path(save(make_kl(), "damaged"))
    (damaged / "diffusion_pytorch_model.safetensors").write_bytes(b"cut short")
    strange = Path(save(make_kl(), "strange"))
    (strange / "config.json").write_text(json.dumps({"_class_name": "__loader__"}))
    silent = Path(save(make_kl(), "silent"))
    config = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(json.dumps({**config, "scaling_factor": None}))
    cases = {
        str(tmp_path / "nothing"): r"no such folder; .* \(one of the Hub is OWNER/NAME",
        "nothing": "no such folder",
        str(tmp_path / "empty"): r"is not an autoencoder of Diffusers \(it has no config\.json\)",
        str(tmp_path / "pipeline"): r"did you mean .*pipeline/vae\?",
        save(unet, "unet"): r"is not an autoencoder of Diffusers .*names 'UNet2DModel'",
        str(strange): "names '__loader__'",
        save(gray, "gray"): "does not encode RGB images",
        str(damaged): "cannot be loaded",
        str(silent): "does not state the scale of its latents",
        "owner/na me": "not a valid id of the Hub",
    }
    for source, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            load_vae(source)
        assert "\n" not in str(error.value)


def test_missing_weights_are_not_randomly_initialized(save: Save) -> None:
    from safetensors.torch import load_file, save_file

    file = Path(save(make_kl())) / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["decoder.conv_out.bias"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"conv_out\.bias|cannot be loaded"):
        load_vae(str(file.parent))


def test_autoencoder_of_the_hub(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(make_kl(), "snapshot/inside")
    asked: list[Any] = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(module, "snapshot_download", fetch)
    assert load_vae("owner/name/inside").channels == 4
    assert asked[0][0] == "owner/name"
    assert "inside/*.json" in asked[0][1]

    def offline(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder")

    monkeypatch.setattr(module, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"the Hub cannot be reached .*hf download owner/name"):
        load_vae("owner/name")

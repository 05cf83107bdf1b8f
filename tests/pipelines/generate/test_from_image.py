"""`generate --from-image`: what the samples are made from, what is recorded, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.content import digest_bytes
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import PixelForm
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.config import ModelConfig
from semsynth.pipelines.formats.model_file import ModelFile, build_network, save_model_file
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate

Configure = Callable[..., GenerateConfig]
Fake = Callable[..., Any]


def write_regions(data: PreparedDataset) -> None:
    folder = data.root / "regions" / "val"
    folder.mkdir(parents=True)
    for number, stem in enumerate(data.stems("val")):
        region = np.zeros((data.height, data.width), np.uint8)
        region[5:9, 3 + number : 9 + number] = 255
        cv2.imwrite(str(folder / f"{stem}.png"), region)


@pytest.fixture
def model(tmp_path: Path, write_toy: Fake) -> Path:
    """A small untrained model of the labels of ``write_toy``, and its data with regions."""
    data = write_toy(tmp_path / "prepared")
    write_regions(data)
    config = ModelConfig(
        codec="haar", haar_levels=1, base_channels=16, channel_mult=[1, 2],
        blocks_per_level=1, attention_factors=[2], head_channels=16, spade_hidden=8,
    )  # fmt: skip
    torch.manual_seed(0)
    unet, _ = build_network(config, DiffusionConfig(), data.labels.num_channels)
    for parameter in unet.parameters():  # the last layer of a fresh network is zero
        torch.nn.init.normal_(parameter, std=0.05)
    file = ModelFile(config, DiffusionConfig(), data.labels, 16, 24, unet.state_dict(), {})
    save_model_file(tmp_path / "final_model.pth", file)
    return tmp_path / "final_model.pth"


@pytest.fixture
def configure(tmp_path: Path, model: Path) -> Configure:
    def make(output: str = "samples", **flags: Any) -> GenerateConfig:
        flags = {"steps": 4, "per_mask": 2, "batch_size": 4, "precision": "no", **flags}
        flags = {"data": tmp_path / "prepared", "from_image": True, "device": "cpu", **flags}
        return GenerateConfig(model=model, output=tmp_path / output, **flags)

    return make


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_only_the_regions_change(configure: Configure) -> None:
    config = configure(keep="outside", strength=0.5)
    generate(config)
    samples, data = PreparedDataset.open(config.output), PreparedDataset.open(config.data)
    for stem in samples.stems("val"):
        source = stem[:-5]
        image, real = samples.read_image("val", stem), data.read_image("val", source)
        path = data.root / "regions" / "val" / f"{source}.png"
        region = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        near = cv2.dilate(region, np.ones((9, 9), np.uint8)) > 0
        assert 0.2 < near.mean() < 0.7
        assert np.array_equal(image[~near], real[~near])
        assert (image[region > 0] != real[region > 0]).mean() > 0.8
    assert (config.output / "contact_sheet.png").exists()


def test_the_manifest_and_the_key_say_it(configure: Configure) -> None:
    config = configure(keep="outside")
    generate(config)
    data = PreparedDataset.open(config.data)
    for text in (config.output / "manifest.jsonl").read_text().splitlines():
        line = json.loads(text)
        assert (line["from_image"], line["strength"], line["keep"]) == (True, 0.5, "outside")
        image = data.image_path("val", line["source"]).read_bytes()
        region = (data.root / "regions" / "val" / f"{line['source']}.png").read_bytes()
        assert line["image_digest"] == digest_bytes(image)
        assert line["region_digest"] == digest_bytes(region)
    assert generate(config)["n_new"] == 0
    with pytest.raises(UserError, match=r"strength=0\.5, now 0\.25"):
        generate(configure(keep="outside", strength=0.25))
    with pytest.raises(UserError, match="keep='outside', now None"):
        generate(configure())
    with pytest.raises(UserError, match="from_image=True, now None"):
        generate(configure(from_image=False))


@pytest.mark.parametrize(("kind", "keep"), [("images", None), ("regions", "outside")])
def test_other_images_or_regions_are_not_continued(
    kind: str, keep: str | None, configure: Configure
) -> None:
    config = configure(keep=keep)
    generate(config)
    path = config.data / kind / "val" / "street_1.png"
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), 255 - pixels)
    with pytest.raises(UserError, match=rf"other {kind} \(since then: 1 image changed \(val/str"):
        generate(config)


def test_processes_and_restarts_give_the_same_bytes(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, shared = configure("alone", keep="outside"), configure("shared", keep="outside")
    generate(alone)
    for task in ("2", "1"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
        monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        result = generate(shared)
    assert result["finished"] and contents(shared.output) == contents(alone.output)
    (alone.output / "images" / "val" / "street_1__001.png").unlink()
    monkeypatch.undo()
    assert generate(alone)["n_new"] == 1
    assert contents(alone.output) == contents(shared.output)


def test_strength_1_gives_the_images_of_plain_generation(configure: Configure) -> None:
    generate(configure("from_noise", from_image=False))
    generate(configure("from_image", strength=1.0))
    found, plain = (
        contents(configure(name).output / "images") for name in ("from_image", "from_noise")
    )
    assert found == plain


def test_more_images_per_mask_keep_existing_ones(configure: Configure) -> None:
    generate(configure("grown", per_mask=1))
    generate(configure("grown", per_mask=2))
    generate(configure("at_once", per_mask=2))
    grown = contents(configure("grown").output)
    # Batches of another shape round differently by 1 at most, which is not what is asked here.
    assert grown.keys() == contents(configure("at_once").output).keys()
    lines = [json.loads(text) for text in grown["manifest.jsonl"].splitlines()]
    assert all(line["image_digest"] for line in lines) and len(lines) == 6


def test_a_fake_generator_is_given_the_images(configure: Configure, fake: Fake) -> None:
    given: list[Any] = []

    class Generator(fake):  # type: ignore[misc, valid-type]
        def generate(self, mask: Any, seeds: Any, settings: Any, edges: Any, real: Any) -> Any:
            given.append(real)
            return real.images_BHWC

    config = configure(per_mask=1, batch_size=3)
    generate(config, Generator())
    data = PreparedDataset.open(config.data)
    for stem, image in zip(data.stems("val"), given[0].images_BHWC, strict=True):
        assert np.array_equal(image, data.read_image("val", stem))
    assert given[0].strength == 0.5 and given[0].regions_BHW is None


def change(data: Path, what: str) -> None:
    region = data / "regions" / "val" / "street_1.png"
    if what == "no regions":
        shutil.rmtree(data / "regions")
    elif what == "one missing":
        region.unlink()
    elif what == "grey":
        cv2.imwrite(str(region), np.full((16, 24), 100, np.uint8))
    elif what == "size":
        cv2.imwrite(str(region), np.zeros((8, 12), np.uint8))
    elif what == "not an image":
        region.write_bytes(b"region")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no regions", r"--keep outside needs regions/val/STEM\.png.*none of street_0, street_1"),
        ("one missing", "there is none of street_1"),
        ("grey", r"street_1\.png: is uint8 of other values than 0"),
        ("size", r"street_1\.png: is 12x8, its image 24x16"),
        ("not an image", r"street_1\.png: "),
    ],
)
def test_bad_regions_are_refused_before_the_model_is_loaded(
    what: str, message: str, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsynth.pipelines.generate.run._load", None)
    config = configure(keep="outside")
    change(config.data, what)
    with pytest.raises(UserError, match=message) as error:
        generate(config)
    assert "\n" not in str(error.value) and not config.output.exists()


def test_masks_alone_have_no_images(
    tmp_path: Path, configure: Configure, write_toy: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsynth.pipelines.generate.run._load", None)
    write_toy(tmp_path / "bare", images=False)
    with pytest.raises(UserError, match="needs an image of each mask of split 'val'"):
        generate(configure(data=tmp_path / "bare"))


def test_images_of_another_form_are_refused(configure: Configure, fake: Fake) -> None:
    config = configure()
    with pytest.raises(UserError, match=r"images have 3 channels of 8 bits, the model's 1 channel"):
        generate(config, fake(pixels=PixelForm(1, 12)))
    assert not config.output.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"strength": 0.5}, "--strength is for --from-image"),
        ({"keep": "outside"}, "--keep is for --from-image"),
        ({"from_image": True, "strength": 0.0}, r"--strength is 0\.0: must be above 0"),
        ({"from_image": True, "strength": 1.01}, r"--strength is 1\.01: .* at most 1"),
        ({"from_image": True, "masks": Path("masks")}, "--masks has none; give --data"),
        ({"from_image": True, "keep": "outside", "native_size": True}, "omit --native-size"),
    ],
)
def test_flags_that_do_not_fit(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GenerateConfig(**flags)

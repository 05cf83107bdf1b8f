"""Generating with a real (untrained) network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample
from semsynth.diffusion.config import DiffusionConfig, SamplerSettings
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.unet import reference_forward
from semsynth.pipelines import synthesizer
from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256
from semsynth.pipelines.formats.model_file import (
    ModelFile,
    build_network,
    load_model_file,
    save_model_file,
)
from semsynth.pipelines.generate import run
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline
from semsynth.pipelines.synthesizer import Synthesizer

STEPS = 3


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = ModelConfig(
        codec="haar", haar_levels=1, base_channels=32, channel_mult=[1, 2],
        blocks_per_level=1, attention_factors=[2], head_channels=32, spade_hidden=16,
    )  # fmt: skip
    return {"model": model, "diffusion": DiffusionConfig(prediction="sample")}


@pytest.fixture
def folder(tmp_path: Path, write_toy: Callable[..., Any], networks: dict[str, Any]) -> Path:
    data = write_toy(tmp_path / "prepared", n=2)
    torch.manual_seed(0)
    unet, _ = build_network(networks["model"], networks["diffusion"], data.labels.num_channels)
    for parameter in unet.parameters():  # the last layer of a fresh network is zero
        torch.nn.init.normal_(parameter, std=0.05)
    file = ModelFile(
        **networks, labels=data.labels, height=16, width=24, weights=unet.state_dict(),
        metadata={"licence": "CC BY-NC 4.0"},
    )  # fmt: skip
    save_model_file(tmp_path / "final_model.pth", file)
    return tmp_path


def generate_samples(
    folder: Path, output: str, model: str = "final_model.pth", **flags: Any
) -> PreparedDataset:
    flags = {"steps": STEPS, "batch_size": 3, "device": "cpu", **flags}
    data = flags.pop("data", folder / "prepared")
    generate(GenerateConfig(model=folder / model, data=data, output=folder / output, **flags))
    return PreparedDataset.open(folder / output)


def test_an_image_does_not_depend_on_its_batch(folder: Path) -> None:
    whole, few = (
        generate_samples(folder, "whole", per_mask=4),
        generate_samples(folder, "few", per_mask=2, limit=1),
    )
    images = {s: whole.image_path("val", s).read_bytes() for s in whole.stems("val")}
    for stem in few.stems("val"):
        assert few.image_path("val", stem).read_bytes() == images[stem]
    # Missing images are generated again: at other places of the batch, with other images.
    for stem in ("street_0__001", "street_1__001"):
        whole.image_path("val", stem).unlink()
    again = generate_samples(folder, "whole", per_mask=4)
    assert images == {s: again.image_path("val", s).read_bytes() for s in again.stems("val")}


def test_masks_of_other_sizes_are_allowed_with_one_message(
    folder: Path, logged: Callable[[], str]
) -> None:
    form = PreparedFormat(PreparedDataset.open(folder / "prepared").labels, 18, 37)
    writer = PreparedWriter(folder / "wide", form)
    mask = np.where(np.arange(37) < 20, 1, 2).astype(np.uint8)[None].repeat(18, 0)
    for stem in ("a", "b"):
        writer.write_pair("val", stem, None, mask)
    writer.finish("wide", "made here", "CC0-1.0")
    samples = generate_samples(folder, "wide_samples", data=folder / "wide", per_mask=1)
    assert samples.read_image("val", "a__000").shape == (18, 37, 3)
    assert np.array_equal(samples.read_mask("val", "a__000"), mask)
    messages = logged()
    assert messages.count("masks of 18x37, the model was trained on 16x24") == 1
    assert messages.count("multiples of 4: generated at 20x40, padded with unlabelled pixels") == 1


def test_another_batch_size_changes_a_pixel_by_at_most_one(folder: Path) -> None:
    one, four = (
        generate_samples(folder, "one", batch_size=1),
        generate_samples(folder, "four", batch_size=4),
    )
    for stem in one.stems("val"):
        difference = one.read_image("val", stem).astype(int) - four.read_image("val", stem)
        assert np.abs(difference).max() <= 1


def test_images_of_one_mask_differ(folder: Path) -> None:
    samples = generate_samples(folder, "samples", per_mask=2)
    first, second = (samples.read_image("val", f"street_0__{k:03d}") for k in range(2))
    assert (first != second).mean() > 0.5


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "unipc", "euler"])
def test_every_sampler_generates_images(folder: Path, sampler: Any) -> None:
    samples = generate_samples(folder, "samples", per_mask=1, sampler=sampler, limit=1)
    assert samples.read_image("val", "street_0__000").std() > 1


def test_a_broken_checkpoint_writes_nothing(folder: Path) -> None:
    checkpoint = folder / "final_model.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"final_model\.pth"):
        generate_samples(folder, "samples")
    assert not (folder / "samples").exists()


def test_a_diffusers_folder_generates_the_same(folder: Path) -> None:
    file = load_model_file(folder / "final_model.pth")
    SemanticDiffusionPipeline.from_model_file(file).save_pretrained(folder / "diffusers")
    a, b = (
        generate_samples(folder, "a", per_mask=1),
        generate_samples(folder, "b", "diffusers", per_mask=1),
    )
    for stem in a.stems("val"):
        assert a.image_path("val", stem).read_bytes() == b.image_path("val", stem).read_bytes()
    with pytest.raises(UserError, match=r"was made with checkpoint='"):
        generate_samples(folder, "a", "diffusers", per_mask=1)
    lines = (folder / "b" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["checkpoint"] == checkpoint_sha256(folder / "diffusers")


def test_edges_of_instances_are_a_part_of_the_mask(
    folder: Path, networks: dict[str, Any], write_toy: Callable[..., Any]
) -> None:
    model = networks["model"].model_copy(update={"instance_edges": True})
    file = load_model_file(folder / "final_model.pth")
    unet, _ = build_network(model, file.diffusion, file.labels.num_channels)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    file = replace(file, model=model, weights=unet.state_dict())
    save_model_file(folder / "edges.pth", file)
    with pytest.raises(UserError, match="masks of split 'val' have no instance maps"):
        generate_samples(folder, "nothing", "edges.pth")
    assert not (folder / "nothing").exists()

    plain = PreparedDataset.open(folder / "prepared")
    form = PreparedFormat(plain.labels, plain.height, plain.width)
    writer = PreparedWriter(folder / "objects", form, "prepared", {})
    mask = plain.read_mask("val", "street_0")
    for stem, objects in (("one", np.zeros_like(mask)), ("two", (mask == 7).astype(np.uint8))):
        image = PreparedSample(None, mask, mask.shape, instances=objects)
        writer.add(write_sample(writer.root, form, "val", stem, image))
    writer.finish("objects", "made here", "CC0-1.0")
    samples = generate_samples(folder, "samples", "edges.pth", data=folder / "objects", per_mask=1)
    pipe = SemanticDiffusionPipeline.from_checkpoint(folder / "edges.pth", "cpu")
    lines = [json.loads(line) for line in (folder / "samples" / "manifest.jsonl").open()]
    seeds = [line["seed"] for line in lines]
    objects = PreparedDataset.open(folder / "objects")
    edges = np.stack([objects.read_edges("val", stem) for stem in ("one", "two")])
    assert edges[0].max() == 0 and edges[1].max() == 1
    settings = SamplerSettings(steps=STEPS)
    expected = pipe.generate(np.stack([mask, mask]), seeds, settings, edges)
    for stem, image in zip(("one__000", "two__000"), expected, strict=True):
        assert np.abs(samples.read_image("val", stem).astype(int) - image).max() <= 1
    without = pipe.generate(np.stack([mask, mask]), seeds, settings)
    assert np.array_equal(without[0], expected[0])
    assert not np.array_equal(without[1], expected[1])


def test_guidance_has_an_interval(folder: Path) -> None:
    def image(name: str, **changes: Any) -> np.ndarray:
        samples = generate_samples(folder, name, per_mask=1, limit=1, guidance_scale=4.0, **changes)
        return samples.read_image("val", "street_0__000").astype(int)

    plain = image("plain")
    assert np.abs(image("part", guidance_interval=(0.3, 0.6)) - plain).max() > 0


def test_the_reference_is_nchw_whatever_the_layout_of_the_saved_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = load_model_file(folder / "final_model.pth")
    last = {
        name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in file.weights.items()
    }
    save_model_file(folder / "last.pth", replace(file, weights=last))

    def is_nchw(unet: torch.nn.Module) -> bool:
        return all(p.stride() == torch.empty(p.shape).stride() for p in unet.parameters())

    assert not is_nchw(Synthesizer.load(folder / "last.pth", "cpu").network)
    config = GenerateConfig(
        model=folder / "last.pth", data=folder / "prepared", output=folder / "plain",
        device="cpu", reference="plain",
    )  # fmt: skip
    loaded = run._load(config)
    assert loaded.precision == "no" and is_nchw(loaded.network)

    layouts = []

    def plain(unet: torch.nn.Module, *args: Any) -> Any:
        layouts.append(is_nchw(unet))
        return reference_forward(unet, *args)

    monkeypatch.setattr(synthesizer, "reference_forward", plain)
    generate_samples(folder, "plain", "last.pth", per_mask=1, limit=1, reference="plain")
    assert layouts and all(layouts)


@pytest.fixture
def distilled(folder: Path) -> Path:
    """The same folder, its model one of two evaluations."""
    file = load_model_file(folder / "final_model.pth")
    diffusion = DiffusionConfig(evaluations=2)
    save_model_file(folder / "distilled.pth", replace(file, diffusion=diffusion))
    return folder


def test_a_distilled_model_says_its_steps(distilled: Path) -> None:
    found = generate_samples(distilled, "own", "distilled.pth", steps=None, per_mask=2)
    line = json.loads((distilled / "own" / "manifest.jsonl").read_text().splitlines()[0])
    wanted = {"sampler": "lcm", "steps": 2, "guidance_scale": 1.0}
    assert {name: line[name] for name in wanted} == wanted
    # What it is, said: the same folder, and nothing to do.
    again = {"model": distilled / "distilled.pth", "data": distilled / "prepared", "steps": 2}
    result = generate(
        GenerateConfig(**again, output=distilled / "own", per_mask=2, sampler="lcm", batch_size=3)
    )
    assert result["n_new"] == 0 and result["finished"]
    loaded = Synthesizer.load(distilled / "distilled.pth", "cpu")
    mask = found.read_mask("val", "street_0__001")
    image = loaded.generate(np.stack([mask] * 3), [line_seed(distilled / "own", 1)] * 3)[0]
    assert np.array_equal(found.read_image("val", "street_0__001"), image)


def line_seed(samples: Path, index: int) -> int:
    return int(json.loads((samples / "manifest.jsonl").read_text().splitlines()[index])["seed"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"steps": 20}, "this model generates in 2 evaluations of its network, not in 20 steps"),
        ({"steps": None, "guidance_scale": 2.0}, "without guidance"),
        ({"steps": None, "sampler": "ddim"}, "by sampler lcm, not by ddim"),
    ],
)
def test_flags_that_contradict_a_distilled_model_leave_nothing(
    distilled: Path, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"distilled.pth: .*{message}"):
        generate_samples(distilled, "wrong", "distilled.pth", **flags)
    assert not (distilled / "wrong").exists()

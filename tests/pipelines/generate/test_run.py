from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from semsynth.core.errors import UserError
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import LabelSet
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate

Configure = Callable[..., GenerateConfig]
Fake = Callable[..., Any]
NAMES = {0: "void", 1: "road", 2: "sky", 7: "car"}


@pytest.fixture
def configure(tmp_path: Path, write_toy: Fake) -> Configure:
    write_toy(tmp_path / "prepared")

    def make(output: str = "samples", **flags: Any) -> GenerateConfig:
        flags = {"data": tmp_path / "prepared", "per_mask": 2, "batch_size": 4, **flags}
        return GenerateConfig(output=tmp_path / output, **flags)

    return make


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_samples_are_a_prepared_data_set_with_a_manifest(configure: Configure, fake: Fake) -> None:
    config = configure()
    result = generate(config, fake())
    assert (result["n_masks"], result["n_generated"], result["n_new"]) == (3, 6, 6)
    samples, data = PreparedDataset.open(config.output), PreparedDataset.open(config.data)
    stems = [f"street_{i}__{k:03d}" for i in range(3) for k in range(2)]
    assert samples.stems("val") == stems
    assert samples.info.licence == "CC BY-NC 4.0"
    assert samples.labels == data.labels
    for stem in stems:
        source = stem[:-5]
        assert np.array_equal(samples.read_mask("val", stem), data.read_mask("val", source))
        assert samples.colored_path("val", stem).exists()
        assert samples.original_size("val", stem) == (32, 48)
    lines = [json.loads(line) for line in (config.output / "manifest.jsonl").open()]
    assert [line["stem"] for line in lines] == stems
    assert set(lines[0]) == {
        *("stem", "source", "split", "seed", "sampler", "steps", "guidance_scale", "checkpoint"),
        "generator_seed",
    }
    assert len({line["seed"] for line in lines}) == 6
    assert (config.output / "contact_sheet.png").exists()
    assert samples.info.splits["val"].class_pixels == {
        name: 2 * n for name, n in data.info.splits["val"].class_pixels.items()
    }


def test_load_dataset_reads_samples_as_they_are(
    configure: Configure, fake: Fake, tmp_path: Path
) -> None:
    from datasets import load_dataset

    config = configure()
    generate(config, fake())
    rows = load_dataset(str(config.output), cache_dir=str(tmp_path / "cache"))["validation"]
    samples = PreparedDataset.open(config.output)
    assert rows["name"][:] == samples.stems("val") and set(rows["source"]) == {"synthetic"}
    for row in rows:
        assert np.array_equal(row["image"], samples.read_image("val", row["name"]))
        assert np.array_equal(row["mask"], samples.read_mask("val", row["name"]))


def test_the_guidance_interval_is_in_the_manifest(configure: Configure, fake: Fake) -> None:
    config = configure(guidance_interval=(0.1, 0.8))
    generate(config, fake())
    line = json.loads((config.output / "manifest.jsonl").read_text().splitlines()[0])
    assert line["guidance_interval"] == [0.1, 0.8]
    assert generate(config, fake())["n_new"] == 0
    with pytest.raises(UserError, match="guidance_interval"):
        generate(configure(), fake())


def test_every_batch_has_the_same_shape(configure: Configure, fake: Fake) -> None:
    generator = fake()
    generate(configure(), generator)
    assert generator.shapes == [(4, 16, 24)] * 2


def test_continuing_after_an_interruption_gives_the_same_bytes(
    configure: Configure, fake: Fake
) -> None:
    whole, parts = configure("whole", batch_size=2), configure("parts", batch_size=2)
    generate(whole, fake())
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            generate(parts, fake(stop_after=1))
        assert not (parts.output / "dataset.json").exists()
    generator = fake()
    assert generate(parts, generator)["n_new"] == 2
    assert len(generator.shapes) == 1
    assert contents(parts.output) == contents(whole.output)


def test_only_missing_files_are_generated_again(configure: Configure, fake: Fake) -> None:
    config = configure()
    generate(config, fake())
    before = contents(config.output)
    assert generate(config, fake(stop_after=0))["n_new"] == 0
    (config.output / "images/val/street_1__001.png").unlink()
    assert generate(config, fake())["n_new"] == 1
    assert contents(config.output) == before


def test_more_images_per_mask_keep_existing_ones(configure: Configure, fake: Fake) -> None:
    few, many = configure("grown", per_mask=1, limit=2), configure("grown", per_mask=3)
    generate(few, fake())
    assert generate(many, fake())["n_new"] == 7
    at_once = configure("at_once", per_mask=3)
    generate(at_once, fake())
    assert contents(many.output) == contents(at_once.output)


def test_processes_share_the_work_and_the_last_writes_the_lists(
    configure: Configure, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, shared = configure("alone"), configure("shared")
    generate(alone, fake())
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = generate(shared, fake())
    assert (first["n_new"], first["n_missing"], first["finished"]) == (2, 4, False)
    monkeypatch.setenv("RANK", "0")
    assert generate(shared, fake())["finished"]
    assert contents(shared.output) == contents(alone.output)


def test_masks_without_images_are_enough(tmp_path: Path, fake: Fake, write_toy: Fake) -> None:
    write_toy(tmp_path / "masks", images=False)
    config = GenerateConfig(data=tmp_path / "masks", output=tmp_path / "out", per_mask=1)
    generate(config, fake())
    assert PreparedDataset.open(config.output).has_images("val")


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"per_mask": 3, "batch_size": 8}, {6}),  # whole masks
        ({"per_mask": 1, "batch_size": 2}, {2}),  # three masks: the second batch is padded
        ({"per_mask": 1, "batch_size": 8}, {3}),  # at most as many as exist
        ({"per_mask": 5, "batch_size": 4}, {4}),
    ],
)
def test_batch_sizes(
    options: dict[str, int], sizes: set[int], configure: Configure, fake: Fake
) -> None:
    generator = fake()
    generate(configure("run", **options), generator)
    assert {shape[0] for shape in generator.shapes} == sizes


def test_small_masks_are_allowed_when_asked(configure: Configure, fake: Fake) -> None:
    large = fake(height=48, width=48)
    config = configure("small", small_masks="allow", per_mask=1)
    generate(config, large)
    assert large.shapes == [(3, 16, 24)]
    samples = PreparedDataset.open(config.output)
    assert samples.read_image("val", "street_0__000").shape == (16, 24, 3)


def test_native_size_undoes_the_resizing(configure: Configure, fake: Fake) -> None:
    config = configure(native_size=True, per_mask=1)
    generate(config, fake())
    samples, data = PreparedDataset.open(config.output), PreparedDataset.open(config.data)
    assert samples.read_image("val", "street_0__000").shape == (32, 48, 3)
    doubled = data.read_mask("val", "street_0").repeat(2, 0).repeat(2, 1)
    assert np.array_equal(samples.read_mask("val", "street_0__000"), doubled)


def test_native_size_needs_sources_of_one_size(tmp_path: Path, fake: Fake, write_toy: Fake) -> None:
    write_toy(tmp_path / "mixed", original_sizes=((32, 48), (40, 60)))
    config = GenerateConfig(data=tmp_path / "mixed", output=tmp_path / "out", native_size=True)
    with pytest.raises(UserError, match="one size"):
        generate(config, fake())


def test_a_licence_of_the_checkpoint_is_added_to_that_of_the_masks(
    configure: Configure, fake: Fake
) -> None:
    config = configure()
    generate(config, fake(licence="research only"))
    licence = PreparedDataset.open(config.output).info.licence
    assert licence == "CC BY-NC 4.0; research only"


def test_contact_sheet_shows_the_images(configure: Configure, fake: Fake) -> None:
    config = configure()
    generate(config, fake())
    sheet = cv2.imread(str(config.output / "contact_sheet.png"))
    assert sheet.shape[1] > 4 * 120  # mask, real and two samples, each at least 120 wide
    assert sheet.std() > 10


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"height": 32, "width": 48}, "masks are 24x16 .* trained on 48x32.*--small-masks allow"),
        ({"labels": LabelSet.from_names({1: "road"})}, "no match for 'sky', 'car'; .* has road;"),
        ({"labels": LabelSet.from_names(NAMES | {1: "street"}, 0)}, "'road'.* street, sky, car"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(
    configure: Configure, fake: Fake, difference: dict[str, Any], message: str
) -> None:
    config = configure()
    with pytest.raises(UserError, match=message):
        generate(config, fake(**difference))
    assert not config.output.exists()


def test_bad_input_is_refused_before_anything_is_written(configure: Configure, fake: Fake) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        generate(configure(model=Path("nowhere/final_model.pth")))
    with pytest.raises(UserError, match="no split 'test'"):
        generate(configure(split="test"), fake())
    assert not configure().output.exists()


def test_an_output_made_from_something_else_is_refused(configure: Configure, fake: Fake) -> None:
    config = configure()
    generate(config, fake())
    with pytest.raises(UserError, match="checkpoint"):
        generate(config, fake(checkpoint_sha256="d" * 64))
    with pytest.raises(UserError, match="seed"):
        generate(configure(seed=1), fake())
    with pytest.raises(UserError, match="prepared"):
        generate(configure("prepared"), fake())


def test_a_moved_project_is_continued_and_other_masks_are_not(
    configure: Configure, fake: Fake, tmp_path: Path
) -> None:
    config = configure()
    generate(config, fake())
    alone = contents(config.output)
    (config.output / "images" / "val" / "street_1__001.png").unlink()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("prepared", "samples"):
        shutil.copytree(tmp_path / name, moved / name, copy_function=shutil.copyfile)
        shutil.rmtree(tmp_path / name)
    info = json.loads((moved / "prepared" / "dataset.json").read_text())
    info |= {"licence": "CC BY-NC 4.0", "excluded": {"train/x": "for a test"}}
    (moved / "prepared" / "dataset.json").write_text(json.dumps(info))
    image = next((moved / "prepared" / "images" / "val").iterdir())
    cv2.imwrite(str(image), 255 - cv2.imread(str(image)))  # it is only shown
    config = configure(data=moved / "prepared", output=moved / "samples")
    assert generate(config, fake())["n_new"] == 1
    again = contents(moved / "samples")
    assert {name for name in alone if again[name] != alone[name]} <= {"contact_sheet.png"}

    mask = moved / "prepared" / "masks" / "val" / "street_1.png"
    pixels = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    pixels[0, 0] = 7 - pixels[0, 0] % 7
    cv2.imwrite(str(mask), pixels)
    said = r"samples: was made with other masks \(since then: 1 image changed \(val/street_1\)\); "
    with pytest.raises(UserError, match=said + "choose another .* or give --overwrite"):
        generate(config, fake())
    assert contents(moved / "samples") == again


def test_overwriting_keeps_the_old_samples_until_the_new_ones_are_complete(
    configure: Configure, fake: Fake, tmp_path: Path
) -> None:
    config = configure()
    generate(config, fake())
    old = contents(config.output)
    other = configure(seed=1, overwrite=True, shard="1/2")
    assert not generate(other, fake())["finished"]
    (aside,) = (path for path in tmp_path.iterdir() if path.name.startswith("samples.replaced-"))
    assert contents(aside) == old
    assert generate(configure(seed=1, overwrite=True, shard="2/2"), fake())["finished"]
    assert not aside.exists()
    new = contents(config.output)
    assert len(new) == len(old) and new != old
    assert generate(configure(seed=1, overwrite=True), fake())["n_new"] == 0
    assert contents(config.output) == new
    generate(configure("fresh", seed=1), fake())
    assert {name for name in new if contents(tmp_path / "fresh")[name] != new[name]} == set()


def test_a_broken_manifest_is_named_with_its_line(configure: Configure, fake: Fake) -> None:
    config = configure()
    generate(config, fake())
    manifest = config.output / "manifest.jsonl"
    manifest.write_text(manifest.read_text()[:-9])
    with pytest.raises(UserError, match=r"manifest\.jsonl: line 6 is broken"):
        generate(config, fake())


@pytest.mark.parametrize(
    "flags",
    [
        {"per_mask": 0},
        {"limit": 0},
        {"batch_size": 0},
        {"steps": 0},
        {"guidance_scale": -1.0},
        {"guidance_interval": (0.6, 0.4)},
        {"sampler": "heun"},
    ],
)
def test_flags_out_of_range_are_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(flags)).replace("_", ".")):
        GenerateConfig(**flags)

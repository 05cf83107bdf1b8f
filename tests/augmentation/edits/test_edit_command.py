from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import edit_scenes
import numpy as np
import pytest
from edit_scenes import CELLS, GROUND

from semsynth.augmentation.edits.config import EditConfig
from semsynth.augmentation.edits.run import edit, read_ious
from semsynth.cli import main
from semsynth.core.errors import UserError
from semsynth.core.strict import sealed
from semsynth.data.dataset import PreparedDataset
from semsynth.data.exports.collect import collect
from semsynth.data.image_files.channels import PixelForm
from semsynth.data.records import PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, write_sample


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "edits.jsonl").read_text().splitlines()]


def files_of(folder: Path) -> dict[str, bytes]:
    kinds = ("images", "masks", "instances", "regions", "colored_masks")
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for kind in kinds
        for path in (folder / kind).rglob("*.png")
    }
    return {**found, "edits.jsonl": (folder / "edits.jsonl").read_bytes()}


@pytest.fixture(scope="module")
def edited(
    cells_data: PreparedDataset, tmp_path_factory: pytest.TempPathFactory
) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("command") / "edited"
    edit(EditConfig(data=cells_data.root, output=folder, count=20, workers=1))
    return PreparedDataset.open(folder)


def test_the_output_is_a_data_set_of_training_pairs(
    edited: PreparedDataset, cells_data: PreparedDataset
) -> None:
    assert edited.splits() == ["train"] and len(edited.stems("train")) == 20
    assert edited.labels == cells_data.labels
    assert edited.has_images("train") and edited.has_instances("train")
    assert edited.colored_path("train", edited.stems("train")[0]).exists()
    held_out = set(cells_data.stems("val"))
    lines = lines_of(edited.root)
    assert {line["stem"] for line in lines} == set(edited.stems("train"))
    for line in lines:
        assert not {line["source"], line["donor"]} & held_out
        source = cells_data.record("train", line["source"])
        record = edited.record("train", line["stem"])
        assert record.kind == source.kind == "of a kind"
    assert json.loads((edited.root / ".semsynth.json").read_text())["kind"] == "edited"
    assert collect([edited.root], False, None).parts[0].origin == "synthetic"


def test_outside_of_the_region_nothing_differs(
    edited: PreparedDataset, cells_data: PreparedDataset
) -> None:
    for line in lines_of(edited.root):
        path = edited.root / "regions" / "train" / f"{line['stem']}.png"
        region = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert region.shape == (64, 64) and set(np.unique(region).tolist()) <= {0, 255}
        same = region == 0
        new, old = ("train", line["stem"]), ("train", line["source"])
        assert (edited.read_image(*new) == cells_data.read_image(*old))[same].all()
        assert (edited.read_mask(*new) == cells_data.read_mask(*old))[same].all()
        assert (edited.read_instances(*new) == cells_data.read_instances(*old))[same].all()
        assert 0 < line["pixels"] <= (region > 0).sum()


def test_all_kinds_that_the_data_allow_are_made(edited: PreparedDataset) -> None:
    kinds = {line["kind"] for line in lines_of(edited.root)}
    assert kinds == {"transplant", "move", "remove", "swap"}
    made = {line["kind"]: line["image"] for line in lines_of(edited.root)}
    assert made["swap"] == "to be generated" and made["transplant"] == "pasted"


def test_rare_classes_come_more_often(cells_data: PreparedDataset, output: Path) -> None:
    config = EditConfig(cells_data.root, output, count=40, kinds="transplant", workers=1)
    few = edit(replace(config, rare_weight=0.0))["classes"]
    many = edit(replace(config, rare_weight=3.0, output=output.with_name("rare")))["classes"]
    assert many.get("disc", 0) < few["disc"] and many["ring"] > few["ring"]


def test_several_objects_come_into_one_image(cells_data: PreparedDataset, output: Path) -> None:
    edit(EditConfig(cells_data.root, output, count=12, kinds="transplant", objects=3, workers=1))
    made, numbers = PreparedDataset.open(output), set()
    for line in lines_of(output):
        objects = 1 + len(line.get("also", ()))
        numbers.add(objects)
        ids = np.unique(made.read_instances("train", line["stem"]))
        assert len(ids) == 1 + 5 + objects
        assert line["pixels"] == 113 * objects
    assert numbers == {1, 2, 3}


def test_more_edits_continue_those_that_are_there(
    cells_data: PreparedDataset, output: Path, edited: PreparedDataset
) -> None:
    config = EditConfig(cells_data.root, output, count=7, workers=1)
    edit(config)
    first = files_of(output)
    (output / "dataset.json").unlink()  # as if it had been interrupted, with one image more
    edit(replace(config, count=20))
    assert files_of(output) == files_of(edited.root)
    assert {name: text for name, text in first.items() if name != "edits.jsonl"}.items() <= (
        files_of(output).items()
    )
    assert edit(replace(config, count=5))["edits"] == 20


def test_a_damaged_line_of_the_list_costs_its_edit(
    cells_data: PreparedDataset, output: Path, edited: PreparedDataset
) -> None:
    config = EditConfig(cells_data.root, output, count=20, workers=1)
    edit(config)
    lines = [json.dumps(sealed(line)) for line in lines_of(output)]
    for number, (old, new) in {
        3: ('"index": 3', '"index": 7'),
        5: ("}", ""),
        9: ("{", "["),
    }.items():
        assert old in lines[number]
        lines[number] = lines[number].replace(old, new)
    (output / "dataset.json").unlink()
    (output / "edits.jsonl").unlink()
    (output / ".edits.part.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    assert edit(config)["edits"] == 20
    assert files_of(output) == files_of(edited.root)


def test_a_damaged_list_of_finished_edits_is_refused(
    cells_data: PreparedDataset, output: Path
) -> None:
    config = EditConfig(cells_data.root, output, count=4, workers=1)
    edit(config)
    path = output / "edits.jsonl"
    times = path.stat()
    path.write_text(path.read_text().replace('"index": 3', '"index": 7'))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UserError, match=r"edits\.jsonl: is damaged: not what dataset\.json"):
        edit(config)


def test_an_edit_is_a_function_of_seed_and_number(
    cells_data: PreparedDataset, output: Path, edited: PreparedDataset
) -> None:
    edit(EditConfig(cells_data.root, output, count=3, workers=1, seed=1))
    assert lines_of(output) != lines_of(edited.root)[:3]


@pytest.mark.slow
def test_workers_do_not_matter(streets_data: PreparedDataset, tmp_path: Path) -> None:
    made = []
    for workers in (1, 4):
        folder = tmp_path / str(workers)
        edit(EditConfig(streets_data.root, folder, count=30, workers=workers))
        made.append(files_of(folder))
    assert made[0] == made[1] and len(made[0]) == 4 * 30 + 1


def test_other_settings_need_overwrite(cells_data: PreparedDataset, output: Path) -> None:
    config = EditConfig(cells_data.root, output, count=2, kinds="move", workers=1)
    edit(config)
    with pytest.raises(UserError, match="--overwrite"):
        edit(replace(config, seed=5))
    assert edit(replace(config, seed=5, overwrite=True))["edits"] == 2


def test_a_preview_is_a_sheet_and_leaves_the_folder_free(
    cells_data: PreparedDataset, output: Path
) -> None:
    config = EditConfig(cells_data.root, output, count=3, workers=1)
    assert edit(replace(config, preview=True))["edits"] == 3
    assert {path.name for path in output.iterdir()} == {"edits.png", ".semsynth.json"}
    sheet = cv2.imread(str(output / "edits.png"))
    assert sheet.shape[0] > 3 * 224 and sheet.shape[1] > 5 * 224
    edit(replace(config, preview=True, seed=3))
    assert edit(config)["edits"] == 3 and not (output / "edits.png").exists()


def test_masks_of_elsewhere(
    cells_data: PreparedDataset, tmp_path: Path, output: Path, logged: Callable[[], str]
) -> None:
    # The same discs, with other names and ids, and without instances.
    labels = edit_scenes.LabelSet.from_names({7: "other ground", 3: "other disc", 9: "Ring"})
    donors = other_labels(tmp_path / "donors", labels, {0: 7, 1: 3, 2: 9})
    config = EditConfig(
        cells_data.root, output, count=4, kinds="foreign", donors=donors.root, workers=1
    )
    edit(config)
    assert "other disc    ->  disc" in logged()
    made = PreparedDataset.open(output)
    ours = {"p20": 20, "p21": 21, "p22": 22, "p23": 23}
    for line in lines_of(output):
        _, mask, _ = edit_scenes.cells(np.random.default_rng(ours[line["donor"]]))
        assert (made.read_mask("train", line["stem"]) == mask).all()
        assert len(np.unique(made.read_instances("train", line["stem"]))) == 6
        assert line["image"] == "to be generated" and line["pixels"] == 64 * 64


def test_donors_of_other_labels_need_a_map(
    cells_data: PreparedDataset, tmp_path: Path, output: Path
) -> None:
    labels = edit_scenes.LabelSet.from_names({7: "soil", 3: "stone", 9: "ring"})
    donors = other_labels(tmp_path / "donors", labels, {0: 7, 1: 3, 2: 9})
    config = EditConfig(
        cells_data.root, output, count=2, kinds="foreign", donors=donors.root, workers=1
    )
    with pytest.raises(UserError, match=r"'stone', 'soil'.*ground, disc, ring.*--label-map"):
        edit(config)
    assert not output.exists()
    path = tmp_path / "map.yaml"
    path.write_text("soil: ground\nstone: disc\n")
    assert edit(replace(config, label_map=path))["edits"] == 2


def other_labels(
    folder: Path, labels: edit_scenes.LabelSet, ids: dict[int, int]
) -> PreparedDataset:
    writer = PreparedWriter(folder, PreparedFormat(labels, 64, 64), "prepared", {"of": "others"})
    lut = np.array([ids[i] for i in sorted(ids)], np.uint8)
    for number in range(20, 24):
        image, mask, _ = edit_scenes.cells(np.random.default_rng(number))
        sample = PreparedSample(image, lut[mask])
        writer.add(write_sample(writer.root, writer.form, "train", f"p{number}", sample))
    return writer.finish("others", "tests", "CC-BY-4.0")


def test_held_out_masks_are_no_donors(
    cells_data: PreparedDataset, tmp_path: Path, output: Path, logged: Callable[[], str]
) -> None:
    # The donors' training pairs are those that the data hold out, and one more.
    donors = edit_scenes.write(tmp_path / "donors", "cells", 16, 1)
    edit(EditConfig(cells_data.root, output, 4, kinds="foreign", donors=donors.root, workers=1))
    assert "3 masks are of held-out pairs" in logged()
    assert not {line["donor"] for line in lines_of(output)} & {"p12", "p13", "p14"}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown kind": ({"kinds": "move,fly"}, "'fly' is unknown"),
    "an unknown class": ({"classes": ("disk",)}, "'disk' is not a class"),
    "no donors": ({"kinds": "foreign"}, "--donors"),
    "nothing unlabelled": ({"kinds": "partial"}, "no ignored id"),
    "held-out pairs": ({"split": "val"}, "held-out"),
    "a kind of images": (
        {"to_kind": "stained"},
        "is of the kind 'stained'",
    ),
    "no scores": ({"hard": Path("nothing.json")}, "no such file"),
    "no images": ({"count": 0}, "at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, cells_data: PreparedDataset, output: Path) -> None:
    given, message = BAD[name]
    with pytest.raises(UserError, match=message) as error:
        edit(EditConfig(**{"data": cells_data.root, "output": output, "workers": 1, **given}))
    assert "\n" not in str(error.value) and not output.exists()


def single(folder: Path, count: int, size: int) -> PreparedDataset:
    """Images of one square of ``size`` on nothing labelled."""
    labels = edit_scenes.LabelSet.from_names({0: "none", 1: "square", 2: "dot"}, ignore_id=0)
    writer = PreparedWriter(folder, PreparedFormat(labels, 32, 32), "prepared", {})
    for number in range(count):
        mask = np.zeros((32, 32), np.uint8)
        mask[8 : 8 + size, 8 : 8 + size] = 1
        mask[0, : number % 2] = 2
        image = np.full((32, 32, 3), 40 + number, np.uint8)
        sample = PreparedSample(image, mask)
        writer.add(write_sample(writer.root, writer.form, "train", f"s{number}", sample))
    return writer.finish("single", "tests", "CC0-1.0")


def test_edits_that_would_empty_the_maps_are_refused(
    tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = single(tmp_path / "data", 5, 10)
    words = ["edit", "--data", str(data.root), "--output", str(output), "--workers", "1"]
    assert main([*words, "--kinds", "remove", "--classes", "square"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "none of" in error and "nothing can fill the place of the object" in error
    assert not output.exists()  # so that the folder is free for other kinds
    assert main([*words, "--classes", "dot"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "'dot' has 2 pixels" in error and "at least 20" in error
    few = single(tmp_path / "few", 3, 10)
    assert main(["edit", "--data", str(few.root), "--output", str(output)]) == 2
    assert "has 3 images to edit; at least 4" in capsys.readouterr().err


def test_scores_of_any_report_are_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"metrics": {"a": {"per_class": {"disc": {"iou": 0.25}}}}}))
    assert read_ious(path, CELLS) == {"disc": 0.25}
    path.write_text(json.dumps({"miou": 1, "per_class": {"disc": 0.5, "ground": 1.0}}))
    assert read_ious(path, CELLS) == {"disc": 0.5, CELLS.names[GROUND]: 1.0}
    path.write_text(json.dumps({"per_class": {"cat": 0.5}}))
    with pytest.raises(UserError, match="are not those of the data"):
        read_ious(path, CELLS)


def test_edits_need_no_torch() -> None:
    code = (
        "import sys; import semsynth.augmentation.edits.run; "
        "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_padding_is_never_edited_and_other_channels_are(tmp_path: Path, output: Path) -> None:
    labels = edit_scenes.LabelSet.from_names(
        {0: "ground", 1: "disc", 2: "ring", 3: "padding"}, ignore_id=3
    )
    form = PreparedFormat(labels, 64, 64, "pad").with_pixels(PixelForm(2, 16))
    writer = PreparedWriter(tmp_path / "padded", form, "prepared", {})
    for number in range(6):
        image, mask, instances = edit_scenes.cells(np.random.default_rng(number))
        image = image[..., :2].astype(np.uint16) * 200
        for array, value in ((image, 0), (mask, 3), (instances, 0)):
            array[:2], array[50:] = value, value
        sample = PreparedSample(image, mask, (48, 64), (2, 0, 48, 64), instances)
        writer.add(write_sample(writer.root, form, "train", f"p{number}", sample))
    data = writer.finish("padded", "tests", "CC0-1.0")
    edit(EditConfig(data.root, output, 12, kinds="transplant,move,remove,partial", workers=1))
    made = PreparedDataset.open(output)
    for line in lines_of(output):
        new, old = ("train", line["stem"]), ("train", line["source"])
        assert made.content_box(*new) == (2, 0, 48, 64)
        outside = ~made.content(*new)
        assert (made.read_mask(*new)[outside] == 3).all()
        image = made.read_image(*new)
        assert image.shape == (64, 64, 2) and image.dtype == np.uint16
        assert (image == data.read_image(*old))[outside].all()
        region = cv2.imread(str(output / "regions" / "train" / f"{line['stem']}.png"), 0)
        assert not region[outside].any() and region.any()

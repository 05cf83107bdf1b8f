"""The model card shows the metadata; without a known licence nothing is published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers.utils.hub_utils
import huggingface_hub
import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from semsynth import SemanticDiffusionPipeline
from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.data.writer import PreparedFormat, PreparedWriter
from semsynth.pipelines.formats.examples import may_show
from semsynth.pipelines.formats.model_card import model_card

RECIPE = {
    "name": "tiny",
    "train": {"steps": 40, "batch_size": 4, "learning_rate": 1e-4, "mask_dropout": 0.1},
    "finetune": {"steps": 0},
}
METADATA = {"dataset": "toys", "licence": "CC BY-NC 4.0", "step": 1234, "recipe": RECIPE}


def front(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---")[1])


def test_the_card_has_the_metadata(new_pipe: Any) -> None:
    card = model_card(new_pipe(metadata=METADATA | {"semsynth": "9.9"}), "me/toys")
    for text in (
        "semantic diffusion model of toys (recipe tiny)",
        "| 9 | car | `#df00ff` | 2 | stuff |",
        "| 0 | void | `#000000` | none | unlabelled |",
        "| steps | 1,234 |",
        "steps 40, batch_size 4, learning_rate 0.0001, mask_dropout 0.1",
        'from_pretrained("me/toys")',
        "guidance_scale=1.5",
        "16x24",
        "Not measured",
        "The training data: CC BY-NC 4.0",
        "semsynth 9.9",
    ):
        assert text.lower() in card.lower(), text
    data = front(card)
    assert data["license"] == "cc-by-nc-4.0" and "license_name" not in data
    assert data["library_name"] == "semsynth" and data["pipeline_tag"] == "image-to-image"
    assert {"diffusers", "toys"} <= set(data["tags"])
    assert ModelCard(card).data.license == "cc-by-nc-4.0"


def test_the_example_runs(
    new_pipe: Any, new_masks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pipe = new_pipe(metadata=METADATA)
    pipe.save_pretrained("model")
    Image.fromarray(pipe.labels.colorize(new_masks(1)[0])).save("mask.png")
    code = model_card(pipe, "model").split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == 6
    exec(code.replace('"cuda"', '"cpu"'))
    with Image.open("image.png") as image:
        assert image.size == (24, 16)


@pytest.mark.parametrize(
    ("stated", "license", "name"),
    [
        ("CC0-1.0", "cc0-1.0", None),
        ("cc0", "cc0-1.0", None),
        ("CC BY-SA 4.0", "cc-by-sa-4.0", None),
        ("MIT", "mit", None),
        (
            "Cityscapes terms: non-commercial research",
            "other",
            "cityscapes-terms-non-commercial-research",
        ),
    ],
)
def test_licences(stated: str, license: str, name: str | None, new_pipe: Any) -> None:
    data = front(model_card(new_pipe(metadata=METADATA | {"licence": stated})))
    assert (data["license"], data.get("license_name")) == (license, name)


def test_data_sets_of_the_hub(new_pipe: Any) -> None:
    data = front(model_card(new_pipe(metadata=METADATA | {"dataset": "sidewalk"})))
    assert data["datasets"] == ["segments/sidewalk-semantic"]
    assert front(model_card(new_pipe(metadata=METADATA | {"dataset": "me/x"})))["datasets"] == [
        "me/x"
    ]


def test_a_model_without_guidance_is_not_advised_to_use_it(new_pipe: Any) -> None:
    recipe = RECIPE | {"train": RECIPE["train"] | {"mask_dropout": 0.0}}
    card = model_card(new_pipe(metadata=METADATA | {"recipe": recipe}))
    assert "guidance_scale=1.0" in card and "never saw dropped masks" in card


@pytest.mark.parametrize("steps", [0, 9])
def test_partial_masks(steps: int, new_pipe: Any) -> None:
    recipe = RECIPE | {"finetune": {"steps": steps, "region_dropout": 0.5, "mask_dropout": 0.2}}
    card = model_card(new_pipe(metadata=METADATA | {"recipe": recipe}))
    assert ("It was trained on whole masks" in card) == (steps == 0)
    assert ("region_dropout 0.5" in card) == (steps == 9)


REPORT = {
    "dataset": "toys", "split": "val", "n_masks": 5, "n_generated": 20, "metrics": {
        "semantic_consistency": {"miou": 0.5, "miou_real": 0.75, "pixel_accuracy": 0.9},
        "fid": {"value": 12.345678, "to_training": {"generated": 15.5, "real": 3.2, "n": 5}},
        "frechet": {"segmenter": {"value": 1.5}},
        "lpips_diversity": {"value": 0.25},
    },
}  # fmt: skip


def test_scores(new_pipe: Any, tmp_path: Path) -> None:
    pipe = new_pipe(metadata=METADATA)
    pipe.checkpoint_sha256 = "c" * 64
    (tmp_path / "report.json").write_text(json.dumps(REPORT | {"checkpoint": "d" * 64}))
    with pytest.raises(UserError, match=r"is of checkpoint d+, not of this one \(c+\)"):
        pipe.add_scores(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps(REPORT | {"checkpoint": "c" * 64}))
    pipe.add_scores(tmp_path / "report.json")
    card = model_card(pipe)
    assert "20 images of 5 masks of toys, val." in card
    for row in (
        "| mIoU of a segmenter | 50.0% | 75.0% |",
        "| pixel accuracy | 90.0% |  |",
        "| FID (lower is better), from the training images | 15.5 | 3.2 |",
        "| FID (lower is better) | 12.35 |  |",
        "| Fréchet distance of segmenter features (lower is better) | 1.5 |  |",
        "| LPIPS between images of a mask | 0.250 |  |",
    ):
        assert row in card
    pipe.save_pretrained(tmp_path / "model")
    loaded = SemanticDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert loaded.metadata == pipe.metadata
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(UserError, match="is not a report"):
        pipe.add_scores(tmp_path)


def test_copies_are_the_first_that_a_card_says(new_pipe: Any, tmp_path: Path) -> None:
    pipe = new_pipe(metadata=METADATA)
    pipe.checkpoint_sha256 = "c" * 64
    sentence = "19 of 20 generated images are copies of training images."
    copies = {"share": 0.95, "held_out": {"share": 0.01}, "warnings": [sentence]}
    report = REPORT | {"checkpoint": "c" * 64, "metrics": REPORT["metrics"] | {"copies": copies}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    pipe.add_scores(tmp_path)
    card = model_card(pipe)
    assert card.index(f"> **Warning**: {sentence}") < card.index("## Install")
    assert "| near copies of training images (lower is better) | 95.0% | 1.0% |" in card
    copies |= {"share": 0.01, "warnings": []}
    (tmp_path / "report.json").write_text(json.dumps(report))
    pipe.add_scores(tmp_path)
    assert "**Warning**" not in model_card(pipe)
    # So is that the scored images were made from the real ones.
    sentence = "12 of 12 generated images were made from the real images."
    report |= {"made_from_real": {"n": 12, "of": 12, "warning": sentence}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    pipe.add_scores(tmp_path)
    assert f"> **Warning**: {sentence}" in model_card(pipe)


def test_the_scores_are_a_model_index(new_pipe: Any, tmp_path: Path) -> None:
    pipe = new_pipe(metadata=METADATA)
    pipe.checkpoint_sha256 = "c" * 64
    (tmp_path / "report.json").write_text(json.dumps(REPORT | {"checkpoint": "c" * 64}))
    pipe.add_scores(tmp_path)
    data = ModelCard(model_card(pipe)).data
    assert data.model_name == "Semantic diffusion model of toys (recipe tiny)"
    found = {result.metric_type: result for result in data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {
        "mean_iou": 0.5, "accuracy": 0.9, "fid": 12.345678, "fid_to_training": 15.5,
        "frechet_segmenter": 1.5, "lpips": 0.25,
    }  # fmt: skip
    assert found["fid"].metric_name == "FID (lower is better)"
    assert (found["fid"].dataset_name, found["fid"].dataset_split) == ("toys", "val")
    # The metadata of an earlier version have words only.
    rows = [
        {k: row[k] for k in ("name", "pictures", "real")} for row in pipe.metadata["scores"]["rows"]
    ]
    scores = pipe.metadata["scores"] | {"rows": rows}
    old = model_card(new_pipe(metadata=METADATA | {"scores": scores}))
    assert ModelCard(old).data.eval_results is None and "| 50.0% | 75.0% |" in old


@pytest.mark.parametrize(
    ("name", "licence", "shown"),
    [
        ("streets", "CC0-1.0", True),
        ("toys", "CC BY 4.0", True),
        ("toys", "CC BY-NC-SA 4.0; MIT", True),
        ("toys", "CC BY-ND 4.0", False),
        ("toys", "CC0-1.0; research only", False),
        ("toys", "unknown", False),
        ("toys", "", False),
        ("my CamVid at 480", "CC0-1.0", False),
    ],
)
def test_real_images_are_shown_where_their_licence_permits(
    name: str, licence: str, shown: bool
) -> None:
    assert may_show(name, licence) == shown


def toy_data(root: Path, labels: LabelSet, licence: str, sha256: str | None = None) -> Path:
    """Four masks with red images; as samples, blue ones of two seeds with a manifest."""
    kind = "prepared" if sha256 is None else "samples"
    writer = PreparedWriter(root, PreparedFormat(labels, 16, 24), kind)
    color, lines = (255, 0, 0) if sha256 is None else (0, 0, 255), []
    for mask in ("a", "b", "c", "d"):
        for stem in [mask] if sha256 is None else [f"{mask}__000", f"{mask}__001"]:
            ids = np.full((16, 24), 9, np.uint8)
            writer.write_pair("val", stem, np.full((16, 24, 3), color, np.uint8), ids)
            lines.append({"stem": stem, "source": mask, "split": "val", "checkpoint": sha256})
    writer.finish("toys", "made here", licence)
    if sha256 is not None:
        (root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_the_strip(new_pipe: Any, tmp_path: Path) -> None:
    pipe = new_pipe(metadata=METADATA)
    pipe.checkpoint_sha256 = "c" * 64
    samples = toy_data(tmp_path / "samples", pipe.labels, "CC0-1.0", "c" * 64)
    free = toy_data(tmp_path / "free", pipe.labels, "CC0-1.0")
    closed = toy_data(tmp_path / "closed", pipe.labels, "research only")

    def strip(data: Path | None) -> tuple[set[Any], str]:
        pipe.add_examples(samples, data)
        pipe.save_pretrained(tmp_path / "model")
        with Image.open(tmp_path / "model" / "examples.png") as image:
            colors = {
                color for count, color in image.convert("RGB").getcolors(10**6) if count > 999
            }
        return colors, (tmp_path / "model" / "README.md").read_text()

    mask, red, blue = (223, 0, 255), (255, 0, 0), (0, 0, 255)
    colors, card = strip(free)
    assert {mask, red, blue} <= colors and "](examples.png)" in card
    assert "mask, real image, generated images" in card and "Real images: toys, CC0-1.0." in card
    loaded = SemanticDiffusionPipeline.from_pretrained(tmp_path / "model")
    loaded.save_pretrained(tmp_path / "again")
    for name in ("examples.png", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    for data in (closed, None):
        colors, card = strip(data)
        assert {mask, blue} <= colors and red not in colors
        assert ("The real images are not shown: the licence of toys" in card) == (data == closed)
    pipe.checkpoint_sha256 = "d" * 64
    with pytest.raises(UserError, match=r"is of checkpoint c+, not of this one \(d+\)"):
        pipe.add_examples(samples)
    with pytest.raises(UserError, match=r"has no manifest\.jsonl"):
        pipe.add_examples(free)


def test_a_folder_has_its_card(new_pipe: Any, tmp_path: Path) -> None:
    new_pipe(metadata=METADATA).save_pretrained(tmp_path / "model")
    assert "path/to/this/folder" in (tmp_path / "model" / "README.md").read_text()
    with Image.open(tmp_path / "model" / "labels.png") as legend:
        assert {(0, 0, 0), (255, 255, 255), (0, 255, 32), (223, 0, 255)} <= {
            color for _, color in legend.getcolors(10_000)
        }
    new_pipe(metadata=METADATA | {"dataset": "cars"}).save_pretrained(tmp_path / "model")
    assert "of cars" in (tmp_path / "model" / "README.md").read_text()
    (tmp_path / "model" / "README.md").write_text("My own words.")
    new_pipe(metadata=METADATA).save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_text() == "My own words."
    for metadata in ({"dataset": "toys"}, {"licence": "MIT"}, {**METADATA, "licence": "unknown"}):
        new_pipe(metadata=metadata).save_pretrained(tmp_path / "bare")
        assert not (tmp_path / "bare" / "README.md").exists()


Uploads = list[dict[str, Any]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Uploads]:
    """The Hub, but its network: what was created and uploaded."""
    calls: Uploads = []

    def create_repo(name: str, **kwargs: Any) -> Any:
        calls.append({"create": name, **kwargs})
        return SimpleNamespace(repo_id=f"me/{name}")

    def upload_folder(**kwargs: Any) -> str:
        files = {
            path.relative_to(kwargs["folder_path"]).as_posix(): path.read_bytes()
            for path in Path(kwargs["folder_path"]).rglob("*")
            if path.is_file()
        }
        calls.append({**kwargs, "files": files})
        return "https://hub/commit"

    monkeypatch.setattr(huggingface_hub, "create_repo", create_repo)
    monkeypatch.setattr(diffusers.utils.hub_utils, "upload_folder", upload_folder)
    return lambda: calls


def test_push_to_hub(hub: Callable[[], Uploads], new_pipe: Any) -> None:
    pipe = new_pipe(metadata=METADATA)
    where = pipe.push_to_hub("toys", private=True, token="t", commit_message="New", variant="fp32")
    created, sent = hub()
    assert where == "https://hub/commit"
    assert created == {"create": "toys", "private": True, "token": "t", "exist_ok": True}
    assert (sent["repo_id"], sent["token"], sent["commit_message"]) == ("me/toys", "t", "New")
    assert 'from_pretrained("toys")' in sent["files"]["README.md"].decode()
    assert {"labels.png", "model_index.json"} <= sent["files"].keys()
    assert "unet/diffusion_pytorch_model.fp32.safetensors" in sent["files"]


def test_saving_may_push(hub: Callable[[], Uploads], new_pipe: Any, tmp_path: Path) -> None:
    new_pipe(metadata=METADATA).save_pretrained(tmp_path / "toys", push_to_hub=True)
    created, sent = hub()
    assert created["create"] == "toys" and sent["folder_path"] == tmp_path / "toys"
    assert "README.md" in sent["files"] and (tmp_path / "toys" / "README.md").exists()


@pytest.mark.parametrize("stated", [None, "", "unknown", "Unknown"])
def test_an_unknown_licence_is_not_published(
    stated: str | None, hub: Callable[[], Uploads], new_pipe: Any, tmp_path: Path
) -> None:
    pipe = new_pipe(metadata=METADATA | {"licence": stated})
    for push in (
        lambda: pipe.push_to_hub("toys"),
        lambda: pipe.save_pretrained(tmp_path / "toys", push_to_hub=True),
    ):
        with pytest.raises(UserError, match="licence of the training data is unknown") as error:
            push()
        assert "\n" not in str(error.value)
    assert hub() == [] and list(tmp_path.iterdir()) == []
    pipe.register_to_config(facts={**pipe.metadata, "licence": "MIT"})
    pipe.push_to_hub("toys")
    assert len(hub()) == 2

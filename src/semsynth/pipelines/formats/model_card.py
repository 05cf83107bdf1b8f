"""The model card, README.md of a Diffusers folder: what a model is, and its scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from PIL import Image, ImageDraw

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes, write_bytes
from semsynth.core.outputs import read_result
from semsynth.data.hub_files import hub_licence
from semsynth.data.labels import LabelSet, hex_color
from semsynth.diffusion.config import count_of
from semsynth.pipelines.formats.examples import EXAMPLES
from semsynth.pipelines.formats.model_file import (
    Metadata,
    ModelFile,
    has_licence,
    licence,
    trained_with_cfg_dropout,
    trained_with_partial_masks,
)

README, LEGEND = "README.md", "labels.png"
# Also of folders of earlier versions: a card with it may be replaced.
MADE_BY = "<!-- Made by semsynth from the facts of the model. -->"

# Data sets that have a page on the Hub.
_HUB_DATA = {"sidewalk": "segments/sidewalk-semantic"}
_ROW, _WIDE = 18, 320  # pixels: height of a line, width of the legend
_DISTANCES = {"fid": "FID (lower is better)", "kid": "KID (lower is better)"}
_RECIPE_KEYS = (
    "steps",
    "batch_size",
    "learning_rate",
    "mask_dropout",
    "region_dropout",
    "ema_decay",
)


def has_card(metadata: Metadata) -> bool:
    """Return whether the metadata are enough for a card: data set and licence are known."""
    return bool(metadata.get("dataset")) and has_licence(metadata)


def model_card(pipe: Any, name: str = "path/to/this/folder") -> str:
    """Return the card of a pipeline: YAML for the Hub, then Markdown.

    Args:
        pipe: the pipeline.
        name: folder or repository that the example loads.
    """
    metadata: Metadata = pipe.metadata
    parts = [
        f"---\n{_metadata(metadata).to_yaml()}\n---",
        MADE_BY,
        f"# {_title(metadata)}",
        _summary(pipe, metadata),
        *_warnings(metadata),
        *_strip(pipe, metadata),
        f"## Install\n\n{_INSTALL}",
        f"## Use\n\n{_usage(name, pipe)}",
        *(f"## {title}\n\n{text}" for title, text in card_sections(pipe).items()),
    ]
    return "\n\n".join(parts) + "\n"


def card_sections(pipe: Any) -> dict[str, str]:
    """Return what a card says of labels, training, scores, limits and licence, by heading."""
    metadata: Metadata = pipe.metadata
    file: ModelFile = pipe.model_file
    return {
        "Labels": _label_table(file.labels),
        "Training": _table(("what", "value"), _training(metadata, file)),
        "Scores": score_text(metadata.get("scores")),
        "Limits": _limits(pipe, metadata),
        "Licence": _licence_text(metadata),
    }


def write_card(pipe: Any, folder: Path, *name: str) -> None:
    """Write card and legend into a Diffusers folder, unless there is a README of another origin."""
    readme = folder / README
    if readme.exists() and MADE_BY not in read_bytes(readme).decode(errors="replace"):
        return
    legend(pipe.labels).save(folder / LEGEND)
    if pipe.examples is not None:
        write_bytes(folder / EXAMPLES, pipe.examples)
    readme.write_text(model_card(pipe, *name), encoding="utf-8")


def legend(labels: LabelSet) -> Image.Image:
    """Draw each label's colour beside its id and name."""
    image = Image.new("RGB", (_WIDE, _ROW * len(labels.labels) + 4), "white")
    draw = ImageDraw.Draw(image)
    for row, label in enumerate(labels.labels):
        top = _ROW * row + 4
        draw.rectangle((4, top, 4 + 2 * _ROW, top + _ROW - 4), label.color, "black")
        draw.text((3 * _ROW, top), f"{label.id}  {label.name}", "black")
    return image


_INSTALL = """```bash
pip install "semsynth @ git+https://github.com/semsynth/semsynth"
```"""


def _strip(pipe: Any, metadata: Metadata) -> Iterator[str]:
    text = metadata.get("examples")
    if pipe.examples is not None and text:
        yield f"![Masks and generated images]({EXAMPLES})\n\n*{text}*"


def _warnings(metadata: Metadata) -> Iterator[str]:
    """Say first what the report warns of: copies, a split that leaks, real starts."""
    for text in (metadata.get("scores") or {}).get("warnings", []):
        yield f"> **Warning**: {text}"


def _results(metadata: Metadata) -> list[EvalResult] | None:
    """Return the scores as the Hub's model-index has them; old metadata have none."""
    scores = metadata.get("scores") or {}
    dataset = str(scores.get("dataset") or metadata.get("dataset", "unknown"))
    slug = re.sub(r"[^\w./-]+", "-", dataset)
    results = [
        EvalResult(
            task_type="image-to-image",
            task_name="semantic image synthesis",
            dataset_type=_HUB_DATA.get(dataset, slug),
            dataset_name=dataset,
            dataset_split=scores.get("split"),
            metric_type=row["metric"],
            metric_name=row["name"],
            metric_value=row["value"],
        )
        for row in scores.get("rows", [])
        if "metric" in row
    ]
    return results or None


def _metadata(metadata: Metadata) -> ModelCardData:
    word, name = hub_licence(licence(metadata))
    dataset = str(metadata.get("dataset", ""))
    on_hub = dataset if "/" in dataset else _HUB_DATA.get(dataset)
    results = _results(metadata)
    return ModelCardData(
        model_name=_title(metadata) if results else None,
        eval_results=results,
        license=word,
        license_name=name,
        library_name="semsynth",
        pipeline_tag="image-to-image",
        datasets=[on_hub] if on_hub else None,
        tags=[
            "diffusers",
            "semantic-image-synthesis",
            "semantic-diffusion-model",
            "data-augmentation",
            *([dataset] if dataset and not on_hub else []),
        ],
    )


def _title(metadata: Metadata) -> str:
    recipe = (metadata.get("recipe") or {}).get("name")
    made = f"recipe {recipe}" if recipe else "official weights" if _is_official(metadata) else ""
    return f"Semantic diffusion model of {metadata.get('dataset', 'unknown data')}" + (
        f" ({made})" if made else ""
    )


def _is_official(metadata: Metadata) -> bool:
    return metadata.get("imported_from") == "official"


def _usage(name: str, pipe: Any) -> str:
    settings = f", num_inference_steps=20, guidance_scale={pipe.synthesizer.default_guidance}"
    settings = "" if pipe.evaluations else settings
    return f"""```python
from semsynth import SemanticDiffusionPipeline

pipe = SemanticDiffusionPipeline.from_pretrained("{name}")
pipe.to("cuda")
images = pipe("mask.png", num_images=4{settings}).images
images[0].save("image.png")
```

Plain Diffusers reads it too; the code that this trusts is `pipeline.py`, of one line:

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{name}", trust_remote_code=True)
```

For all masks of a prepared data set:

```bash
semsynth generate --model {name} --data prepared --output samples
```"""


def _summary(pipe: Any, metadata: Metadata) -> str:
    count = sum(parameter.numel() for parameter in pipe.unet.parameters())
    made = f", made with semsynth {metadata['semsynth']}" if "semsynth" in metadata else ""
    return (
        f"Generates photorealistic images of {pipe.height}x{pipe.width} (height x width) from "
        f"segmentation masks of {metadata.get('dataset', 'unknown data')}: a SPADE diffusion model "
        f"([SDM](https://arxiv.org/abs/2207.00050)) of {count:,} parameters{made}. "
        "Its images are additional training data for a segmenter, not evidence of anything real."
    )


def _label_table(labels: LabelSet) -> str:
    rows = []
    for label in labels.labels:
        kind = "thing" if label.thing else "stuff"
        if label.id == labels.ignore_id:
            kind = "unlabelled"
        channel = "none" if label.channel is None else str(label.channel)
        color = hex_color(label.color)
        rows.append((str(label.id), label.name, f"`{color}`", channel, kind))
    head = ("id", "name", "colour", "channel", "kind")
    about = (
        "A mask holds ids (one channel, 8 or 16 bits) or these colours (RGB). The channel is that "
        "of the network's condition."
    )
    return f"{about}\n\n![The labels and their colours]({LEGEND})\n\n{_table(head, rows)}"


def _training(metadata: Metadata, file: ModelFile) -> Iterator[tuple[str, str]]:
    model, diffusion = file.model, file.diffusion
    yield "data", str(metadata.get("dataset", "unknown"))
    yield "predicts", f"{diffusion.prediction}, schedule {diffusion.schedule}"
    if diffusion.evaluations:
        yield "generates in", f"{count_of(diffusion.evaluations)} of the network, without guidance"
    yield "network", f"{model.codec}, {model.base_channels} channels x {model.channel_mult}"
    if model.instance_edges:
        yield "instances", "the edges between objects are a condition channel"
    if _is_official(metadata):
        yield "weights", f"the authors' `{metadata.get('source_file', '')}`, imported"
    if "from" in metadata:
        yield "fine-tuned from", f"a model of {metadata['from']['dataset']}"
    if "step" in metadata:
        yield "steps", f"{metadata['step']:,}"
    recipe: Mapping[str, Any] = metadata.get("recipe") or {}
    for phase in ("train", "finetune", "distill"):
        section = recipe.get(phase) or {}
        if section.get("steps"):
            values = [f"{key} {section[key]}" for key in _RECIPE_KEYS if key in section]
            yield f"recipe, {phase}", ", ".join(values)
    if rounded := metadata.get("rounded"):
        bits = "8 bits by output channel" if rounded["weights"] == "int8" else "float16"
        yield "weights", f"rounded to {bits}: {rounded['relative_error']:.2%} of their size"
    for library in ("semsynth", "torch"):
        if library in metadata:
            yield library, str(metadata[library])


def score_text(scores: Mapping[str, Any] | None) -> str:
    """Return what ``read_scores`` gave as a table; None: how to measure."""
    if not scores:
        return (
            "Not measured. `semsynth generate` and `semsynth evaluate` measure how well a "
            "segmenter finds the masks in the images, and in real ones."
        )
    rows = [(row["name"], row["pictures"], row["real"]) for row in scores["rows"]]
    table = _table(("score", "these images", "real images"), rows)
    return (
        f"{scores['n_generated']} images of {scores['n_masks']} masks of {scores['dataset']}, "
        f"{scores['split']}.\n\n{table}"
    )


def _limits(pipe: Any, metadata: Metadata) -> str:
    limits = [
        f"It was trained on images of {pipe.height}x{pipe.width}: in masks of another size, "
        "things keep the size in pixels that they had there.",
        f"It knows the {len(pipe.labels.trainable)} classes above as they look in its data, with "
        "the data's places, weather and biases; it may repeat training images.",
        "There are no text prompts. Texts, faces and number plates are not legible.",
    ]
    if not trained_with_partial_masks(metadata):
        limits.append(
            "It was trained on whole masks: images of masks with unlabelled parts that were "
            "labelled in its data are worse."
        )
    if pipe.evaluations:
        limits.append(
            f"It is distilled: it takes {count_of(pipe.evaluations)} of its network for an image, "
            "neither more steps nor guidance."
        )
    elif not trained_with_cfg_dropout(metadata):
        limits.append("It never saw dropped masks: guidance_scale other than 1 is arbitrary.")
    return "\n".join(f"- {limit}" for limit in limits)


def _licence_text(metadata: Metadata) -> str:
    return (
        f"The training data: {licence(metadata)}. As far as these terms extend to it, the model is "
        "under them too; the code of semsynth is under Apache-2.0."
    )


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def read_scores(path: str | Path, checkpoint_sha256: str) -> dict[str, Any]:
    """Return what a card says of a ``report.json`` of `semsynth evaluate`.

    Args:
        path: the report, or its folder.
        checkpoint_sha256: of the model, which the report must name.

    Returns:
        dataset, split, n_masks, n_generated, rows of name, images and real, and warnings of copies
        and of images that were made from real ones.

    Raises:
        UserError: not a report, or one of another checkpoint.
    """
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    report = read_result(path)
    if not isinstance(report, dict) or not isinstance(report.get("metrics"), dict):
        raise UserError(f"{path}: is not a report of semsynth evaluate")
    if not checkpoint_sha256 or report.get("checkpoint") != checkpoint_sha256:
        raise UserError(
            f"{path}: is of checkpoint {report.get('checkpoint')}, not of this one "
            f"({checkpoint_sha256 or 'not loaded by from_checkpoint'})"
        )
    keys = ("dataset", "split", "n_masks", "n_generated")
    return {
        **{key: report.get(key) for key in keys},
        "rows": list(_score_rows(report["metrics"])),
        "warnings": [
            *filter(None, [(report.get("made_from_real") or {}).get("warning")]),
            *(report["metrics"].get("copies") or {}).get("warnings", []),
        ],
    }


def _score_rows(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    seen = metrics.get("semantic_consistency") or {}
    for key, metric, name in (
        ("miou", "mean_iou", "mIoU of a segmenter"),
        ("pixel_accuracy", "accuracy", "pixel accuracy"),
    ):
        if seen.get(key) is not None:
            yield _score_row(name, (metric, seen[key]), seen.get(f"{key}_real"), "{:.1%}")
    for key, name in _DISTANCES.items():
        if key in metrics:
            yield from _distance_rows(name, key, metrics[key])
    for key, value in (metrics.get("frechet") or {}).items():
        name = f"Fréchet distance of {key} features (lower is better)"
        yield from _distance_rows(name, f"frechet_{key}", value)
    if "lpips_diversity" in metrics:
        value = metrics["lpips_diversity"]["value"]
        yield _score_row("LPIPS between images of a mask", ("lpips", value), None, "{:.3f}")
    copies = metrics.get("copies")
    if copies:
        name = "near copies of training images (lower is better)"
        real = (copies.get("held_out") or {}).get("share")
        yield _score_row(name, ("copies", copies["share"]), real, "{:.1%}")


def _distance_rows(name: str, metric: str, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the fair pair, both from the training images, and what papers give, without a floor."""
    fair = entry.get("to_training")
    if fair:
        measured = (f"{metric}_to_training", fair["generated"])
        yield _score_row(f"{name}, from the training images", measured, fair["real"], "{:.4g}")
    yield _score_row(name, (metric, entry["value"]), None, "{:.4g}")


def _score_row(
    name: str, measured: tuple[str, float], real: float | None, form: str
) -> dict[str, Any]:
    metric, value = measured
    shown = {"name": name, "pictures": form.format(value)}
    return {**shown, "real": "" if real is None else form.format(real), "metric": metric,
            "value": value}  # fmt: skip

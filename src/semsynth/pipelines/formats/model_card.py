"""The model card: what a model is, from its facts; README.md of a Diffusers folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from PIL import Image, ImageDraw

from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import DiffusionConfig
from semsynth.models.config import ModelConfig
from semsynth.pipelines.formats.provenance import (
    DEFAULT_GUIDANCE,
    Facts,
    has_license,
    licence,
    saw_partial_masks,
    trained_with_cfg_dropout,
)

README, LEGEND = "README.md", "labels.png"
MADE_BY = "<!-- Made by semsynth from the facts of the model. -->"

# Data sets that have a page on the Hub.
_HUB_DATA = {"sidewalk": "segments/sidewalk-semantic"}
_HUB_LICENCE = re.compile(
    r"cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.[05]|mit|apache-2\.0|bsd-[23]-clause|odbl|unlicense"
)
_ROW, _WIDE = 18, 320
_TOLD = ("steps", "batch_size", "learning_rate", "mask_dropout", "region_dropout", "ema_decay")


def has_card(facts: Facts) -> bool:
    """Whether the facts are enough for a card: the data set and what may be done with it."""
    return bool(facts.get("dataset")) and has_license(facts)


def model_card(pipe: Any, name: str = "path/to/this/folder") -> str:
    """Return the card of a pipeline: YAML for the Hub, then Markdown.

    Args:
        pipe: the pipeline.
        name: what ``from_pretrained`` shall load in the example.
    """
    facts: Facts = pipe.facts
    bundle = pipe.bundle
    parts = [
        f"---\n{_metadata(facts).to_yaml()}\n---",
        MADE_BY,
        f"# {_title(facts)}",
        _summary(pipe, facts),
        f"## Use\n\n{_usage(name, facts)}",
        f"## Labels\n\n{_label_table(bundle.labels)}",
        f"## Training\n\n{_table(('what', 'value'), _training(facts, bundle))}",
        f"## Scores\n\n{_scores(facts)}",
        f"## Limits\n\n{_limits(pipe, facts)}",
        f"## Licence\n\n{_licence_text(facts)}",
    ]
    return "\n\n".join(parts) + "\n"


def write_card(pipe: Any, folder: Path, *name: str) -> None:
    """Write card and legend into a Diffusers folder, unless somebody wrote a README there."""
    readme = folder / README
    if readme.exists() and MADE_BY not in readme.read_text(encoding="utf-8", errors="replace"):
        return
    legend(pipe.labels).save(folder / LEGEND)
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


def _metadata(facts: Facts) -> ModelCardData:
    stated = licence(facts)
    slug = re.sub(r"[^a-z0-9.]+", "-", stated.lower()).strip("-")
    slug = "cc0-1.0" if slug == "cc0" else slug
    known = _HUB_LICENCE.fullmatch(slug) is not None
    dataset = str(facts.get("dataset", ""))
    on_hub = dataset if "/" in dataset else _HUB_DATA.get(dataset)
    return ModelCardData(
        license=slug if known else "other",
        license_name=None if known else slug,
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


def _title(facts: Facts) -> str:
    recipe = (facts.get("recipe") or {}).get("name")
    made = f"recipe {recipe}" if recipe else "official weights" if _is_official(facts) else ""
    return f"Semantic diffusion model of {facts.get('dataset', 'unknown data')}" + (
        f" ({made})" if made else ""
    )


def _is_official(facts: Facts) -> bool:
    return facts.get("imported_from") == "official"


def _usage(name: str, facts: Facts) -> str:
    scale = DEFAULT_GUIDANCE if trained_with_cfg_dropout(facts) else 1.0
    return f"""```python
from semsynth import SemanticDiffusionPipeline

pipe = SemanticDiffusionPipeline.from_pretrained("{name}")
pipe.to("cuda")
images = pipe("mask.png", num_images=4, num_inference_steps=20, guidance_scale={scale}).images
images[0].save("image.png")
```"""


def _summary(pipe: Any, facts: Facts) -> str:
    count = sum(parameter.numel() for parameter in pipe.unet.parameters())
    made = f", made with semsynth {facts['semsynth']}" if "semsynth" in facts else ""
    return (
        f"Paints photorealistic images of {pipe.height}x{pipe.width} (height x width) from "
        f"segmentation masks of {facts.get('dataset', 'unknown data')}: a SPADE diffusion model "
        f"([SDM](https://arxiv.org/abs/2207.00050)) of {count:,} parameters{made}. "
        "For more training data for a segmenter, not for evidence of anything real."
    )


def _label_table(labels: LabelSet) -> str:
    rows = []
    for label in labels.labels:
        kind = "thing" if label.thing else "stuff"
        if label.id == labels.ignore_id:
            kind = "unlabelled"
        channel = "none" if label.channel is None else str(label.channel)
        color = "#{:02x}{:02x}{:02x}".format(*label.color)
        rows.append((str(label.id), label.name, f"`{color}`", channel, kind))
    head = ("id", "name", "colour", "channel", "kind")
    about = (
        "A mask holds ids (one channel, 8 or 16 bits) or these colours (RGB). The channel is that "
        "of the network's condition."
    )
    return f"{about}\n\n![The labels and their colours]({LEGEND})\n\n{_table(head, rows)}"


def _training(facts: Facts, bundle: Any) -> Iterator[tuple[str, str]]:
    model: ModelConfig = bundle.model
    diffusion: DiffusionConfig = bundle.diffusion
    yield "data", str(facts.get("dataset", "unknown"))
    yield "predicts", f"{diffusion.prediction}, schedule {diffusion.schedule}"
    yield "network", f"{model.codec}, {model.base_channels} channels x {model.channel_mult}"
    if model.instance_edges:
        yield "instances", "the edges between objects are a condition channel"
    if _is_official(facts):
        yield "weights", f"the authors' `{facts.get('source_file', '')}`, imported"
    if "from" in facts:
        yield "started from", f"a model of {facts['from']['dataset']}"
    if "step" in facts:
        yield "steps", f"{facts['step']:,}"
    recipe: Mapping[str, Any] = facts.get("recipe") or {}
    for phase in ("train", "finetune"):
        section = recipe.get(phase) or {}
        if section.get("steps"):
            told = [f"{key} {section[key]}" for key in _TOLD if key in section]
            yield f"recipe, {phase}", ", ".join(told)
    for library in ("semsynth", "torch"):
        if library in facts:
            yield library, str(facts[library])


def _scores(facts: Facts) -> str:
    scores = facts.get("scores")
    if not scores:
        return (
            "Not measured. `semsynth generate` and `semsynth evaluate` measure what a segmenter "
            "sees in the images, beside the same for real ones."
        )
    rows = [(row["name"], row["pictures"], row["real"]) for row in scores["rows"]]
    table = _table(("score", "these images", "real images"), rows)
    return (
        f"{scores['n_generated']} images of {scores['n_masks']} masks of {scores['dataset']}, "
        f"{scores['split']}.\n\n{table}"
    )


def _limits(pipe: Any, facts: Facts) -> str:
    limits = [
        f"It was trained on images of {pipe.height}x{pipe.width}: in masks of another size, "
        "things keep the size in pixels that they had there.",
        f"It knows the {len(pipe.labels.trainable)} classes above, as they look in its data, with "
        "the data's places, weather and biases; it may repeat images that it was trained on.",
        "There are no text prompts. Texts, faces and number plates are not legible.",
    ]
    if not saw_partial_masks(facts):
        limits.append(
            "It was trained on whole masks: where parts are unlabelled that were labelled in its "
            "data, its images are worse."
        )
    if not trained_with_cfg_dropout(facts):
        limits.append("It never saw dropped masks: guidance_scale other than 1 is arbitrary.")
    return "\n".join(f"- {limit}" for limit in limits)


def _licence_text(facts: Facts) -> str:
    return (
        f"The training data: {licence(facts)}. What was learnt from them is under the same terms "
        "as far as they reach; the code of semsynth is under Apache-2.0."
    )


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )

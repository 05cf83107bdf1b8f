"""A trained generator as a model of the package: file, card, recipe, and what is listed of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from semsynth.core.errors import UserError
from semsynth.core.files import read_json, sha256_file, write_bytes, write_json, write_text
from semsynth.core.version import __version__
from semsynth.data.labels import LabelSet
from semsynth.pipelines.convert.config import WeightForm
from semsynth.pipelines.formats.examples import EXAMPLES, read_examples
from semsynth.pipelines.formats.model_card import (
    LEGEND,
    card_sections,
    legend,
    read_scores,
    score_text,
)
from semsynth.pipelines.formats.model_file import (
    has_licence,
    licence,
    load_checkpoint,
    save_model_file,
    trained_with_partial_masks,
)
from semsynth.pipelines.formats.pretrained import CARD, FACTS, MODEL, RECIPE
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline

MAX_MEGABYTES = 12.0
_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}")


@dataclass(frozen=True)
class Notes:
    """What a run does not know of itself.

    Attributes:
        about: what the model is for, in a sentence or two.
        commands: that trained it, from the published data on.
        citations: of the data, and of who made them.
    """

    about: str
    commands: tuple[str, ...]
    citations: tuple[str, ...]


def pack_model(source: Path, folder: Path, notes: Notes, form: WeightForm = "int8") -> None:
    """Write a model into its folder of the package, without scores.

    A model that was trained with partial masks and has no id for unlabelled pixels gets one: masks
    that are drawn in part need it. The weights are the same: it has no channel.

    Args:
        source: a run, a final_model.pth or a Diffusers folder.
        folder: ``pretrained/NAME`` of the package, which does not exist yet.
        notes: what the card says besides the facts.
        form: of the weights.

    Raises:
        UserError: the licence of the data is unknown; a path of this machine in the metadata; a
            file of more than 12 MB; a name that is none; or the folder exists.
    """
    if not _NAME.fullmatch(folder.name):
        raise UserError(f"{folder.name}: a model's name is lower-case letters, digits and dashes")
    if folder.exists():
        raise UserError(f"{folder}: exists; remove it, or add scores to it with --report alone")
    file = load_checkpoint(source)
    if not has_licence(file.metadata):
        raise UserError(f"{source}: the licence of its training data is unknown")
    places = [text for text in _texts(file.metadata) if text.startswith(("/", "~"))]
    if places:
        raise UserError(f"{source}: its metadata name a path of this machine: {places[0]}")
    if trained_with_partial_masks(file.metadata):
        file = replace(file, labels=with_unlabelled(file.labels))
    path = folder / MODEL
    save_model_file(path, file, form)
    megabytes = path.stat().st_size / 1e6
    if megabytes > MAX_MEGABYTES:
        path.unlink()
        folder.rmdir()
        raise UserError(
            f"{source}: has {megabytes:.1f} MB in {form}, at most {MAX_MEGABYTES:g} fit into the "
            "package; train a narrower network"
        )
    write_facts(folder, {**asdict(notes), "scores": []})


def with_unlabelled(labels: LabelSet) -> LabelSet:
    """Return labels that have an ignored id: these, or these and ``unlabelled``."""
    if labels.ignore_id is not None:
        return labels
    padded = labels.with_ignore()
    (new,) = set(padded.labels) - set(labels.labels)
    named = replace(new, name="unlabelled")
    return LabelSet((*labels.labels, named), new.id)


def add_to_card(
    folder: Path, reports: Sequence[Path], samples: Path | None = None, data: Path | None = None
) -> None:
    """Add scores and a strip of samples to a model that ``pack_model`` wrote, and make its card.

    Args:
        folder: the model's.
        reports: of `semsynth evaluate`, of this very file.
        samples: of `semsynth generate` with it.
        data: prepared data with the real images of the samples' masks.

    Raises:
        UserError: reports or samples of another model.
    """
    facts = read_json(folder / FACTS)
    sha256 = sha256_file(folder / MODEL)
    if reports:
        facts["scores"] = [_plain(read_scores(path, sha256)) for path in reports]
    if samples is not None:
        labels = load_checkpoint(folder / MODEL).labels
        examples = read_examples(samples, data, labels, sha256)
        write_bytes(folder / EXAMPLES, examples.png)
        facts["examples"] = examples.text
    write_facts(folder, facts)


def write_facts(folder: Path, known: dict[str, Any]) -> None:
    """Write ``model.json``, recipe and card beside a model; ``known``: what it does not hold."""
    pipe = SemanticDiffusionPipeline.from_checkpoint(folder / MODEL, "cpu")
    file, path = pipe.model_file, folder / MODEL
    facts = {
        **known,
        "height": file.height,
        "width": file.width,
        "classes": [label.name for label in file.labels.trainable],
        "instances": file.model.instance_edges,
        "partial_masks": trained_with_partial_masks(file.metadata),
        "evaluations": file.diffusion.evaluations,
        "licence": licence(file.metadata),
        "dataset": file.metadata.get("dataset", "unknown"),
        "parameters": sum(tensor.numel() for tensor in file.weights.values()),
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "sha256": sha256_file(path),
        "semsynth": __version__,
    }
    recipe = yaml.safe_dump(file.metadata["recipe"], sort_keys=False, allow_unicode=True)
    write_text(folder / RECIPE, f"# The recipe that trained the model {folder.name}.\n{recipe}")
    legend(pipe.labels).save(folder / LEGEND)
    write_json(folder / FACTS, facts)
    write_text(folder / CARD, package_card(folder.name, facts, card_sections(pipe)))


def package_card(name: str, facts: dict[str, Any], sections: dict[str, str]) -> str:
    """Return the card of a model of the package, as Markdown.

    Args:
        name: of the model.
        facts: of its ``model.json``.
        sections: of ``card_sections``.
    """
    scores = facts["scores"]
    warnings = [text for report in scores for text in report["warnings"]]
    commands = "\n".join(facts["commands"])
    citations = "\n".join(f"- {text}" for text in facts["citations"])
    return "\n\n".join([
        f"# {name}",
        facts["about"],
        f"{facts['height']}x{facts['width']} pixels (height x width), {facts['parameters']:,} "
        f"parameters, {facts['megabytes']} MB. Its images are additional training data for a "
        "segmenter, not evidence of anything real.",
        *(f"> **Warning**: {text}" for text in warnings),
        *([f"![Masks and images]({EXAMPLES})\n\n*{facts['examples']}*"]
          if "examples" in facts else []),
        f"## Use\n\n{_usage(name, facts['instances'], facts['evaluations'])}",
        f"## Labels\n\n{sections['Labels']}",
        f"## Training\n\n{sections['Training']}\n\nThe recipe is [{RECIPE}]({RECIPE}); these "
        f"commands trained the model:\n\n```bash\n{commands}\n```",
        "## Scores\n\n" + ("\n\n".join(map(score_text, scores)) or score_text(None)),
        f"## Limits\n\n{sections['Limits']}",
        f"## Licence and citation\n\n{sections['Licence']}\n\n{citations}",
    ]) + "\n"  # fmt: skip


def _usage(name: str, instances: bool, evaluations: int) -> str:
    head = "Images for the masks of a prepared data set, or of a folder:"
    folder = f"semsynth generate --model {name} --masks my_masks --output samples\n"
    if instances:  # a folder of masks has no instance maps
        head = "Images for the masks of a prepared data set with instance maps:"
        folder = ""
    # The losses of the other phases would undo what a distilled model learned.
    only = " --set train.steps=0 finetune.steps=0" if evaluations else ""
    return f"""{head}

```bash
semsynth generate --model {name} --data prepared --output samples
{folder}```

```python
from semsynth import SemanticDiffusionPipeline

pipe = SemanticDiffusionPipeline.from_pretrained("{name}")
images = pipe("mask.png", num_images=4).images
```

As the start of a training on your own images:

```bash
semsynth train --from {name} --recipe {name} --data prepared --output run{only}
```"""


def _plain(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a report with the keys of ``model.json``."""
    rows = [{**row, "generated": row["pictures"]} for row in scores["rows"]]
    return {**scores, "rows": rows}


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in nested values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)

"""The command `semsynth VERB --flags`: a table of verbs.

Nothing heavy is imported here, so that `semsynth --help` and `semsynth VERB --help` answer at once.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

from semsynth.cli.common import finish, guard, parse, wait_briefly
from semsynth.core.errors import UserError


class Verb(NamedTuple):
    """A verb, and where its code is; places are written as "module:name".

    Attributes:
        help: what it does, in a line.
        config: the dataclass of its flags, in a module that does not import torch.
        function: takes the configuration and returns the result as JSON values; it is imported
            after the flags are parsed.
        main: instead of a function, one of the words after the verb that returns the exit status,
            for a verb with logic of its own.
        subverbs: verbs below it by name; instead of all these, or beside them: then the verb
            itself takes flags, and no word without one.
    """

    help: str
    config: str = ""
    function: str = ""
    main: str = ""
    subverbs: Mapping[str, Verb] = MappingProxyType({})


VERBS: dict[str, Verb] = {
    "prepare": Verb(
        "turn images and masks into a prepared data set",
        config="semsynth.data.config:PrepareConfig",
        function="semsynth.data.prepare.run:prepare_and_summarize",
    ),
    "plan": Verb(
        "estimate what a recipe takes: memory, batch that fits, hours, disk",
        config="semsynth.cli.plan:PlanConfig",
        main="semsynth.cli.plan:main",
    ),
    "train": Verb(
        "train the generator, then fine-tune it for guidance",
        config="semsynth.training.recipe:TrainConfig",
        main="semsynth.cli.train:main",
    ),
    "submit": Verb(
        "submit a training to a SLURM cluster",
        config="semsynth.cli.cluster.submit:SubmitConfig",
        main="semsynth.cli.cluster.submit:main",
    ),
    "status": Verb(
        "show the state of a training: step, loss, time left, last checkpoint",
        config="semsynth.cli.cluster.status:StatusConfig",
        main="semsynth.cli.cluster.status:main",
    ),
    "recipes": Verb(
        "list the recipes, or show the keys of one with values and meanings",
        config="semsynth.cli.recipes:RecipesConfig",
        main="semsynth.cli.recipes:main",
    ),
    "models": Verb(
        "list the trained models of the package, or show the card of one",
        config="semsynth.cli.models:ModelsConfig",
        main="semsynth.cli.models:main",
    ),
    "generate": Verb(
        "generate several images for each mask",
        config="semsynth.pipelines.generate.config:GenerateConfig",
        function="semsynth.pipelines.generate.run:generate",
    ),
    "edit": Verb(
        "make new training pairs by editing pairs: objects moved, removed, transplanted",
        config="semsynth.augmentation.edits.config:EditConfig",
        function="semsynth.augmentation.edits.run:edit",
    ),
    "evaluate": Verb(
        "score generated images and write a report",
        config="semsynth.evaluation.config:EvaluateConfig",
        main="semsynth.cli.evaluate:main",
        subverbs={
            "stats": Verb(
                "keep the statistics of a set of real images",
                config="semsynth.evaluation.config:StatsConfig",
                function="semsynth.evaluation.reference_statistics:write_statistics",
            ),
            "compare": Verb(
                "compare reports: paired differences, spread of seeds, the same masks",
                config="semsynth.evaluation.config:CompareConfig",
                main="semsynth.cli.evaluate:main_of_compare",
            ),
        },
    ),
    "segment": Verb(
        "train a segmenter, or score it on a data set",
        subverbs={
            "train": Verb(
                "train a segmenter on the real images of a prepared data set",
                config="semsynth.segmentation.config:SegmentTrainConfig",
                function="semsynth.augmentation.fresh:train",
            ),
            "score": Verb(
                "score a segmenter on a prepared data set or on samples",
                config="semsynth.segmentation.config:SegmentScoreConfig",
                function="semsynth.segmentation.metrics:score",
            ),
        },
    ),
    "filter": Verb(
        "ignore or correct labels of synthetic images that a segmenter does not believe",
        config="semsynth.augmentation.filter.config:FilterConfig",
        main="semsynth.cli.filter:main",
    ),
    "augment": Verb(
        "measure what synthetic images add to a segmenter",
        config="semsynth.augmentation.config:AugmentConfig",
        function="semsynth.augmentation.compare:run_experiment",
    ),
    "experiment": Verb(
        "measure what synthesis adds to the strongest segmenter of n real images",
        config="semsynth.augmentation.experiment.config:ExperimentConfig",
        function="semsynth.augmentation.experiment.run:run_experiment",
    ),
    "probe": Verb(
        "say in ten minutes whether synthesis is likely to help a data set",
        config="semsynth.augmentation.experiment.config:ProbeConfig",
        function="semsynth.augmentation.experiment.probe:run_probe",
    ),
    "import": Verb(
        "turn a checkpoint of the official SDM code into a Diffusers folder",
        config="semsynth.pipelines.convert.config:ImportConfig",
        function="semsynth.pipelines.convert.import_official:import_official",
    ),
    "export": Verb(
        "write data or samples for another trainer, or a model as another kind of file",
        config="semsynth.pipelines.convert.config:ExportConfig",
        function="semsynth.cli.export:export",
    ),
    "app": Verb(
        "draw a mask in the browser and see its image: the studio",
        config="semsynth.app.config:AppConfig",
        main="semsynth.cli.app:main",
    ),
    "demo": Verb(
        "run the whole pipeline on real images that come with the package",
        config="semsynth.cli.demo:DemoConfig",
        function="semsynth.cli.demo:run_demo",
    ),
    "doctor": Verb(
        "show what this machine can do, or check whether a folder is whole",
        config="semsynth.cli.doctor:DoctorConfig",
        main="semsynth.cli.doctor:main",
    ),
    "completion": Verb(
        "print a script for bash, zsh or fish that completes verbs and flags",
        config="semsynth.cli.completion:CompletionConfig",
        main="semsynth.cli.completion:main",
    ),
}

# How `semsynth --help` groups them.
GROUPS: dict[str, tuple[str, ...]] = {
    "data": ("prepare",),
    "training": ("plan", "train", "submit", "status", "recipes"),
    "images": (
        "models",
        "app",
        "edit",
        "generate",
        "filter",
        "evaluate",
        "augment",
        "probe",
        "experiment",
    ),
    "segmenters": ("segment",),
    "other formats": ("import", "export"),
    "this installation": ("demo", "doctor", "completion"),
}


def usage() -> str:
    """Return the help of the bare command: verbs in groups, and examples."""
    from semsynth.cli.help import WORKFLOW, listed

    verbs = "\n\n".join(
        f"{title}:\n{lines({name: VERBS[name] for name in names})}"
        for title, names in GROUPS.items()
    )
    return (
        "usage: semsynth [-h] [--version] VERB ...\n\n"
        "Generate photorealistic images from segmentation masks.\n\n"
        f"{verbs}\n\n{listed(WORKFLOW)}\n\n"
        "`semsynth VERB --help` has the flags and examples of a verb; flags work with - and _.\n"
        "With --json a verb prints its result as one JSON object, last on stdout."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 done, 2 a user's error, 130 interrupted.

    Args:
        argv: the words after `semsynth`; the process's own by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    wait_briefly()
    return guard(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "--version":
        from semsynth.core.version import __version__

        print(f"semsynth {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"the verbs are {', '.join(VERBS)}"
        raise UserError(f"unknown verb `{words[0]}`: {hint}")
    return _run(VERBS[words[0]], words[0], words[1:])


def _run(verb: Verb, name: str, words: list[str]) -> int:
    """Run a verb with the words after its ``name`` and return the exit status."""
    first = words[0] if words else ""
    if first in verb.subverbs:
        return _run(verb.subverbs[first], f"{name} {first}", words[1:])
    if verb.subverbs and not verb.config and first in ("", "-h", "--help"):
        names = ",".join(verb.subverbs)
        print(f"usage: semsynth {name} [-h] {{{names}}} ...\n\n{lines(verb.subverbs)}")
        return 0
    if verb.subverbs and (not verb.config or (first and not first.startswith("-"))):
        known = "` or `".join(verb.subverbs)
        flags = ", or flags" if verb.config else ""
        raise UserError(f"unknown `semsynth {name} {first}`: it is `{known}`{flags}")
    if verb.main:
        status: int = _load(verb.main)(words)
        return status
    config, as_json = parse(_load(verb.config), words, name)
    return finish(_load(verb.function)(config), as_json)


def lines(verbs: Mapping[str, Verb]) -> str:
    """Return verbs with what they do, a line each."""
    return "\n".join(f"  {name:<12}{verb.help}" for name, verb in verbs.items())


def _load(place: str) -> Any:
    """Return what is at "module:name"."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)

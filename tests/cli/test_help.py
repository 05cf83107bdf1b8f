"""What `--help`, `recipes` and `completion` show, and how mistakes in flags are told."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib import import_module

import pytest

from semsynth.cli import GROUPS, VERBS, Verb, main
from semsynth.cli.completion import script
from semsynth.cli.help import HELP
from semsynth.training.recipe import TrainConfig, load_recipe, recipe_names

INTERNALS = re.compile(
    r"Input should|validation|<class|NoneType|literal|parsing|instantiat|Traceback|\bgroup-"
    r"|pydantic|tyro|Unrecognized|argument",
    re.I,
)


def verbs(table: Mapping[str, Verb] = VERBS, above: str = "") -> Iterator[tuple[str, Verb]]:
    for name, verb in table.items():
        full = f"{above} {name}".strip()
        if verb.config:
            yield full, verb
        yield from verbs(verb.subverbs, full)


COMMANDS = dict(verbs())


@pytest.mark.parametrize("name", COMMANDS)
def test_groups_are_of_flags_that_exist_each_in_one(name: str) -> None:
    module, _, attribute = COMMANDS[name].config.partition(":")
    fields = {field.name for field in dataclasses.fields(getattr(import_module(module), attribute))}
    grouped = [key for names in HELP[name].groups.values() for key in names.split()]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= fields, "cli/help.py names a flag that is gone"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_of_the_verb_and_neither_none_nor_types(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    assert re.search(rf"^  semsynth {name}( |$)", text.partition("examples:")[2], re.M)
    assert not re.search(r"None\b|\b(STR|INT|FLOAT)\b|group-\d|\(default: \)", text)


def test_every_verb_is_in_one_group_of_the_bare_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(VERBS)
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{title}:\n" in text for title in GROUPS)


@pytest.mark.parametrize("verb", ["train", "plan", "submit"])
def test_help_names_all_recipes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    text = capsys.readouterr().out.partition("recipes (")[2]
    assert all(re.search(rf"\b{name}\b", text) for name in recipe_names())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("generate --steps many", "--steps: must be a whole number, not 'many'"),
        ("generate --guidance-scale x", "--guidance-scale: must be a number, not 'x'"),
        ("generate --guidance-interval 1", "--guidance-interval needs 2 values"),
        ("generate --guidance-interval 1 a", "--guidance-interval: must be a number, not 'a'"),
        ("generate --sampler dppm", "--sampler: must be one of dpm++, unipc, euler"),
        ("generate --sampler dppm", "(did you mean ddpm?)"),
        ("generate --limit 1.5", "--limit: must be a whole number, not '1.5'"),
        ("doctor --folder", "--folder needs a value"),
        ("doctor --foldr x", "unknown: --foldr x (did you mean --folder?)"),
        ("doctor x y", "unknown: y; see `semsynth doctor --help`"),
        ("status", "RUN is missing: Folder of the run; see `semsynth status --help`"),
        ("completion tcsh", "SHELL: must be one of bash, zsh, fish, not 'tcsh'"),
        ("demo --budget.trials x", "--budget.trials: must be a whole number, not 'x'"),
        ("train --lr 3", "a key of the recipe: --set lr=..."),
        ("plan --batch-size 3", "a key of the recipe: --set train.batch_size=..."),
        ("train --set batch_size=3", "did you mean 'train.batch_size'?"),
        ("train --set steps=3", "did you mean 'train.steps or finetune.steps or distill.steps'?"),
        ("train --set train.steps=1.5", "'train.steps' is 1.5: must be a whole number"),
        ("train --set train.betas=[0.9]", "'train.betas' has too few values (1)"),
        ("train --set train=5", "'train' is 5: must be a mapping of keys to values"),
        ("train --set model.codec=jpeg", "must be 'pixel', 'haar' or 'vae'"),
        ("train --set lr=-1", "'train.learning_rate' is -1: must be more than 0"),
        ("train --set lr=.inf", "is not a finite number"),
        ("train --set train.channels_last=x", "must be true or false, or must be 'auto'"),
    ],
)
def test_a_mistake_is_told_in_the_users_words(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not INTERNALS.search(captured.err)


def test_nested_and_repeated_flags_arrive() -> None:
    from semsynth.cli.common import parse
    from semsynth.cli.demo import DemoConfig
    from semsynth.pipelines.generate.config import GenerateConfig

    words = ["--budget.trials", "5", "--budget.guidance-scale=3", "--seed", "2"]
    demo, _ = parse(DemoConfig, words, "demo")
    assert (demo.budget.trials, demo.budget.guidance_scale, demo.seed) == (5, 3.0, 2)
    assert (demo.budget.real_images, demo.sizes.real_images) == (None, 6)
    generate, as_json = parse(
        GenerateConfig, ["--guidance-interval", "0.2", "0.8", "--limit", "3", "--json"], "generate"
    )
    assert (generate.guidance_interval, generate.limit, as_json) == ((0.2, 0.8), 3, True)
    train, _ = parse(TrainConfig, ["--from", "x", "--no-resume"], "train")
    assert (str(train.from_checkpoint), train.resume) == ("x", False)


def test_short_names_of_recipe_keys() -> None:
    changes = ("lr=3e-4", "bs=4", "finetune.lr=1e-5")
    recipe = load_recipe("streets_demo", changes)
    assert (recipe.train.learning_rate, recipe.train.batch_size) == (3e-4, 4)
    assert recipe.finetune.learning_rate == 1e-5
    assert load_recipe("streets_demo", ("train.bs=2",)).train.batch_size == 2


def test_recipes_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^{name}  \d+x\d+", text, re.M) for name in recipe_names())
    assert main(["recipes", "streets_demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    recipe = load_recipe("streets_demo")
    at = lines.index(f"train.batch_size = {recipe.train.batch_size}")
    assert "images per step over all processes" in lines[at + 1]
    keys = {line.partition(" = ")[0] for line in lines if " = " in line and line[0] != " "}
    assert {"height", "model.codec", "loss.prediction", "finetune.steps"} <= keys
    assert main(["recipes", "streets_demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == recipe.model_dump(mode="json")
    assert main(["recipes", "streets_dmo"]) == 2
    assert "did you mean `streets_demo`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tr", {"train"}),
        ("train --rec", {"--recipe"}),
        ("segment sc", {"score"}),
        ("generate --sampler un", {"unipc"}),
        ("export --to di", {"diffusers"}),
    ],
)
def test_bash_completes(typed: str, offered: set[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    words = " ".join(f"'{word}'" for word in ["semsynth", *typed.split(" ")])
    code = (
        f"{script('bash')}\nCOMP_WORDS=({words})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
        "function=$(complete -p semsynth)\nfunction=${function#*-F }\n"
        "${function% *} semsynth\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert offered <= set(done.stdout.split()), done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_of_all_shells_are_of_all_verbs(shell: str) -> None:
    text = script(shell)
    assert all(f"'{verb}'" in text for verb in VERBS)
    assert "--guidance-scale" in text
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n"], input=text, text=True, check=True, timeout=60)

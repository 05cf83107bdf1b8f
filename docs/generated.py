"""The parts of the reference that are generated from the code: recipe keys, commands, Python API.

Markdown that `conf.py` puts in place of `<!-- generated: NAME --> ... <!-- end -->`. Tests import
this file, too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module

import semsynth
from semsynth.cli import VERBS, Verb
from semsynth.cli.describe import Entry, flags, summary
from semsynth.cli.help import HELP, listed
from semsynth.cli.recipes import recipe_sections, recipe_table

_PLACEHOLDER = re.compile(r"<!-- generated: (\w+) -->.*?<!-- end -->", re.S)


def fill_in(text: str) -> str:
    """Return the page with its generated parts."""
    return _PLACEHOLDER.sub(lambda match: _PARTS[match[1]](), text)


# ---- recipes


def _recipe_keys() -> str:
    parts = []
    for name, cls, keys in recipe_sections():
        title = f"Section `{name}`" if name else "Top level"
        parts.append(f"## {title}\n\n{summary(cls)}\n\n{_table(keys, 'Key')}\n")
    return "\n".join(parts)


def _recipes() -> str:
    rows = [
        f"| [`{recipe['name']}`](../../recipes/{recipe['name']}.yaml) "
        f"| {recipe['height']}x{recipe['width']} | {recipe['about']} |"
        for recipe in recipe_table()
    ]
    return "\n".join(["| recipe | height x width | what it is for |", "|---|---|---|", *rows])


# ---- commands


def commands(verbs: Mapping[str, Verb] = VERBS, above: str = "") -> Iterator[tuple[str, type]]:
    """Yield each command (`segment train` is one) with the dataclass that its flags fill."""
    for name, verb in verbs.items():
        full = f"{above} {name}".strip()
        if verb.config:
            module, _, attribute = verb.config.partition(":")
            yield full, getattr(import_module(module), attribute)
        yield from commands(verb.subverbs, full)


def _commands() -> str:
    parts = []
    for name, config in commands():
        table = _table(flags(config), "Flag")
        examples = "\n".join(
            f"    {line.strip()}" for line in listed(HELP[name].examples).splitlines()[1:]
        )
        parts.append(f"## semsynth {name}\n\n{summary(config)}\n\n{examples}\n\n{table}\n")
    return "\n".join(parts)


# ---- Python API


def _api() -> str:
    parts = []
    for name in sorted(semsynth.__all__, key=str.lower):
        value = getattr(semsynth, name)
        if isinstance(value, str):
            continue
        kind = "autoclass" if isinstance(value, type) else "autofunction"
        lines = [f".. {kind}:: semsynth.{name}"]
        fields = flags(value) if dataclasses.is_dataclass(value) else []
        if kind == "autoclass" and not issubclass(value, Exception):
            names = ", ".join(field.name for field in dataclasses.fields(value)) if fields else ""
            lines += ["   :members:", *([f"   :exclude-members: {names}"] if names else [])]
        parts.append(f"## {name}\n\n```{{eval-rst}}\n" + "\n".join(lines) + "\n```\n")
        if fields and "Attributes:" not in (value.__doc__ or ""):  # else the class says it itself
            rows = [replace(f, name=_field(f.name)) for f in fields]
            parts.append(f"{_table(rows, 'Field')}\n")
    return "\n".join(parts)


def _field(flag: str) -> str:
    """Return the name of the field behind a flag."""
    return {"--from": "from_checkpoint"}.get(
        flag, flag.partition(",")[0].removeprefix("--").replace("-", "_").lower()
    )


_PARTS: dict[str, Callable[[], str]] = {
    "recipes": _recipes,
    "recipe_keys": _recipe_keys,
    "commands": _commands,
    "api": _api,
}


# ---- what all of them share


def _table(entries: list[Entry], title: str) -> str:
    lines = [f"| {title} | Type and default | Meaning |", "|---|---|---|"]
    for entry in entries:
        names = "<br>".join(f"`{name}`" for name in entry.name.split(", "))
        default = entry.default if entry.default == "required" else f"default: {entry.default}"
        cells = (names, f"{entry.kind}<br>{default}", _sentence(entry.meaning))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    """Return the text with a capital, unless it starts with a name such as `final_model.pth`."""
    return text[:1].upper() + text[1:] if text.split(" ")[0].isalpha() else text

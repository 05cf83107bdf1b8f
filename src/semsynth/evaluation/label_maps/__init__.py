"""Which class of the data each class of an evaluator is: by equal names, or as a label map says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from semsynth.core.config import parse_yaml
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_bytes
from semsynth.data.labels import LabelSet

_FOLDER = Path(__file__).parent
_SHOWN = 8


@dataclass(frozen=True)
class LabelMap:
    """What ``--label-map`` says.

    Attributes:
        title: the file's name, or that of a built-in map.
        entries: name of the data's class, or None for none of them, by the evaluator's name.
        built_in: whether it comes with semsynth, for whole label sets that data may have in part.
    """

    title: str
    entries: Mapping[str, str | None]
    built_in: bool = False

    @classmethod
    def read(cls, source: str) -> LabelMap:
        """Read a file, or a built-in map by its name.

        Raises:
            UserError: no such file or map, or not one entry ``their name: our name`` (or ``null``)
                a line; a name that is given twice.
        """
        path = Path(source)
        built_in = source in built_in_maps() and not path.is_file()
        if built_in:
            path = _FOLDER / f"{source}.yaml"
        if not path.exists():
            raise UserError(
                f"--label-map {source}: no such file, nor a built-in map "
                f"({', '.join(built_in_maps())})"
            )
        value = parse_yaml(read_bytes(path), str(path))
        if not isinstance(value, dict) or not value:
            raise UserError(f"{path}: must be lines of 'their name: our name' (or null)")
        for name, ours in value.items():
            if not isinstance(name, str) or not isinstance(ours, str | None):
                raise UserError(
                    f"{path}: '{name}: {ours}' must be 'their name: our name' (or null); put names "
                    "that look like numbers in quotes"
                )
        return cls(source if built_in else path.name, value, built_in)

    def check(self, evaluators: Sequence[Sequence[str]], labels: LabelSet) -> None:
        """Check that every name is one of an evaluator, and one of the data.

        Args:
            evaluators: the names of the classes of each evaluator.
            labels: of the data.

        Raises:
            UserError: an unknown name.
        """
        known = sorted({name for names in evaluators for name in names})
        ours = [label.name for label in labels.labels]
        for name, target in self.entries.items():
            if name not in known:
                raise UserError(_unknown(self.title, name, "the evaluator", known))
            if target is not None and target not in ours and not self.built_in:
                raise UserError(_unknown(self.title, target, "the data", ours))


def _unknown(where: str, name: str, whose: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    listed = abbreviate(list(known), _SHOWN)
    return f"--label-map {where}: '{name}' is not a class of {whose} ({listed}){hint}"


def built_in_maps() -> list[str]:
    """Return the names of the maps that come with semsynth."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@dataclass(frozen=True)
class NameMatch:
    """The classes of an evaluator in terms of those of the data.

    Attributes:
        source: what said so, in words.
        pairs: name of the data's class by the evaluator's name.
        dropped: the evaluator's names that the label map gives to none (``null``).
        unmapped: the evaluator's names that nothing of the data's is known for.
        left_out: the data's classes that the evaluator does not know: they are not scored.
    """

    source: str
    pairs: Mapping[str, str]
    dropped: Sequence[str] = field(default_factory=list)
    unmapped: Sequence[str] = field(default_factory=list)
    left_out: Sequence[str] = field(default_factory=list)


def match_names(names: Sequence[str], labels: LabelSet, given: LabelMap | None) -> NameMatch:
    """Match the names of an evaluator's classes with those of the data.

    Names that are exactly equal belong together; a label map adds to it, and has precedence. Where
    none is given, a built-in one is used if the evaluator's names are exactly its names and the
    data have all classes that it names.

    Args:
        names: of the evaluator's classes.
        labels: of the data.
        given: what ``--label-map`` says.
    """
    ours = {label.name for label in labels.trainable}
    ignored = {label.name for label in labels.labels} - ours
    used = given or _recognised(names, ours)
    said = {name: used.entries[name] for name in names if name in used.entries} if used else {}
    pairs: dict[str, str] = {}
    dropped, unmapped = [], []
    for name in dict.fromkeys(names):
        target = said.get(name, name if name in ours else None)
        if target in ours:
            pairs[name] = target
        elif name in said and (target is None or target in ignored):
            dropped.append(name)
        else:
            unmapped.append(name)
    left_out = [x.name for x in labels.trainable if x.name not in pairs.values()]
    source = "equal names" if used is None else f"label map {used.title}, and equal names"
    return NameMatch(source, pairs, dropped, unmapped, left_out)


def _recognised(names: Sequence[str], ours: set[str]) -> LabelMap | None:
    """Return the built-in map of exactly these label sets."""
    if set(names) <= ours:
        return None
    for title in built_in_maps():
        found = LabelMap.read(title)
        targets = {target for target in found.entries.values() if target is not None}
        if set(names) == found.entries.keys() and targets <= ours:
            return found
    return None

"""Which generated image is of which mask: by a manifest, or by one rule for all names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from semsynth.core.errors import UserError, abbreviate
from semsynth.evaluation.config import MatchRule
from semsynth.evaluation.inputs.folders import natural

_SHOWN = 5
_RULES: tuple[MatchRule, ...] = get_args(MatchRule)
_PATTERNS = {"STEM__K": re.compile(r"(.+)__[0-9]+"), "STEM_K": re.compile(r"(.+)_[0-9]+")}


def match(
    samples: Sequence[str], masks: Iterable[str], names: tuple[str, str], rule: MatchRule | None
) -> tuple[dict[str, str], MatchRule]:
    """Return the stem of the mask by that of each sample, and the rule that says so.

    One rule holds for all samples: the stem of the mask itself, with ``__K`` or ``_K`` behind it,
    or below a folder for each sample (``K/STEM``).

    Args:
        samples: the stems of the generated images.
        masks: the stems of the masks, or of the real images.
        names: what the two are called in messages.
        rule: which one; None: the one by which all samples have a mask.

    Raises:
        UserError: no rule fits all samples, or two that do differ.
    """
    known = set(masks)
    tried = _RULES if rule is None else (rule,)
    fitting = [name for name in tried if all(mask_of(stem, name) in known for stem in samples)]
    if not fitting:
        found = {name: {stem: mask_of(stem, name) for stem in samples} for name in tried}
        raise UserError(_nothing_fits(found, known, names))
    first = fitting[0]
    for name in fitting[1:]:
        for stem in samples:
            one, other = mask_of(stem, first), mask_of(stem, name)
            if one != other:
                raise UserError(
                    f"{names[0]}: image '{stem}' may be of '{one}' or of '{other}' of {names[1]}; "
                    f"choose one with --match {first} or --match {name}"
                )
    return {stem: str(mask_of(stem, first)) for stem in samples}, first


def mask_of(stem: str, rule: MatchRule) -> str | None:
    """Return the stem of a sample's mask by a rule; None where its name has another form.

    Example:
        >>> mask_of("town/a__003", "STEM__K"), mask_of("run_3/a", "K/STEM"), mask_of("a", "STEM_K")
        ('town/a', 'a', None)
    """
    if rule == "STEM":
        return stem
    if rule == "K/STEM":
        return stem.partition("/")[2] or None
    found = _PATTERNS[rule].fullmatch(stem)
    return found[1] if found else None


def _nothing_fits(
    found: Mapping[MatchRule, Mapping[str, str | None]], known: set[str], names: tuple[str, str]
) -> str:
    """Say what was tried, and which images by the rule that fits best have no partner."""
    fits = {rule: sum(m in known for m in pairs.values()) for rule, pairs in found.items()}
    best = max(fits, key=lambda rule: fits[rule])
    alone = sorted((s for s, mask in found[best].items() if mask not in known), key=natural)
    free = sorted(known - set(found[best].values()) or known, key=natural)
    tried = " or ".join(fits)
    if not fits[best]:
        how = f"no image matches one of {names[1]} by its relative stem"
    else:
        how = f"{len(alone)} of {len(found[best])} images match none of {names[1]}"
    return (
        f"{names[0]}: {how} (tried {tried}): {abbreviate(alone, _SHOWN)} beside "
        f"{abbreviate(free, _SHOWN)}; name each image as its mask, or move the others away"
    )


def grouped(pairs: Mapping[str, str], order: Sequence[str]) -> dict[str, list[str]]:
    """Return each mask's samples in natural order, by those masks in ``order`` that have any."""
    by_mask: dict[str, list[str]] = {}
    for sample, mask in pairs.items():
        by_mask.setdefault(mask, []).append(sample)
    return {mask: sorted(by_mask[mask], key=natural) for mask in order if mask in by_mask}

"""The network of an official SDM state dict, inferred from the names and shapes of its parameters.

Each value is decided by the majority of the keys that show it. So a file in which some keys are
missing or have the wrong shape can still be compared with a network, and the message names them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from semsynth.core.config import parse
from semsynth.core.errors import UserError, abbreviate
from semsynth.models.config import ModelConfig
from semsynth.models.official.names import Shape, official_shapes
from semsynth.models.sdm.unet import SemanticUNet

Shapes = Mapping[str, Shape]
# Parts of a residual block, plain or with SPADE; those of attention are norm, qkv, proj_out.
_RESIDUAL = r"(?:in_norm|in_layers|emb_layers|out_norm|out_layers|skip_connection)\."
_ATTENTION = r"(?:norm|qkv|proj_out)\."


@dataclass(frozen=True)
class OfficialNetwork:
    """All that shapes show; the width of attention heads is not shown by any.

    Attributes:
        out_channels: 3, or 6 where the variance is learned.
        label_channels: classes, plus one for an instance edge map.
        widths: channels of each level, the full resolution first.
        attention_levels: indices of the levels with attention.
    """

    in_channels: int
    out_channels: int
    label_channels: int
    base_channels: int
    widths: tuple[int, ...]
    blocks_per_level: int
    attention_levels: tuple[int, ...]
    spade_hidden: int

    @property
    def learn_sigma(self) -> bool:
        """Whether half of the output channels are the variance."""
        return self.out_channels == 2 * self.in_channels

    def model_config(self, head_channels: int, instance_edges: bool, where: str) -> ModelConfig:
        """Return the configuration of the network with heads of that width.

        Raises:
            UserError: ``head_channels`` does not divide the width of a level with attention.
        """
        last = len(self.widths) - 1
        for level in sorted({*self.attention_levels, last}):
            if head_channels < 1 or self.widths[level] % head_channels:
                raise UserError(
                    f"{where}: --head-channels {head_channels} does not divide the "
                    f"{self.widths[level]} channels of level {level}; give the "
                    "--num_head_channels that the network was trained with"
                )
        values = {
            "codec": "pixel",
            "base_channels": self.base_channels,
            "channel_mult": [_multiple(width, self.base_channels) for width in self.widths],
            "blocks_per_level": self.blocks_per_level,
            "attention_factors": [2**level for level in self.attention_levels],
            "head_channels": head_channels,
            "spade_hidden": self.spade_hidden,
            "labels": "nearest",
            "instance_edges": instance_edges,
        }
        return parse(ModelConfig, values, where)


def infer_network(shapes: Shapes, where: str) -> OfficialNetwork:
    """Infer the network from ``shapes`` (official name to shape).

    Raises:
        UserError: not an official SDM network, or one of a kind that was never published;
            ``where`` begins the message.
    """
    _check_kind(shapes, where)
    period, levels = _count_levels(shapes, where)
    widths = tuple(
        _most([*_widths(shapes, level, period, levels)], f"the width of level {level}", where)
        for level in range(levels)
    )
    maps = [shape[1] for shape in _shapes(shapes, r"mlp_shared\.0\.weight$", 4)]
    gammas = [shape[1] for shape in _shapes(shapes, r"mlp_(?:gamma|beta)\.weight$", 4)]
    # The time embedding is four times as wide as the base.
    bases = [shape[1] // 4 for shape in _shapes(shapes, r"emb_layers\.1\.weight$", 2)]
    # One or two keys show these; without them we take the published values, so that the file is
    # refused for the keys that it lacks.
    image = [*shapes.get("input_blocks.0.0.weight", ())[1:2], 3]
    output = [n for kind in ("weight", "bias") for n in shapes.get(f"out.2.{kind}", ())[:1]] or [6]
    return OfficialNetwork(
        in_channels=image[0],
        out_channels=_most(output, "the output channels", where),
        label_channels=_most(maps, "the label channels", where),
        base_channels=_most(bases, "the base width", where),
        widths=widths,
        blocks_per_level=period - 1,
        attention_levels=tuple(_attention_levels(shapes, period, levels)),
        spade_hidden=_most(gammas, "SPADE's hidden width", where),
    )


def check_keys(unet: SemanticUNet, shapes: Shapes, where: str) -> None:
    """Compare names and shapes with those of the network.

    Raises:
        UserError: names the keys that are missing, unknown, or of another shape; of each kind the
            first ten, and how many there are.
    """
    wanted = official_shapes(unet)
    missing = [name for name in wanted if name not in shapes]
    unknown = [name for name in shapes if name not in wanted]
    wrong = [
        f"{name} {shapes[name]} in place of {shape}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
    problems = [f"{len(names)} {kind}: {abbreviate(names)}" for kind, names in kinds if names]
    if problems:
        raise UserError(
            f"{where}: does not fit the SDM network of {len(wanted)} keys that most of its shapes "
            f"show; keys {'; '.join(problems)}"
        )


def _check_kind(shapes: Shapes, where: str) -> None:
    if not any(name.startswith("input_blocks.") for name in shapes):
        raise UserError(
            f"{where}: is not the state dict of an official SDM network (no input_blocks.*); "
            f"its keys are {abbreviate(list(shapes)) or 'none at all'}"
        )
    if not any(".mlp_shared." in name for name in shapes):
        raise UserError(
            f"{where}: is a guided-diffusion network without SPADE (no *.mlp_shared.* among "
            f"{len(shapes)} keys), so it takes no label map; give a checkpoint of the semantic "
            "diffusion model"
        )
    plain = [n for n in shapes if re.search(r"^input_blocks\.\d+\.0\.op\.|\.\d\.conv\.\w+$", n)]
    if plain:
        raise UserError(
            f"{where}: was trained with --resblock_updown False ({abbreviate(plain)}); only True, "
            "as published, is supported"
        )
    times = [shape[0] for shape in _shapes(shapes, r"^middle_block.*emb_layers\.1\.bias$", 1)]
    widths = [shape[0] for shape in _shapes(shapes, r"^middle_block.*out_layers\.2\.bias$", 1)]
    if times and times == widths:
        raise UserError(
            f"{where}: was trained with --use_scale_shift_norm False (emb_layers as wide as their "
            "blocks); only True, as published, is supported"
        )


def _count_levels(shapes: Shapes, where: str) -> tuple[int, int]:
    """Return the stages of a level (blocks plus one, in encoder and decoder alike) and levels."""
    counts = {_count(shapes, "input_blocks"), _count(shapes, "output_blocks")}
    ups = sorted(
        {int(m[1]) for m in _matches(shapes, rf"output_blocks\.(\d{{1,2}})\.[12]\.{_RESIDUAL}")}
    )
    if not ups:
        return max(counts), 1
    # The last stage of every level but the full resolution ends with upsampling.
    gaps = [ups[0] + 1, *(after - before for before, after in pairwise(ups))]
    period = _most(gaps, "the blocks of a level", where)
    fitting = [count // period for count in counts if count and count % period == 0]
    if period < 2 or not fitting:
        raise UserError(
            f"{where}: its {max(counts)} blocks are not an SDM network (levels end after output "
            f"blocks {', '.join(map(str, ups))}); is the file complete?"
        )
    return period, max(fitting)


def _count(shapes: Shapes, part: str) -> int:
    found = {int(match[1]) for match in _matches(shapes, rf"{part}\.(\d{{1,2}})\.")}
    return next(index for index in range(101) if index not in found)


def _widths(shapes: Shapes, level: int, period: int, levels: int) -> Iterator[int]:
    """Return the width of a level, once for every bias that shows it."""
    for index in range(period):
        names = [f"output_blocks.{(levels - 1 - level) * period + index}.0.out_layers.2.bias"]
        if index < period - 1:
            names.append(f"input_blocks.{1 + level * period + index}.0.out_layers.3.bias")
        for name in names:
            yield from shapes.get(name, ())[:1]


def _attention_levels(shapes: Shapes, period: int, levels: int) -> Iterator[int]:
    for level in range(levels):
        stages = [f"output_blocks.{(levels - 1 - level) * period + i}" for i in range(period)]
        stages += [f"input_blocks.{1 + level * period + i}" for i in range(period - 1)]
        pattern = rf"({'|'.join(map(re.escape, stages))})\.1\.{_ATTENTION}"
        having = {match[1] for match in _matches(shapes, pattern)}
        if 2 * len(having) > len(stages):
            yield level


def _matches(shapes: Shapes, pattern: str) -> Iterator[re.Match[str]]:
    return (match for name in shapes if (match := re.match(pattern, name)))


def _shapes(shapes: Shapes, pattern: str, axes: int) -> Iterator[Shape]:
    for name, shape in shapes.items():
        if len(shape) == axes and re.search(pattern, name):
            yield shape


def _most(values: Iterable[int], what: str, where: str) -> int:
    common = Counter(value for value in values if value > 0).most_common(1)
    if not common:
        raise UserError(f"{where}: no key shows {what}; is the file complete?")
    return common[0][0]


def _multiple(width: int, base: int) -> float:
    """Return the multiple of ``base`` that the network turns into exactly ``width``."""
    multiple = width / base
    if int(multiple * base) != width:
        multiple = math.nextafter(multiple, math.inf)
    return int(multiple) if multiple == int(multiple) else multiple

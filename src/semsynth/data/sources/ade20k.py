"""ADE20K as published for the scene parsing challenge of 2016 (ADEChallengeData2016).

Zhou et al., "Scene parsing through ADE20K dataset", 2017. As in the official code of the paper
the 150 classes have channels 0 to 149 and "other" (id 0) has the last one.
"""

from __future__ import annotations

from semsynth.data.config import PrepareConfig
from semsynth.data.labels import BLACK, Label, LabelSet, distinct_colors
from semsynth.data.sources.base import Record
from semsynth.data.sources.files import PairSource, list_pictures, pair_up, require_folder

NAMES = """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
    person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa,
    shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp,
    bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand,
    sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table,
    pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower,
    book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar,
    arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight,
    booth, television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator,
    ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer,
    plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven,
    ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen,
    blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen,
    plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""
LAYOUT = "images/{training,validation} and annotations/{training,validation}"


def _labels() -> LabelSet:
    names = [name.strip() for name in NAMES.split(",")]
    colors = distinct_colors(len(names))
    classes = [
        Label(number, name, color, number - 1)
        for number, (name, color) in enumerate(zip(names, colors, strict=True), 1)
    ]
    return LabelSet((Label(0, "other", BLACK, len(names)), *classes), ignore_id=0)


LABELS = _labels()


def open_source(config: PrepareConfig) -> PairSource:
    """Pair images and annotations; training and validation become train and val.

    Raises:
        UserError: the layout is another, or files lack partners.
    """
    root = require_folder(config.data, "--data", LAYOUT)
    records = []
    for split, part in (("train", "training"), ("val", "validation")):
        images = list_pictures(root / "images" / part)
        masks = list_pictures(root / "annotations" / part)
        records += [Record(s, split, str(p.mask), p) for s, p in pair_up(images, masks)]
    return PairSource(
        name="ade20k",
        origin="ADE20K, scene parsing challenge 2016 (Zhou et al. 2017)",
        licence="ADE20K terms: non-commercial research and education",
        labels=LABELS,
        pairs=records,
    )

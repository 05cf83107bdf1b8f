"""The classes of the streets: names of sidewalk-semantic, compact ids, Cityscapes-like colours."""

from __future__ import annotations

UNLABELED = 0
ROAD = 1
SIDEWALK = 2
CROSSWALK = 3
CURB = 4
BUILDING = 5
VEGETATION = 6
TERRAIN = 7
SKY = 8
CAR = 9
PERSON = 10
POLE = 11
SIGN = 12

LABELS: list[tuple[int, str, tuple[int, int, int]]] = [
    (UNLABELED, "unlabeled", (0, 0, 0)),
    (ROAD, "flat-road", (128, 64, 128)),
    (SIDEWALK, "flat-sidewalk", (244, 35, 232)),
    (CROSSWALK, "flat-crosswalk", (140, 140, 200)),
    (CURB, "flat-curb", (196, 196, 196)),
    (BUILDING, "construction-building", (70, 70, 70)),
    (VEGETATION, "nature-vegetation", (107, 142, 35)),
    (TERRAIN, "nature-terrain", (152, 251, 152)),
    (SKY, "sky", (70, 130, 180)),
    (CAR, "vehicle-car", (0, 0, 142)),
    (PERSON, "human-person", (220, 20, 60)),
    (POLE, "object-pole", (153, 153, 153)),
    (SIGN, "object-trafficsign", (220, 220, 0)),
]
"""(id, name, RGB) of every class; id 0 is real content without a label (to be ignored)."""

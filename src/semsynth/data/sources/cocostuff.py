"""COCO-Stuff as published: the images of COCO 2017 and stuffthingmaps_trainval2017.

Caesar et al., "COCO-Stuff: thing and stuff classes in context", 2018. As in the official code of
the paper the 182 classes have channels 0 to 181 and "unlabeled" (id 255) has the last one. Eleven
of the things are in no mask (street sign, hat, …); their channels are unused.
"""

from __future__ import annotations

from pathlib import Path

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.labels import BLACK, Label, LabelSet, distinct_colors
from semsynth.data.raw.files import Pair, PairSource
from semsynth.data.raw.published import list_images, pair_up, require_folder
from semsynth.data.raw.source import Record

# In the order of their ids; the first 91 are things.
NAMES = """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
    fire hydrant, street sign, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow,
    elephant, bear, zebra, giraffe, hat, backpack, umbrella, shoe, eye glasses, handbag, tie,
    suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
    skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife, spoon, bowl,
    banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch,
    potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote,
    keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase,
    scissors, teddy bear, hair drier, toothbrush, hair brush,
    banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet,
    ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff,
    dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood,
    flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house,
    leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement,
    pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock,
    roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone,
    straw, structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick,
    wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other,
    waterdrops, window-blind, window-other, wood
"""
THINGS = 91
UNLABELLED = 255
LICENCE = "COCO-Stuff annotations CC BY 4.0; images under the terms of Flickr"
LAYOUT = "images/{train2017,val2017} and annotations/{train2017,val2017} (of stuffthingmaps)"
_MASKS = ("annotations", "stuffthingmaps_trainval2017", "stuffthingmaps")


def _labels() -> LabelSet:
    names = [name.strip() for name in NAMES.split(",")]
    colors = distinct_colors(len(names))
    classes = [
        Label(number, name, color, number, number < THINGS)
        for number, (name, color) in enumerate(zip(names, colors, strict=True))
    ]
    unlabelled = Label(UNLABELLED, "unlabeled", BLACK, len(names))
    return LabelSet((*classes, unlabelled), ignore_id=UNLABELLED)


LABELS = _labels()


def open_source(config: PrepareConfig) -> PairSource:
    """Pair images and masks; train2017 and val2017, if present, become train and val.

    The folders of SPADE's code are read too: train_img, train_label and, if present, train_inst,
    and the same for val.

    Raises:
        UserError: another layout, or files without a partner.
    """
    root = require_folder(config.data, "--data", LAYOUT)
    records = [record for split in ("train", "val") for record in _split(root, split)]
    if not records:
        raise UserError(f"{root}: has no folder images/train2017 or images/val2017; needs {LAYOUT}")
    return PairSource(
        name="cocostuff",
        origin="COCO-Stuff 164k (Caesar et al. 2018)",
        licence=LICENCE,
        labels=LABELS,
        pairs=records,
    )


def _split(root: Path, split: str) -> list[Record]:
    folders = _folders(root, split)
    if folders is None:
        return []
    images, masks, instances = folders
    pairs = pair_up(list_images(images), list_images(masks))
    if instances is not None:
        maps = list_images(instances)
        for stem, pair in pairs:
            if stem not in maps:
                raise UserError(f"{pair.mask}: has no instance map {stem}.png in {instances}")
        pairs = [(stem, Pair(pair.image, pair.mask, maps[stem])) for stem, pair in pairs]
    return [Record(stem, split, str(pair.mask), pair) for stem, pair in pairs]


def _folders(root: Path, split: str) -> tuple[Path, Path, Path | None] | None:
    """Return where images, masks and instance maps of a split are; None for an absent split."""
    if (root / f"{split}_img").is_dir():
        instances = root / f"{split}_inst"
        return (
            root / f"{split}_img",
            root / f"{split}_label",
            instances if instances.is_dir() else None,
        )
    part = f"{split}2017"
    images = next((path for path in (root / "images" / part, root / part) if path.is_dir()), None)
    if images is None:
        return None
    masks = next((path for name in _MASKS if (path := root / name / part).is_dir()), None)
    if masks is None:
        raise UserError(f"{images}: has no masks beside it; needs {LAYOUT}")
    return images, masks, None

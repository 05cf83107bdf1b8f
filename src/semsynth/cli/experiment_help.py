"""What the `--help` of experiment and probe shows besides flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Help(NamedTuple):
    """Of a verb: examples, each with what it is for, and flags by the title of their group."""

    examples: Mapping[str, str] = {}
    groups: Mapping[str, str] = {}


EXPERIMENTS = {
    "experiment": Help(
        {
            "40 of your images, two draws to choose settings": (
                "semsynth experiment --data prepared --recipe camvid --n 40 --output experiment"
            ),
            "what its tasks are, for a job array": (
                "semsynth experiment --data prepared --recipe camvid --n 40 --output experiment "
                "--list"
            ),
            "with everything frozen, the draws that are reported": (
                "semsynth experiment --data prepared --recipe camvid --n 40 --output experiment "
                "--stage final"
            ),
        },
        {
            "data": (
                "data output n split eval_split kind draw_by generator_data unlabelled "
                "allow_overlap min_class_images"
            ),
            "experiment": "stage freeze draws arms seeds seed list_ plan task",
            "generator": "recipe set from_checkpoint generator_unlabelled",
            "synthetic images": (
                "images_per_real strength keep generate edit filter teacher teacher_part"
            ),
            "segmenters": "segment larger longer_most device",
        },
    ),
    "probe": Help(
        {
            "your labelled images, ten minutes on two cores": (
                "semsynth probe --data prepared --output probe"
            ),
        },
        {
            "data": (
                "data output n split eval_split kind generator_data allow_overlap min_class_images"
            ),
            "time": "minutes seed device",
            "networks": "recipe set segment generate",
        },
    ),
}

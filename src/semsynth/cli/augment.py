"""`semsynth augment`: what synthetic images add to a segmenter."""

from __future__ import annotations

from semsynth.augmentation.config import AugmentConfig
from semsynth.cli.common import finish, parse


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    config, as_json = parse(AugmentConfig, argv, "augment")
    from semsynth.augmentation.experiment import run_experiment

    return finish(run_experiment(config), as_json)

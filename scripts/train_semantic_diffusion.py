#!/usr/bin/env python3
"""The seed's training: `semsynth train` with the recipe of 1024x1024; further flags override it."""

import sys

from semsynth.cli.seed import run

DEFAULTS = {
    "recipe": "sidewalk_1024",
    "data": "./data/sidewalk_processed",
    "output": "./checkpoints/semantic_diffusion_1024",
}
if __name__ == "__main__":
    sys.exit(run("train", DEFAULTS))

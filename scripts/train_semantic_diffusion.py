#!/usr/bin/env python3
"""Train at 1024x1024: `semsynth train`; further flags override the defaults."""

import sys

from semsynth.cli.scripts import run

DEFAULTS = {
    "recipe": "sidewalk_1024",
    "data": "./data/sidewalk_processed",
    "output": "./checkpoints/semantic_diffusion_1024",
}
if __name__ == "__main__":
    sys.exit(run("train", DEFAULTS))

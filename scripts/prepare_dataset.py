#!/usr/bin/env python3
"""Prepare the sidewalk data set: `semsynth prepare`, with --output_dir."""

import sys

from semsynth.cli.scripts import run

if __name__ == "__main__":
    sys.exit(run("prepare", {"source": "sidewalk", "output": "./data/sidewalk_processed"}))

#!/usr/bin/env python3
"""Evaluate what `generate_images.py` wrote: `semsynth evaluate`."""

import sys

from semsynth.cli.scripts import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())

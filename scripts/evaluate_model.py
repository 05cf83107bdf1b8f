#!/usr/bin/env python3
"""The seed's evaluation: `semsynth evaluate` of what `generate_images.py` wrote."""

import sys

from semsynth.cli.seed import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())

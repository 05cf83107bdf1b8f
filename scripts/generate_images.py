#!/usr/bin/env python3
"""Generate images: `semsynth generate`, with --model_path, --data_dir, --output_dir."""

import sys

from semsynth.cli.scripts import run

DEFAULTS = {
    "model": "./checkpoints/semantic_diffusion_1024/final_model.pth",
    "data": "./data/sidewalk_processed",
    "output": "./results/generated",
}
if __name__ == "__main__":
    sys.exit(run("generate", DEFAULTS))

#!/usr/bin/env python3
"""Draw the README's first picture: real images beside generated ones (all CC0).

Masks and real images are examples of the package that its models have not seen; each column is a
mask, the rows are mask, real image, and two generated images.

    python benchmarks/readme_picture.py --output docs/images/real_and_generated.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semsynth import SemanticDiffusionPipeline
from semsynth.pipelines.formats.pretrained import FOLDER

EXAMPLES = FOLDER.parent / "examples"
COLUMNS = (
    ("nuclei", "stained"),
    ("nuclei", "stained"),
    ("nuclei", "fluorescence"),
    ("aerial", "tile8_7_483"),
    ("aerial", "tile8_8_0"),
    ("aerial", "tile8_9_0"),
)
ROWS = ("mask", "real", "generated", "generated")
CELL, GAP, LEFT = 192, 4, 88


def main() -> None:
    """Read the flags, generate, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    size = (LEFT + len(COLUMNS) * (CELL + GAP), len(ROWS) * (CELL + GAP))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for row, name in enumerate(ROWS):
        draw.text((4, row * (CELL + GAP) + CELL // 2), name, fill=(70, 70, 70), font=font)
    pipes = {name: SemanticDiffusionPipeline.from_pretrained(name) for name, _ in COLUMNS}
    used: set[Path] = set()
    for column, (name, start) in enumerate(COLUMNS):
        found = sorted((EXAMPLES / name).glob(f"*/masks/{start}*.png"))
        path = next(path for path in found if path not in used)
        used.add(path)
        for row, image in enumerate(_images(pipes[name], path)):
            place = (LEFT + column * (CELL + GAP), row * (CELL + GAP))
            sheet.paste(image.resize((CELL, CELL), Image.Resampling.LANCZOS), place)
    sheet.save(output, optimize=True)


def _images(pipe: SemanticDiffusionPipeline, path: Path) -> list[Image.Image]:
    """Return the coloured mask, the real image and two generated ones."""
    mask = np.asarray(Image.open(path))
    colors = np.zeros((256, 3), np.uint8)
    for label in pipe.labels.labels:
        colors[label.id] = label.color
    real = Image.open(path.parent.parent / "images" / path.name).convert("RGB")
    file = path.parent.parent / "instances" / path.name
    instances = np.asarray(Image.open(file)) if file.exists() else None
    images = pipe(mask, num_images=2, seeds=[0, 1], instances=instances, return_dict=False)[0]
    return [Image.fromarray(colors[mask]), real, *images]


if __name__ == "__main__":
    main()

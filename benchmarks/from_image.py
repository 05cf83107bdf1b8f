"""What comes back of a real image from low noise, and how light and stain vary from pure noise.

Held-out images are noised to some strengths and generated again (`generate --from-image`): the mean
difference to the real image, its mean (brighter or darker), and the power of details by octave. At
strength 0 all of an image would come back. Then images from noise alone, some of each mask: the
deviation of their mean colours within a mask, and how far the mean colours of the real images of
these masks are from theirs (a generator that varies as real images do has about the same).

    python benchmarks/from_image.py --model nuclei --data nuclei_prepared
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semsynth.cli.common import finish, guard, parse


@dataclass(frozen=True)
class BenchConfig:
    """Measure what is kept from low noise, and what varies from pure noise."""

    model: Path
    """A trained model: its file, folder or name."""
    data: Path
    """Prepared data."""
    split: str = "val"
    """Its held-out images."""
    limit: int = 24
    """So many of them, evenly spread."""
    strengths: tuple[float, ...] = (0.1, 0.25, 0.5)
    """Shares of the noise levels."""
    per_mask: int = 4
    """Images of a mask from noise alone."""


def main(argv: list[str]) -> int:
    """Run the benchmark and print what was found."""
    config, as_json = parse(BenchConfig, argv, "bench")
    return finish(measure(config), as_json)


def measure(config: BenchConfig) -> dict[str, Any]:
    """Return a line for each strength, in grey levels of 255 and decibels, and the deviations."""
    import numpy as np

    from semsynth.data.dataset import PreparedDataset
    from semsynth.evaluation.metrics.spectrum import decibels, octaves_of, texture
    from semsynth.pipelines.generate.config import GenerateConfig
    from semsynth.pipelines.generate.run import generate

    data = PreparedDataset.open(config.data)
    found: dict[str, Any] = {}
    shared: Any = {"model": config.model, "data": config.data, "split": config.split}

    def samples(**changes: Any) -> Iterator[tuple[Any, Any, str]]:
        """Yield generated images, the real one of each and its stem."""
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "samples"
            generate(GenerateConfig(**shared, output=output, limit=config.limit, **changes))
            made = PreparedDataset.open(output)
            for name in made.stems(config.split):
                stem = name.rpartition("__")[0]
                yield (
                    made.read_image(config.split, name),
                    data.read_image(config.split, stem),
                    stem,
                )

    for strength in config.strengths:
        generated, real, _ = zip(
            *samples(per_mask=1, from_image=True, strength=strength), strict=True
        )
        difference = np.stack(generated).astype(float) - np.stack(real)
        power = [octaves_of(np.mean([texture(x) for x in xs], 0)) for xs in (generated, real)]
        octaves = " ".join(f"{value:.1f}" for value in decibels(*power)[:4])
        found[f"strength {strength:g}"] = (
            f"difference {np.abs(difference).mean():.1f}, mean {difference.mean():+.1f}, "
            f"dB of 2 to 32 pixels {octaves} ({len(real)} images)"
        )
    by_mask, of_real = defaultdict(list), {}
    for image, real_image, stem in samples(per_mask=config.per_mask):
        by_mask[stem].append(image.mean((0, 1)))
        of_real[stem] = real_image.mean((0, 1))
    within = np.sqrt(np.mean([np.var(values, 0, ddof=1) for values in by_mask.values()], 0))
    apart = [of_real[stem] - np.mean(values, 0) for stem, values in by_mask.items()]
    found["mean colours within a mask"] = " ".join(f"{value:.1f}" for value in within)
    missed = np.sqrt(np.mean(np.square(apart), 0))
    found["of the real images from these"] = " ".join(f"{value:.1f}" for value in missed)
    return found


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

"""Images per second through a codec; haar against its level-by-level definition, in turns."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from semsynth.cli.common import finish, guard, parse
from semsynth.core.devices import pick_device, seconds
from semsynth.core.errors import UserError
from semsynth.models.codecs.codec import Codec, HaarCodec
from semsynth.models.codecs.vae import load_vae


@dataclass(frozen=True)
class CodecBenchConfig:
    """Time encoding and decoding of one image."""

    side: int = 1024
    """Height and width of the image in pixels."""
    levels: int = 2
    """Levels of haar."""
    vae: str | None = None
    """Time this Diffusers autoencoder in place of haar: a folder or a Hub id."""
    rounds: int = 15
    """Timed rounds; medians count."""
    threads: int = 1
    """Threads of PyTorch on the CPU."""
    device: str = "cpu"
    """cpu, cuda."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.rounds < 1:
            raise UserError(f"--rounds is {self.rounds}: must be at least 1")


def main(argv: list[str]) -> int:
    """Run the benchmark and print its numbers."""
    config, as_json = parse(CodecBenchConfig, argv, "codec bench")
    torch.set_num_threads(config.threads)
    return finish(measure(config), as_json)


@torch.no_grad()
def measure(config: CodecBenchConfig) -> dict[str, Any]:
    """Return seconds per image, images per second, and the ratio to the definition."""
    device = pick_device(config.device)
    codec: Codec = HaarCodec(config.levels) if config.vae is None else load_vae(config.vae)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, config.side, config.side), generator=generator)
    image = pixels.to(device) / 127.5 - 1
    latent = codec.encode(image)
    runs: dict[str, Callable[[], Tensor]] = {
        "encode_s": lambda: codec.encode(image),
        "decode_s": lambda: codec.decode(latent),
    }
    if config.vae is None:
        runs["encode_by_levels_s"] = lambda: encode_by_levels(image, config.levels)
        runs["decode_by_levels_s"] = lambda: decode_by_levels(latent, config.levels)
    for run in runs.values():
        run()
    rounds = [
        {name: seconds(run, device) for name, run in runs.items()} for _ in range(config.rounds)
    ]
    times = {name: median(found[name] for found in rounds) for name in runs}
    both = times["encode_s"] + times["decode_s"]
    returned = ((codec.decode(latent) + 1) * 127.5).round().clamp(0, 255).cpu()
    result: dict[str, Any] = {
        "codec": codec.name,
        "image": f"{config.side}x{config.side}",
        "latent": "x".join(map(str, latent.shape[1:])),
        **{name: round(value, 5) for name, value in times.items()},
        "there_and_back_per_second": round(1 / both, 1),
        "largest_error_of_255": int((returned - pixels).abs().max()),
    }
    if config.vae is None:
        plain = times["encode_by_levels_s"] + times["decode_by_levels_s"]
        result["ratio"] = round(plain / both, 2)
    return result


def encode_by_levels(x: Tensor, levels: int) -> Tensor:
    """Return the Haar transform by its definition."""
    for _ in range(levels):
        (a, b), (c, d) = ((x[..., i::2, 0::2], x[..., i::2, 1::2]) for i in (0, 1))
        x = torch.cat((a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d), dim=1) * 0.5
    return x


def decode_by_levels(x: Tensor, levels: int) -> Tensor:
    """Return its inverse."""
    for _ in range(levels):
        m, a, d, b = x.chunk(4, dim=1)
        corners = (m + a + d + b, m - a + d - b, m + a - d - b, m - a - d + b)
        rows = [torch.stack(corners[i : i + 2], dim=-1).flatten(-2) for i in (0, 2)]
        x = torch.stack(rows, dim=-2).flatten(-3, -2) * 0.5
    return x


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))

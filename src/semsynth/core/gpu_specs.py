"""What GPUs can do at the most, by their makers' data sheets (no torch)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Peak:
    """The dense peak rates of a GPU: products of sparse matrices, twice as fast, are not ours.

    Attributes:
        name: as people say it.
        memory_gb: of the card, in 1e9 bytes or 2**30 as the maker counts; a little less is free.
        bf16_tflops: tensor cores on bfloat16, summed in float32, in 1e12 FLOP/s; None where the
            card has no bfloat16.
        fp32_tflops: float32 as PyTorch convolves by default: on TF32 tensor cores where there are
            some.
    """

    name: str
    memory_gb: int
    bf16_tflops: float | None
    fp32_tflops: float

    def flops(self, precision: Literal["no", "bf16"]) -> float | None:
        """Return the peak in FLOP/s; None for ``bf16`` on a card without it."""
        tflops = self.fp32_tflops if precision == "no" else self.bf16_tflops
        return None if tflops is None else tflops * 1e12


# The makers' data sheets. Cards for games sum in float32 at half of the rate that is advertised
# for float16 sums. A name with more words stands before the one that it contains.
PEAKS = (
    Peak("B200", 180, 2250.0, 1100.0),
    Peak("H200", 141, 989.4, 494.7),
    Peak("H100 PCIe", 80, 756.0, 378.0),
    Peak("H100 NVL", 94, 835.0, 417.5),
    Peak("H100", 80, 989.4, 494.7),
    Peak("A100 40GB", 40, 312.0, 156.0),
    Peak("A100", 80, 312.0, 156.0),
    Peak("A40", 48, 149.7, 74.8),
    Peak("A10G", 24, 70.0, 35.0),
    Peak("A10", 24, 125.0, 62.5),
    Peak("RTX A6000", 48, 154.8, 77.4),
    Peak("RTX 6000 Ada", 48, 364.2, 182.1),
    Peak("L40S", 48, 362.0, 183.0),
    Peak("L40", 48, 181.0, 90.5),
    Peak("L4", 24, 121.0, 60.0),
    Peak("RTX 5090", 32, 209.5, 104.8),
    Peak("RTX 4090", 24, 165.2, 82.6),
    Peak("RTX 3090", 24, 71.2, 35.6),
    Peak("V100 32GB", 32, None, 15.7),
    Peak("V100", 16, None, 15.7),
    Peak("T4", 16, None, 8.1),
)


def find_peak(device_name: str) -> Peak | None:
    """Return the peak rates of a device by the name that its driver (or a person) gives it.

    None for what is not in the table: a share of the peak is then not known, and none is guessed.
    """
    words = _words(device_name)
    for peak in PEAKS:
        if _words(peak.name) <= words:
            return peak
    return None


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))

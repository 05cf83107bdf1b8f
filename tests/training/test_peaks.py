"""The table of peak rates: drivers' names find their card, and no other."""

from __future__ import annotations

import pytest

from semsynth.training.metrics import PEAKS, find_peak


@pytest.mark.parametrize(
    ("driver", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla T4", "T4"),
        ("rtx 4090", "RTX 4090"),
    ],
)
def test_a_drivers_name_finds_its_card(driver: str, card: str) -> None:
    peak = find_peak(driver)
    assert peak is not None and peak.name == card


@pytest.mark.parametrize("name", ["", "Intel(R) Xeon(R) Processor", "NVIDIA GeForce GTX 1080"])
def test_an_unknown_card_has_no_peak(name: str) -> None:
    assert find_peak(name) is None


def test_every_card_can_be_found_by_its_own_name() -> None:
    assert [find_peak(peak.name) for peak in PEAKS] == list(PEAKS)


def test_a_card_without_bfloat16_has_no_such_peak() -> None:
    t4, h100 = find_peak("T4"), find_peak("H100")
    assert t4 is not None and h100 is not None
    assert t4.flops("bf16") is None and t4.flops("no") == 8.1e12
    assert h100.flops("bf16") == 989.4e12 and h100.flops("no") == 494.7e12

"""What the standard packages compute on seeded inputs (tests/parity/metrics), and what we do."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synth
import torch

from semsynth.evaluation.metrics.features import LITE2, lite2_extractor
from semsynth.evaluation.metrics.inception import InceptionV3
from semsynth.evaluation.metrics.lpips import NETS, Lpips, Net
from semsynth.evaluation.metrics.resizes import Resize, resize_levels
from semsynth.evaluation.metrics.stlpips import StLpips
from semsynth.models.lite2 import EfficientNetLite2, lite2_input

FOLDER = Path(__file__).parent / "metrics"
SIZES = ("40x56", "97x130", "299x299", "360x480")
FEATURES: dict[str, Resize] = {
    "pytorch_fid": "pytorch",
    "torch_fidelity": "tensorflow",
    "clean_fid_clean": "clean",
}
RESIZED: dict[str, Resize] = {
    "legacy_pytorch": "pytorch",
    "tensorflow1x": "tensorflow",
    "clean": "clean",
}
# Number of each convolution in torchvision's `features`, its channels, and the kernel.
_VGG = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
BACKBONES = {
    "alex": {
        0: (64, 3, 11),
        3: (192, 64, 5),
        6: (384, 192, 3),
        8: (256, 384, 3),
        10: (256, 256, 3),
    },
    "vgg": {
        number: (out, channels, 3)
        for number, (channels, out) in zip(
            (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), pairwise(_VGG), strict=True
        )
    },
}
LEVELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}


def cases(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text())["cases"]


def size_of(text: str) -> tuple[int, int]:
    height, width = map(int, text.split("x"))
    return height, width


def unit(n: int, size: str, *words: object) -> torch.Tensor:
    pictures = synth.pictures(n, *size_of(size), *words)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def seeded_inception() -> InceptionV3:
    network = InceptionV3()
    state = {
        name: torch.zeros_like(value)
        if name.endswith("num_batches_tracked")
        else torch.from_numpy(synth.weight(name, tuple(value.shape), "inception"))
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return network.eval()


@pytest.fixture(scope="module")
def published() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "inception.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def inception() -> InceptionV3:
    return seeded_inception()


@pytest.fixture(scope="module")
def fused() -> InceptionV3:
    return seeded_inception().fused()


@pytest.mark.parametrize("package", FEATURES)
@pytest.mark.parametrize("size", SIZES)
def test_features_of_inception_are_those_of_the_package(
    fused: InceptionV3, published: dict[str, np.ndarray], size: str, package: str
) -> None:
    """The network as a report uses it: each norm in its convolution."""
    fused.resize = FEATURES[package]
    with torch.inference_mode():
        ours = fused(unit(2, size, "inception")).numpy()
    theirs = published[f"{size}/{package}"]
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_features_before_fusing_are_those_of_pytorch_fid(
    inception: InceptionV3, published: dict[str, np.ndarray]
) -> None:
    with torch.inference_mode():
        ours = inception(unit(2, "97x130", "inception")).numpy()
    theirs = published["97x130/pytorch_fid"]
    assert np.abs(ours - theirs).max() < 2e-6 * np.abs(theirs).max()


def test_another_resize_gives_other_features(published: dict[str, np.ndarray]) -> None:
    """Three metrics: they do not agree with each other, so each has a name of its own."""
    first, *others = (published[f"360x480/{package}"] for package in FEATURES)
    for other in others:
        assert np.abs(first - other).max() > 1e-3 * np.abs(first).max()


@pytest.mark.parametrize("package", RESIZED)
@pytest.mark.parametrize("size", SIZES)
def test_resized_pixels_are_those_of_the_package(
    published: dict[str, np.ndarray], size: str, package: str
) -> None:
    levels = torch.from_numpy(synth.pictures(2, *size_of(size), "inception")).permute(0, 3, 1, 2)
    ours = resize_levels(levels.float(), RESIZED[package], (299, 299)).permute(0, 2, 3, 1)
    theirs = published[f"{size}/resized/{package}"]
    assert np.abs(ours.numpy()[:, 3::37, 5::41] - theirs).max() < 0.01


def seeded_lpips(net: Net) -> Lpips:
    body = {}
    for number, (out, channels, kernel) in BACKBONES[net].items():
        for end, shape in (("weight", (out, channels, kernel, kernel)), ("bias", (out,))):
            name = f"features.{number}.{end}"
            body[name] = torch.from_numpy(synth.weight(name, shape, net))
    heads = {
        f"lin{i}.model.1.weight": torch.from_numpy(synth.head(out, "head", net, i))
        for i, out in enumerate(LEVELS[net])
    }
    return Lpips(body, heads, net)


@pytest.fixture(scope="module")
def lpips() -> dict[str, Lpips]:
    return {net: seeded_lpips(net) for net in NETS}


@pytest.mark.parametrize("name", cases("lpips.json"))
def test_lpips_is_that_of_the_package(lpips: dict[str, Lpips], name: str) -> None:
    net, size = name.split("/")
    case = cases("lpips.json")[name]
    first, second = (unit(3, size, "lpips", number) for number in (0, 1))
    with torch.inference_mode():
        unrelated = lpips[net](first, second).tolist()
        near = lpips[net](first, 0.98 * first + 0.02 * second).tolist()
    assert unrelated == pytest.approx(case["unrelated"], rel=1e-5)
    assert near == pytest.approx(case["near"], rel=1e-4)


def carried(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / "features.json").read_text())[name]


@pytest.mark.parametrize("size", carried("stlpips"))
def test_stlpips_is_that_of_the_package(features_extra: None, size: str) -> None:
    network, case = StLpips.from_package(), carried("stlpips")[size]
    first, second = (unit(2, size, "lpips", number) for number in (0, 1))
    with torch.inference_mode():
        assert network(first, second).tolist() == pytest.approx(case["unrelated"], rel=1e-5)
        near = network(first, 0.98 * first + 0.02 * second).tolist()
    assert near == pytest.approx(case["near"], rel=1e-4)


@pytest.mark.parametrize("size", carried("lite2"))
def test_lite2_is_that_of_the_package(features_extra: None, size: str) -> None:
    from semsynth.evaluation.config import EvaluateConfig

    case = carried("lite2")[size]
    pictures = synth.pictures(2, *size_of(size), "lite2")
    network = EfficientNetLite2.from_package()
    with torch.inference_mode():
        inputs = torch.stack([lite2_input(picture) for picture in pictures])
        logits = network(inputs)[:, ::50].numpy()
    extractor = lite2_extractor(EvaluateConfig(device="cpu"))
    features = extractor.extract(pictures)[:, ::40]
    assert extractor.name == LITE2
    for ours, theirs in ((logits, case["logits"]), (features, case["features"])):
        assert np.abs(ours - np.array(theirs)).max() < 1e-5 * np.abs(theirs).max()

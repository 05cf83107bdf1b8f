"""The procedural streets: what holds for every seed, index and size."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from semsynth.streetscenes import LABELS, render
from semsynth.streetscenes.camera import Camera

IDS = {number for number, _, _ in LABELS}
BY_NAME = {name: number for number, name, _ in LABELS}


def test_same_bytes_whatever_was_rendered_before() -> None:
    image, mask = render(3, 14, 64, 64)
    for index in (2, 15, 9):
        render(4, index, 48, 80)
    again_image, again_mask = render(3, 14, 64, 64)
    assert image.tobytes() == again_image.tobytes()
    assert mask.tobytes() == again_mask.tobytes()


def test_same_bytes_in_another_process_that_needs_no_torch() -> None:
    code = (
        "import sys, hashlib\n"
        "from semsynth.streetscenes import render\n"
        "image, mask = render(5, 6, 64, 64)\n"
        "assert 'torch' not in sys.modules\n"
        "print(hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest())\n"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert first.stdout == second.stdout


def test_every_index_and_seed_is_another_street() -> None:
    images = {render(seed, index, 32, 32)[0].tobytes() for seed in (0, 1) for index in range(20)}
    assert len(images) == 40


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (80, 48), (1, 1), (33, 65), (576, 1024)])
def test_any_size(size: tuple[int, int]) -> None:
    image, mask = render(0, 5, *size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert mask.shape == size and mask.dtype == np.uint8
    assert set(np.unique(mask).tolist()) <= IDS


@pytest.mark.parametrize("index", [0, 3, 8, 21])
def test_the_same_scene_at_every_size(index: int) -> None:
    small_image, small = render(1, index, 64, 64)
    large_image, large = render(1, index, 256, 256)
    centres = large[2::4, 2::4]
    assert (centres == small).mean() > 0.85
    mean = large_image.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(mean - small_image).mean() < 10


@pytest.fixture(scope="module")
def hundred() -> list[tuple[np.ndarray, np.ndarray]]:
    return [render(0, index, 64, 64) for index in range(100)]


def test_every_class_is_common_and_not_a_speck(
    hundred: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    counts = np.array([np.bincount(mask.ravel(), minlength=len(LABELS)) for _, mask in hundred])
    for number, name, _ in LABELS[1:]:
        assert (counts[:, number] >= 4).mean() >= 0.25, name
        assert counts[:, number].sum() / counts.sum() >= 0.005, name
    assert 0 < counts[:, 0].sum() / counts.sum() < 0.01


def test_the_sky_is_above_the_road(hundred: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for _, mask in hundred:
        sky, road = (np.nonzero(mask == BY_NAME[name])[0] for name in ("sky", "flat-road"))
        if sky.size and road.size:
            assert sky.max() <= road.min() + 1


def test_images_are_neither_dark_nor_flat(
    hundred: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    for image, _ in hundred:
        assert 35 < image.mean() < 220
        assert image.std() > 15


def test_some_classes_differ_in_appearance(
    hundred: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    def mean(name: str) -> np.ndarray:
        return np.mean(
            [
                image[mask == BY_NAME[name]].mean(axis=0)
                for image, mask in hundred
                if (mask == BY_NAME[name]).any()
            ],
            axis=0,
        )

    for green in ("nature-vegetation", "nature-terrain"):
        assert mean(green).argmax() == 1
    assert mean("sky").mean() > mean("flat-road").mean()
    assert mean("nature-terrain").mean() > mean("nature-vegetation").mean()


def test_labels_are_unique_and_compact() -> None:
    assert [number for number, _, _ in LABELS] == list(range(len(LABELS)))
    assert len({name for _, name, _ in LABELS}) == len(LABELS)
    assert len({color for _, _, color in LABELS}) == len(LABELS)


def test_rays_and_projection_are_inverse() -> None:
    view = Camera(x=1.2, height=1.6, yaw=0.3, pitch=-0.1, focal=0.8).at(48, 80)
    row, column, depth = 31, 17, 7.5
    point = (
        1.2 + depth * view.dx[row, column],
        1.6 + depth * view.dy[row, 0],
        depth * view.dz[row, column],
    )
    uv, back = view.project([point])
    np.testing.assert_allclose(uv[0], (column + 0.5, row + 0.5), atol=1e-3)
    np.testing.assert_allclose(back[0], depth, rtol=1e-5)


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(ValueError):
        render(0, -1, 8, 8)

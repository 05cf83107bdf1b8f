"""Which files of a folder are its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.evaluation.inputs.folders import image_files, matching_folders
from semsynth.evaluation.inputs.image_set import FolderImages, digest_of


def save(path: Path, value: int = 0, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


def images_of(folder: Path) -> FolderImages:
    return FolderImages(folder.name, str(folder), image_files(folder, "--real"))


def test_images_are_found_flat_and_nested(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("b.PNG", "town/a.jpg", "town/deep/c.webp", "img10.png", "img2.png"):
        save(folder / name)
    (folder / "empty").mkdir()
    save(folder / ".hidden.png")
    save(folder / ".cache" / "x.png")
    save(folder / "__MACOSX" / "x.png")
    for name in ("Thumbs.db", ".DS_Store", "notes.txt"):
        (folder / name).write_text("x")
    outside = save(tmp_path / "elsewhere" / "linked.png").parent
    (folder / "link").symlink_to(outside, target_is_directory=True)
    (folder / "round").symlink_to(folder, target_is_directory=True)
    (folder / "z.png").symlink_to(outside / "linked.png")
    assert list(image_files(folder, "--real")) == [
        "b", "img2", "img10", "link/linked", "town/a", "town/deep/c", "z",
    ]  # fmt: skip


def test_folders_without_images_and_double_stems(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; give the folder of the images as --real"):
        image_files(tmp_path / "nothing", "--real")
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(UserError, match="has no images"):
        image_files(tmp_path / "empty", "--real")
    save(tmp_path / "two" / "a.png")
    save(tmp_path / "two" / "a.jpg")
    with pytest.raises(UserError, match=r"a\.png: has the same stem as a\.jpg"):
        image_files(tmp_path / "two", "--real")
    with pytest.raises(UserError, match="is a file, not a folder"):
        image_files(tmp_path / "two" / "a.png", "--real")


def test_patterns_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("samples_10", "samples_9", "[odd]"):
        (tmp_path / name).mkdir()
    (tmp_path / "samples_9.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert matching_folders(["samples_*"], "--generated") == [Path("samples_9"), Path("samples_10")]
    assert matching_folders(["[odd]"], "--generated") == [Path("[odd]")]
    with pytest.raises(UserError, match=r"--generated other_\*: no folder fits"):
        matching_folders(["other_*"], "--generated")


def test_pixels_are_those_that_a_viewer_shows(tmp_path: Path) -> None:
    """Grey, palette, RGBA, 16 bits and EXIF: never silently another image."""
    save(tmp_path / "grey.png", 77, "L")
    rgba = Image.new("RGBA", (6, 4), (10, 20, 30, 128))
    rgba.save(tmp_path / "rgba.png")
    deep = np.full((4, 6), 40000, np.uint16)
    deep[0, 0] = 65535
    Image.fromarray(deep).save(tmp_path / "deep.png")
    turned = Image.new("RGB", (6, 4), (1, 2, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    images = images_of(tmp_path)
    assert images.read_rgb("grey").tolist() == np.full((4, 6, 3), 77).tolist()
    assert (images.read_rgb("rgba") == [10, 20, 30]).all()
    assert (images.read_rgb("deep")[1:] == 40000 >> 8).all()
    assert images.size("turned") == images.read_rgb("turned").shape[:2] == (6, 4)
    dim = tmp_path / "dim" / "a.png"
    dim.parent.mkdir()
    Image.fromarray(np.full((4, 6), 900, np.uint16)).save(dim)
    with pytest.raises(UserError, match=r"a\.png: has 16 bits .* from 900 to 900"):
        images_of(dim.parent).check()


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"cut\.png: cannot be read"):
        images_of(tmp_path).check()
    (tmp_path / "cut.png").unlink()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        images_of(tmp_path).check()


def test_a_set_is_known_by_the_bytes_of_its_images(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "one" / f"a{i}.png", i, "L")
        save(tmp_path / "two" / "deep" / f"b{2 - i}.png", i, "L")
    assert digest_of(images_of(tmp_path / "one")) == digest_of(images_of(tmp_path / "two"))
    assert digest_of(images_of(tmp_path / "one").of(["a0", "a1"])) != digest_of(
        images_of(tmp_path / "two")
    )

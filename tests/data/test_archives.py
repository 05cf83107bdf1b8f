"""Archives of raw data: prepared as their folder would be, and nothing that leaves it."""

from __future__ import annotations

import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semsynth.core.errors import UserError
from semsynth.data.config import PrepareConfig
from semsynth.data.prepare.run import prepare, preview
from semsynth.data.raw import archives
from semsynth.data.raw.archives import unpacked


def zipped(path: Path, members: dict[str, bytes | zipfile.ZipInfo], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members.items():
            info = data if isinstance(data, zipfile.ZipInfo) else name
            archive.writestr(info, b"target" if isinstance(data, zipfile.ZipInfo) else data)
    return path


def config_of(path: Path, output: Path, **options: Any) -> PrepareConfig:
    return PrepareConfig(path=path, output=output, height=12, width=16, workers=1, **options)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_archive_is_prepared_as_its_folder_and_removed(
    raw: Any, tmp_path: Path, suffix: str, logged: Callable[[], str]
) -> None:
    kind = {".zip": "zip", ".tar.gz": "gztar"}[suffix]
    made = Path(shutil.make_archive(str(tmp_path / "export"), kind, raw.root.parent, raw.root.name))
    data = prepare(config_of(made, tmp_path / "a"))
    folder = prepare(config_of(raw.root, tmp_path / "b"))
    assert data.digest == folder.digest
    table = (data.root / "raw_files.csv").read_text()
    assert table == (folder.root / "raw_files.csv").read_text()
    assert "images/walk0_0.png" in table
    assert not [path for path in data.root.iterdir() if path.name.startswith(".unpacked")]
    assert preview(config_of(made, tmp_path / "a"))["summary"] == "5 train, 1 val"
    logged()
    (raw.root / "images" / "walk0_0.png").unlink()
    (raw.root / "masks" / "walk0_0.png").unlink()
    shutil.make_archive(str(tmp_path / "export"), kind, raw.root.parent, raw.root.name)
    prepare(config_of(made, tmp_path / "a"))
    assert "1 removed" in logged()


def test_what_no_data_set_needs_is_refused_with_one_line(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("images/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    cases = {
        r"'\.\.' cannot be a file name": {"../a.png": b"x"},
        "has an absolute path": {"/a.png": b"x"},
        "is not allowed in names on Windows": {"C:/a.png": b"x"},
        "is a link or a device": {"images/link.png": link},
    }
    for message, members in cases.items():
        path = zipped(tmp_path / "bad.zip", members)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=message) as error:
            prepare(config_of(path, tmp_path / "out"))
        assert "\n" not in str(error.value) and "bad.zip" in str(error.value)
        assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"1")
        archive.writestr("a.png", b"2")
    with pytest.raises(UserError, match=r"'a.png' is there twice"):
        prepare(config_of(path, tmp_path / "out"))


def test_links_in_a_tar_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("images/a.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(UserError, match="is a link or a device"):
        prepare(config_of(path, tmp_path / "out"))


def test_bombs_stop_at_the_limit_whatever_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_SMALL", 1 << 20)
    path = zipped(tmp_path / "bomb.zip", {"a.tif": bytes(3 << 20)})
    with pytest.raises(UserError, match="looks like a zip bomb"), unpacked(path, tmp_path / "u"):
        pass
    tar = tmp_path / "bomb.tar.gz"
    with tarfile.open(tar, "w:gz") as archive:
        member = tarfile.TarInfo("a.tif")
        member.size = 3 << 20
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(UserError, match="looks like a zip bomb"), unpacked(tar, tmp_path / "u"):
        pass
    assert not (tmp_path / "u").exists()


def test_damaged_encrypted_and_unknown_archives(raw: Any, tmp_path: Path) -> None:
    made = Path(shutil.make_archive(str(tmp_path / "export"), "zip", raw.root))
    whole = made.read_bytes()
    made.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged, or not copied to its end"):
        prepare(config_of(made, tmp_path / "out"))
    locked = bytearray(whole)
    start = locked.index(b"PK\x01\x02")
    locked[start + 8] |= 1
    made.write_bytes(bytes(locked))
    with pytest.raises(UserError, match="is encrypted"):
        prepare(config_of(made, tmp_path / "out"))
    other = tmp_path / "x.7z"
    other.write_bytes(b"7z")
    with pytest.raises(UserError, match="unpack it"):
        prepare(config_of(other, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_after_a_kill_the_same_archive_is_not_unpacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": b"1"})
    with unpacked(path, tmp_path / "u") as files:
        shutil.copytree(tmp_path / "u", tmp_path / "killed")
        assert (files / "a.png").read_bytes() == b"1"
    monkeypatch.setattr(archives, "_unpack", None)
    with unpacked(path, tmp_path / "killed") as files:
        assert (files / "a.png").read_bytes() == b"1"


def test_a_prepared_folder_inside_of_an_archive_is_left_out(raw: Any, tmp_path: Path) -> None:
    prepare(config_of(raw.root, raw.root / "prepared"))
    folder = prepare(config_of(raw.root, tmp_path / "a"))
    made = Path(shutil.make_archive(str(tmp_path / "raw"), "gztar", raw.root))
    assert prepare(config_of(made, tmp_path / "b")).digest == folder.digest
    again = Path(shutil.make_archive(str(tmp_path / "again"), "zip", folder.root))
    with pytest.raises(UserError, match="was made by semsynth"):
        prepare(config_of(again, tmp_path / "c"))
    assert not (tmp_path / "c" / ".unpacked").exists()

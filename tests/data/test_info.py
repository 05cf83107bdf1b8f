"""Entries of ``dataset.json`` in memory: small, checked, and with the digests that they had."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from semsynth.core.config import parse
from semsynth.core.errors import UserError
from semsynth.core.strict import json_pieces
from semsynth.data.content import digest_json
from semsynth.data.image_info import ImageInfo
from semsynth.data.info import DatasetInfo, info_pieces, read_info
from semsynth.data.labels import LabelSet
from semsynth.data.records import ImageRecord, PreparedFormat, describe, write_info

LABELS = LabelSet.from_names({0: "none", 1: "road"}, ignore_id=0)
ENTRY = {"original_size": [8, 8], "box": [0, 0, 8, 8], "resize": None}


def entry(number: int, **more: Any) -> ImageInfo:
    digests = {"images": f"{number:032x}", "masks": f"{7 * number:032x}"}
    return ImageInfo(original_size=[8, 8], box=[0, 0, 8, 8], resize=None, digests=digests, **more)


def described(count: int) -> DatasetInfo:
    records = [
        ImageRecord("val" if i % 3 else "train", f"bild_{i:05d} ä", entry(i), {1: 64}, kind="a")
        for i in range(count)
    ]
    about = {"name": "n", "source": "s", "licence": "CC0-1.0", "excluded": {}}
    return describe(PreparedFormat(LABELS, 8, 8), records, about)


def test_the_checksum_is_of_all_entries(tmp_path: Path) -> None:
    """As a whole they have the digest that is computed piece by piece; it is read again."""
    info = described(7)
    names = {
        *("format", "height", "width", "resize", "image_format", "labels", "ignore_id", "splits"),
        *("pictures", "content", "manifest", "channels", "bits", "large"),
    }
    whole = info.model_dump(by_alias=True)
    assert info.checksum == digest_json({name: whole[name] for name in names})
    write_info(tmp_path, info)
    again = parse(DatasetInfo, read_info(tmp_path / "dataset.json"), "dataset.json")
    assert again == info and again.checked() == info.checksum
    assert list(again.images["train"].values())[1].digests == entry(3).digests


@pytest.mark.parametrize("count", [0, 1, 9])
def test_texts_and_digests_piece_by_piece_are_those_of_the_whole(count: int) -> None:
    """What is never there as a whole has the bytes that it had when it was."""
    info = described(count)
    info = info.model_copy(update={"excluded": {"train/x": 'near "y"'}})
    whole = info.model_dump(by_alias=True, exclude={"reading"})
    for images in whole["pictures"].values():
        for image in images.values():
            del image["group"]
    assert "".join(info_pieces(info, {"reading"})) == "".join(json_pieces(whole))
    assert "".join(info.compact_pieces()) == info.model_dump_json()
    digests = {f"{s}/{n}": i.digest for s, found in info.images.items() for n, i in found.items()}
    labels = [[0, "none", None, False], [1, "road", 0, False]]
    known = {name: str(digest) for name, digest in digests.items()}
    assert info.digest_of(known) == digest_json([labels, 0, [8, 8, "stretch"], known])


def test_a_file_that_is_unusual_is_read_as_a_whole(tmp_path: Path) -> None:
    """Names that are not sorted, another order of keys, a byte order mark: the same data set."""
    write_info(tmp_path, info := described(9))
    path = tmp_path / "dataset.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["pictures"] = {s: dict(reversed(list(i.items()))) for s, i in value["pictures"].items()}
    turned = dict(reversed(list(value.items())))
    path.write_text(json.dumps(turned), encoding="utf-8-sig")
    again = parse(DatasetInfo, read_info(path), "dataset.json")
    assert again == info and again.checked() == info.checksum
    assert list(again.images["train"]) == list(info.images["train"])[::-1]
    stem = next(iter(info.images["val"]))
    assert again.images["val"][stem] == info.images["val"][stem]
    text = json.dumps(value)
    for broken in (text[:-1], text + "x", text.replace(": true", ": treu", 1)):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(UserError, match="not valid JSON"):
            read_info(path)


def test_many_entries_are_small(tmp_path: Path) -> None:
    write_info(tmp_path, described(3000))
    tracemalloc.start()
    value = read_info(tmp_path / "dataset.json")
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / 3000 < 120
    assert isinstance(value["pictures"]["train"]["bild_00000 ä"], ImageInfo)


def test_an_entry_is_copied_whole() -> None:
    one = entry(3, group="g", instances=True)
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.changed(group=None) != one and one.changed(group=None).instances
    odd = one.changed(digests={"images": "not hexadecimal"})
    assert odd.digests == {"images": "not hexadecimal"} and pickle.loads(pickle.dumps(odd)) == odd
    with pytest.raises(TypeError, match="has no colour"):
        one.changed(colour=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digests": ["images"]}, "'pictures.val.a.digests' is .*must be a mapping"),
        ({"digests": {"images": 1}}, "'pictures.val.a.digests.images' is 1: must be text"),
        ({"box": [[0], 0, 8, 8]}, r"'pictures.val.a.box.0' is \[0\]: must be a whole number"),
        ({"original_size": 8}, "'pictures.val.a.original_size' is 8: must be a list"),
        ({"original_size": [8]}, "'pictures.val.a.original_size' is .*must have 2 values or more"),
        ({"ligests": {}}, "unknown key 'pictures.val.a.ligests'; did you mean 'digests'"),
    ],
)
def test_a_wrong_entry_is_named(changes: dict[str, Any], message: str) -> None:
    entry(0)  # one like it was read before
    value = described(2).model_dump(by_alias=True)
    value["pictures"] = {"val": {"a": ImageInfo.read({**ENTRY, **changes})}}
    with pytest.raises(UserError, match=message):
        parse(DatasetInfo, value, "dataset.json")

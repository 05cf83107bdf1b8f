"""Lists and mappings of very many entries: as those of Python, and nearly nothing in memory."""

from __future__ import annotations

import pickle
import tracemalloc

import pytest

from semsynth.core.on_disk import DiskDict, DiskList
from semsynth.core.packed import NameDict, Names, NameSet, Picked

# Bytes that are not text in the name of a file, a letter outside of the 16 bits, a sign before "/".
ODD = ["a", "a\udc80", "a\U0001f600", "ä", "val", "val-2", "va"]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_a_list_is_a_list(count: int) -> None:
    plain = [(i, f"name {i}") for i in range(count)]
    found = DiskList(plain)
    assert found == plain and len(found) == count and list(found) == plain
    assert found[:3] == plain[:3] and found[count:] == [] and list(reversed(found)) == plain[::-1]
    assert pickle.loads(pickle.dumps(found)) == plain
    for i in range(-count, count):
        assert found[i] == plain[i]
    with pytest.raises(IndexError):
        found[count]


def test_a_list_grows_while_it_is_read() -> None:
    found = DiskList(range(64))
    assert found[10] == 10
    found.extend(range(64, 200))
    assert found[10] == 10 and found[199] == 199 and list(found) == list(range(200))


def test_a_mapping_is_a_mapping_in_the_order_of_its_keys() -> None:
    keys = [(split, stem) for split in ODD for stem in ODD]
    found: DiskDict[tuple[str, str], int] = DiskDict((key, i) for i, key in enumerate(keys))
    assert list(found.items()) == sorted((key, i) for i, key in enumerate(keys))
    assert found.firsts() == sorted(ODD)
    for split in ODD:
        assert [key for key, _ in found.pairs(within=split)] == [(split, s) for s in sorted(ODD)]
    assert found["va", "a"] == keys.index(("va", "a")) and ("va", "b") not in found
    assert found.setdefault(("va", "a"), -1) >= 0 and found.setdefault(("x", "y"), -1) == -1
    assert found.pop(("x", "y")) == -1 and len(found) == len(keys)
    assert found == DiskDict((key, i) for i, key in enumerate(keys))
    found["va", "a"] = -2
    assert found != DiskDict((key, i) for i, key in enumerate(keys)) and len(found) == len(keys)
    with pytest.raises(KeyError):
        del found["no", "such"]


def test_a_mapping_may_change_while_it_is_gone_through() -> None:
    found: DiskDict[str, int] = DiskDict((f"{i:04d}", i) for i in range(1000))
    for key, value in found.items():
        if value % 2:
            del found[key]
    assert [value for _, value in found.items()] == list(range(0, 1000, 2))


@pytest.mark.parametrize("names", [sorted(ODD), ODD, []])
def test_packed_names_are_a_list_of_texts(names: list[str]) -> None:
    found = Names(names)
    assert found == names and list(found) == names and found == Names(names)
    assert found.is_sorted == (names == sorted(names))
    assert [found.find(name) for name in names] == list(range(len(names)))
    assert "b" not in found and found[1:3] == names[1:3] and found != [*names, "b"]


def test_marks_of_names() -> None:
    names = Names(f"{i:03d}" for i in range(100))
    marks, some = NameDict(names), NameSet(names)
    for i in range(0, 100, 3):
        marks[f"{i:03d}"] = f"reason {i % 2}"
        some.add(f"{i:03d}")
    marks["other"] = "of none"
    some.add("other")
    assert marks == {f"{i:03d}": f"reason {i % 2}" for i in range(0, 100, 3)} | {"other": "of none"}
    assert some == set(marks) and len(some) == len(marks) == 35
    del marks["003"]
    some.discard("003")
    assert "003" not in marks and "003" not in some and marks.get("003") is None
    picked = Picked(names, lambda name: name in some)
    assert picked == [name for name in names if name in some] and picked[1] == "006"


def test_a_hundred_thousand_take_a_few_bytes_each() -> None:
    tracemalloc.start()
    found = DiskList((f"image {i}", f"mask {i}", i) for i in range(20_000))
    names = Names(f"{i:06d}" for i in range(20_000))
    assert (len(found), len(names)) == (20_000, 20_000)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 20 * 20_000

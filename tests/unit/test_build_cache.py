"""The records of the build cache: keys, damaged files, what gc does with them."""

from __future__ import annotations

import os
from pathlib import Path

from sysbox.build import cache
from sysbox.build.cache import Cached, key_of

DIGEST = f"sha256:{'1' * 64}"
STEP = Cached(diff_id=DIGEST, chain_id=DIGEST, size=3, blob=DIGEST, blob_size=5, note="RUN true")


def test_keys_have_their_parts_apart() -> None:
    keys = {
        key_of(parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"])
    }
    assert len(keys) == 5
    assert key_of(["a"]) == key_of(["a"])
    assert len(key_of(["\udcff"])) == 64  # an argument that is not UTF-8


def test_there_and_back(tmp_path: Path) -> None:
    root = str(tmp_path)
    key = key_of(["a"])
    assert cache.find(root, key) is None
    assert list(cache.all_of(root)) == []
    cache.keep(root, key, STEP)
    path = tmp_path / "build" / f"{key}.json"
    os.utime(path, (1, 1))
    assert [(one, made) for one, made, _ in cache.all_of(root)] == [(key, STEP)]
    assert cache.find(root, key) == STEP
    assert path.stat().st_mtime > 1  # it was used
    assert cache.remove(root, key)
    assert not cache.remove(root, key)


def test_damaged_records_are_no_hit(tmp_path: Path) -> None:
    root = str(tmp_path)
    cache.keep(root, key_of(["good"]), STEP)
    for number, text in enumerate(("", "{", '{"diff_id": "x"}', "[]")):
        (tmp_path / "build" / f"{key_of([str(number)])}.json").write_text(text)
    (tmp_path / "build" / f"{key_of(['bad'])}.json").write_bytes(
        (tmp_path / "build" / f"{key_of(['good'])}.json").read_bytes().replace(b"sha256:", b"sha1:")
    )
    (tmp_path / "build" / "note").write_text("of somebody else")
    assert len(list(cache.all_of(root))) == 1
    assert cache.find(root, key_of(["0"])) is None
    assert len(cache.tidy(root)) == 5
    assert sorted(os.listdir(tmp_path / "build")) == sorted([f"{key_of(['good'])}.json", "note"])


def test_long_notes_are_cut(tmp_path: Path) -> None:
    key = key_of(["long"])
    cache.keep(str(tmp_path), key, STEP.replace(note="x" * 100_000))
    found = cache.find(str(tmp_path), key)
    assert found is not None
    assert len(found.note) == 1000

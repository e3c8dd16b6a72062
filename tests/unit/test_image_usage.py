"""What the store takes on disk: the parts add up to what du(1) says."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import needs_root
from layers import fixtures
from layers.builder import archive, directory, entry, hard_link

from sysbox.image import commit
from sysbox.image.store import Store
from sysbox.image.usage import allocated, measure

SMALL = archive(directory("./"), entry("a", b"1" * 50_000), hard_link("b", "a"), directory("c"))
LARGE = archive(directory("./"), entry("x", os.urandom(1 << 20)))
NOBODY: Callable[[str], list[str]] = lambda _: []  # noqa: E731 (a constant of the tests)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    needs_root()
    return Store(f"{tmp_path}/images")


def du(path: str) -> int:
    done = subprocess.run(["du", "-s", "-B1", path], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def test_an_empty_store(store: Store) -> None:
    assert measure(store).total == 0
    assert not os.path.exists(store.root)


def test_the_parts_add_up(store: Store) -> None:
    one = fixtures.import_bytes(store, gzip.compress(SMALL), "one")
    two = commit.commit(store, one, one.config, lambda write: write(LARGE) and None, "two")
    other = fixtures.import_bytes(store, LARGE, "other")
    Path(store.root, "temporary", "left").write_bytes(bytes(100_000))
    usage = measure(store)
    assert usage.total == du(store.root) == allocated(store.root)
    sizes = {use.image.id: (use.unique, use.shared) for use in usage.images}
    assert sizes.keys() == {one.id, two.id, other.id}
    # `two` has all that `one` has but documents, and its blob is that of `other`
    assert 50_000 < sizes[one.id][1] < 90_000
    assert sizes[one.id][0] < 30_000
    assert 1 << 20 < sizes[two.id][0] < 1.1 * (1 << 20)
    assert 1 << 20 < sizes[two.id][1] - sizes[one.id][1] < 1.1 * (1 << 20)
    assert sizes[other.id][0] > 1 << 20
    assert 100_000 <= usage.other < 200_000
    assert usage.of([one.id, two.id, other.id]) == usage.total - usage.other
    assert usage.of([other.id]) == sum(sizes[other.id])
    assert usage.of([]) == 0


def test_what_is_removed_is_given_back(store: Store) -> None:
    fixtures.import_bytes(store, SMALL, "one")
    two = fixtures.import_bytes(store, LARGE, "two")
    before = measure(store)
    store.remove("two", NOBODY)
    after = measure(store)
    assert after.total == du(store.root)
    unique = next(one.unique for one in before.images if one.image.id == two.id)
    assert before.total - after.total == pytest.approx(unique, abs=20_000)  # the index is shorter


def test_names_up_to_the_limit(store: Store) -> None:
    """Below the store's own path they are longer than any path that the kernel takes."""
    long = "/".join(["n" * 250] * 16)
    fixtures.import_bytes(store, archive(directory("./"), entry("x" * 3), *_deep(long)), "one")
    assert measure(store).total == du(store.root)


def _deep(path: str) -> list[bytes]:
    from layers.builder import long_name

    return [long_name(path.encode()) + directory("x")]

"""Hostile layers: nothing outside changes, and of a refused one nothing stays (facts: CVE-2021-29136 …)."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import needs_root
from layers import corpus, fixtures

from sysbox.base.errors import FormatError, KernelError, Unsupported
from sysbox.image import archive, ingest
from sysbox.image.store import Store
from sysbox.image.tar import LayerLimits

# one short path for all, since a ustar link has a hundred bytes; in memory, since every import syncs
BASE = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp", f"sbx{os.getpid()}")
DECOY = BASE / "decoy"
REFUSED = dict(corpus.refused(str(DECOY)))
CONFINED = dict(corpus.confined(str(DECOY)))
LIMITS = LayerLimits(bytes=corpus.BYTES, entries=corpus.ENTRIES)
BOMB = 100_000  # bytes that a compressed archive may unpack to, whatever its own size


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory that holds a decoy and the store's."""
    needs_root()
    BASE.mkdir(mode=0o700)
    fixtures.make_decoy(DECOY)
    yield BASE
    shutil.rmtree(BASE)


@pytest.fixture
def store(base: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(archive, "Ingest", lambda store: ingest.Ingest(store, LIMITS))
    monkeypatch.setattr(ingest, "_FLOOR", BOMB)
    monkeypatch.setattr(ingest, "sync_file_system", lambda _: None)
    return Store(f"{base}/state/images")


def test_corpus_is_large_and_its_names_differ() -> None:
    assert not REFUSED.keys() & CONFINED.keys()
    assert len(REFUSED) + len(CONFINED) >= 100


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, base: Path, store: Store) -> None:
    fixtures.import_bytes(store, corpus.archive(corpus.entry("good", b"good")), "good")
    before, held, root = fixtures.tree(DECOY), fixtures.names(store), os.listdir("/")
    with pytest.raises((FormatError, KernelError)):
        fixtures.import_bytes(store, REFUSED[name])
    assert fixtures.tree(DECOY) == before
    assert fixtures.names(store) == held
    assert sorted(os.listdir(base)) == ["decoy", "state"]
    assert os.listdir("/") == root
    assert store.gc() == []


@pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith(("gzip", "zstd"))])
def test_refused_without_the_packages(
    name: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.setitem(sys.modules, "backports", None)
    with pytest.raises((FormatError, Unsupported)):
        fixtures.import_bytes(store, REFUSED[name])
    assert not os.listdir(f"{store.root}/temporary")


@pytest.mark.parametrize("name", CONFINED)
def test_confined(name: str, base: Path, store: Store) -> None:
    before, root = fixtures.tree(DECOY), os.listdir("/")
    image = fixtures.import_bytes(store, CONFINED[name])
    assert fixtures.tree(DECOY) == before
    assert sorted(os.listdir(base)) == ["decoy", "state"]
    assert os.listdir("/") == root
    for path, entry in fixtures.tree(store.layer(image.layers[0])).items():
        _check_entry(path, entry)
    store.remove("test", lambda _: [])
    assert not os.listdir(f"{store.root}/layers")
    assert not os.listdir(f"{store.root}/temporary")


def test_a_zstd_bomb(store: Store, requires: Any) -> None:
    program = requires.program("zstd")
    bomb = corpus.archive(corpus.entry("x", bytes(corpus.BYTES)))
    data = subprocess.run([program, "-q", "-c"], input=bomb, capture_output=True, check=True).stdout
    assert len(data) < 10_000
    with pytest.raises(FormatError, match="unpacks to more than"):
        fixtures.import_bytes(store, data)
    assert not os.listdir(f"{store.root}/temporary")


def _check_entry(path: str, entry: tuple[object, ...]) -> None:
    """An image sets no attribute but these; overlayfs' own come from whiteouts alone."""
    attributes = dict(entry[6])  # type: ignore[call-overload]
    assert set(attributes) <= {"user.evil", "trusted.overlay.opaque", "security.selinux"}, path
    if "trusted.overlay.opaque" in attributes:
        assert path == "d"
        assert attributes["trusted.overlay.opaque"] == b"y"


def test_an_overlay_attribute_is_never_the_images(store: Store) -> None:
    for name in ("overlay-opaque", "overlay-redirect"):
        image = fixtures.import_bytes(store, CONFINED[name], name)
        for entry in fixtures.tree(store.layer(image.layers[0])).values():
            assert not [key for key, _ in entry[6] if "overlay" in key]  # type: ignore[attr-defined]


def test_layers_cannot_be_reached_by_users(store: Store) -> None:
    """A set-user-ID program of an image must not run on the host (CVE-2021-41091)."""
    image = fixtures.import_bytes(store, CONFINED["setuid"])
    layer = Path(store.layer(image.layers[0]))
    assert stat.S_IMODE((layer / "su").stat().st_mode) == 0o6755
    for directory in (Path(store.root), layer.parent, Path(store.root) / "temporary"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for directory_name, _, files in os.walk(f"{store.root}/blobs"):
        for file in files:
            assert stat.S_IMODE(os.stat(f"{directory_name}/{file}").st_mode) == 0o600


def test_where_the_odd_ones_land(store: Store) -> None:
    def root(name: str) -> Path:
        image = fixtures.import_bytes(store, CONFINED[name], name)
        return Path(store.layer(image.layers[0]))

    assert (root("absolute") / "abs").read_text() == "inside"
    assert (root("symlink-to-the-root") / "x").read_text() == "inside"
    assert (root("symlink-dotdot-chain") / "x").read_text() == "inside"
    assert (root("symlink-then-file") / "f").read_text() == "inside"
    assert (root("write-through-hard-link") / "a").read_text() == "kept"
    linked = root("hard-link-to-symlink")
    assert (linked / "s").is_symlink()
    assert (linked / "h").read_text() == "inside"
    opaque = root("whiteout-then-content") / "d"
    assert os.getxattr(opaque, "trusted.overlay.opaque") == b"y"
    assert (opaque / "x").read_text() == "inside"
    assert (root("whiteout-of-own-file") / "f").read_text() == "inside"
    assert not list(root("aufs-files").iterdir())
    assert (root("newline-and-bytes") / "new\nline").read_text() == "a"

"""Hostile images as files: one clear error, nothing outside is touched, and nothing is left in the store."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import needs_root
from layers import fixtures, images
from layers.builder import archive, directory, entry, hard_link, sparse, symlink

from sysbox.base.errors import FormatError, NotFound, SysboxError
from sysbox.image import ingest
from sysbox.image.formats import contents, load
from sysbox.image.store import Store

Files = dict[str, bytes]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with an image that must stay as it is."""
    needs_root()
    monkeypatch.setattr(ingest, "sync_file_system", lambda _: None)
    store = Store(f"{tmp_path}/images")
    fixtures.import_bytes(store, archive(entry("x")), "here:1")
    return store


def state(store: Store) -> dict[str, Any]:
    """What there is, but for temporary files."""
    files = fixtures.names(store) - {"blobs/.partial"}  # a directory for unfinished pulls
    return {"files": files, "index": store.entries()}


def refused(store: Store, data: bytes, why: str, error: type[SysboxError] = FormatError) -> None:
    """Load an archive that must be refused."""
    before = state(store)
    with pytest.raises(error, match=why) as caught:
        images.load_bytes(store, data)
    assert "\n" not in caught.value.message
    store.gc()
    assert state(store) == before


def docker(**change: Any) -> Files:
    """docker's archive whose manifest.json has other values."""
    files = images.docker_files(["web:1"])
    item = json.loads(files["manifest.json"])[0] | change
    item = {key: value for key, value in item.items() if value is not ...}
    return files | {"manifest.json": json.dumps([item]).encode()}


DOCKER: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: archive(), "no image"),
    "a root file system": (lambda: images.LAYER, "no image"),
    "not an archive": (lambda: b"x" * 5000, "not a tar archive"),
    "an empty file": (lambda: b"", "truncated"),
    "truncated": (lambda: images.packed(docker())[:3000], "truncated"),
    "before docker 1.10": (
        lambda: images.packed({"repositories": b"{}", "abc/json": b"{}"}),
        "before 1.10",
    ),
    "no object": (lambda: images.packed({"manifest.json": b"{}"}), "list of objects"),
    "no images": (lambda: images.packed({"manifest.json": b"[]"}), "1 to 1000 images"),
    "too many images": (
        lambda: images.packed({"manifest.json": b"[" + b"{}," * 1000 + b"{}]"}),
        "1 to 1000 images",
    ),
    "not JSON": (lambda: images.packed({"manifest.json": b"[{]"}), "Expecting"),
    "a key twice": (
        lambda: images.packed({"manifest.json": b'[{"Config": "a", "Config": "b"}]'}),
        "appears twice",
    ),
    "huge": (
        lambda: images.packed({"manifest.json": b"[" + b" " * (17 << 20) + b"]"}),
        "larger than",
    ),
    "no config": (lambda: images.packed(docker(Config="gone.json")), "has no file 'gone.json'"),
    "a config outside": (lambda: images.packed(docker(Config="../../etc/passwd")), "not the name"),
    "an absolute config": (lambda: images.packed(docker(Config="/etc/passwd")), "not the name"),
    "without a config": (lambda: images.packed(docker(Config=...)), "not the name"),
    "a layer that is missing": (
        lambda: images.packed(docker(Layers=["gone"])),
        "has no file 'gone'",
    ),
    "a layer outside": (lambda: images.packed(docker(Layers=["../x"])), "not the name"),
    "no layers": (lambda: images.packed(docker(Layers=[])), "has 0 layers"),
    "too many layers": (lambda: images.packed(docker(Layers=["x"] * 200)), "200 items"),
    "a layer for a config": (lambda: images.packed(docker(Config="manifest.json")), "object"),
    "a bad name": (lambda: images.packed(docker(RepoTags=["Web:1"])), "lower case"),
    "a name with an escape": (
        lambda: images.packed(docker(RepoTags=["a\x1b[31m"])),
        "not a name|a tag",
    ),
    "the built-in name": (lambda: images.packed(docker(RepoTags=["host"])), "cannot be given"),
    "a digest for a name": (
        lambda: images.packed(docker(RepoTags=[f"a@sha256:{'a' * 64}"])),
        "cannot be given",
    ),
    "a file twice": (
        lambda: images.packed(docker(), entry("config.json", b"{}")),
        "twice in the archive",
    ),
    "a file twice by another path": (
        lambda: images.packed(docker(), entry("./a/../config.json", b"{}")),
        "twice in the archive",
    ),
    "a name outside": (lambda: images.packed(docker(), entry("../x", b"{}")), "leads out"),
    "a link outside": (
        lambda: images.packed(docker(), symlink("a/b", "../../etc/passwd")),
        "leads out",
    ),
    "a hard link outside": (lambda: images.packed(docker(), hard_link("a", "../x")), "leads out"),
    "links in a circle": (
        lambda: images.packed(docker(Layers=["a"]), symlink("a", "b"), symlink("b", "a")),
        "circle",
    ),
    "a link to nothing": (
        lambda: images.packed(docker(Layers=["a"]), symlink("a", "b")),
        "no file 'a'",
    ),
    "a link to a host's file": (
        lambda: images.packed(docker(Layers=["a"]), symlink("a", "/etc/passwd")),
        "no file 'a'",
    ),
    "a link to a directory": (
        lambda: images.packed(docker(Layers=["a"]), directory("d"), symlink("a", "d")),
        "no file 'a'",
    ),
    "a device": (
        lambda: images.packed(docker(), entry("dev", kind=b"3", device=(1, 3))),
        "neither",
    ),
    "a fifo": (lambda: images.packed(docker(), entry("pipe", kind=b"6")), "neither"),
    "a sparse file": (
        lambda: images.packed(docker(), sparse("big", 1 << 40, [(0, 0)])),
        "sparse|out of order|does not fit|unpacks to more",
    ),
    "a layer of another image": (
        lambda: images.packed(docker() | {"config.json": images.config(images.SECOND)}),
        "its content is",
    ),
    "a config for windows": (
        lambda: images.packed(
            docker() | {"config.json": images.config(images.LAYER, os="windows")}
        ),
        "windows",
    ),
}


@pytest.mark.parametrize("what", DOCKER)
def test_dockers_archive(store: Store, what: str) -> None:
    make, why = DOCKER[what]
    refused(store, make(), why)


def changed(**files: bytes | None) -> bytes:
    """A layout with other files, by the beginnings of their names."""
    whole = images.plain_layout()
    for start, data in files.items():
        name = start.replace("_", "-", 1) if start == "oci_layout" else start.replace("_", ".")
        if data is None:
            del whole[name]
        else:
            whole[name] = data
    return images.packed(whole)


def with_layer(**change: Any) -> bytes:
    """A layout whose manifest says something else of its layer."""
    setup = images.config(images.LAYER)
    layer = images.described(images.LAYER, "layer.v1.tar") | change
    whole = images.manifest(setup, layer)
    top = images.index(images.described(whole, "manifest.v1+json"))
    return images.packed(images.layout(top, whole, setup, images.LAYER))


def damaged(kind: int) -> bytes:
    """A layout of which one blob has other bytes than its name says: manifest, config, layer."""
    files = images.plain_layout()
    name = [one for one in files if one.startswith("blobs/")][kind]
    data = bytearray(files[name])
    data[-3] ^= 1
    return images.packed(files | {name: bytes(data)})


def nested(levels: int) -> bytes:
    """Indexes within indexes."""
    setup = images.config(images.LAYER)
    whole = images.manifest(setup, images.described(images.LAYER, "layer.v1.tar"))
    blobs = [images.LAYER, setup, whole]
    found = images.described(whole, "manifest.v1+json")
    for _ in range(levels):
        inner = images.index(found)
        blobs.append(inner)
        found = images.described(inner, "index.v1+json")
    return images.packed(images.layout(images.index(found), *blobs))


OCI: dict[str, tuple[Callable[[], bytes], str]] = {
    "no version": (lambda: changed(oci_layout=b"{}"), "version ''"),
    "a later version": (
        lambda: changed(oci_layout=b'{"imageLayoutVersion": "2.0.0"}'),
        "version '2",
    ),
    "no index": (lambda: changed(index_json=None), "has no file 'index.json'"),
    "an index that is a manifest": (
        lambda: changed(index_json=b'{"schemaVersion": 2, "manifests": [], "layers": []}'),
        "at the same time",
    ),
    "schema 1": (
        lambda: changed(index_json=b'{"schemaVersion": 1, "manifests": []}'),
        "schemaVersion",
    ),
    "a digest of no known kind": (
        lambda: changed(index_json=images.index({"digest": "md5:abc", "size": 1})),
        "must be sha256",
    ),
    "a digest that is a path": (
        lambda: changed(
            index_json=images.index(
                {"digest": "sha256:../../../../etc/passwd", "size": 1, "mediaType": "x"}
            )
        ),
        "must be sha256",
    ),
    "a manifest that is missing": (
        lambda: changed(index_json=images.index(images.described(b"{}", "manifest.v1+json"))),
        "has no file",
    ),
    "a damaged manifest": (lambda: damaged(0), "not that of its digest"),
    "a damaged config": (lambda: damaged(1), "not that of its digest"),
    "a damaged layer": (lambda: damaged(2), "not that of its digest"),
    "a layer of another size": (lambda: with_layer(size=5), "not that of its digest"),
    "a layer of another type": (lambda: with_layer(mediaType="text/plain"), "cannot be unpacked"),
    "a layer of another digest": (lambda: with_layer(digest=f"sha256:{'1' * 64}"), "has no file"),
    "indexes within indexes": (lambda: nested(5), "indexes within indexes"),
    "a bad name": (lambda: images.packed(images.plain_layout("Web:1")), "lower case"),
    "the built-in name": (
        lambda: images.packed(images.plain_layout("library/host:latest")),
        "cannot be",
    ),
}


@pytest.mark.parametrize("what", OCI)
def test_layouts(store: Store, what: str) -> None:
    make, why = OCI[what]
    refused(store, make(), why)


@pytest.mark.parametrize("levels", [1, 4])
def test_indexes_within_an_index(store: Store, levels: int) -> None:
    assert images.load_bytes(store, nested(levels))


def test_an_empty_index(store: Store) -> None:
    refused(store, changed(index_json=images.index()), "has no image", NotFound)


def test_the_second_image_is_bad(store: Store) -> None:
    """Then the first is not there either."""
    files = images.docker_files(["web:1"])
    items = json.loads(files["manifest.json"])
    items.append(items[0] | {"Layers": ["gone"], "RepoTags": ["web:2"]})
    refused(
        store,
        images.packed(files | {"manifest.json": json.dumps(items).encode()}),
        "no file 'gone'",
    )


def test_a_layer_that_the_store_has_already(store: Store) -> None:
    """Its blob is verified all the same: it would be pushed later."""
    images.load_bytes(store, images.packed(images.docker_files(["web:1"])))
    files = images.docker_files(["web:2"])
    path = next(name for name in files if name.endswith("layer.tar"))
    files[path] = images.SECOND
    refused(store, images.packed(files), "its content is")


def test_a_bomb(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_FLOOR", 1 << 20)
    files = images.docker_files(["web:1"]) | {"zeros": bytes(8 << 20)}
    refused(store, gzip.compress(images.packed(files)), "unpacks to more")


def test_many_small_files(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_MOST_HELD", 100_000)
    many = {f"file{number}": bytes(60_000) for number in range(3)}
    refused(store, images.packed(images.docker_files(["web:1"]) | many), "names and small files")


def test_a_directory_with_links(store: Store, tmp_path: Path) -> None:
    """Links in a directory are followed inside it only; a fifo or a device is not read."""
    decoy = fixtures.make_decoy(tmp_path / "decoy")
    out = tmp_path / "layout"
    for name, data in images.plain_layout().items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)

    def attempt(why: str) -> None:
        fd = os.open(out, os.O_RDONLY)
        try:
            with pytest.raises(SysboxError, match=why):
                load.load(store, fd, str(out))
        finally:
            os.close(fd)

    index = out / "index.json"
    index.rename(tmp_path / "index.json")
    index.symlink_to(tmp_path / "index.json")
    attempt("has no file 'index.json'")
    index.unlink()
    os.mkfifo(index)
    attempt("not a regular file")
    index.unlink()
    index.mkdir()
    attempt("not a regular file")
    index.rmdir()
    index.symlink_to("index.json")
    attempt("Too many levels|no file")
    assert (decoy / "secret").read_text() == "secret"

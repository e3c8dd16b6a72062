"""Images as files: each form is written and read again, and reads what docker, podman and skopeo write."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import posix
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import needs_root
from layers import fixtures, images
from layers.builder import archive, entry, symlink

from sysbox.base import codec, paths
from sysbox.base.errors import FormatError, NotFound, SpecError, TrustError, Unsupported
from sysbox.image import commit, ingest, skeleton
from sysbox.image.formats import load, save
from sysbox.image.formats.sinks import ArchiveSink, DirectorySink
from sysbox.image.registry import platform
from sysbox.image.store import Store
from sysbox.image.trust import provenance

WEB = "docker.io/library/web:1"


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Store]:
    """Two stores, of which neither knows what the other has."""
    needs_root()
    monkeypatch.setattr(ingest, "sync_file_system", lambda _: None)
    return Store(f"{tmp_path}/one"), Store(f"{tmp_path}/two")


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    return stores[1]


def saved(store: Store, form: str, *names: str) -> bytes:
    """The archive of some images."""
    with open(os.memfd_create("saved"), "r+b", buffering=0) as file:
        save.save(
            store, save.choose(store, names), form, ArchiveSink(file.fileno(), lambda _: None)
        )
        return os.pread(file.fileno(), 1 << 26, 0)


def two_images(store: Store) -> list[str]:
    """Ids of two images with a layer in common, one of them compressed."""
    first = fixtures.import_bytes(store, gzip.compress(images.LAYER), "web:1")
    second = commit.commit(
        store,
        first,
        first.config,
        lambda write: write(images.SECOND) and None,
        "localhost:5000/x/y:2",
    )
    store.tag("web:1", "web:2")
    return [first.id, second.id]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_there_and_back(stores: tuple[Store, Store], form: str) -> None:
    one, two = stores
    ids = two_images(one)
    data = saved(one, form, "web", "localhost:5000/x/y:2")
    loaded = images.load_bytes(two, data)
    assert [image.id for image in loaded] == ids
    assert loaded[0].names == ("web:1", "web:2")
    assert loaded[1].names == ("localhost:5000/x/y:2",)
    for image_id in ids:
        before, after = one.resolve(image_id), two.resolve(image_id)
        assert before.names == after.names
        assert before.layers == after.layers
        for name in before.layers:
            assert fixtures.tree(one.layer(name)) == fixtures.tree(two.layer(name))
    blobs = {path.name: path.read_bytes() for path in Path(one.root, "blobs/sha256").iterdir()}
    assert {
        path.name: path.read_bytes() for path in Path(two.root, "blobs/sha256").iterdir()
    } == blobs
    assert saved(two, form, "web", "localhost:5000/x/y:2") == data  # the same byte for byte
    assert two.gc() == []


@pytest.mark.parametrize("form", ["oci-dir", "docker-dir"])
def test_directories(stores: tuple[Store, Store], tmp_path: Path, form: str) -> None:
    one, two = stores
    two_images(one)
    names = ("web:1",) if form == "docker-dir" else ("web:1", "localhost:5000/x/y")
    (tmp_path / "out").mkdir()
    fd = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        save.save(one, save.choose(one, names), form, DirectorySink(fd, lambda _: None))
        loaded = load.load(two, fd, "out")
    finally:
        os.close(fd)
    chosen = save.choose(one, names)
    assert [image.id for image in loaded] == [image.id for image in chosen]
    for image in chosen:
        assert two.resolve(image.id).manifest == image.manifest
    assert loaded[0].names == (() if form == "docker-dir" else ("web:1",))


def test_an_oci_layout_is_one(stores: tuple[Store, Store], tmp_path: Path) -> None:
    one, _ = stores
    two_images(one)
    with tarfile.open(
        fileobj=io.BytesIO(saved(one, "oci-archive", "web", "localhost:5000/x/y:2"))
    ) as file:
        file.extractall(tmp_path / "out")
    top = codec.loads((tmp_path / "out" / "index.json").read_bytes(), "")
    names = [one["annotations"]["org.opencontainers.image.ref.name"] for one in top["manifests"]]
    assert names == [WEB, "docker.io/library/web:2", "localhost:5000/x/y:2"]
    for described in top["manifests"]:
        data = (tmp_path / "out/blobs/sha256" / described["digest"][7:]).read_bytes()
        assert images.digest(data) == described["digest"]
        assert len(data) == described["size"]
        for layer in codec.loads(data, "")["layers"]:
            blob = tmp_path / "out/blobs/sha256" / layer["digest"][7:]
            assert blob.stat().st_size == layer["size"]
            assert blob.read_bytes() == Path(one.blob(layer["digest"])).read_bytes()


def test_dockers_archive_is_one(stores: tuple[Store, Store]) -> None:
    one, _ = stores
    ids = two_images(one)
    with tarfile.open(fileobj=io.BytesIO(saved(one, "docker-archive", *ids))) as file:
        members = {member.name: file.extractfile(member).read() for member in file}  # type: ignore[union-attr]
    first, second = codec.loads(members["manifest.json"], "")
    assert first["RepoTags"] is None
    assert first["Config"] == f"{ids[0][7:]}.json"
    assert gzip.decompress(members[first["Layers"][0]]) == images.LAYER
    assert second["Layers"][0] == first["Layers"][0]
    assert len(members) == 1 + 2 + 2  # the common layer is there once


def test_a_compression_that_docker_lacks(
    stores: tuple[Store, Store], requires: Callable[..., None]
) -> None:
    one, two = stores
    requires.program("zstd")  # type: ignore[attr-defined]
    import subprocess

    data = subprocess.run(
        ["zstd", "-c"], input=images.LAYER, capture_output=True, check=True
    ).stdout
    image = fixtures.import_bytes(one, data, "web:1")
    with tarfile.open(fileobj=io.BytesIO(saved(one, "docker-archive", "web:1"))) as file:
        layers = [name for name in file.getnames() if name.endswith(".tar")]
        assert file.extractfile(layers[0]).read() == images.LAYER  # type: ignore[union-attr]
    loaded = images.load_bytes(two, saved(one, "oci-archive", "web:1"))
    assert two.resolve(loaded[0].id).manifest == image.manifest  # there it is as it was


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_archives(store: Store, compress: Callable[[bytes], bytes]) -> None:
    (loaded,) = images.load_bytes(store, compress(images.packed(images.docker_files(["web:1"]))))
    assert loaded.names == ("web:1",)
    assert store.resolve("web:1").id == loaded.id


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_one_sync_before_any_name(store: Store, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """A power cut leaves no blob or layer that is not whole; large files are not waited for one by one."""
    order = []
    fsync, rename = posix.fsync, posix.rename

    def note_fsync(fd: int) -> None:
        if "/temporary/" in os.readlink(f"/proc/self/fd/{fd}"):
            order.append("fsync")
        fsync(fd)

    def note_rename(source: str, target: str) -> None:
        if "/temporary/" in source and "/temporary/" not in target:
            order.append(target.removeprefix(f"{store.root}/").partition("/")[0])
        rename(source, target)

    monkeypatch.setattr(ingest, "sync_file_system", lambda _: order.append("syncfs"))
    monkeypatch.setattr(posix, "fsync", note_fsync)
    monkeypatch.setattr(posix, "rename", note_rename)
    layers = (images.LAYER, images.SECOND)
    files = (
        images.docker_files(["web:1"], *layers)
        if form == "docker"
        else images.plain_layout(WEB, *layers)
    )
    images.load_bytes(store, images.packed(files))
    # each layer with its record
    assert order == ["syncfs", *["layers"] * 4, *["blobs"] * 2]


def test_from_a_pipe(store: Store) -> None:
    data = images.packed(images.docker_files(["web:1"], images.LAYER, images.SECOND))
    reading, writing = os.pipe()

    def fill() -> None:
        with open(writing, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        (loaded,) = load.load(store, reading, "standard input")
    finally:
        os.close(reading)
        thread.join()
    assert len(store.resolve(loaded.id).layers) == 2


def test_layers_that_are_links(store: Store) -> None:
    """docker writes a layer of two images once, and a symbolic link for the other."""
    files = images.docker_files(["web:1"])
    path = next(name for name in files if name.endswith("layer.tar"))
    setup = files["config.json"]
    items = codec.loads(files["manifest.json"], "")
    items.append({"Config": "config.json", "RepoTags": ["web:2"], "Layers": ["other/layer.tar"]})
    files["manifest.json"] = codec.dumps(items)
    data = images.packed(files, symlink("other/layer.tar", f"../{path}"))
    loaded = images.load_bytes(store, data)
    assert [one.id for one in loaded] == 2 * [images.digest(setup)]
    assert store.resolve("web:2").names == (WEB, "docker.io/library/web:2")


def test_layers_compressed_as_no_layer_may_be(store: Store) -> None:
    files = images.docker_files(["web:1"])
    path = next(name for name in files if name.endswith("layer.tar"))
    files[path] = lzma.compress(files[path])
    images.load_bytes(store, images.packed(files))
    assert Path(store.blob(images.digest(images.LAYER))).read_bytes() == images.LAYER


def test_a_layout_with_dockers_manifest_beside(store: Store) -> None:
    """docker from 25 on writes both; the layout names no repository."""
    files = images.plain_layout("1")
    setup = images.config(images.LAYER)
    item = {
        "Config": f"blobs/sha256/{images.digest(setup)[7:]}",
        "RepoTags": ["web:1"],
        "Layers": [],
    }
    files["manifest.json"] = codec.dumps([item])
    (loaded,) = images.load_bytes(store, images.packed(files))
    assert loaded.names == ("web:1",)


@pytest.mark.parametrize("name", ["", "latest", "v1"])
def test_a_layout_without_a_repository(store: Store, name: str) -> None:
    (loaded,) = images.load_bytes(store, images.packed(images.plain_layout(name)))
    assert loaded.names == ()
    assert store.resolve(loaded.id).names == ()


def test_layers_without_an_end_mark(store: Store) -> None:
    """As umoci writes them; the diff id proves that nothing is missing."""
    layer = images.LAYER.rstrip(b"\0")
    layer += bytes(-len(layer) % 512)
    (loaded,) = images.load_bytes(store, images.packed(images.docker_files(["web:1"], layer)))
    assert Path(store.layer(store.resolve(loaded.id).layers[0]), "etc/one").read_bytes() == b"1"
    with pytest.raises(FormatError, match="truncated"):
        fixtures.import_bytes(store, layer)


def test_a_name_moves(store: Store) -> None:
    old = fixtures.import_bytes(store, archive(entry("x")), "web:1")
    (loaded,) = images.load_bytes(store, images.packed(images.docker_files(["web:1"])))
    assert loaded.moved == {"web:1": old.id}
    assert store.resolve(old.id).names == ()
    (again,) = images.load_bytes(store, images.packed(images.docker_files(["web:1"])))
    assert again.moved == {}
    assert len(store.list()) == 2


def test_the_platform_of_this_machine(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "own", lambda: platform.parse("linux/arm/v7"))
    blobs = [images.LAYER]
    listed = []
    for architecture, variant in (("amd64", ""), ("arm", "v6"), ("arm", "v7"), ("s390x", "")):
        setup = images.config(images.LAYER, architecture=architecture, author=variant)
        whole = images.manifest(setup, images.described(images.LAYER, "layer.v1.tar"))
        where = {"os": "linux", "architecture": architecture, "variant": variant}
        listed.append(images.described(whole, "manifest.v1+json", platform=where))
        blobs += [setup, whole]
    whole = b"{}"
    unknown = {"os": "unknown", "architecture": "unknown"}
    listed.append(images.described(whole, "manifest.v1+json", platform=unknown))
    inner = images.index(*listed)
    notes = {"org.opencontainers.image.ref.name": "quay.io/web:1"}
    top = images.index(images.described(inner, "index.v1+json", annotations=notes))
    data = images.packed(images.layout(top, inner, *blobs))
    (loaded,) = images.load_bytes(store, data)
    assert loaded.names == ("quay.io/web:1",)
    assert loaded.id == images.digest(images.config(images.LAYER, architecture="arm", author="v7"))
    monkeypatch.setattr(load, "own", lambda: platform.parse("linux/riscv64"))
    with pytest.raises(NotFound, match="not for linux/riscv64") as caught:
        images.load_bytes(store, data)
    assert "linux/amd64, linux/arm/v6" in caught.value.hint


def test_what_is_chosen(store: Store) -> None:
    first, second = two_images(store)
    assert [one.names for one in save.choose(store, ["web"])] == [(WEB, "docker.io/library/web:2")]
    assert [one.names for one in save.choose(store, ["web:1", first, "web:1"])] == [(WEB,)]
    assert [one.names for one in save.choose(store, [first[7:15]])] == [()]
    digest = store.resolve(second).manifest
    (chosen,) = save.choose(store, [f"localhost:5000/x/y@{digest}"])
    assert (chosen.id, chosen.names) == (second, ())
    for name, error in (("nope", NotFound), ("web:9", NotFound), ("Web", SpecError)):
        with pytest.raises(error):
            save.choose(store, [name])


def test_the_host_image_stays_here(store: Store) -> None:
    skeleton.install(store, "host:x")
    with pytest.raises(Unsupported, match="the machine's own /usr"):
        save.choose(store, ["host"])


def test_a_blob_that_is_damaged_or_gone(stores: tuple[Store, Store]) -> None:
    one, _ = stores
    image = fixtures.import_bytes(one, images.SECOND, "web:1")
    blob = Path(one.blob(images.digest(images.SECOND)))
    os.truncate(blob, 1000)
    for form in ("docker-archive", "oci-archive"):
        with pytest.raises(Exception, match="damaged: has 1000 bytes"):
            saved(one, form, "web:1")
    blob.unlink()
    with pytest.raises(NotFound, match="is missing"):
        saved(one, "oci-archive", image.id)


def test_a_directory_for_one_image(store: Store) -> None:
    two_images(store)
    with pytest.raises(SpecError, match="holds one image"):
        saved(store, "docker-dir", "web:1", "localhost:5000/x/y:2")


def test_policy_and_origin(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """policy.json decides by the transport; what is accepted has its origin kept."""
    policy = tmp_path / "policy.json"
    monkeypatch.setattr(paths, "POLICY", str(policy))
    rule = [{"type": "insecureAcceptAnything"}]
    transports = {"oci-archive": {"": rule}}
    policy.write_bytes(codec.dumps({"default": [{"type": "reject"}], "transports": transports}))
    with pytest.raises(TrustError, match="docker-archive"):
        images.load_bytes(store, images.packed(images.docker_files(["web:1"])))
    assert store.list() == []
    (loaded,) = images.load_bytes(store, images.packed(images.plain_layout()))
    (origin,) = provenance.read(store, loaded.id)
    assert (origin.transport, origin.verdict) == ("oci-archive", "insecureAcceptAnything")
    assert origin.manifest == store.resolve(loaded.id).manifest

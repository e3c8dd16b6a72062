"""The store: names and ids, docker's rules for removing, many writers at once, and kill -9 at every step."""

from __future__ import annotations

import gzip
import os
import posix
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from counted import calls
from forked import needs_root
from layers import fixtures
from layers.builder import archive, directory, entry

from sysbox.base import codec
from sysbox.base.errors import Conflict, FormatError, ImageNotFound, NotFound, SpecError
from sysbox.image import catalog, ingest
from sysbox.image.documents import OCI_LAYER, parse_manifest
from sysbox.image.store import Store

NOBODY: Callable[[str], list[str]] = lambda _: []  # noqa: E731 (a constant of the tests)
ONE = archive(directory("etc"), entry("etc/one", b"1"))
TWO = archive(directory("etc"), entry("etc/two", b"2" * 2000))


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In memory, since every step here syncs."""
    needs_root()
    path = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp", f"sbx{os.getpid()}")
    path.mkdir(mode=0o700)
    monkeypatch.setattr(ingest, "sync_file_system", lambda _: None)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def store(base: Path) -> Store:
    return Store(f"{base}/images")


def removed(store: Store, name: str, in_use: Callable[[str], list[str]], **how: bool) -> list[str]:
    """What a removal did, as it is printed."""
    return [str(one) for one in store.remove(name, in_use, **how)]


def test_an_empty_store(store: Store) -> None:
    assert store.list() == []
    assert store.gc() == []
    for name in ("x", "sha256:" + "a" * 64, "abc", "a" * 64, f"x@sha256:{'a' * 64}"):
        with pytest.raises(NotFound):
            store.resolve(name)
    with pytest.raises(SpecError):
        store.resolve("No Such")
    assert not os.path.exists(store.root)  # looking writes nothing


def test_the_layout_is_ocis(store: Store) -> None:
    image = fixtures.import_bytes(store, ONE, "one:1", changes=['CMD ["sh"]'], message="why")
    root = Path(store.root)
    assert codec.loads((root / "oci-layout").read_bytes(), "") == {"imageLayoutVersion": "1.0.0"}
    index = codec.loads((root / "index.json").read_bytes(), "")
    (described,) = index["manifests"]
    assert described["annotations"][catalog.REF_NAME] == "docker.io/library/one:1"
    manifest_data = Path(store.blob(described["digest"])).read_bytes()
    assert len(manifest_data) == described["size"]
    manifest = parse_manifest(manifest_data)
    assert manifest.config.digest == image.id
    (layer,) = manifest.layers
    assert layer.media_type == OCI_LAYER
    assert Path(store.blob(layer.digest)).read_bytes() == ONE  # byte for byte, to be pushed later
    config = codec.loads(Path(store.blob(image.id)).read_bytes(), "")
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer.digest]}
    assert config["history"][0]["comment"] == "why"
    assert (Path(store.layer(image.layers[0])) / "etc" / "one").read_text() == "1"


def test_all_ways_to_name_an_image(store: Store) -> None:
    image = fixtures.import_bytes(store, ONE, "busybox:test")
    hexes = image.id[7:]
    for name in (
        "busybox:test", "docker.io/busybox:test", "docker.io/library/busybox:test",
        image.id, hexes, hexes[:12], hexes[:4], f"sha256:{hexes[:8]}",
        image.manifest, f"busybox@{image.manifest}", f"busybox:x@{image.manifest}",
    ):  # fmt: skip
        assert store.resolve(name) == image
    for name in (
        "busybox",
        "quay.io/busybox:test",
        f"other@{image.manifest}",
        "sha256:" + "0" * 64,
        hexes[:3],
        f"sha256:{hexes[:3]}",
    ):
        with pytest.raises(NotFound):
            store.resolve(name)


def test_the_name_that_podman_would_have_given(store: Store) -> None:
    fixtures.import_bytes(store, ONE, "app:1")
    with pytest.raises(ImageNotFound) as error:
        store.resolve("localhost/app:1")
    assert error.value.hint == "app:1 is here: write that, or `sysbox tag app:1 localhost/app:1`"
    for name in (
        "localhost/app:2",
        "localhost/quay.io/app:1",
        "localhost/No",
        "quay.io/localhost/app:1",
    ):
        with pytest.raises((ImageNotFound, SpecError)) as error:
            store.resolve(name)
        assert "is here" not in error.value.hint.replace("what is here", "")


def test_an_ambiguous_prefix(store: Store) -> None:
    """Of several images; a name that is one comes first."""
    image = fixtures.import_bytes(store, ONE, "one")
    other = f"sha256:{image.id[7:15]}{'0' * 56}"
    store.edit(lambda entries: [*entries, entries[0].replace(name="", image_id=other)])
    with pytest.raises(Conflict, match="ambiguous"):
        store.resolve(image.id[7:11])
    named = fixtures.import_bytes(store, TWO, image.id[7:11])
    assert store.resolve(image.id[7:11]) == named


def test_a_short_name_before_an_id(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that only registries.conf makes a name of an image."""
    one = fixtures.import_bytes(store, ONE, "one")
    short = one.id[7:13]
    two = fixtures.import_bytes(store, TWO, f"quay.io/team/{short}")
    assert store.resolve(short).id == one.id
    settings = tmp_path / "registries.conf"
    settings.write_text(f'[aliases]\n"{short}" = "quay.io/team/{short}"\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(settings))
    assert store.resolve(short).id == two.id
    assert store.resolve(one.id[7:19]).id == one.id


def test_a_name_has_precedence_over_an_id(store: Store) -> None:
    one = fixtures.import_bytes(store, ONE, "one")
    two = fixtures.import_bytes(store, TWO, one.id[7:13])
    assert store.resolve(one.id[7:13]).id == two.id


def test_a_name_moves(store: Store) -> None:
    one = fixtures.import_bytes(store, ONE, "app")
    two = fixtures.import_bytes(store, TWO, "app")
    assert store.resolve("app").id == two.id
    assert store.resolve(one.id).names == ()  # <none>, as docker leaves it
    assert removed(store, one.id, NOBODY) == [f"Deleted: {one.id}"]


def test_without_a_name(store: Store) -> None:
    image = fixtures.import_bytes(store, ONE, "")
    assert store.resolve(image.id).names == ()
    store.tag(image.id, "now:named")
    assert store.resolve("now:named").names == ("docker.io/library/now:named",)
    assert len(store.entries()) == 1


def test_reserved_and_bad_names(store: Store) -> None:
    fixtures.import_bytes(store, ONE, "one")
    for bad in ("host", "docker.io/library/host:latest", "Bad", f"x@sha256:{'a' * 64}"):
        with pytest.raises(SpecError):
            fixtures.import_bytes(store, ONE, bad)
        with pytest.raises(SpecError):
            store.tag("one", bad)
    assert len(store.list()) == 1
    assert store.gc() == []


def test_tags_and_untagging(store: Store) -> None:
    image = fixtures.import_bytes(store, ONE, "a:1")
    store.tag("a:1", "a:2")
    store.tag("a:1", "b/c")
    assert len(store.resolve("a:2").names) == 3
    assert removed(store, "a:2", NOBODY) == ["Untagged: a:2"]
    with pytest.raises(Conflict, match="multiple repositories"):
        store.remove(image.id, NOBODY)
    assert removed(store, "b/c", NOBODY) == ["Untagged: b/c:latest"]
    assert removed(store, image.id[7:19], NOBODY) == ["Untagged: a:1", f"Deleted: {image.id}"]
    assert store.list() == []
    assert not os.listdir(f"{store.root}/layers")
    assert not os.listdir(f"{store.root}/blobs/sha256")
    assert not os.listdir(f"{store.root}/records")


def test_untag_leaves_the_image(store: Store) -> None:
    image = fixtures.import_bytes(store, ONE, "a:1")
    other = fixtures.import_bytes(store, TWO, "other")
    store.tag("a:1", "a:2")
    store.tag("a:1", "b")
    with pytest.raises(NotFound, match="does not have the name other:latest"):
        store.untag("a:1", ["a:2", "other"])
    assert len(store.resolve("a:1").names) == 3
    assert [str(one) for one in store.untag("b", ["a:2"])] == ["Untagged: a:2"]
    done = [str(one) for one in store.untag(image.id)]
    assert done == ["Untagged: a:1", "Untagged: b:latest"]
    assert store.resolve(image.id).names == ()
    assert store.untag(image.id) == []
    assert len(store.entries()) == 2
    assert store.resolve("other").id == other.id
    assert store.gc() == []
    assert os.path.isdir(store.layer(image.layers[0]))


def test_force_removes_all_names(store: Store) -> None:
    image = fixtures.import_bytes(store, ONE, "a")
    store.tag("a", "b")
    lines = removed(store, image.id, NOBODY, force=True)
    assert lines == ["Untagged: a:latest", "Untagged: b:latest", f"Deleted: {image.id}"]


def test_what_a_container_uses_stays(store: Store) -> None:
    image = fixtures.import_bytes(store, ONE, "a")

    def used(image_id: str) -> list[str]:
        return ["web"] if image_id == image.id else []

    with pytest.raises(Conflict, match=r"must force.*container web"):
        store.remove("a", used)
    with pytest.raises(Conflict, match="being used by container web"):
        store.remove(image.id, used)
    assert removed(store, "a", used, force=True) == ["Untagged: a:latest"]
    assert store.gc(used) == []
    assert store.resolve(image.id).layers == image.layers  # `start` still works
    assert os.path.isdir(store.layer(image.layers[0]))
    assert removed(store, image.id, NOBODY) == [f"Deleted: {image.id}"]


def test_an_untagged_image_of_a_container_outlives_its_entry(store: Store) -> None:
    """A run that resolved just before a removal has its record only after it."""
    image = fixtures.import_bytes(store, ONE, "a")
    with store.hold():
        store.remove("a", NOBODY)
        assert os.path.isdir(store.layer(image.layers[0]))  # held: nothing is swept
    assert store.gc(lambda image_id: ["web"] if image_id == image.id else []) == []
    assert store.resolve(image.id).layers == image.layers
    assert store.gc(NOBODY)
    with pytest.raises(NotFound):
        store.resolve(image.id)
    assert not os.listdir(f"{store.root}/layers")


def test_layers_are_shared(store: Store) -> None:
    first = fixtures.import_bytes(store, ONE, "a")
    inode = os.stat(store.layer(first.layers[0])).st_ino
    second = fixtures.import_bytes(store, ONE, "b", changes=["ENV X=y"])
    assert first.id != second.id
    assert first.layers == second.layers
    assert os.stat(store.layer(first.layers[0])).st_ino == inode
    store.remove("a", NOBODY)
    assert os.stat(store.layer(first.layers[0])).st_ino == inode
    store.remove("b", NOBODY)
    assert not os.listdir(f"{store.root}/layers")


def test_only_root_reads_the_store(store: Store) -> None:
    before = os.umask(0)
    try:
        image = fixtures.import_bytes(store, ONE, "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(store.layer(image.layers[0])).st_mode) == 0o755
    for path, _, files in os.walk(store.root):
        if "/layers/" not in path:
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o700, path
            for name in files:
                assert stat.S_IMODE(os.stat(f"{path}/{name}").st_mode) == 0o600, name


def test_resolving_is_hot(store: Store) -> None:
    """Two files are read and no directory, with a hundred images there as with one."""
    fixtures.import_bytes(store, ONE, "a")
    store.resolve("a")
    alone, _ = calls(lambda: store.resolve("a"))
    for number in range(100):
        store.tag("a", f"name{number}")
    among, native = calls(lambda: store.resolve("name50"))
    assert native["open"] == 2
    assert not {"listdir", "scandir", "stat", "lstat", "fsync", "flock"} & set(native)
    assert (among - alone) / 100 < 20


def test_everything_is_synced_before_it_has_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves an image whose blob is empty, or a layer that counts as whole and is not."""
    synced, unsynced, layers = set[int](), list[str](), list[bool]()
    fsync, rename = posix.fsync, posix.rename

    def note_sync(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        fsync(fd)

    def note_rename(source: str, target: str) -> None:
        if os.path.isdir(source):
            layers.append(bool(whole))
        elif os.stat(source).st_ino not in synced:
            unsynced.append(target.removeprefix(store.root))
        rename(source, target)

    def note_all(root: str) -> None:
        whole.append(root)
        synced.update(path.stat().st_ino for path in Path(root).rglob("*"))

    whole: list[str] = []
    monkeypatch.setattr(ingest, "sync_file_system", note_all)
    monkeypatch.setattr(posix, "fsync", note_sync)
    monkeypatch.setattr(posix, "rename", note_rename)
    fixtures.import_bytes(store, gzip.compress(TWO), "a")
    assert whole == [store.root]
    assert layers == [True]
    # those can be made again: see test_a_record_is_made_again
    assert [path for path in unsynced if "/blobs/" in path or "index" in path] == []


def test_a_compressed_layer_may_grow_by_its_size(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_FLOOR", 1 << 20)
    bomb = gzip.compress(archive(entry("zeros", bytes(8 << 20))))
    assert len(bomb) * ingest._RATIO < 8 << 20
    with pytest.raises(FormatError, match="unpacks to more than"):
        fixtures.import_bytes(store, bomb, "a")
    monkeypatch.setattr(ingest, "_FLOOR", 16 << 20)
    fixtures.import_bytes(store, bomb, "a")


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "list", "other-type"])
def test_a_record_is_made_again(store: Store, damage: str) -> None:
    image = fixtures.import_bytes(store, ONE, "a", changes=["USER 5"])
    path = Path(store.record(image.id))
    text = {"empty": "", "text": "x", "list": "[]", "other-type": '{"id":5}'}.get(damage)
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    assert any("rebuilt" in line for line in store.gc()) or damage == "missing"
    assert store.resolve("a") == image


@pytest.mark.parametrize("damage", ["manifest", "config", "layer", "index"])
def test_damage_is_reported_and_nothing_else_removed(store: Store, damage: str) -> None:
    image = fixtures.import_bytes(store, ONE, "a")
    other = fixtures.import_bytes(store, TWO, "b")
    os.unlink(store.record(image.id))
    if damage == "manifest":
        os.unlink(store.blob(image.manifest))
    elif damage == "config":
        Path(store.blob(image.id)).write_text("{}")
    elif damage == "layer":
        shutil.rmtree(store.layer(image.layers[0]))
    else:
        Path(f"{store.root}/index.json").write_text('{"manifests": 5}')
        with pytest.raises(FormatError, match="OCI image index"):
            store.list()
        with pytest.raises(FormatError):
            store.gc()
        assert os.path.isdir(store.layer(other.layers[0]))
        return
    assert any("damaged" in line for line in store.gc())
    with pytest.raises((NotFound, FormatError)):
        store.resolve("a")
    assert store.resolve("b") == other
    assert os.path.isdir(store.layer(other.layers[0]))


def test_ids_and_digests_are_checked_before_they_become_paths(store: Store) -> None:
    for bad in ("", "../x", "sha256:../x", "a" * 64, "sha256:" + "A" * 64):
        for path in (store.blob, store.record):
            with pytest.raises(FormatError):
                path(bad)
    for bad in ("", "..", "a/b", "a" * 31, "A" * 32):
        with pytest.raises(FormatError):
            store.layer(bad)


def in_child(function: Callable[[], object]) -> int:
    """Fork, call, and leave; returns the pid."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


def test_many_at_once(store: Store) -> None:
    """The same layer under different names, and tags: none is lost, one directory is left."""
    children = [
        in_child(
            lambda n=number: fixtures.import_bytes(store, ONE, f"n{n}", changes=[f"ENV N={n}"])
        )  # type: ignore[misc]
        for number in range(8)
    ]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 8
    assert {image.names for image in store.list()} == {
        (f"docker.io/library/n{number}:latest",) for number in range(8)
    }
    assert len([name for name in os.listdir(f"{store.root}/layers") if "." not in name]) == 1
    children = [in_child(lambda n=number: store.remove(f"n{n}", NOBODY)) for number in range(8)]  # type: ignore[misc]
    children += [in_child(lambda: fixtures.import_bytes(store, ONE, "last"))]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 9
    store.gc()
    assert [image.names for image in store.list()] == [("docker.io/library/last:latest",)]
    assert os.path.isdir(store.layer(store.resolve("last").layers[0]))


STEPS = ("open", "mkdir", "rename", "unlink", "symlink", "mknod", "write", "rmdir", "fchmod")


def killed_at(step: int, function: Callable[[], object]) -> bool:
    """Call it in a child that dies by SIGKILL before its nth change of the file system; False if it ended."""

    def main() -> None:
        import posix

        left = [step]

        def counted(name: str) -> None:
            real = getattr(posix, name)

            def wrapper(*arguments: object, **rest: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **rest)

            setattr(posix, name, wrapper)
            setattr(os, name, wrapper)

        for name in STEPS:
            if hasattr(posix, name):
                counted(name)
        function()

    _, status = os.waitpid(in_child(main), 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_look_while_an_image_is_removed(store: Store) -> None:
    """`images` said that the other one was damaged: its content had gone since the index was read."""
    stays = fixtures.import_bytes(store, ONE, "stays:1")
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                fixtures.import_bytes(store, TWO, "goes:1")
                store.remove("goes:1", NOBODY)
        finally:
            os._exit(1)
    try:
        found = [{image.id for image in store.list()} for _ in range(2000)]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert all(stays.id in one for one in found)
    # it was seen in both states
    assert {len(one) for one in found} == {1, 2}


def test_killed_at_every_step_of_an_import(store: Store) -> None:
    kept = fixtures.import_bytes(store, TWO, "kept")
    before = fixtures.names(store)
    step = 0
    while killed_at(step, lambda: fixtures.import_bytes(store, ONE, "new")):
        _check_after_a_kill(store, kept.id)
        found = [image for image in store.list() if image.id != kept.id]
        if found:
            assert (Path(store.layer(found[0].layers[0])) / "etc" / "one").read_text() == "1"
            store.remove("new", NOBODY)
        assert fixtures.names(store) == before
        step += 1
    assert step > 20
    assert store.resolve("new")


def test_killed_at_every_step_of_a_removal(store: Store) -> None:
    kept = fixtures.import_bytes(store, TWO, "kept")
    before = fixtures.names(store)
    step = 0
    fixtures.import_bytes(store, ONE, "old")
    while killed_at(step, lambda: store.remove("old", NOBODY)):
        _check_after_a_kill(store, kept.id)
        if len(store.list()) == 1:
            assert fixtures.names(store) == before
            fixtures.import_bytes(store, ONE, "old")
        step += 1
    assert step > 5
    store.gc()
    assert fixtures.names(store) == before


def _check_after_a_kill(store: Store, kept: str) -> None:
    """At once everything can be read; after gc nothing is left over."""
    for image in store.list():
        assert os.path.isdir(store.layer(image.layers[0]))
    store.gc()
    assert not os.listdir(f"{store.root}/temporary")
    assert store.gc() == []
    assert store.resolve("kept").id == kept


def test_gc_leaves_work_in_progress_alone(store: Store) -> None:
    fixtures.import_bytes(store, ONE, "a")
    with ingest.Ingest(store) as work:
        fd = os.memfd_create("x")
        os.write(fd, TWO)
        os.lseek(fd, 0, 0)
        blob = work.spool(fd, "x")
        os.close(fd)
        layer = work.unpack(blob, "x")
        (line,) = store.gc()
        assert line.endswith("alone: a command is adding images")
        assert os.path.exists(blob.path)
        assert os.path.isdir(store.layer(layer.name))
    # given up without a commit: the unpacked layer is an orphan now
    assert store.gc() == [f"removed layers/{layer.name}"]


def test_gc_after_the_first_command_ever_was_killed(tmp_path: Path) -> None:
    """Before it had written what says that this is a store."""
    store = Store(f"{tmp_path}/images")
    assert store.gc() == []
    assert not os.path.exists(store.root)
    os.mkdir(store.root)
    ended = subprocess.Popen(["true"])
    ended.wait()
    Path(store.root, f"oci-layout.{ended.pid}").write_bytes(b"{")
    assert store.gc() == [f"removed oci-layout.{ended.pid}"]
    assert "oci-layout" in os.listdir(store.root)
    assert store.gc() == []


def test_the_documents_must_describe_what_came(store: Store) -> None:
    """Cache poisoning and a wrong diff id (CVE-2022-24778, CVE-2024-24557)."""
    from sysbox.image.archive import config_document, manifest_document
    from sysbox.image.documents import Descriptor
    from sysbox.image.model import ImageConfig

    with ingest.Ingest(store) as work:
        fd = os.memfd_create("x")
        os.write(fd, ONE)
        os.lseek(fd, 0, 0)
        blob = work.spool(fd, "x")
        with pytest.raises(FormatError, match="the image says"):
            work.unpack(blob, "x", diff_id="sha256:" + "a" * 64)
        layer = work.unpack(blob, "x", diff_id=blob.digest)
        config = config_document(ImageConfig(), [layer], "2026-01-01T00:00:00Z", "")
        good = Descriptor(media_type=OCI_LAYER, digest=blob.digest, size=blob.size)
        other = layer.replace(diff_id="sha256:" + "b" * 64)
        lies = [
            (manifest_document(config, [good.replace(size=blob.size + 1)]), config, [layer]),
            (
                manifest_document(config, [good.replace(digest="sha256:" + "a" * 64)]),
                config,
                [layer],
            ),
            (manifest_document(config, [good, good]), config, [layer]),
            (manifest_document(config + b" ", [good]), config, [layer]),
            (manifest_document(config.replace(b"2026", b"2025"), [good]), config, [layer]),
            (manifest_document(config, [good]), config, [other]),
        ]
        for manifest, document, stack in lies:
            with pytest.raises(FormatError):
                work.commit(manifest, document, [blob], stack, "lie")
    os.close(fd)
    assert store.list() == []

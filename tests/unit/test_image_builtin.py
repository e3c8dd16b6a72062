"""The image `host`: what of the machine is in it, and above all what is not."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import needs_root
from layers import fixtures

from sysbox.base.errors import Unsupported
from sysbox.image import builtin, ingest, skeleton
from sysbox.image.reference import HOST
from sysbox.image.store import Store


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    needs_root()
    path = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp", f"sbx{os.getpid()}")
    path.mkdir(mode=0o700)
    monkeypatch.setattr(ingest, "sync_file_system", lambda _: None)
    yield Store(f"{path}/images")
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def members() -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(skeleton.build("/bin/sh"))) as file:
        return {member.name: member for member in file}


def test_it_is_there_without_being_made(store: Store) -> None:
    image = store.resolve("host")
    assert image.usr_bind
    assert image.names == (HOST,)
    assert image.config.cmd in (("/bin/bash",), ("/bin/sh",))
    assert store.resolve("host:latest") == store.resolve(image.id) == image
    assert [one.names for one in store.list()] == [(HOST,)]
    assert store.gc() == []


def test_the_same_machine_gives_the_same_image(store: Store) -> None:
    image = store.resolve("host")
    assert skeleton.build("/bin/sh") == skeleton.build("/bin/sh")
    store.remove("host", lambda _: [])
    assert store.list() == []
    assert store.resolve("host") == image


def test_a_changed_machine_gives_another(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old = store.resolve("host")
    monkeypatch.setattr(builtin, "key", lambda: "another")
    monkeypatch.setattr(skeleton, "_newest", lambda: 5.0)
    new = store.resolve("host")
    assert new.id != old.id
    assert [image.id for image in store.list()] == [new.id]  # the old one leaves no <none> behind
    used = store.gc(lambda image_id: ["web"] if image_id == old.id else [])
    assert used == []
    assert store.resolve(old.id).usr_bind  # but a container of it can be started again
    store.gc()
    assert len(os.listdir(f"{store.root}/records")) == 1


def test_the_flag_survives_a_lost_record(store: Store) -> None:
    image = store.resolve("host")
    store.tag("host", "mine")
    os.unlink(store.record(image.id))
    assert store.resolve("mine").usr_bind


def test_a_further_name_stays_when_the_machine_changes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.resolve("host")
    store.tag("host", "mine")
    assert [one.name for one in store.untag("host")] == ["mine:latest"]  # `host` keeps its own name
    store.tag("host", "mine")
    monkeypatch.setattr(builtin, "key", lambda: "another")
    monkeypatch.setattr(skeleton, "_newest", lambda: 5.0)
    assert store.resolve("host").id != old.id
    assert store.resolve("mine").id == old.id
    assert store.resolve("mine").usr_bind


def test_no_import_has_the_flag(store: Store) -> None:
    image = fixtures.import_bytes(
        store,
        skeleton.build("/bin/sh"),
        "mine",
        changes=["LABEL sysbox.builtin=host:x usr_bind=true"],
    )
    assert not image.usr_bind
    os.unlink(store.record(image.id))
    assert not store.resolve("mine").usr_bind


def test_no_secret_and_no_home(members: dict[str, tarfile.TarInfo]) -> None:
    forbidden = (
        "shadow",
        "gshadow",
        "sudoers",
        "ssh",
        "machine-key",
        "credstore",
        "NetworkManager",
        "private",
    )
    for name, member in members.items():
        assert not set(name.split("/")) & set(forbidden), name
        assert not name.startswith(("home/", "root/", "usr/", "boot")), name
        assert member.uid == member.gid == 0
    for name in ("home", "root", "usr"):
        assert members[name].isdir()
    for name in ("etc/hostname", "etc/machine-id", "etc/resolv.conf", "etc/hosts", "etc/fstab"):
        assert members[name].size == 0


def test_only_what_all_the_world_may_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o640)
    (tmp_path / "public").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    with tarfile.open(fileobj=buffer, mode="w") as file:
        out = skeleton._Writer(file)
        for name in ("secret", "public", "fifo", "missing"):
            skeleton._copy(out, f"{tmp_path}/{name}")
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as file:
        assert [Path(name).name for name in file.getnames() if file.getmember(name).isfile()] == [
            "public"
        ]


def test_users_are_generated(members: dict[str, tarfile.TarInfo], store: Store) -> None:
    layer = Path(store.layer(store.resolve("host").layers[0]))
    users = dict(line.split(":", 1) for line in (layer / "etc" / "passwd").read_text().splitlines())
    assert {"root", "daemon", "nobody"} <= users.keys()
    machine = {
        line.split(":")[0]
        for line in Path("/etc/passwd").read_text().splitlines()
        if 1000 <= int(line.split(":")[2]) < 65534
    }
    assert not machine & users.keys()
    assert stat.S_IMODE((layer / "root").stat().st_mode) == 0o700
    assert stat.S_IMODE((layer / "tmp").stat().st_mode) == 0o1777
    assert (layer / "etc" / "mtab").readlink() == Path("../proc/self/mounts")
    assert not list((layer / "usr").iterdir())


def test_certificates_are_links_or_the_bundle(members: dict[str, tarfile.TarInfo]) -> None:
    for name, member in members.items():
        if name.startswith("etc/ssl/certs/"):
            assert member.issym() or name.endswith(("ca-certificates.crt", "ca-bundle.crt")), name


def test_a_machine_without_a_merged_usr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skeleton, "LINKS", ("etc",))
    with pytest.raises(Unsupported, match="merged /usr"):
        skeleton.build("/bin/sh")

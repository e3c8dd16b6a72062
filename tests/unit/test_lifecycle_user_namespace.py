"""The user namespace of a new container: by real namespaces, leases and records of this test's own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import in_child, needs_root

from sysbox.base import paths
from sysbox.base.errors import Conflict, KernelError, NotFound, SpecError, SysboxError
from sysbox.container import id_ranges, store
from sysbox.container.records import Record, Resolved
from sysbox.fs import mappable
from sysbox.lifecycle import run, user_namespace
from sysbox.linux import _sys, namespace, process, userns
from sysbox.linux.userns import IdMap
from sysbox.security import subids
from sysbox.spec import ContainerSpec, Mount, Namespaces, Security, UserNamespace

OWN = "/proc/self/ns/user"
A, B = "a" * 64, "b" * 64
RECORD = Record(
    id=A, name="x", created_ns=1, spec=ContainerSpec(image="i", name="x"), image_id=f"sha256:{A}",
    image_name="i", argv=("/x",), resolved=Resolved(),
)  # fmt: skip
USUAL = (IdMap(inside=0, outside=subids.FIRST, count=65536),)


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without leases, entries and far users, on which a start can make user namespaces."""
    monkeypatch.setattr(id_ranges, "DIRECTORY", str(tmp_path / "ids"))
    monkeypatch.setattr(paths, "CONTAINERS", str(tmp_path / "containers"))
    monkeypatch.setattr(subids, "FILES", (str(tmp_path / "subuid"), str(tmp_path / "subgid")))
    monkeypatch.setattr(subids, "DATABASES", (str(tmp_path / "passwd"), str(tmp_path / "group")))
    monkeypatch.setattr(subids, "NSPAWN", str(tmp_path / "nspawn"))
    for question in ("why_not_kernel", "why_not_root", "why_not"):
        monkeypatch.setattr(mappable, question, lambda *_, **__: "")
    return tmp_path


def asks(
    user: str = "", *, of: str = "", userns: UserNamespace | None = None, **modes: str
) -> Record:
    spec = RECORD.spec.replace(
        namespaces=Namespaces(user=user, **modes), userns=userns or UserNamespace(), user=of
    )
    return RECORD.replace(spec=spec, resolved=Resolved(user=of))


def resolved(record: Record) -> Record:
    return user_namespace.resolve(record, lease=True)


@contextlib.contextmanager
def in_new(flags: int, maps: tuple[IdMap, ...] = USUAL) -> Iterator[int]:
    """A process in new namespaces, the user namespace with these maps."""
    needs_root()
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        _sys.unshare(flags)
        os.write(told, b"+")
        signal.pause()
        os._exit(0)
    try:
        os.read(ready, 1)
        if flags & namespace.CLONE_NEWUSER:
            userns.write_maps(pid, maps, maps)
        yield pid
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)


def test_auto() -> None:
    record = resolved(asks("auto"))
    assert (record.userns, record.userns_reason, record.uids, record.gids) == (
        "auto",
        "",
        USUAL,
        USUAL,
    )
    assert resolved(asks("auto")) == record
    assert resolved(asks("nomap").replace(id=B)).uids[0].outside == subids.FIRST + 65536
    assert user_namespace.describe(record) == (
        "user namespace auto\n  users 0-65535: 524288-589823\n  groups 0-65535: 524288-589823"
    )
    # what is written is read
    assert Record.from_data(record.to_data()) == record


def test_host() -> None:
    record = resolved(asks("host"))
    assert (record.userns, record.userns_reason, record.uids) == ("host", "--userns host", ())
    assert user_namespace.describe(record) == "user namespace host (--userns host)"
    assert id_ranges.leases() == []
    privileged = asks(userns=UserNamespace(default="auto"))
    privileged = privileged.replace(
        spec=privileged.spec.replace(security=Security(privileged=True))
    )
    assert resolved(privileged).userns_reason == "--privileged"


def test_a_look_leases_nothing() -> None:
    record = user_namespace.resolve(asks("auto"), lease=False)
    assert record.uids == USUAL
    assert id_ranges.leases() == []


def test_a_container_that_is_not_made_keeps_no_ids() -> None:
    with user_namespace.decided(asks("auto"), run.SILENT) as record:
        assert [one[3] for one in id_ranges.leases()] == [record.id]
        assert id_ranges.reclaim() == []
    assert len(id_ranges.leases()) == 1
    with pytest.raises(KeyError), user_namespace.decided(asks("auto").replace(id=B), run.SILENT):
        raise KeyError
    assert [one[3] for one in id_ranges.leases()] == [A]
    for wrong in (asks("auto", of="70000"), asks("auto", pid="host")):
        with pytest.raises(SpecError):
            user_namespace.decided(wrong.replace(id=B), run.SILENT)
    assert [one[3] for one in id_ranges.leases()] == [A]
    assert id_ranges.reclaim() == [A]


def test_keep_id() -> None:
    """Of root all ids, of another user, or with a number, that one id and others around it."""
    record = resolved(asks("keep-id"))
    assert record.uids == tuple(one.replace(outside=one.inside) for one in userns.read_maps()[0])
    assert id_ranges.leases() == []
    with pytest.raises(SpecError, match="has all ids"):
        resolved(asks("keep-id", userns=UserNamespace(size=5)))
    record = resolved(asks("keep-id", userns=UserNamespace(uid=1000)))
    assert record.uids[1] == IdMap(inside=1000, outside=0, count=1)
    assert record.gids[0] == IdMap(inside=0, outside=0, count=1)
    assert record.uids[2].inside == 1001
    assert record.uids[2].count == 65536 - 1001


def test_keep_id_of_an_ordinary_user() -> None:
    wish = user_namespace._keep_id(UserNamespace(), 1000, 100)
    assert wish.uids == (IdMap(inside=1000, outside=1000, count=1),)
    assert wish.gids == (IdMap(inside=100, outside=100, count=1),)
    assert wish.size == 65536
    assert user_namespace._keep_id(UserNamespace(), 100000, 1).size == 100001


def test_maps_that_were_given() -> None:
    given = UserNamespace(uids=USUAL, gids=USUAL)
    record = resolved(asks("mapped", userns=given))
    assert (record.userns, record.uids) == ("mapped", USUAL)
    assert id_ranges.leases() == []
    assert resolved(asks("auto").replace(id=B)).uids[0].outside == subids.FIRST + 65536
    id_ranges.release(B)
    # one that a version without these files has made
    id_ranges.release(A)
    assert user_namespace.lease_again(record)
    assert not user_namespace.lease_again(record)
    assert {one[3] for one in id_ranges.given()} == {A}
    with pytest.raises(
        SpecError, match="--uidmap: nothing is mapped to 0, which is root"
    ) as caught:
        resolved(asks("mapped", userns=given.replace(gids=(IdMap(inside=1, outside=1, count=1),))))
    assert caught.value.hint


def test_entries_of_a_user(directories: Path) -> None:
    asked = UserNamespace(subuid="alice", subgid="alice")
    with pytest.raises(NotFound, match="subuid has no entry of alice"):
        resolved(asks("mapped", userns=asked))
    (directories / "subuid").write_text("alice:100000:5\nalice:200000:5\n")
    (directories / "subgid").write_text("alice:300000:5\n")
    record = resolved(asks("mapped", userns=asked))
    assert record.uids == (
        IdMap(inside=0, outside=100000, count=5),
        IdMap(inside=5, outside=200000, count=5),
    )
    assert record.gids == (IdMap(inside=0, outside=300000, count=5),)
    with pytest.raises(
        SpecError, match="--user 9:5: 5 is outside the container's ids, which are 0-4"
    ):
        resolved(asks("mapped", of="9:5", userns=asked))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"user": "70000"},
            "--user 70000: 70000 is outside the container's ids, which are 0-65535",
        ),
        ({"user": "1:70000"}, "--user 1:70000: 70000 is outside"),
        ({"group_add": ("1", "70000")}, "--group-add 70000: 70000 is outside"),
    ],
)
def test_ids_outside(change: dict[str, object], message: str) -> None:
    record = asks("auto")
    record = record.replace(spec=record.spec.replace(**change))
    record = record.replace(resolved=Resolved(user=record.spec.user))
    with pytest.raises(SpecError) as caught:
        resolved(record)
    assert message in caught.value.message
    assert "auto:size=70001" in caught.value.hint
    assert id_ranges.leases() == []


def test_an_id_that_the_image_asks_for() -> None:
    with pytest.raises(SpecError, match="USER 70000 of the image: 70000 is outside"):
        resolved(asks("auto").replace(resolved=Resolved(user="70000")))


@pytest.mark.parametrize("user", ["9" * 20, "4294967295:5", "0:4294967295", "9" * 5000])
def test_no_id_at_all(user: str) -> None:
    """No size of a user namespace has it, nor has the host: the hint does not say so."""
    with pytest.raises(
        SpecError, match=r"USER .* of the image: the id [0-9]+ is out of range"
    ) as no:
        resolved(asks("auto").replace(resolved=Resolved(user=user)))
    assert no.value.hint == "0 to 4294967294"


def others(monkeypatch: pytest.MonkeyPatch, *records: Record) -> None:
    """Containers that there are."""
    found = {one.id: one for one in records}
    monkeypatch.setattr(store, "find", found.__getitem__)


def test_with_another_container(monkeypatch: pytest.MonkeyPatch) -> None:
    web = resolved(asks("auto").replace(id=B, name="web"))
    others(monkeypatch, web)
    for asked in (
        asks(network=f"container:{B}"),
        asks(f"container:{B}"),
        asks(f"container:{B}", pid=f"container:{B}"),
    ):
        record = resolved(asked)
        assert (record.userns, record.uids, record.gids) == (f"container:{B}", web.uids, web.gids)
        assert record.userns_reason.endswith(" container:web")
        # its ids are not free as long as this one is there
        assert {one[3] for one in id_ranges.leases()} == {A, B}
        id_ranges.release(A)
    with pytest.raises(
        SpecError, match="--userns host means the host's user namespace, and --ipc container:web"
    ):
        resolved(asks("host", ipc=f"container:{B}"))
    with pytest.raises(SpecError, match="--user 70000"):
        resolved(asks(network=f"container:{B}", of="70000"))
    # one that joins that one, and shows its namespace's owner by it
    third = record.replace(id="c" * 64, name="third")
    others(monkeypatch, web, third)
    assert (
        resolved(asks(network=f"container:{B}", ipc=f"container:{third.id}")).userns
        == f"container:{B}"
    )


def test_with_a_container_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    others(monkeypatch, asks().replace(id=B, name="old"))
    record = resolved(asks(network=f"container:{B}", userns=UserNamespace(default="auto")))
    assert (record.userns, record.userns_reason) == ("host", "--network container:old")
    with pytest.raises(SpecError, match="--userns auto: --network container:old is in another"):
        resolved(asks("auto", network=f"container:{B}"))


def test_namespaces_at_a_path() -> None:
    with in_new(namespace.CLONE_NEWNET) as pid:
        record = resolved(
            asks(network=f"ns:/proc/{pid}/ns/net", userns=UserNamespace(default="auto"))
        )
        assert (record.userns, record.userns_reason) == ("host", f"--network ns:/proc/{pid}/ns/net")
    assert resolved(asks(f"ns:{OWN}")).userns == "host"
    with in_new(namespace.CLONE_NEWUSER | namespace.CLONE_NEWNET) as pid:
        user = f"/proc/{pid}/ns/user"
        for asked in (asks(network=f"ns:/proc/{pid}/ns/net"), asks(f"ns:{user}")):
            record = resolved(asked)
            assert (record.userns, record.uids, record.gids) == (f"ns:{user}", USUAL, USUAL)
        with pytest.raises(SpecError, match="are in different user namespaces"):
            resolved(asks(f"ns:{OWN}", network=f"ns:/proc/{pid}/ns/net"))
    for path in ("/proc/self/ns/nothing", "/dev/null"):
        for asked in (asks(f"ns:{path}x"), asks(network=f"ns:{path}")):
            with pytest.raises(SpecError, match="ns:/"):
                resolved(asked)


def test_a_namespace_without_a_process_of_its_own(tmp_path: Path) -> None:
    """A network namespace by another path: its user namespace has one only if it is given too."""
    with in_new(namespace.CLONE_NEWUSER | namespace.CLONE_NEWNET) as pid:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            net = f"/proc/self/fd/{fd}"
            with pytest.raises(SpecError, match="is not the host's, and has no path"):
                resolved(asks(network=f"ns:{net}"))
            user = f"/proc/{pid}/ns/user"
            assert resolved(asks(f"ns:{user}", network=f"ns:{net}")).userns == f"ns:{user}"
        finally:
            os.close(fd)


def test_one_namespace_by_two_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its process, by a file that is bound to it, and by containers that are in it."""
    flags = namespace.CLONE_NEWUSER | namespace.CLONE_NEWNET | namespace.CLONE_NEWIPC
    with in_new(flags) as pid, in_new(0) as stranger:
        user, net = f"/proc/{pid}/ns/user", f"/proc/{pid}/ns/net"
        link = tmp_path / "user"
        link.symlink_to(user)
        by_path = asks().replace(id=B, name="path", userns=f"ns:{link}", uids=USUAL, gids=USUAL)
        maker = asks().replace(id="c" * 64, name="maker", userns="auto", uids=USUAL, gids=USUAL)
        others(monkeypatch, by_path, maker)
        runs = store.Runtime(
            pid=pid, start_time=process.start_time(pid), supervisor=0, supervisor_start=0, scope="x"
        )
        monkeypatch.setattr(store, "runtime", {maker.id: runs}.get)
        for asked in (
            asks(f"ns:{link}", network=f"ns:{net}"),
            asks(f"ns:{user}", network=f"container:{B}"),
            asks(network=f"container:{B}", ipc=f"container:{maker.id}"),
            asks(network=f"container:{maker.id}", ipc=f"ns:/proc/{pid}/ns/ipc"),
        ):
            assert resolved(asked).uids == USUAL
        # one that does not run may have had another
        monkeypatch.setattr(store, "runtime", lambda _: None)
        with pytest.raises(SpecError, match="are in different user namespaces"):
            resolved(asks(network=f"container:{B}", ipc=f"container:{maker.id}"))
        with pytest.raises(SpecError, match="are in different user namespaces"):
            resolved(asks(network=f"container:{B}", ipc=f"ns:/proc/{stranger}/ns/ipc"))


def test_the_maps_of_a_namespace() -> None:
    with in_new(namespace.CLONE_NEWUSER) as pid:
        assert (
            userns.read_maps_at(f"/proc/{pid}/ns/user") == userns.read_maps(pid) == (USUAL, USUAL)
        )
    for path in (OWN, "/proc/self/ns/net", "/nothing"):
        with pytest.raises(KernelError):
            userns.read_maps_at(path)
    with pytest.raises(KernelError):
        userns.read_maps(0)


def test_a_lease_that_was_lost() -> None:
    record = resolved(asks("auto"))
    assert not user_namespace.lease_again(record)
    id_ranges.release(A)
    assert user_namespace.lease_again(record)
    assert len(id_ranges.leases()) == 1
    for other in (resolved(asks("host")), resolved(asks("keep-id").replace(id=B))):
        assert not user_namespace.lease_again(other)


def test_a_lost_lease_of_which_a_neighbour_has_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    web = resolved(asks("auto").replace(id=B, name="web"))
    others(monkeypatch, web)
    neighbour = resolved(asks(network=f"container:{B}"))
    id_ranges.release(B)
    with pytest.raises(Conflict, match="have the same ids"):
        user_namespace.lease_again(web, [web, asks("auto")])
    assert user_namespace.lease_again(web, [web, neighbour])
    assert {one[3] for one in id_ranges.leases()} == {A, B}


def test_what_is_asked_about_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each about its own place: what is mounted in one volume is not in another one."""
    asked: list[tuple[str, bool]] = []

    def why_not(path: str, *, recursive: bool) -> str:
        asked.append((path, recursive))
        return ""

    monkeypatch.setattr(mappable, "why_not", why_not)
    mounts = (
        Mount(kind="bind", source="/usr", target="/a"),
        Mount(kind="bind", source="/usr", target="/b", recursive=False),
        Mount(kind="volume", source="data", target="/c"),
        Mount(kind="volume", target="/d"),
        Mount(kind="bind", source="/none-such", target="/e"),
        Mount(kind="bind", source="/none-such", target="/f", create=True),
        # of these what cannot be mapped is left as it is
        Mount(kind="bind", source="/usr", target="/g", read_only=True),
        Mount(kind="bind", source="/usr", target="/h", options=("noidmap",)),
        Mount(kind="tmpfs", target="/i"),
    )
    record = asks("auto")
    resolved(record.replace(spec=record.spec.replace(mounts=mounts)))
    assert asked == [
        ("/usr", True), ("/usr", False), (f"{paths.VOLUMES}/data/_data", True), (paths.VOLUMES, False),
        ("/none-such", True),
    ]  # fmt: skip


def test_a_limit_of_namespaces() -> None:
    """/proc/sys/user/max_user_namespaces, which each user namespace has for itself."""

    def look() -> tuple[bool, bool]:
        before = namespace.is_there("user")
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        return before, namespace.is_there("user")

    assert in_child(look, namespace.CLONE_NEWUSER) == (True, False)


def test_a_kernel_without_the_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "is_there", lambda kind: kind != "user")

    class Heard(run.Notices):
        told: tuple[str, ...] = ()

        def without_user_namespace(self, reason: str) -> None:
            self.told += (reason,)

    heard = Heard()
    asked = asks(userns=UserNamespace(default="auto"))
    record = user_namespace.resolve(asked, heard, lease=True)
    assert record.userns == "host"
    assert "max_user_namespaces" in record.userns_reason
    assert heard.told == (record.userns_reason,)
    with pytest.raises(
        SysboxError, match="--userns auto: this kernel makes no user namespaces"
    ) as caught:
        resolved(asks("auto"))
    assert caught.value.hint

"""What reads and writes a container's files, and shows its processes, with a user namespace: ids inside.

In the guest: another kernel translates the ids of capabilities and lists.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, Containers, eventually
from lane import SYSBOX, Sysbox
from sampletree import described, everything

from sysbox.base import paths

CAPABLE = bytes.fromhex("0100000200040000000000000000000000000000")
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *one)
    for one in (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 1000),
        (4, 4, 0xFFFFFFFF),
        (16, 6, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)
READY = "touch /tmp/ready; exec sleep 1000"


AUTO = ("--userns", "auto")


def root_of(made: Container) -> int:
    """The host's uid of its root."""
    inside, outside, count = Path(f"/proc/{made.pid}/uid_map").read_text().split()
    assert (inside, count) == ("0", "65536")
    assert int(outside) >= 100000
    return int(outside)


@pytest.fixture
def box(containers: Containers) -> Container:
    """A running container with a user namespace of its own."""
    return containers(*AUTO, "-v", "/data")


def upper(made: Container) -> Path:
    """Its writable layer on disk."""
    return Path(paths.CONTAINERS, made.id, "upper")


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def archive_of(name: str, uid: int, **options: object) -> bytes:
    """An archive with one file of some user."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.uid = entry.gid = uid
        for key, value in options.items():
            setattr(entry, key, value)
        archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    return buffer.getvalue()


def unpack(made: Container, path: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    words = [SYSBOX, "cp", "-", f"{made.id}:{path}"]
    return subprocess.run(words, input=data, capture_output=True, check=False)


def test_users_of_processes(containers: Containers, sysbox: Sysbox) -> None:
    made = containers(*AUTO, "-u", "1000")
    made.exec("sh", "-c", "sleep 1000 >/dev/null 2>&1 &", flags=("-u", "0"))
    rows = [line.split() for line in made("top").splitlines()[1:]]
    # by the container's own accounts
    assert sorted(row[0] for row in rows) == ["root", "user"]
    inside = sorted(
        line.split()[0] for line in made.sh("ps -o user,args | grep '[s]leep'").splitlines()
    )
    assert inside == ["root", "user"]
    listed = sysbox("top", made.id, "-o", "pid,uid,gid", check=True).stdout.split("\n")[1:-1]
    assert sorted(line.split()[1:] for line in listed) == [["0", "0"], ["1000", "1000"]]
    assert {line.split()[0] for line in listed} == {row[1] for row in rows}
    assert made.exec("id", "-u", flags=("-u", "1000:2000")) == "1000"
    assert "no user 'none'" in sysbox("exec", "-u", "none", made.id, "id").stderr


@pytest.mark.guest("another kernel translates ids of capabilities and lists")
def test_one_of_everything_in_and_out(box: Container, sysbox: Sysbox, tmp_path: Path) -> None:
    """Owners, set-user-ID bits, capabilities, lists, devices, hard links: the same after both ways."""
    top = everything(tmp_path)
    (top / "sparse").unlink()
    (top / "listed").touch()
    os.setxattr(top / "listed", "system.posix_acl_access", ACL)
    sysbox("cp", "-a", top, f"{box.id}:/copied", check=True)
    assert (
        box.sh("stat -c %u:%g:%a /copied/su; stat -c %u:%g /copied/link") == "1234:5678:4751\n7:8"
    )
    on_disk = upper(box) / "copied"
    assert described(on_disk) == described(top), "on disk the ids are the container's own"
    sysbox("cp", "-a", f"{box.id}:/copied", tmp_path / "back", check=True)
    assert described(tmp_path / "back") == described(top)
    # as streams, both ways
    words = [SYSBOX, "cp", f"{box.id}:/copied/.", "-"]
    streamed = subprocess.run(words, capture_output=True, check=True).stdout
    found = members(streamed)
    assert (found["su"].uid, found["su"].gid, found["su"].mode) == (1234, 5678, 0o4751)
    box.sh("mkdir /again")
    assert unpack(box, "/again", streamed).returncode == 0
    again, first = described(upper(box) / "again"), described(top)
    del again["."], first["."]
    assert again == first
    exported = subprocess.run([SYSBOX, "export", box.id], capture_output=True, check=True).stdout
    every = members(exported)
    assert (every["copied/su"].uid, every["etc/passwd"].uid) == (1234, 0)
    assert (
        every["copied/deep/su3"]
        .pax_headers["SCHILY.xattr.security.capability"]
        .encode("utf-8", "surrogateescape")
        == CAPABLE
    )


def test_copies_belong_to_root_and_to_the_caller(
    box: Container, sysbox: Sysbox, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_text("mine")
    source.chmod(0o4755)
    os.chown(source, 1 << 20, 1 << 20)
    for path in ("/plain", "/etc/hosts", "/dev/shm/plain", "/data/plain"):
        sysbox("cp", source, f"{box.id}:{path}", check=True)
        assert box.sh(f"stat -c %u:%g:%a {path}; cat {path}") == "0:0:755\nmine"
    assert owner(upper(box) / "plain") == (0, 0)
    (volume,) = box.inspect("Mounts")
    assert owner(Path(volume["Source"], "plain")) == (0, 0)
    box.sh("mkdir /d; echo x >/d/file; chown -R 1000:1000 /d")
    sysbox("cp", f"{box.id}:/d", tmp_path / "out", check=True)
    assert owner(tmp_path / "out") == owner(tmp_path / "out" / "file") == (0, 0)
    # a directory that exists keeps its owner, and one that an archive does not list is root's
    sysbox("cp", f"{tmp_path}/out/.", f"{box.id}:/d", check=True)
    assert box.sh("stat -c %u /d /d/file") == "1000\n0"
    assert unpack(box, "/", archive_of("new/dir/file", 1000)).returncode == 0
    assert box.sh("stat -c %u:%a /new/dir /new/dir/file") == "0:755\n1000:644"


def test_an_id_without_a_map(box: Container, sysbox: Sysbox, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    os.chown(tmp_path / "tree" / "file", 70000, 0)
    done = sysbox("cp", "-a", tmp_path / "tree" / "file", f"{box.id}:/there")
    assert done.returncode != 0
    assert done.stderr.startswith(
        "sysbox: owner of there: 70000 is outside the container's ids, which are 0-65535"
    ), done.stderr
    refused = unpack(box, "/", archive_of("some/where/there", 70000))
    assert b"owner of 'some/where/there': 70000 is outside" in refused.stderr
    assert box("diff") == "", "nothing is half made"
    # without -a its owner does not matter
    sysbox("cp", tmp_path / "tree", f"{box.id}:/", check=True)
    assert box.sh("stat -c %u /tree/file") == "0"


def test_from_one_map_to_another(containers: Containers, sysbox: Sysbox, tmp_path: Path) -> None:
    one, other = containers(*AUTO), containers(*AUTO)
    assert root_of(one) != root_of(other)
    one.sh("mkdir /d; echo x >/d/f; ln /d/f /d/g; chown -R 1000:2000 /d; chmod 4750 /d/f")
    sysbox("cp", "-a", f"{one.id}:/d", f"{other.id}:/", check=True)
    assert other.sh("stat -c %u:%g:%a:%h /d/f /d/g") == "\n".join(["1000:2000:4750:2"] * 2)
    sysbox("cp", f"{one.id}:/d", f"{other.id}:/plain", check=True)
    assert other.sh("stat -c %u:%g:%a /plain/f") == "0:0:750"
    # and stopped: its root is mounted without a map
    other("stop", "-t", "0")
    sysbox("cp", "-a", f"{one.id}:/d/.", f"{other.id}:/stopped", check=True)
    sysbox("cp", "-a", f"{other.id}:/stopped", tmp_path / "out", check=True)
    assert owner(tmp_path / "out" / "f") == (1000, 2000)
    sysbox("cp", "-a", f"{other.id}:/stopped", f"{one.id}:/back", check=True)
    assert one.sh("stat -c %u:%g /back/f") == "1000:2000"


def test_nothing_of_the_hosts_is_changed(box: Container, sysbox: Sysbox) -> None:
    """The container leads a copy to files of the kernel that belong to the host's root, not to its own."""
    box.sh("ln -s /proc/sys/kernel /kernel; ln -s /sys/kernel /sysfs")
    foreign = "which is not in the container's user namespace"
    for path, why in (
        ("/kernel/core_pattern", foreign),
        ("/kernel/new", "proc takes no files"),
        ("/sysfs/new", "sysfs takes no files"),
    ):
        done = sysbox("cp", "/etc/hostname", f"{box.id}:{path}")
        assert done.returncode == 1
        assert why in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) <= 2


def test_a_mount_with_the_hosts_ids(containers: Containers, sysbox: Sysbox, tmp_path: Path) -> None:
    """`:noidmap`: cp writes there what root of the container could, not what the host's root can."""
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    secret.chmod(0o600)
    (tmp_path / "theirs").mkdir()
    made = containers(*AUTO, "-v", f"{tmp_path}:/hosts:noidmap")
    root = root_of(made)
    os.chown(tmp_path / "theirs", root, root)
    before = described(tmp_path)
    made.sh("ln -s /hosts /srv; ln -s /hosts/secret /link")
    for source in ("/etc/hostname", f"{made.id}:/etc/passwd"):
        for path in ("/srv/secret", "/srv/new", "/srv/", "/link"):
            done = sysbox("cp", "-a", source, f"{made.id}:{path}")
            assert "which is not in the container's user namespace" in done.stderr, done.stderr
    assert b"which is not in the" in unpack(made, "/srv", archive_of("secret", 0)).stderr
    # nor can it have what it may not read copied to where it may
    done = sysbox("cp", f"{made.id}:/srv/secret", f"{made.id}:/mine")
    assert "the source of mine belongs to 0:0 on the host, which is not in the" in done.stderr
    assert described(tmp_path) == before
    sysbox("cp", "/etc/hostname", f"{made.id}:/hosts/theirs/", check=True)
    assert owner(tmp_path / "theirs" / "hostname") == (root, root)
    sysbox("cp", "-a", f"{made.id}:/srv/secret", tmp_path / "theirs" / "out", check=True)
    assert owner(tmp_path / "theirs" / "out") == (65534, 65534)
    made("stop", "-t", "0")
    done = sysbox("cp", "/etc/hostname", f"{made.id}:/srv/secret")
    assert "is mounted read-only in the container" in done.stderr, done.stderr
    assert secret.read_text() == "the host's"


def test_export_has_the_machines_own_usr(containers: Containers) -> None:
    """Of the image `host`, also where the kernel cannot map the ids of /usr."""
    made = containers(*AUTO, image="host")
    seen = {}
    with (
        subprocess.Popen([SYSBOX, "export", made.id], stdout=-1, stderr=subprocess.DEVNULL) as done,
        tarfile.open(fileobj=done.stdout, mode="r|") as archive,
    ):
        for member in archive:
            seen[member.name] = (member.uid, member.gid)
            if member.name.startswith("usr/bin/"):
                break
        done.kill()
    assert {owner for name, owner in seen.items() if name.startswith(("usr", "etc/passwd"))} == {
        (0, 0)
    }


@pytest.fixture
def images(sysbox: Sysbox) -> Iterator[list[str]]:
    """Names of images that are removed at the end."""
    made: list[str] = []
    yield made
    for name in made:
        sysbox("rmi", "-f", name)


def test_layers_and_volumes_have_the_containers_ids(
    containers: Containers, sysbox: Sysbox, images: list[str]
) -> None:
    """commit of a running container, diff; a volume of the committed image's, filled from it."""
    script = (
        "mkdir /srv /srv/sub; echo x >/srv/sub/file; chown -R 1000:2000 /srv; chmod 2755 /srv/sub;"
        " cp /bin/busybox /srv/su; chmod 4755 /srv/su; mknod /srv/fifo p; chown 0:1000 /etc/passwd;"
        f" rm /etc/group; {READY}"
    )
    one = containers(*AUTO, command=("sh", "-c", script))
    eventually(lambda: (upper(one) / "tmp/ready").exists(), "is ready")
    os.setxattr(upper(one) / "srv/su", "security.capability", CAPABLE)
    assert one("diff").splitlines() == [
        "C /etc", "D /etc/group", "C /etc/passwd", "A /srv", "A /srv/fifo", "A /srv/su", "A /srv/sub",
        "A /srv/sub/file", "C /tmp", "A /tmp/ready",
    ]  # fmt: skip
    images.append("mapped:1")
    sysbox("commit", one.id, "mapped:1", check=True)
    assert one.inspect("State.Status") == "running"
    two = containers(*AUTO, "-v", "/srv", image="mapped:1")
    assert root_of(one) != root_of(two)
    (volume,) = two.inspect("Mounts")
    filled = Path(volume["Source"])
    assert owner(filled) == owner(filled / "sub") == owner(filled / "sub/file") == (1000, 2000)
    assert (filled / "sub").stat().st_mode & 0o7777 == 0o2755
    assert os.getxattr(filled / "su", "security.capability") == CAPABLE
    assert two.sh("stat -c %u:%g:%a /srv/su /etc/passwd; ls /etc/group || echo none") == (
        "0:0:4755\n0:1000:644\nnone"
    )
    assert two("diff") == ""
    exported = subprocess.run([SYSBOX, "export", two.id], capture_output=True, check=True).stdout
    assert (members(exported)["etc/passwd"].uid, members(exported)["etc/passwd"].gid) == (0, 1000)


def test_checks_and_logs(containers: Containers, sysbox: Sysbox) -> None:
    """A health check runs as the container's user, inside; the log is as ever."""
    check = "test $(id -u) = 1000 -a $(cat /proc/self/uid_map | wc -l) = 1"
    flags = ("--health-cmd", check, "--health-interval", "1s", "-u", "1000")
    made = containers(*AUTO, *flags, command=("sh", "-c", "id -u; exec sleep 1000"))
    eventually(lambda: made.inspect("State.Health.Status") == "healthy", "it is healthy")
    eventually(lambda: made("logs") == "1000\n", "it is logged")
    assert "sleep" in sysbox("top", made.id, "-eo", "pid,user,comm", check=True).stdout
    assert made.id[:12] in sysbox("stats", "--no-stream", made.id, check=True).stdout

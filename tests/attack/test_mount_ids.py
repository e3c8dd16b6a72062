"""`:U` and `:idmap=` against a local user who owns the source, and an image that knows of it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from containers import Containers
from lane import Sysbox
from test_userns import owner, stamps

from sysbox.base import paths
from sysbox.linux import idmaps, mount
from sysbox.linux.userns import IdMap
from sysbox.security import identity

BOTH = pytest.mark.parametrize("mode", ["auto", "host"])


def refused(sysbox: Sysbox, image: str, *flags: str) -> str:
    """The one line, and its hint, by which a container is refused; nothing is left of it."""
    done = sysbox("run", "--rm", *flags, image, "true")
    assert done.returncode == 125, done.stderr
    assert 1 <= len(done.stderr.splitlines()) <= 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@contextmanager
def mounted(place: Path, *words: str) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", *words, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@BOTH
@pytest.mark.parametrize("path", ["/", "/etc", "/etc/passwd", "/usr", "/var/lib", "/tmp", "/root"])
def test_directories_of_the_system(sysbox: Sysbox, image: str, mode: str, path: str) -> None:
    told = refused(sysbox, image, "--userns", mode, "-u", "5:5", "-v", f"{path}:/data:U,bind")
    assert f"mount /data: U: {path} is a directory of the system" in told or "cannot map" in told


@BOTH
def test_a_link_to_one(sysbox: Sysbox, image: str, mode: str, tmp_path: Path) -> None:
    """Whose name is a local user's: what counts is where it leads."""
    before = os.stat("/etc/passwd")
    link = tmp_path / "mine"
    for path in ("/etc", "/etc/passwd", "/var/lib/../lib"):
        link.symlink_to(path)
        told = refused(sysbox, image, "--userns", mode, "-u", "5:5", "-v", f"{link}:/data:U,bind")
        assert f"U: {link} is a directory of the system" in told or "cannot map" in told
        link.unlink()
    after = os.stat("/etc/passwd")
    assert (before.st_uid, before.st_ctime_ns) == (after.st_uid, after.st_ctime_ns)


@BOTH
def test_a_link_that_changes(sysbox: Sysbox, image: str, mode: str, tmp_path: Path) -> None:
    """Between the look at it and the mount: what is mounted is what was looked at."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/marker").touch()
    os.chown(tmp_path / "mine", 1000, 1000)
    link, over = tmp_path / "link", threading.Event()
    link.symlink_to("mine")

    def change() -> None:
        while not over.is_set():
            for target in ("/etc", "mine"):
                (tmp_path / "next").symlink_to(target)
                (tmp_path / "next").rename(link)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        words = ("-u", "5:5", "-v", f"{link}:/data:U,bind", image, "ls", "/data")
        for _ in range(12):
            done = sysbox("run", "--rm", "--userns", mode, *words)
            if done.returncode:
                assert "is a directory of the system" in done.stderr or "cannot map" in done.stderr
            else:
                assert done.stdout == "marker\n"
    finally:
        over.set()
        changing.join()


@BOTH
def test_another_name_of_one(sysbox: Sysbox, image: str, mode: str, tmp_path: Path) -> None:
    with mounted(tmp_path / "there", "--bind", "/etc") as place:
        told = refused(sysbox, image, "--userns", mode, "-u", "5:5", "-v", f"{place}:/data:U,bind")
        assert "is a directory of the system" in told or "cannot map" in told


@BOTH
@pytest.mark.parametrize("option", ["U", "idmap=uids=@0-5-1", "ro,U", "ro,idmap=uids=0-5-1"])
def test_file_systems_that_cannot(
    sysbox: Sysbox, image: str, mode: str, option: str, tmp_path: Path
) -> None:
    """An overlay, and proc. Also where nothing could be written: it was asked for by name."""
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    flags = ("--userns", mode, "-u", "5:5")
    with mounted(tmp_path / "merged", "-t", "overlay", "none", "-o", layers) as place:
        (place / "file").touch()
        for source in (place, place / "file"):
            told = refused(sysbox, image, *flags, "-v", f"{source}:/data:{option}")
            asked = option.removeprefix("ro,")
            assert f"mount /data: {asked}: the kernel cannot map the ids of {source}" in told
            assert f"leave out {asked}" in told
    told = refused(sysbox, image, *flags, "-v", f"/proc/sys:/data:{option}")
    assert "the kernel cannot map the ids of /proc/sys" in told


def test_by_default_it_is_an_error_only_if_asked_for(
    sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    """Where a default container is in the host's user namespace, one with :idmap is not made."""
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    with mounted(tmp_path / "merged", "-t", "overlay", "none", "-o", layers) as place:
        for option in ("idmap", "idmap,ro"):
            told = refused(sysbox, image, "-v", f"{place}:/data:{option}")
            assert f"mount /data: idmap: the kernel cannot map the ids of {place}" in told
        for flags in (
            ("--userns", "host", "-v", f"{place}:/data:idmap"),
            ("-v", f"{place}:/data:ro"),
        ):
            sysbox("run", "--rm", *flags, image, "true", check=True)


@BOTH
def test_a_mount_that_is_mapped_already(
    sysbox: Sysbox, image: str, mode: str, tmp_path: Path
) -> None:
    """The kernel maps no mount twice; what is below the source counts too.

    That is true of this mount alone: other containers do not lose their user namespace by it.
    """
    (tmp_path / "source").mkdir()
    (tmp_path / "place/below").mkdir(parents=True)
    # what is known of the file system is forgotten, as by a boot
    for known in Path(paths.RUN, "idmap").glob(f"{tmp_path.stat().st_dev}:*"):
        known.unlink()
    maps = (IdMap(inside=0, outside=5, count=100),)
    namespace = idmaps.open_namespace(maps, maps)
    copy = mount.clone_tree(str(tmp_path / "source"), recursive=False)
    mount.set_attributes(copy, set=mount.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    target = os.open(tmp_path / "place/below", os.O_PATH)
    mount.attach(copy, target)
    for fd in (namespace, copy, target):
        os.close(fd)
    try:
        for source in (tmp_path / "place/below", tmp_path / "place"):
            told = refused(sysbox, image, "--userns", mode, "-u", "7:7", "-v", f"{source}:/data:U")
            assert f"mount /data: U: the kernel cannot map the ids of {source}" in told
        sysbox("run", "--rm", "-v", f"{tmp_path}/place:/data:noidmap", image, "true", check=True)
        words = ("-v", f"{tmp_path}/source:/data", image, "cat", "/proc/self/uid_map")
        done = sysbox("run", "--rm", *words, check=True)
        assert (done.stdout.split()[2], done.stderr) == ("65536", "")
    finally:
        subprocess.run(["umount", tmp_path / "place/below"], check=True)


@BOTH
def test_a_tmpfs_of_somebody(
    containers: Containers, sysbox: Sysbox, image: str, mode: str, tmp_path: Path
) -> None:
    """Since Linux 6.3 it can be mapped, if the host has mounted it; before, that is said."""
    with mounted(tmp_path / "ram", "-t", "tmpfs", "none", "-o", "uid=1000,gid=1001") as place:
        flags = ("--userns", mode, "-u", "999:998", "-v", f"{place}:/data:U")
        release = tuple(map(int, os.uname().release.split(".")[:2]))
        if release < (6, 3):
            assert f"the kernel cannot map the ids of {place}" in refused(sysbox, image, *flags)
            return
        made = containers(*flags)
        assert made.sh("touch /data/new; stat -c %u:%g /data /data/new") == "999:998\n999:998"
        assert owner(place / "new") == (1000, 1001)
        made("rm", "-f")


@BOTH
def test_the_accounts_are_a_mount(sysbox: Sysbox, image: str, mode: str, tmp_path: Path) -> None:
    """The user of the mount would be the image's, that of the process another."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("user:x:0:0::/:/bin/sh\n")
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", 1000, 1000)
    flags = ("--userns", mode, "-v", f"{tmp_path}/data:/data:U")
    for cover in ("etc:/etc", "etc/passwd:/etc/passwd", "etc/passwd:/etc/group:ro"):
        told = refused(sysbox, image, *flags, "-v", f"{tmp_path}/{cover}", "-u", "user")
        assert ":U with user user: /etc" in told
        assert "--user UID:GID" in told
        words = ("-v", f"{tmp_path}/{cover}", "-u", "5:6", image, "stat", "-c", "%u:%g", "/data")
        assert sysbox("run", "--rm", *flags, *words, check=True).stdout == "5:6\n"


@BOTH
def test_an_image_whose_accounts_lead_elsewhere(
    containers: Containers, sysbox: Sysbox, mode: str, tmp_path: Path
) -> None:
    """Its /etc/passwd is a link to the host's, a pipe, or huge: that is not read, and nothing waits."""
    os.chown(tmp_path, 1000, 1000)
    for number, script in enumerate(
        (
            "ln -sf ../../../../proc/1/root/etc/shadow /etc/passwd",
            "rm /etc/passwd; mkfifo /etc/passwd",
            "rm /etc/passwd; mkdir /etc/passwd",
            f"truncate -s {identity.MAX_FILE * 8} /etc/passwd",
        )
    ):
        made = containers("--userns", "host")
        made.sh(script)
        name = f"hostile-accounts-{number}:test"
        sysbox("commit", made.id, name, check=True)
        made("rm", "-f")
        try:
            flags = ("--userns", mode, "-v", f"{tmp_path}:/data:U")
            told = refused(sysbox, name, *flags, "-u", "user")
            assert "user" in told or "larger than" in told
            words = ("-u", "5:6", name, "stat", "-c", "%u:%g", "/data")
            assert sysbox("run", "--rm", *flags, *words, check=True).stdout == "5:6\n"
        finally:
            sysbox("rmi", "-f", name, check=True)


@BOTH
def test_a_device(sysbox: Sysbox, image: str, mode: str, tmp_path: Path) -> None:
    """Whose node on the host would be the container's user's, to change its mode."""
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chown(tmp_path / "null", 1000, 1001)
    flags = ("--userns", mode, "-u", "999:998")
    told = refused(sysbox, image, *flags, "-v", f"{tmp_path}/null:/null:U")
    assert f"mount /null: U: {tmp_path}/null is a device" in told
    assert "--device" in told
    told = refused(sysbox, image, *flags, "-v", "/dev/null:/null:U")
    assert "/dev/null is a device" in told or "cannot map" in told
    # within a directory it has its owner, as others
    script = "stat -c %u:%g /data/null; chmod 666 /data/null && stat -c %a /data/null"
    os.chown(tmp_path, 1000, 1001)
    words = ("-v", f"{tmp_path}:/data:U", image, "sh", "-ec", script)
    assert sysbox("run", "--rm", *flags, *words, check=True).stdout == "999:998\n666\n"


@BOTH
def test_a_pipe_and_a_socket(sysbox: Sysbox, image: str, mode: str, tmp_path: Path) -> None:
    """Of a service on the host: nothing waits for its other end."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        binds = []
        for name in ("pipe", "socket"):
            os.chown(tmp_path / name, 1000, 1001)
            binds += ["-v", f"{tmp_path}/{name}:/{name}:U"]
        words = ("-u", "999:998", *binds, image, "stat", "-c", "%u:%g", "/pipe", "/socket")
        done = sysbox("run", "--rm", "--userns", mode, *words, check=True)
    assert done.stdout == "999:998\n999:998\n"


def test_a_copy_to_where_root_has_no_id(
    containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    os.chown(tmp_path, 1000, 1000)
    made = containers("-v", f"{tmp_path}:/data:idmap=uids=@1000-5-1;gids=@1000-5-1")
    for state in ("running", "exited"):
        if state == "exited":
            made("stop", "-t", "0")
        done = sysbox("cp", "/etc/hostname", f"{made.id}:/data/new")
        assert done.returncode == 1
        assert "/data/new: root of the container has no id in that mount" in done.stderr
    assert os.listdir(tmp_path) == []
    made("rm", "-f")


@BOTH
def test_an_id_that_nobody_can_have(sysbox: Sysbox, image: str, mode: str, tmp_path: Path) -> None:
    """Of the container's user, and in a map."""
    if mode == "auto":
        for user in ("70000:0", "0:70000"):
            told = refused(sysbox, image, "--userns", mode, "-u", user, "-v", f"{tmp_path}:/data:U")
            assert "70000 is outside the container's ids" in told
        told = refused(
            sysbox, image, "--userns", mode, "-v", f"{tmp_path}:/data:idmap=uids=@0-70000-1"
        )
        assert "mount /data: idmap=uids=@0-70000-1: 70000 is outside" in told
    told = refused(
        sysbox, image, "--userns", mode, "-v", f"{tmp_path}:/data:idmap=uids=0-0-2#1-9-1"
    )
    assert "the id 1 on disk is mapped twice" in told


def test_the_hosts_root_by_a_map(containers: Containers, tmp_path: Path) -> None:
    """A map to the host's ids gives nothing to a container with others: they are nobody's inside."""
    os.chown(tmp_path, 1000, 1000)
    before = stamps(tmp_path)
    made = containers(
        "--cap-add", "ALL", "-v", f"{tmp_path}:/data:idmap=uids=1000-0-1;gids=1000-0-1"
    )
    script = "stat -c %u /data; touch /data/x 2>&1 || echo no; chown 0 /data 2>&1 || echo no"
    found = made.exec("sh", "-c", script).splitlines()
    assert (found[0], found.count("no")) == ("65534", 2)
    assert stamps(tmp_path) == before
    made("rm", "-f")


def test_it_stays_as_it_is_inside(containers: Containers, tmp_path: Path) -> None:
    """Not even with all capabilities is a mount made writable, or set-user-ID allowed."""
    os.chown(tmp_path, 1000, 1000)
    made = containers(
        "--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "-v", f"{tmp_path}:/data:ro,U"
    )
    script = (
        "mount -o remount,bind,rw /data; mount -o remount,bind,ro,suid /data; touch /data/x;"
        "grep ' /data ' /proc/self/mountinfo"
    )
    found = made.exec("sh", "-c", f"({script}) 2>&1 || true")
    assert "nosuid" in found.splitlines()[-1]
    assert " ro," in found.splitlines()[-1]
    assert os.listdir(tmp_path) == []
    made("rm", "-f")

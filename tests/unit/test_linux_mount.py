"""Detached mounts, and opening names that somebody else chose. All in a mount namespace of the test's own."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import KernelError
from sysbox.linux import _sys, mount
from sysbox.linux.namespace import CLONE_NEWNS

DIRECTORY = os.O_PATH | os.O_DIRECTORY


def options_of(path: str) -> str:
    """The mount options of the mount at a path, from /proc/self/mountinfo."""
    with open("/proc/self/mountinfo") as file:
        found = [line.split() for line in file if line.split()[4] == path]
    return found[-1][5]


def test_new_filesystem_is_complete_before_it_is_attached(tmp_path: Path) -> None:
    def make() -> tuple[bool, str, int]:
        flags = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_RDONLY
        made = mount.new_filesystem("tmpfs", (("mode", "700"), ("size", "64k")), flags)
        hidden = not any(str(tmp_path) in line for line in open("/proc/self/mountinfo"))
        mount.attach(made, os.open(tmp_path, DIRECTORY))
        return hidden, options_of(str(tmp_path)), os.stat(tmp_path).st_mode & 0o777

    hidden, options, mode = in_child(make, CLONE_NEWNS)
    assert hidden
    assert {"ro", "nosuid"} <= set(options.split(","))
    assert mode == 0o700
    assert not os.path.ismount(tmp_path)


def test_new_filesystem_explains_itself() -> None:
    needs_root()
    with pytest.raises(KernelError) as caught:
        mount.new_filesystem("tmpfs", (("colour", "red"),), 0)
    assert caught.value.errno == errno.EINVAL
    assert "colour" in str(caught.value)
    assert "colour" in caught.value.hint
    with pytest.raises(KernelError) as caught:
        mount.new_filesystem("nosuchfs", (), 0)
    assert caught.value.errno == errno.ENODEV


def test_clone_tree_binds_read_only_without_touching_the_original(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()

    def bind() -> tuple[str, bool]:
        made = mount.clone_tree(f"{tmp_path}/source", recursive=False)
        mount.set_attributes(made, set=mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_STRICTATIME)
        mount.attach(made, os.open(tmp_path / "target", DIRECTORY))
        (tmp_path / "source/file").write_text("there")
        seen = (tmp_path / "target/file").exists()
        try:
            (tmp_path / "target/new").touch()
        except OSError as error:
            return errno.errorcode[error.errno or 0], seen
        return "written", seen

    assert in_child(bind, CLONE_NEWNS) == ("EROFS", True)


def test_clone_tree_of_a_descriptor_and_of_nothing(tmp_path: Path) -> None:
    needs_root()
    fd = os.open(tmp_path, DIRECTORY)
    made = mount.clone_tree("", recursive=True, dirfd=fd)
    assert os.fstat(made).st_ino == os.fstat(fd).st_ino
    os.close(made)
    os.close(fd)
    with pytest.raises(KernelError) as caught:
        mount.clone_tree(f"{tmp_path}/nowhere", recursive=False)
    assert caught.value.errno == errno.ENOENT
    assert "nowhere" in str(caught.value)


def test_propagation(tmp_path: Path) -> None:
    def change() -> list[str]:
        made = mount.new_filesystem("tmpfs", (), 0)
        mount.attach(made, os.open(tmp_path, DIRECTORY))
        seen = []
        for kind in (0, mount.MS_SHARED, mount.MS_PRIVATE):
            mount.set_attributes(made, propagation=kind, recursive=True)
            with open("/proc/self/mountinfo") as file:
                fields = next(line.split() for line in file if line.split()[4] == str(tmp_path))
            seen.append(fields[6].partition(":")[0])
        return seen

    assert in_child(change, CLONE_NEWNS) == ["-", "shared", "-"]


def test_open_in_root_keeps_links_inside(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("the container's")
    (tmp_path / "absolute").symlink_to("/etc/passwd")
    (tmp_path / "climbing").symlink_to("../../../../../../etc/passwd")
    root = os.open(tmp_path, DIRECTORY)
    for name in ("absolute", "climbing", "/etc/passwd", "../../etc/passwd"):
        fd = mount.open_in_root(root, name, os.O_RDONLY)
        assert os.read(fd, 100) == b"the container's"
        assert not os.get_inheritable(fd)
        os.close(fd)
    fd = mount.open_in_root(root, "/new", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o640)
    os.close(fd)
    assert (tmp_path / "new").exists()
    with pytest.raises(KernelError) as caught:
        mount.open_in_root(root, "/gone", os.O_RDONLY)
    assert caught.value.errno == errno.ENOENT
    os.close(root)


def test_open_in_root_refuses_magic_links() -> None:
    proc = os.open("/proc", DIRECTORY)
    with pytest.raises(KernelError) as caught:
        mount.open_in_root(proc, "self/root/etc/passwd", os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP
    os.close(proc)


def test_open_beneath_refuses_what_is_mounted_over(tmp_path: Path) -> None:
    def mask() -> tuple[str, str]:
        fake = tmp_path / "fake"
        fake.write_text("not a sysctl")
        _sys.mount(str(fake), "/proc/sys/kernel/hostname", None, mount.MS_BIND, None)
        procfs = mount.open_procfs()
        outcomes = []
        for path in ("sys/kernel/hostname", "sys/kernel/domainname"):
            try:
                os.close(mount.open_beneath(procfs, path, os.O_RDONLY))
                outcomes.append("opened")
            except KernelError as error:
                outcomes.append(errno.errorcode[error.errno])
        return outcomes[0], outcomes[1]

    assert in_child(mask, CLONE_NEWNS) == ("EXDEV", "opened")


def test_open_procfs_knows_an_impostor(tmp_path: Path) -> None:
    os.close(mount.open_procfs())
    with pytest.raises(KernelError) as caught:
        mount.open_procfs(str(tmp_path))
    assert caught.value.errno == errno.ENODEV


def test_pivot_root(tmp_path: Path) -> None:
    def pivot() -> tuple[list[str], bool]:
        made = mount.new_filesystem("tmpfs", (), 0)
        mount.attach(made, os.open(tmp_path, DIRECTORY))
        (tmp_path / "marker").touch()
        os.chdir(tmp_path)
        _sys.pivot_root(".", ".")
        _sys.umount2(".", mount.MNT_DETACH)
        os.chdir("/")
        return os.listdir("/"), os.path.exists("/proc")

    assert in_child(pivot, CLONE_NEWNS) == (["marker"], False)

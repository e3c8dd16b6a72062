"""What is mounted into a container's root: in a mount namespace of its own, on a root of a test's own."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import KernelError, SpecError
from sysbox.fs import rootfs, sources
from sysbox.fs.ops import Tree
from sysbox.linux import _sys, mount
from sysbox.linux.mount import MS_BIND, MS_NODEV, MS_RDONLY, MS_REMOUNT
from sysbox.linux.namespace import CLONE_NEWNS

NULL = rootfs.Node(target="/dev/null", kind="c", major=1, minor=3, mode=0o666)


def tree_at(root: Path) -> Tree:
    return Tree(os.open(root, os.O_PATH), {}, mount.open_procfs())


@pytest.mark.parametrize("there", ["zero", "file", "link", "nothing"])
def test_the_null_device_is_the_one_with_its_number(tmp_path: Path, there: str) -> None:
    """Files of /proc are covered with it (CVE-2025-31133)."""
    needs_root()
    (tmp_path / "dev").mkdir()
    (tmp_path / "secret").touch()
    place = tmp_path / "dev/null"
    if there == "zero":
        os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif there == "file":
        place.touch()
    elif there == "link":
        place.symlink_to("/secret")
    tree = tree_at(tmp_path)
    if there == "nothing":
        tree.node(NULL)
        assert os.fstat(tree.null).st_rdev == os.makedev(1, 3)
        return
    with pytest.raises(SpecError, match="the image has another file there"):
        tree.node(NULL)
    with pytest.raises(SpecError, match="there is no null device"):
        tree._null_device()


@pytest.mark.parametrize("operation", [rootfs.Mask, rootfs.ReadOnly])
def test_a_cover_does_not_follow_a_link(
    tmp_path: Path, operation: type[rootfs.Mask | rootfs.ReadOnly]
) -> None:
    """What it leads to, a mount of the user's own, stays as it is."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/acpi").symlink_to("/mine")

    def cover() -> tuple[list[str], bool]:
        _sys.mount(str(tmp_path), str(tmp_path), None, MS_BIND, None)
        try:
            tree_at(tmp_path).apply([operation(target="/proc/acpi")])
        except (KernelError, SpecError):
            pass  # a link cannot be covered
        read_only = bool(os.statvfs(tmp_path / "mine").f_flag & os.ST_RDONLY)
        return os.listdir(tmp_path / "mine"), read_only

    assert in_child(cover, CLONE_NEWNS) == (["file"], False)


@pytest.mark.parametrize(
    ("kind", "mounted", "allowed"),
    [("tmpfs", "tmpfs", True), ("tmpfs", "/proc", False), ("tmpfs", "/sys", False),
     ("proc", "/proc", True), ("proc", "/proc/sys", False), ("proc", "tmpfs", False)],
)  # fmt: skip
def test_what_another_container_offers_is_of_the_expected_kind(
    tmp_path: Path, kind: str, mounted: str, allowed: bool
) -> None:
    """It may have mounted anything on its /dev/shm or /proc; this process plays the other container."""
    place = tmp_path / "place"
    place.mkdir()

    def copy() -> str:
        if mounted == "tmpfs":
            _sys.mount("x", str(place), "tmpfs", MS_NODEV, "size=4k")
        else:
            _sys.mount(mounted, str(place), None, MS_BIND, None)
        bind = rootfs.Bind(
            source=str(place), target="/x", recursive=False, owner="/proc/self/ns/mnt", kind=kind
        )
        try:
            sources.clone([bind])
        except SpecError as error:
            return error.message
        return ""

    refused = f"the {place} of /proc/self/ns/mnt is not a {kind}"
    assert in_child(copy, CLONE_NEWNS) == ("" if allowed else refused)


@pytest.mark.parametrize("optional", [True, False], ids=["optional", "needed"])
def test_a_mount_that_may_be_left_out(tmp_path: Path, *, optional: bool) -> None:
    """Where its target is missing on a read-only mount; over a target that is there it is mounted."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/there").touch()
    (tmp_path / "source").write_text("ours")
    binds = [
        rootfs.Bind(source=f"{tmp_path}/source", target=f"/etc/{name}", optional=optional)
        for name in ("there", "missing")
    ]

    def mounted() -> tuple[str, bool, bool]:
        _sys.mount(str(tmp_path), str(tmp_path), None, MS_BIND, None)
        _sys.mount(f"{tmp_path}/etc", f"{tmp_path}/etc", None, MS_BIND, None)
        _sys.mount(None, f"{tmp_path}/etc", None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)
        copies = sources.clone(binds)
        tree = Tree(os.open(tmp_path, os.O_PATH), copies, mount.open_procfs())
        failed = False
        try:
            tree.apply(binds)
        except KernelError as error:
            failed = error.errno == errno.EROFS
        there = (tmp_path / "etc/there").read_text()
        return there, (tmp_path / "etc/missing").exists(), failed

    assert in_child(mounted, CLONE_NEWNS) == ("ours", False, not optional)

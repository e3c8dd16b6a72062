"""What sysbox does in another way where it is in a user namespace itself, as in a container with systemd."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import in_child, needs_root
from layers.builder import archive, directory, entry
from test_lifecycle_user_namespace import asks

from sysbox.base.errors import SpecError
from sysbox.fs import changes, rootfs, sources
from sysbox.fs.ops import Tree
from sysbox.host import cgroup_layout
from sysbox.image import layer
from sysbox.image.source import open_source
from sysbox.image.tar import LayerLimits
from sysbox.lifecycle import user_namespace
from sysbox.linux import _sys, keyring, mount, overlayfs, seccomp, sysctl, userns
from sysbox.linux.mount import MOUNT_ATTR_RDONLY, MS_BIND, MS_RDONLY, MS_REMOUNT
from sysbox.linux.namespace import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER
from sysbox.linux.process import PR_SET_NO_NEW_PRIVS


def within(function: Callable[[], Any]) -> Any:
    """What `function` returns in a user namespace that has root and no one else, and a mount namespace."""
    needs_root()

    def inside() -> Any:
        _sys.unshare(CLONE_NEWUSER | CLONE_NEWNS)
        # the only maps that a process may write itself (user_namespaces(7))
        for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
        return function()

    return in_child(inside)


def test_which_one_it_is() -> None:
    assert userns.is_initial()
    assert not within(userns.is_initial)


# --- the root --------------------------------------------------------------------------------------


def test_an_overlay_marks_what_it_hides(tmp_path: Path) -> None:
    for name in ("lower/d", "upper", "work", "merged"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lower/d/old").touch()

    def replace() -> tuple[list[str], bool, bool]:
        os.chdir(tmp_path)
        options = f"lowerdir=lower,upperdir=upper,workdir=work,{overlayfs.options()}"
        _sys.mount("overlay", "merged", "overlay", 0, options)
        os.unlink("merged/d/old")
        os.rmdir("merged/d")
        os.mkdir("merged/d")
        fd = os.open("upper/d", os.O_RDONLY)
        other = os.open("upper", os.O_RDONLY)
        return os.listdir("merged/d"), changes.is_opaque(fd), changes.is_opaque(other)

    assert within(replace) == ([], True, False)
    assert os.getxattr(tmp_path / "upper/d", "user.overlay.opaque") == b"y"
    fd = os.open(tmp_path / "upper/d", os.O_RDONLY)
    assert not changes.is_opaque(fd), "for the host it is an attribute as any other"
    os.close(fd)


def test_a_layer_is_unpacked_without_nodes(tmp_path: Path) -> None:
    data = archive(
        directory("dev"), entry("dev/null", kind=b"3", device=(1, 3)), directory("etc"), directory("var"),
        entry("etc/.wh.motd"), entry("var/.wh..wh..opq"), entry("last", b"x"),
    )  # fmt: skip

    def unpack() -> list[str]:
        fd = os.memfd_create("layer")
        os.write(fd, data)
        source = open_source(fd, "", "the layer", 1 << 30, "sha256:mapped")
        root = os.open(tmp_path, os.O_RDONLY)
        layer.unpack(source, root, LayerLimits())
        return sorted(os.listdir(tmp_path))

    assert within(unpack) == ["dev", "etc", "last", "var"]
    assert os.listdir(tmp_path / "dev") == []
    assert os.getxattr(tmp_path / "var", "user.overlay.opaque") == b"y"
    assert stat.S_ISCHR((tmp_path / "etc/motd").lstat().st_mode)


@pytest.mark.parametrize(
    ("source", "is_null"), [("/dev/null", True), ("/dev/zero", False)], ids=["null", "zero"]
)
def test_a_node_is_mounted(tmp_path: Path, source: str, is_null: bool) -> None:
    """Read-only, so that its mode is nobody's to change; what is at /dev/null is used only if it is that."""
    (tmp_path / "dev").mkdir()
    one = rootfs.Bind(
        source=source, target="/dev/null", attributes=MOUNT_ATTR_RDONLY, recursive=False, node=True
    )

    def made() -> tuple[bool, int, int]:
        tree = Tree(os.open(tmp_path, os.O_PATH), sources.clone((one,)), mount.open_procfs())
        tree.apply((one,))
        error = 0
        try:
            os.chmod(tmp_path / "dev/null", 0)
        except OSError as refused:
            error = refused.errno or 0
        fd = os.open(tmp_path / "dev/null", os.O_WRONLY)
        return tree.null >= 0, error, os.write(fd, b"x")

    assert within(made) == (is_null, 30, 1)  # EROFS


# --- settings, keys, controllers, ids --------------------------------------------------------------


def covered(cover: Callable[[], None]) -> str:
    """A setting of a new network namespace after it was written with /proc/sys covered."""

    def write() -> str:
        procfs = mount.open_procfs()
        cover()
        sysctl.write(procfs, "net/ipv4/ip_default_ttl", "33")
        own = mount.new_filesystem("proc", (), 0)
        fd = os.open("sys/net/ipv4/ip_default_ttl", os.O_RDONLY, dir_fd=own)
        return os.read(fd, 64).decode()

    found: str = in_child(write, CLONE_NEWNS | CLONE_NEWNET)
    return found


def test_a_setting_that_is_read_only(tmp_path: Path) -> None:
    def read_only() -> None:
        _sys.mount("/proc/sys", "/proc/sys", None, MS_BIND, None)
        _sys.mount(None, "/proc/sys", None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)

    def another() -> None:
        (tmp_path / "net/ipv4").mkdir(parents=True)
        (tmp_path / "net/ipv4/ip_default_ttl").touch()
        _sys.mount(str(tmp_path), "/proc/sys", None, MS_BIND, None)

    assert covered(lambda: None) == "33\n"
    assert covered(read_only) == "33\n"
    assert covered(another) == "33\n"
    assert (tmp_path / "net/ipv4/ip_default_ttl").read_bytes() == b""


def test_a_filter_that_refuses_keyrings() -> None:
    """That of the container around: it holds for all that is started, too."""
    number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]  # keyctl(2)
    instructions = [
        (0x20, 0, 0, 0),  # load the number of the system call
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x00050000 | 1),  # return EPERM
        (0x06, 0, 0, 0x7FFF0000),  # allow
    ]
    program = b"".join(struct.pack("=HBBI", *one) for one in instructions)

    def join() -> int:
        _sys.prctl(PR_SET_NO_NEW_PRIVS, 1)
        seccomp.load(program)
        return keyring.join_session(None)

    assert in_child(join) == 0


HYBRID = """\
1 0 0:1 / /sys/fs/cgroup ro - tmpfs tmpfs ro
2 1 0:2 /x /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd
3 1 0:3 /x /sys/fs/cgroup/memory {memory},nosuid - cgroup cgroup rw,memory
4 1 0:4 /x /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct
5 1 0:5 /x /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
"""


@pytest.mark.parametrize(("memory", "found"), [("rw", {"memory"}), ("ro", set())])
def test_controllers_that_are_read_only(memory: str, found: set[str]) -> None:
    """As inside a container: without them it is v1 still, since systemd sees it so."""
    mode, controllers = cgroup_layout(HYBRID.format(memory=memory))
    assert mode == "v1"
    assert controllers.keys() == {"name=systemd", *found}


def test_a_file_that_is_mounted_is_no_hierarchy() -> None:
    """Inside a container with systemd the bound of its cgroups is read-only."""
    mode, controllers = cgroup_layout(
        "2 1 0:5 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
        "3 2 0:5 /cgroup.max.descendants /sys/fs/cgroup/cgroup.max.descendants ro - cgroup2 cgroup2 rw\n"
    )
    assert (mode, controllers["name=systemd"]) == ("v2", "/sys/fs/cgroup")


def test_the_default_is_the_one_that_it_is_in() -> None:
    def decided() -> tuple[str, str, int, str]:
        record = user_namespace.resolve(asks(), lease=False)
        try:
            user_namespace.resolve(asks(of="1"), lease=False)
        except SpecError as error:
            return record.userns, record.userns_reason, len(record.uids), str(error)
        return record.userns, record.userns_reason, len(record.uids), ""

    mode, reason, maps, refused = within(decided)
    assert (mode, maps) == ("host", 0)
    assert "is in one already" in reason
    assert "1 is outside the container's ids, which are 0" in refused

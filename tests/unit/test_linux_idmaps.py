"""A user namespace without a process, for the ids of mounts."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import KernelError
from sysbox.linux import idmaps, mount, namespace
from sysbox.linux.userns import IdMap

UIDS = (IdMap(inside=7, outside=1 << 20, count=1), IdMap(inside=1000, outside=5, count=10))
GIDS = (IdMap(inside=0, outside=0, count=(1 << 32) - 1),)


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def owner_of(path: Path) -> tuple[int, int]:
    """Who owns a file by a mount with the maps."""
    owner = idmaps.open_namespace(UIDS, GIDS)
    copy = mount.clone_tree(str(path), recursive=False)
    mount.set_attributes(copy, set=mount.MOUNT_ATTR_IDMAP, userns_fd=owner)
    os.close(owner)
    status = os.stat("", dir_fd=copy) if not path.is_dir() else os.fstat(copy)
    os.close(copy)
    return status.st_uid, status.st_gid


def test_ids_are_mapped(tmp_path: Path) -> None:
    needs_root()
    found = {}
    before = children()
    for uid in (7, 1005, 8):
        os.chown(tmp_path, uid, 42)
        found[uid] = owner_of(tmp_path)
    assert found == {7: (1 << 20, 42), 1005: (10, 42), 8: (65534, 42)}
    assert children() == before, "its process is gone"


def test_in_another_pid_namespace(tmp_path: Path) -> None:
    """As the first process of a container, whose /proc is still the host's."""
    needs_root()
    os.chown(tmp_path, 7, 7)

    def inside() -> tuple[int, int]:
        pid = os.fork()
        if pid == 0:
            good = os.getpid() == 1 and owner_of(tmp_path) == (1 << 20, 7)
            os._exit(0 if good else 9)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0

    assert in_child(inside, namespace.CLONE_NEWPID) == (0, 0)


def test_maps_that_the_kernel_refuses() -> None:
    needs_root()
    before = children()
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KernelError):
        idmaps.open_namespace((*UIDS, *UIDS), GIDS)
    assert children() == before
    assert len(os.listdir("/proc/self/fd")) == fds


def test_a_caller_that_is_killed_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the moment between the birth of the process and its end."""
    needs_root()
    ready, told = os.pipe()
    caller = os.fork()
    if caller == 0:
        monkeypatch.setattr(
            idmaps.userns, "write_maps", lambda *_: (os.write(told, b"+"), signal.pause())
        )
        try:
            idmaps.open_namespace(UIDS, GIDS)
        finally:
            os._exit(0)
    os.read(ready, 1)
    (helper,) = Path(f"/proc/{caller}/task/{caller}/children").read_text().split()
    helper_fd = os.pidfd_open(int(helper))
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    for _ in range(500):
        try:
            signal.pidfd_send_signal(helper_fd, 0)
        except ProcessLookupError:
            break
        if Path(f"/proc/{helper}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)
    else:
        pytest.fail("it is there after five seconds")
    for fd in (ready, told, helper_fd):
        os.close(fd)


def test_no_limit_is_left(tmp_path: Path) -> None:
    """Where no user namespace can be made, that is the error."""

    def refused() -> str:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        try:
            idmaps.open_namespace(UIDS, GIDS)
        except KernelError as error:
            return error.message
        return ""

    assert "make a user namespace" in in_child(refused, namespace.CLONE_NEWUSER)

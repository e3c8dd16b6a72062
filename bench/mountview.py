"""A second view of the mounts for programs that refuse cgroup v1 and v2 side by side.

crun (and so podman) expects that a hybrid /sys/fs/cgroup/unified has no controllers, but the kernel leaves in
it the controllers that are not mounted elsewhere. In this view the directory is not mounted: crun sees plain
cgroup v1, and does the same work there.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNIFIED = Path("/sys/fs/cgroup/unified")
CLONE_NEWNS = 0x00020000

_libc = ctypes.CDLL(None, use_errno=True)


class MountView:
    """A mount namespace without the unified hierarchy; on other hosts it does nothing."""

    def __init__(self) -> None:
        self._view = self._own = -1
        controllers = UNIFIED / "cgroup.controllers"
        if controllers.exists() and controllers.read_text().split():
            self._open()

    @property
    def needed(self) -> bool:
        return self._view >= 0

    def _open(self) -> None:
        script = f"umount {UNIFIED} && echo && read end"
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            if not holder.stdout.readline():
                raise OSError(0, f"cannot unmount {UNIFIED} in a mount namespace of its own")
            self._view = os.open(f"/proc/{holder.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            holder.communicate(b"\n")
        self._own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within this context the process and its children are in the mount namespace."""
        if not self.needed:
            yield
            return
        _join(self._view)
        try:
            yield
        finally:
            _join(self._own)

    def close(self) -> None:
        for fd in (self._view, self._own):
            if fd >= 0:
                os.close(fd)
        self._view = self._own = -1


def _join(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "setns to a mount namespace")

"""The cgroup of one health check, below its container's: it holds every process that the check starts.

A process that the check leaves behind cannot be found by its parent: when that has ended, the container's
first process becomes its parent. On v1 the cgroup is in the freezer's hierarchy, which systemd never looks
at; on v2 it is below the cgroup of the container's first process, without controllers of its own.
"""

from __future__ import annotations

import _signal
import posix
import time

from sysbox.base.errors import KernelError, Unsupported
from sysbox.base.wait import until
from sysbox.linux import cgroup, freezer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts

_NAME = "sysbox-check"
_PATIENCE = 5.0  # seconds for killed processes to end
_BRIEFLY = 0.5  # seconds for all processes to freeze
_STEP = 0.002


class CheckGroup:
    """The cgroup for a check in the container whose first process is `pid`.

    Processes that an unfinished earlier check left in it are killed first. Raises KernelError.
    """

    def __init__(self, pid: int, facts: HostFacts) -> None:
        controller = "freezer" if freezer.is_v1(facts) else cgroup.UNIFIED
        self._facts = facts
        above = cgroup.path_of(pid, controller)
        self._path = f"{above}/{_NAME}"
        self.directory = ""  # without a hierarchy for it: only the check itself can be killed
        try:
            if above == "/":
                return
            self.directory = freezer.directory(facts, self._path)
        except Unsupported:
            return
        self.kill()
        try:
            posix.mkdir(self.directory, 0o755)
        except FileExistsError:
            pass  # ignoring: an earlier check's process could not be killed, and the cgroup serves both
        except OSError as error:
            raise KernelError.of("make the cgroup", self.directory, error) from None

    def kill(self) -> None:
        """Kill every process in the cgroup, and remove it; already gone is success."""
        if until(self._killed, _PATIENCE, _STEP):
            self._remove()
        # else a process waits for a device, in state D: the next check tries again

    def _killed(self) -> bool:
        if not self._processes():
            return True
        self._kill_all()
        return False

    def dissolve(self) -> None:
        """Move what the check has left running to the container's cgroup, and remove this one."""
        deadline = time.monotonic() + _PATIENCE
        above = self.directory.rpartition("/")[0]
        while (remaining := self._processes()) and time.monotonic() < deadline:
            for pid in remaining:
                try:
                    cgroup.join(pid, (above,))
                except KernelError:
                    pass  # ignoring: it has ended meanwhile
        self._remove()

    def _processes(self) -> list[int]:
        try:
            return cgroup.processes(self.directory) if self.directory else []
        except KernelError:
            return []  # the cgroup is gone, perhaps with its container

    def _kill_all(self) -> None:
        try:
            if not freezer.is_v1(self._facts):
                try:
                    cgroup.write(self.directory, "cgroup.kill", "1")
                    return
                except KernelError:
                    pass  # a kernel before 5.14
            # frozen first: a frozen process forks no child that the list lacks
            freezer.request(self._facts, self._path)
            try:
                self._await_frozen()
                for pid in self._processes():
                    try:
                        posix.kill(pid, _signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            finally:
                freezer.release(self._facts, self._path)
        except KernelError:
            pass  # ignoring: the cgroup is gone, perhaps with its container

    def _await_frozen(self) -> None:
        until(self._is_frozen, _BRIEFLY, _STEP)

    def _is_frozen(self) -> bool:
        if not freezer.is_v1(self._facts):
            return freezer.is_frozen(self._facts, self._path)
        if cgroup.read(self.directory, "freezer.state") == "FROZEN":
            return True
        # the kernel skips a process that waits for its child of vfork(2): ask again
        freezer.request(self._facts, self._path)
        return False

    def _remove(self) -> None:
        try:
            if self.directory:
                posix.rmdir(self.directory)
        except OSError:
            pass  # ignoring: it is removed with the container's cgroups at the latest

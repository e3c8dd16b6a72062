"""The cgroup of one health check, below that of its container: whatever the check has started is in it.

A process that the check left behind is no child of anything that we know: its parent is the container's
first process as soon as its own has ended. On v1 the group is in the hierarchy of the freezer, which systemd
never looks at; on v2 it is below the cgroup of the container's first process, without controllers of its own.
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
_PATIENCE = 5.0  # seconds for what was killed to be gone
_BRIEFLY = 0.5  # seconds for all of it to stand still
_STEP = 0.002


class CheckGroup:
    """Made for a check in the container whose first process is `pid`.

    What an earlier check that was never finished has left in it is killed first. Raises KernelError.
    """

    def __init__(self, pid: int, facts: HostFacts) -> None:
        controller = "freezer" if freezer.is_v1(facts) else cgroup.UNIFIED
        self._facts = facts
        above = cgroup.path_of(pid, controller)
        self._path = f"{above}/{_NAME}"
        self.directory = ""  # without a hierarchy for it only the check itself can be killed
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
            pass  # its last process could not be killed: ignoring, for nothing else would become of it
        except OSError as error:
            raise KernelError.of("make the cgroup", self.directory, error) from None

    def kill(self) -> None:
        """Kill all that is in it, and remove it; already gone is success."""
        if until(self._killed, _PATIENCE, _STEP):
            self._remove()
        # else one waits for a device, in state D: the next check tries again

    def _killed(self) -> bool:
        if not self._processes():
            return True
        self._kill_all()
        return False

    def dissolve(self) -> None:
        """Give what the check has left running to the container, and remove the group."""
        deadline = time.monotonic() + _PATIENCE
        above = self.directory.rpartition("/")[0]
        while (left := self._processes()) and time.monotonic() < deadline:
            for pid in left:
                try:
                    cgroup.join(pid, (above,))
                except KernelError:
                    pass  # ignoring: it has ended meanwhile
        self._remove()

    def _processes(self) -> list[int]:
        try:
            return cgroup.processes(self.directory) if self.directory else []
        except KernelError:
            return []  # the group is gone, perhaps with its container

    def _kill_all(self) -> None:
        try:
            if not freezer.is_v1(self._facts):
                try:
                    cgroup.write(self.directory, "cgroup.kill", "1")
                    return
                except KernelError:
                    pass  # a kernel before 5.14
            # what stands still forks nothing that is not listed
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
            pass  # ignoring: the group is gone, perhaps with its container

    def _await_frozen(self) -> None:
        until(self._is_frozen, _BRIEFLY, _STEP)

    def _is_frozen(self) -> bool:
        if not freezer.is_v1(self._facts):
            return freezer.frozen(self._facts, self._path)
        if cgroup.read(self.directory, "freezer.state") == "FROZEN":
            return True
        # the kernel passes over one that waits for its child of vfork(2): asked again
        freezer.request(self._facts, self._path)
        return False

    def _remove(self) -> None:
        try:
            if self.directory:
                posix.rmdir(self.directory)
        except OSError:
            pass  # ignoring: it goes with the container's cgroups at the latest

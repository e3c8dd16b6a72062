"""What a supervisor in Python notes of its container's cgroup, which is gone soon after the end.

src/usage.c does the same for a detached one, with the same descriptors: all are opened before the command
runs.
"""

from __future__ import annotations

import _signal
import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.records import Usage

_CHUNK = 1 << 16
_REMOVAL_TOLD = 0.1  # seconds


class OutOfMemory:
    """Learns whether somebody in a memory cgroup was killed for lack of memory.

    On v1 the kernel wakes an eventfd before the kill (memory.rst, "OOM Control"); the counters may be gone
    with the cgroup by the time we look. On v2 memory.events is read at the end.
    """

    def __init__(self, directory: str, version: str) -> None:
        self.event = -1
        self.file = -1
        self._seen = False
        self._wakes = 0  # one when the cgroup is removed, the others for lack of memory
        try:
            name = "memory.oom_control" if version == "v1" else "memory.events"
            self.file = posix.open(f"{directory}/{name}", posix.O_RDONLY | posix.O_CLOEXEC)
            if version == "v1":
                self.event = posix.eventfd(0, posix.EFD_CLOEXEC | posix.EFD_NONBLOCK)
                control = posix.open(
                    f"{directory}/cgroup.event_control", posix.O_WRONLY | posix.O_CLOEXEC
                )
                posix.write(control, f"{self.event} {self.file}".encode())
                posix.close(control)
        except OSError:
            return  # no memory controller here: nothing will be killed for its limit

    def _counted(self) -> bool | None:
        """Whether the counter is above zero; None once the cgroup is gone."""
        try:
            text = posix.pread(self.file, 4096, 0).decode()
        except OSError:
            return None
        return any(
            line.startswith("oom_kill ") and line != "oom_kill 0" for line in text.splitlines()
        )

    def woken(self) -> None:
        """The eventfd has fired: for lack of memory, or because the cgroup was removed."""
        self._count_wakes()
        if self._counted() is not None:
            self._seen = True

    def _count_wakes(self) -> None:
        try:
            self._wakes += posix.eventfd_read(self.event)
        except OSError:
            pass  # ignoring: it has not fired

    def killed(self, signal: int) -> bool:
        """Asked once the process has ended, by `signal`."""
        counted = self._counted()
        if counted or signal != _signal.SIGKILL:
            return bool(counted)
        until = time.monotonic() + _REMOVAL_TOLD
        # the cgroup is gone, and its counters with it; that it was removed is told a moment later
        while counted is None and self.event >= 0 and self._wakes < 2 and time.monotonic() < until:
            time.sleep(_REMOVAL_TOLD / 20)
            self._count_wakes()
        return self._seen or self._wakes > 1


class Reports:
    """What the container's cgroup has used, read the moment it becomes empty: soon after, it is gone.

    `events` is cgroup.events, which wakes poll(2) then, or ""; `files` are read. Those that the kernel
    lacks are left out.
    """

    def __init__(self, events: str, files: tuple[str, ...]) -> None:
        self.event = _open(events)
        opened = {path.rpartition("/")[2]: _open(path) for path in files}
        self.files = {name: fd for name, fd in opened.items() if fd >= 0}
        self._texts: dict[str, str] = {}

    def read(self) -> None:
        """Take what can be read now; what cannot any more stays as it was."""
        for name, fd in self.files.items():
            try:
                self._texts[name] = posix.pread(fd, _CHUNK, 0).decode("ascii", "replace")
            except OSError:
                continue

    def woken(self) -> bool:
        """cgroup.events has changed; False once it is gone, and would wake us without end."""
        try:
            text = posix.pread(self.event, _CHUNK, 0)
        except OSError:
            return False
        # else somebody has come or was frozen: what is read then would pass for the end's, if that is missed
        if b"populated 0" in text:
            self.read()
        return True

    def usage(self) -> Usage:
        """From what was read last."""
        from sysbox.units.usage import reported  # most have a monitor, and need none of it

        return reported(self._texts)


def _open(path: str) -> int:
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return -1

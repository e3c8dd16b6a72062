"""What a supervisor in Python notes of its container's cgroup, which is gone soon after the end.

src/usage.c does the same for a detached one, with the same descriptors: all are opened before the command
runs.
"""

from __future__ import annotations

import posix
import select
import time

from sysbox.base.wait import until
from sysbox.host import read_text
from sysbox.linux import _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.records import Usage

_CHUNK = 1 << 16
_REMOVAL_TOLD = 0.1  # seconds
_IN_DOUBT_MS = 1000
_IN_MODIFY = 0x2  # linux/inotify.h


class OutOfMemory:
    """Learns whether somebody in a memory cgroup was killed for lack of memory.

    The kernel tells of a lack of memory before it kills: by an eventfd on v1 (memory.rst, "OOM Control"), by
    memory.events on v2. The counter of kills, which comes after, is looked at for a while then; it may be
    gone with the cgroup. What is left then on v2 are the changes that inotify(7) has kept, and the counter of
    the slice, which counts what is below it too (cgroup-v2.rst, "memory.events").
    """

    def __init__(self, directory: str, version: str) -> None:
        self.event = -1
        self.file = -1
        # called when the kernel has killed somebody
        self.on_kill: Callable[[], None] = lambda: None
        self.all_reported = False  # all that was counted was heard of
        self._kills = 0
        self._shortages = 0
        self._doubt = (
            0.0,
            0.0,
        )  # from when, and until when, nobody knows whether somebody was killed
        self._wakes = 0  # one when the cgroup is removed, the others for lack of memory
        self._slice = ("", 0)  # its directory on v2, and its kills when the counter was read last
        self._changes = -1
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
            else:
                self._changes = _sys.inotify_init1(posix.O_NONBLOCK | posix.O_CLOEXEC)
                _sys.inotify_add_watch(self._changes, f"{directory}/{name}", _IN_MODIFY)
                above = directory.rpartition("/")[0]
                self._slice = (above, kills(above, version))
        except OSError:
            return  # no memory controller here: nothing will be killed for its limit

    def awaited(self) -> tuple[int, int]:
        """A descriptor and what poll(2) is to await of it; (-1, 0) for nothing."""
        if self.event >= 0:
            return self.event, select.POLLIN
        return (self.file, select.POLLPRI) if self.file >= 0 else (-1, 0)

    def patience(self) -> int | None:
        """Milliseconds after which to `look` again; None: not before something is told."""
        start, until = self._doubt
        if not until:
            return None
        # twice as long each time
        return min(max(int((time.monotonic() - start) * 1000), 1), _IN_DOUBT_MS)

    def look(self) -> bool:
        """Read the counter; whether it could be. A kill that it says of is handed to `on_kill`."""
        try:
            text = posix.pread(self.file, 4096, 0).decode()
        except OSError:
            return False
        counts = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        kills, shortages = int(counts.get("oom_kill", 0)), int(counts.get("oom", 0))
        if shortages > self._shortages:
            self._begin_doubt()
        self._shortages = shortages
        if kills > self._kills:
            self._kills = kills
            self._doubt = (0.0, 0.0)
            self.all_reported = True
            self.on_kill()
        elif self._doubt[1] and time.monotonic() > self._doubt[1]:
            self._doubt = (0.0, 0.0)  # nobody was killed
        return True

    def _begin_doubt(self) -> None:
        now = time.monotonic()
        self._doubt = (now, now + _IN_DOUBT_MS / 1000)

    def woken(self) -> None:
        """Something was told: a lack of memory, or that the cgroup was removed."""
        self._count_wakes()
        before = self._kills
        there = self.look()
        if there and self._slice[0]:
            self._changed()
            self._slice = (self._slice[0], kills(self._slice[0], "v2"))
        if there and self.event >= 0 and self._kills == before:
            self._begin_doubt()
        if not there and self.event < 0:
            self.file = -1  # it would wake us without end

    def _count_wakes(self) -> int:
        if self.event >= 0:  # else v2
            try:
                self._wakes += posix.eventfd_read(self.event)
            except OSError:
                pass  # ignoring: it has not fired
        return self._wakes

    def _changed(self) -> bool:
        """Whether memory.events has changed since this was asked last."""
        if self._changes < 0:
            return False
        try:
            # the first of what was kept: that the file is gone would be the last
            return posix.read(self._changes, 4096)[4] == _IN_MODIFY
        except OSError:
            return False

    def killed(self) -> bool:
        """Asked once the process has ended."""
        heard, self.on_kill = self._kills, lambda: None  # there is nothing left to be done about it
        there = self.look()
        self.all_reported = self.all_reported and heard == self._kills
        if self._kills or there:
            return self._kills > 0
        if self._doubt[1]:
            self.all_reported = False
            return True  # gone, and with it what it would have said
        above, known = self._slice
        if above and self._changed() and kills(above, "v2") > known:
            self.all_reported = False
            return True
        # that the cgroup was removed is told a moment later; of a lack of memory we would know by now
        until(lambda: self._count_wakes() != 1, _REMOVAL_TOLD, _REMOVAL_TOLD / 20)
        return self._wakes > 1


def kills(directory: str, version: str) -> int:
    """How many of a memory cgroup were killed for lack of memory so far; 0 where that cannot be told."""
    name = "memory.oom_control" if version == "v1" else "memory.events"
    for line in read_text(f"{directory}/{name}").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


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
        from sysbox.units.cgroup.usage import (
            parse_usage,
        )  # most have a monitor, and need none of it

        return parse_usage(self._texts)


def _open(path: str) -> int:
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return -1

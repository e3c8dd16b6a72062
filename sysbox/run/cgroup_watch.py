"""What a supervisor in Python reads of its container's cgroup, which systemd removes soon after the end.

src/usage.c does the same for a detached container, with the same descriptors: all are opened before the
command runs.
"""

from __future__ import annotations

import posix
import select
import time

from sysbox.base.wait import until
from sysbox.host import read_text
from sysbox.linux import _sys
from sysbox.units.cgroup import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.records import Usage
    from sysbox.host import HostFacts

_CHUNK = 1 << 16
_REMOVAL_TOLD = 0.1  # seconds in which the kernel reports that a cgroup was removed
_IN_DOUBT_MS = 1000  # how long after a shortage of memory the kernel may count a kill
_IN_MODIFY = 0x2  # linux/inotify.h


class OutOfMemory:
    """Learn whether the kernel has killed a process of a memory cgroup for lack of memory.

    The kernel reports the shortage before it kills: by an eventfd on v1 (memory.rst, "OOM Control"), by
    memory.events on v2. It counts the kill later, so the counter is read again for a second; the cgroup may
    be removed before that. On v2 there are still the changes that inotify(7) has queued, and the counter of
    the slice, which includes the cgroups below it (cgroup-v2.rst, "memory.events").
    """

    def __init__(self, directory: str, version: str) -> None:
        self.event = -1
        self.file = -1
        # called when the kernel has killed a process
        self.on_kill: Callable[[], None] = lambda: None
        self.all_reported = False  # `on_kill` was called for every kill that was counted
        self._kills = 0
        self._shortages = 0
        # (from, until), monotonic seconds: after a shortage, a kill may yet be counted; zeros are none
        self._doubt = (0.0, 0.0)
        self._wakes = 0  # of the eventfd: one when the cgroup is removed, the others for a shortage
        # on v2: the slice's directory, and its kills when they were last read
        self._slice = ("", 0)
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
        """A descriptor and the poll(2) events to wait for; (-1, 0) for none."""
        if self.event >= 0:
            return self.event, select.POLLIN
        return (self.file, select.POLLPRI) if self.file >= 0 else (-1, 0)

    def patience(self) -> int | None:
        """Milliseconds after which to `look` again; None: not before the kernel reports something."""
        start, until = self._doubt
        if not until:
            return None
        # twice as long each time
        return min(max(int((time.monotonic() - start) * 1000), 1), _IN_DOUBT_MS)

    def look(self) -> bool:
        """Read the counters, and call `on_kill` for new kills; False if the cgroup is gone."""
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
            self._doubt = (0.0, 0.0)  # no process was killed
        return True

    def _begin_doubt(self) -> None:
        now = time.monotonic()
        self._doubt = (now, now + _IN_DOUBT_MS / 1000)

    def on_event(self) -> None:
        """The kernel has reported something: a shortage of memory, or that the cgroup was removed."""
        self._count_wakes()
        before = self._kills
        there = self.look()
        if there and self._slice[0]:
            self._changed()
            self._slice = (self._slice[0], kills(self._slice[0], "v2"))
        if there and self.event >= 0 and self._kills == before:
            self._begin_doubt()
        if not there and self.event < 0:
            self.file = -1  # a removed file would wake poll(2) again and again

    def _count_wakes(self) -> int:
        if self.event >= 0:  # else v2
            try:
                self._wakes += posix.eventfd_read(self.event)
            except OSError:
                pass  # ignoring: it has not fired
        return self._wakes

    def _changed(self) -> bool:
        """Whether memory.events has changed since the last call."""
        if self._changes < 0:
            return False
        try:
            # the first event of the queue: the removal of the file would be the last
            return posix.read(self._changes, 4096)[4] == _IN_MODIFY
        except OSError:
            return False

    def killed(self) -> bool:
        """Whether the kernel has killed a process. To be called once the container has ended."""
        # the container has ended: there is no policy to apply any more
        reported, self.on_kill = self._kills, lambda: None
        there = self.look()
        self.all_reported = self.all_reported and reported == self._kills
        if self._kills or there:
            return self._kills > 0
        if self._doubt[1]:
            self.all_reported = False
            return True  # a shortage, and the counter is gone: taken for a kill
        above, known = self._slice
        if above and self._changed() and kills(above, "v2") > known:
            self.all_reported = False
            return True
        # the removal is reported a moment later; every shortage has been reported by now
        until(lambda: self._count_wakes() != 1, _REMOVAL_TOLD, _REMOVAL_TOLD / 20)
        return self._wakes > 1


def kills_in(cgroup: str, facts: HostFacts) -> OutOfMemory:
    """Watch for kills in a container's cgroup."""
    memory = facts.controllers.get("memory", "")
    return OutOfMemory(memory and memory + cgroup, facts.cgroup_mode)


def kills(directory: str, version: str) -> int:
    """How many processes of a memory cgroup were killed for lack of memory; 0 if that cannot be read."""
    name = "memory.oom_control" if version == "v1" else "memory.events"
    for line in read_text(f"{directory}/{name}").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


class Reports:
    """What the container's cgroup has used, read the moment it becomes empty: systemd then removes it.

    `events` is cgroup.events, which wakes poll(2) at that moment, or ""; `files` are the files to read.
    Those that the kernel lacks are left out.
    """

    def __init__(self, events: str, files: tuple[str, ...]) -> None:
        self.event = _open(events)
        opened = {path.rpartition("/")[2]: _open(path) for path in files}
        self.files = {name: fd for name, fd in opened.items() if fd >= 0}
        self._texts: dict[str, str] = {}

    def read(self) -> None:
        """Read every file; what can no longer be read stays as it was."""
        for name, fd in self.files.items():
            try:
                self._texts[name] = posix.pread(fd, _CHUNK, 0).decode("ascii", "replace")
            except OSError:
                continue

    def on_event(self) -> bool:
        """cgroup.events has changed; False once it is removed, when it would wake poll(2) again and again."""
        try:
            text = posix.pread(self.event, _CHUNK, 0)
        except OSError:
            return False
        # else a process was added or frozen: if the end is missed, this would pass for the final usage
        if b"populated 0" in text:
            self.read()
        return True

    def usage(self) -> Usage:
        """The usage, from what was read last."""
        # here, not above: a detached container has a monitor, which needs none of it
        from sysbox.units.cgroup.usage import parse_usage

        return parse_usage(self._texts)


def usage_of(cgroup: str, facts: HostFacts) -> Reports:
    """Watch what a container's cgroup uses."""
    return Reports(files.events_file(cgroup, facts), files.report_files(cgroup, facts))


def _open(path: str) -> int:
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return -1

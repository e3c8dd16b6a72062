"""Control-group files: find a process's cgroups, read and write values. cgroups(7).

The caller decides what to write. Values that systemd has a property for are set through systemd only.
"""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError, Unsupported
from sysbox.linux import _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts

UNIFIED = ""  # the key of the cgroup v2 path in the result of `paths_of`
# errors for a file of a removed cgroup: at open(2), and at read(2) or write(2)
GONE = (errno.ENOENT, errno.ENODEV)
_CHUNK = 1 << 16


def paths_of(pid: int) -> dict[str, str]:
    """Controller -> path of the process's cgroup below the mount point; UNIFIED -> its path on cgroup v2.

    A named hierarchy is called as in the mount option ("name=systemd"). Raises KernelError.
    """
    return parse(read(f"/proc/{pid}", "cgroup"))


def parse(text: str) -> dict[str, str]:
    """`paths_of` for the text of /proc/PID/cgroup: lines HIERARCHY:CONTROLLERS:PATH."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def path_of(pid: int, controller: str) -> str:
    """Path of a process's cgroup in the hierarchy of one controller, v1 or unified. Raises KernelError."""
    paths = paths_of(pid)
    return paths.get(controller, paths.get(UNIFIED, "/"))


def directory(facts: HostFacts, controller: str, cgroup_path: str) -> str:
    """The directory of a cgroup whose path is as `paths_of` returns it.

    Raises Unsupported where the controller is not mounted.
    """
    mounted = facts.controllers.get(controller)
    if mounted is None:
        raise Unsupported(
            f"the cgroup controller '{controller}' is not available here",
            hint="it may be disabled on the kernel command line (cgroup_disable=) or not be mounted",
        )
    return mounted + (cgroup_path if cgroup_path != "/" else "")


def read(directory: str, file: str) -> str:
    """The text of a file, without trailing newlines. Raises KernelError."""
    path = f"{directory}/{file}"
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            chunks = []
            while chunk := posix.read(fd, _CHUNK):
                chunks.append(chunk)
        finally:
            posix.close(fd)
    except OSError as error:
        raise KernelError.of("read", path, error) from None
    return b"".join(chunks).decode("utf-8", "surrogateescape").rstrip("\n")


def read_keyed(directory: str, file: str) -> dict[str, int]:
    """A "flat keyed" file (memory.stat, memory.events, cpu.stat). Raises KernelError."""
    pairs = (line.split() for line in read(directory, file).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def write(directory: str, file: str, value: str) -> None:
    """Write a value in one write(2), as the kernel requires. Raises KernelError."""
    path = f"{directory}/{file}"
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, value.encode("utf-8", "surrogateescape"))
        finally:
            posix.close(fd)
    except OSError as error:
        raise KernelError.of(f"write '{value}' to", path, error) from None


def children(directory: str) -> list[str]:
    """The directories of a cgroup's direct children. Raises KernelError."""
    try:
        with posix.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise KernelError.of("read the cgroup", directory, error) from None


def processes(directory: str) -> list[int]:
    """The pids of a cgroup and its descendants, unsorted. Raises KernelError."""
    found = [int(pid) for pid in read(directory, "cgroup.procs").split()]
    waiting = children(directory)
    while waiting:
        child = waiting.pop()
        try:
            found += [int(pid) for pid in read(child, "cgroup.procs").split()]
            waiting += children(child)
        except KernelError as error:
            if error.errno not in GONE:
                raise
    return found


def enter(directories: tuple[str, ...]) -> None:
    """Move the calling process, which must have one thread, into cgroups. Raises KernelError.

    It writes to `tasks` on v1: a single thread that moves itself does not take the lock that all forks and
    exits on the host share, and so does not wait for an RCU grace period (10 ms and more).
    """
    for one in directories:
        try:
            write(one, "tasks", "0")
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            write(one, "cgroup.procs", "0")


def join(pid: int, directories: tuple[str, ...]) -> None:
    """Move a process with all its threads into cgroups, one per hierarchy. Raises KernelError."""
    for one in directories:
        write(one, "cgroup.procs", str(pid))


def expect_move(directory: str) -> None:
    """Spare the next move of a process between cgroups, some milliseconds from now, its RCU grace period.

    To move a process with all its threads, the kernel takes a lock that all forks and exits on the host
    share, and first waits for an RCU grace period: two ticks or more, which is 8 ms at 250 Hz. It leaves the
    lock's fast mode off for at least another grace period, and a move in that time does not wait. So a
    separate thread "moves" this process into `directory`, the cgroup where it already is. This changes
    nothing; if it fails, the next move is only slower. A second call, later, extends that time; further calls
    have no effect.
    """
    try:
        fd = posix.open(f"{directory}/cgroup.procs", posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return
    _sys.write_aside(fd)


def make(directory: str, dir_fd: int | None = None) -> None:
    """mkdir(2), with systemd's mode whatever the caller's umask is. Raises OSError."""
    umask = posix.umask(0o022)
    try:
        posix.mkdir(directory, 0o755, dir_fd=dir_fd)
    finally:
        posix.umask(umask)

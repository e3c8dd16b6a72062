"""Control-group files: where a process is, and reading and writing of values. cgroups(7).

Nothing here decides who may write what: a value that systemd has a property for is systemd's.
"""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError, Unsupported
from sysbox.linux import _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts

UNIFIED = ""  # the key of the cgroup v2 path in what `paths_of` returns
GONE = (
    errno.ENOENT,
    errno.ENODEV,
)  # of a file of a cgroup that was removed, before and after its open
_CHUNK = 1 << 16


def paths_of(pid: int) -> dict[str, str]:
    """Controller -> path of the cgroup below its mount point; UNIFIED -> that on the unified tree.

    A named hierarchy has its name as in the mount option ("name=systemd"). Raises KernelError.
    """
    return parse(read(f"/proc/{pid}", "cgroup"))


def parse(text: str) -> dict[str, str]:
    """The same from the text of /proc/PID/cgroup: lines HIERARCHY:CONTROLLERS:PATH."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def path_of(pid: int, controller: str) -> str:
    """Where a process is in the hierarchy of one controller, v1 or unified. Raises KernelError."""
    paths = paths_of(pid)
    return paths.get(controller, paths.get(UNIFIED, "/"))


def directory(facts: HostFacts, controller: str, cgroup_path: str) -> str:
    """The directory of a cgroup, such as `paths_of` returns. Raises Unsupported without the controller."""
    mounted = facts.controllers.get(controller)
    if mounted is None:
        raise Unsupported(
            f"the cgroup controller '{controller}' is not available here",
            hint="it may be disabled on the kernel command line (cgroup_disable=) or not be mounted",
        )
    return mounted + (cgroup_path if cgroup_path != "/" else "")


def read(directory: str, file: str) -> str:
    """The text of a file, without the last newline. Raises KernelError."""
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
    """Write one value in one call, as the kernel wants it. Raises KernelError."""
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
    """The directories of the cgroups right below one. Raises KernelError."""
    try:
        with posix.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise KernelError.of("read the cgroup", directory, error) from None


def processes(directory: str) -> list[int]:
    """The processes of a cgroup and of all below it, in no order. Raises KernelError."""
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

    By the v1 file `tasks` where there is one: a single thread that moves itself needs no lock that every
    fork and exit on the host shares, and no RCU grace period with it (10 ms and more).
    """
    for one in directories:
        try:
            write(one, "tasks", "0")
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            write(one, "cgroup.procs", "0")


def join(pid: int, directories: tuple[str, ...]) -> None:
    """Move a process (with all its threads) into cgroups, one per hierarchy. Raises KernelError."""
    for one in directories:
        write(one, "cgroup.procs", str(pid))


def expect_move(directory: str) -> None:
    """Have the kernel prepare for somebody's move of a process between cgroups, some milliseconds from now.

    Who moves a process with all its threads needs a lock that every fork and exit on the host shares, and
    waits for an RCU grace period first: two ticks and more, which is 8 ms at 250 Hz. The kernel lets go of
    the lock after another one at the earliest, and who comes until then does not wait. So this process is
    moved to where it is, its own cgroup's `directory`, by a thread that nobody waits for. That changes
    nothing, and nothing is lost where it cannot be done.
    """
    try:
        fd = posix.open(f"{directory}/cgroup.procs", posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return
    _sys.write_aside(fd)

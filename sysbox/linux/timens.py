"""Time namespaces: the offsets of the clocks that count from boot. time_namespaces(7).

unshare(2) makes a time namespace for the caller's future children only, and before Linux 6.1 execve(2) does
not enter it either. So the first process of a container joins it with setns(2), which needs a process with a
single thread.
"""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import KernelError
from sysbox.linux import _sys, capability, namespace, process

# the clocks that a time namespace shifts, by their names in /proc/PID/timens_offsets; the kernel derives the
# variants (CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME_ALARM, ...) from these
CLOCKS = {"monotonic": time.CLOCK_MONOTONIC, "boottime": time.CLOCK_BOOTTIME}
_SECOND = 1_000_000_000  # nanoseconds
_PR_GET_DUMPABLE = 3
_START_TIME = 19  # field 22 of proc_pid_stat(5), counted after the command's name
_SYS_TIME = capability.mask(("SYS_TIME",))


def has_kernel() -> bool:
    """Whether this kernel has time namespaces (CONFIG_TIME_NS)."""
    try:
        posix.stat("/proc/self/ns/time")
    except OSError:
        return False
    return True


def lack(held: int) -> str:
    """Why no new time namespace can be made, "" if one can; `held`: mask of the caller's capabilities."""
    if not has_kernel():
        return "the kernel has no time namespaces"
    if not namespace.is_there("time"):
        return "user.max_time_namespaces is 0"
    return "" if held & _SYS_TIME else "the capability CAP_SYS_TIME is missing"


def is_shared(pid: int) -> bool:
    """Whether a process is in the caller's time namespace; True without any, or once it has ended."""
    try:
        return posix.stat(f"/proc/{pid}/ns/time").st_ino == posix.stat("/proc/self/ns/time").st_ino
    except OSError:
        return True


def joinable() -> int:
    """CLONE_NEWTIME, to be joined with others in one setns(2) of a pidfd; 0 without time namespaces, where
    the flag is EINVAL.
    """
    return namespace.CLONE_NEWTIME if has_kernel() else 0


def enter(procfs: int, offsets: dict[str, int]) -> None:
    """Set the clocks of the time namespace that unshare(2) has made for this process's children, and join it.

    `offsets`: clock -> nanoseconds by which it differs from the caller's clock until now. A clock that is
    left out counts from this process's start. `procfs` is the host's. Raises KernelError.

    The kernel counts from the start of this process, and not from now, in /proc/PID/stat: with an offset of
    "now" the start would be negative there, which ps(1) shows as a date far in the future.
    """
    try:
        started = _started(procfs)
        monotonic = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started
        births = {"monotonic": monotonic - age, "boottime": started}
        fd = _open_offsets(procfs)
        try:
            # those of the caller's own namespace, which the new one has inherited; all are relative to the
            # initial time namespace
            inherited = _parse(posix.pread(fd, 256, 0))
            lines = []
            for clock, birth in births.items():
                value = inherited[clock] + offsets.get(clock, -birth)
                lines.append(f"{clock} {value // _SECOND} {value % _SECOND}\n")
            # one write(2): the offsets are fixed once a process is in the namespace
            posix.write(fd, "".join(lines).encode())
        finally:
            posix.close(fd)
    except OSError as error:
        raise KernelError.of("set the clocks of the time namespace", "", error) from None
    try:
        fd = posix.open(
            "self/ns/time_for_children", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=procfs
        )
        try:
            _sys.setns(fd, namespace.CLONE_NEWTIME)
        finally:
            posix.close(fd)
    except OSError as error:
        raise KernelError.of("enter the time namespace", "", error) from None


def _started(procfs: int) -> int:
    """When this process was started, by CLOCK_BOOTTIME in nanoseconds, rounded down to a clock tick."""
    fd = posix.open("self/stat", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=procfs)
    try:
        fields = posix.read(fd, 4096).rpartition(b") ")[2].split()
    finally:
        posix.close(fd)
    return int(fields[_START_TIME]) * (_SECOND // posix.sysconf("SC_CLK_TCK"))


def _open_offsets(procfs: int) -> int:
    """Open timens_offsets of this process. The process that opens it needs CAP_SYS_TIME in the user namespace
    that owns the time namespace.

    In a user namespace the file belongs to the host's root while the process is not dumpable (proc(5)): it is
    dumpable for this open(2). No process of a container can see it yet.
    """
    flags = posix.O_RDWR | posix.O_CLOEXEC
    try:
        return posix.open("self/timens_offsets", flags, dir_fd=procfs)
    except PermissionError:
        before = _sys.prctl(_PR_GET_DUMPABLE, 0)
        _sys.prctl(process.PR_SET_DUMPABLE, 1)
        try:
            return posix.open("self/timens_offsets", flags, dir_fd=procfs)
        finally:
            _sys.prctl(process.PR_SET_DUMPABLE, before)


def _parse(data: bytes) -> dict[str, int]:
    """Clock -> nanoseconds, of the lines "CLOCK SECONDS NANOSECONDS"."""
    found = {}
    for line in data.decode("ascii").splitlines():
        clock, seconds, nanoseconds = line.split()
        found[clock] = int(seconds) * _SECOND + int(nanoseconds)
    return found

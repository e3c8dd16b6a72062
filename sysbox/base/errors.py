"""The exception tree and the exit statuses; the command line is the only place that prints them.

A message says what was being done, to what, and why it failed; the hint says what to do about it.
Exit statuses are docker's: the payload's own, 125 sysbox itself failed, 126 the command cannot be
executed, 127 it was not found, 128+N it was ended by signal N.
"""

from __future__ import annotations

import errno as _errno

FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127
SIGNALLED = 128


class SysboxError(Exception):
    """Anything sysbox tells its user: one clear line, and perhaps one of advice."""

    status = FAILED

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if status is not None:
            self.status = status


class UsageError(SysboxError):
    """The command line itself is wrong."""


class SpecError(SysboxError):
    """A value that was asked for is not valid: which one, and what would be."""


class NotFound(SysboxError):
    """No such container, image, file."""


class Conflict(SysboxError):
    """A name that is taken, an id that is ambiguous, a state that does not allow the verb."""


class FormatError(SysboxError):
    """External input (a record, a manifest, a layer) is malformed."""


class Unsupported(SysboxError):
    """This host cannot do it: which part is missing, and what to use instead."""


class KernelError(SysboxError):
    """A system call failed: `op` on `target`, with the errno."""

    def __init__(self, op: str, target: str, errno: int, *, hint: str = "") -> None:
        self.op = op
        self.target = target
        self.errno = errno
        reason = strerror(errno)
        text = f"{op} {target}: {reason}" if target else f"{op}: {reason}"
        super().__init__(text, hint=hint or ERRNO_ADVICE.get(errno, ""))

    @classmethod
    def of(cls, op: str, target: str, error: OSError) -> KernelError:
        """From the OSError that the call raised."""
        return cls(op, target, error.errno or _errno.EIO)


class OutputError(KernelError):
    """What a command prints or passes on cannot be written: docker's status is 1."""

    status = 1

    def __init__(self, fd: int, error: OSError) -> None:
        name = "standard error" if fd == 2 else "standard output"
        super().__init__("write to", name, error.errno or _errno.EIO)
        self.hint = ""  # that of the errno is about the host


class SystemdError(SysboxError):
    """systemd refused: `dbus_name` is the D-Bus error, `unit` the unit, `result` the job's."""

    def __init__(
        self, message: str, *, dbus_name: str = "", unit: str = "", result: str = ""
    ) -> None:
        super().__init__(message, hint=DBUS_ADVICE.get(dbus_name, ""))
        self.dbus_name = dbus_name
        self.unit = unit
        self.result = result


class StartError(SysboxError):
    """The container's first process failed before its execve: `phase` says how far it came."""

    def __init__(self, message: str, *, phase: str, status: int = FAILED, hint: str = "") -> None:
        super().__init__(message, hint=hint, status=status)
        self.phase = phase


ERRNO_ADVICE = {
    _errno.EPERM: "this needs root and, in a container, the matching capability",
    _errno.EACCES: "check the permissions of each directory on the way, and SELinux or AppArmor",
    _errno.ENOSPC: "the file system, or a kernel limit such as user.max_mnt_namespaces, is full",
    _errno.EDQUOT: "the quota is used up: free some space or raise it",
    _errno.EMFILE: "too many open files in this process: raise `ulimit -n`",
    _errno.ENFILE: "too many open files on this host: raise fs.file-max",
    _errno.ENOMEM: "the host is out of memory",
    _errno.ENOSYS: "this kernel lacks the system call: Linux 5.12 or newer is needed",
    _errno.EROFS: "the file system is mounted read-only",
}

DBUS_ADVICE = {
    "org.freedesktop.DBus.Error.AccessDenied": "run it as root",
    "org.freedesktop.systemd1.UnitExists": "a unit of that name is loaded: see `systemctl reset-failed`",
    "org.freedesktop.DBus.Error.PropertyReadOnly": "it can be set only when the container is started",
}


def strerror(errno: int) -> str:
    """The kernel's words for an errno, without importing `os`."""
    import posix

    return posix.strerror(errno)


def signal_status(signal: int) -> int:
    """The exit status of a process that was ended by `signal`."""
    return SIGNALLED + signal

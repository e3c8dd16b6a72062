"""The exception tree and the exit statuses; only the command line prints them.

A message says what was being done, to what, and why it failed; the hint says what to do about it.
Exit statuses are docker's: the container's own, 125 sysbox itself failed, 126 the command cannot be
executed, 127 it was not found, 128+N signal N ended it.
"""

from __future__ import annotations

import errno as _errno

FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127
SIGNALLED = 128


class Interrupted(KeyboardInterrupt):
    """A signal ends the command as ctrl-c does: what was made is undone."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def interrupt(number: int, _frame: object) -> None:
    """A handler of signals. Raises Interrupted."""
    raise Interrupted(number)


class SysboxError(Exception):
    """An error for the user: a message of one line, and perhaps a hint."""

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
    """A requested value is not valid; the message says which one, and what would be valid."""


class NotFound(SysboxError):
    """No such container, image, file."""


class Gone(NotFound):
    """No container has, or has any more, the full id `container`."""

    def __init__(self, container: str) -> None:
        super().__init__(f"no such container: {container[:12]}")
        self.container = container


class ImageNotFound(NotFound):
    """No image of this name in the store; a registry may have it."""


class Conflict(SysboxError):
    """A name is taken, an id is ambiguous, or a container's state does not allow the verb."""


class Outrun(Conflict):
    """Another command was faster: it has taken the container's name, or has removed the new container."""


class FormatError(SysboxError):
    """External input (a record, a manifest, a layer) is malformed."""


class TrustError(SysboxError):
    """policy.json does not accept an image, or does not say whether it does: nothing is pulled or run."""


class Unsupported(SysboxError):
    """This host cannot do it; the message says what is missing, and what to use instead."""


class KernelError(SysboxError):
    """A system call failed: `op` on `target`, with the errno."""

    def __init__(self, op: str, target: str, errno: int, *, hint: str = "") -> None:
        self.op = op
        self.target = target
        self.errno = errno
        reason = strerror(errno)
        text = f"{op} {target}: {reason}" if target else f"{op}: {reason}"
        super().__init__(text, hint=hint or advice(errno, op, target))

    @classmethod
    def of(cls, op: str, target: str, error: OSError) -> KernelError:
        """The error for an OSError that the call raised; EIO where that has no errno."""
        return cls(op, target, error.errno or _errno.EIO)


class RegistryError(SysboxError):
    """A registry, or a server that it refers to, failed; `code` is its HTTP status or 0."""

    def __init__(self, message: str, *, hint: str = "", code: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class AccessDenied(RegistryError):
    """The registry wants credentials (401), or refuses those that it was given (401, 403)."""


class RateLimited(RegistryError):
    """The registry has had enough requests for now (429)."""


class Unreachable(RegistryError):
    """No connection, or one that is too slow or was cut too often."""


class OutputError(KernelError):
    """A command's output, or a container's that it copies, cannot be written: docker's status is 1."""

    status = 1

    def __init__(self, fd: int, error: OSError) -> None:
        name = "standard error" if fd == 2 else "standard output"
        super().__init__("write to", name, error.errno or _errno.EIO)
        self.hint = ""  # the errno's hint is about the host, not about the output


class SystemdError(SysboxError):
    """systemd refused a request or a job failed: `dbus_name` is the D-Bus error, `result` the job's."""

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
    _errno.ENOSPC: "the file system is full, or a limit such as user.max_mnt_namespaces, kernel.pty.max",
    _errno.EDQUOT: "the quota is used up: free some space or raise it",
    _errno.EMFILE: "too many open files in this process: raise `ulimit -n`",
    _errno.ENFILE: "too many open files on this host: raise fs.file-max",
    _errno.ENOMEM: "the host is out of memory",
    _errno.ENOSYS: "this kernel lacks the system call: Linux 5.12 or newer is needed",
    _errno.EROFS: "the file system is mounted read-only",
}

# of these ENOSPC (errno(3)) means a full disk; namespaces, terminals, watches and cgroups have limits
_WRITE = frozenset(
    "copy create export fill mkdir rename save store symlink sync syncfs unpack write".split()
)


def advice(errno: int, op: str, target: str) -> str:
    """What to do about an errno; `op` is what failed on `target`, in words that begin with a verb."""
    if (
        errno == _errno.ENOSPC
        and op.partition(" ")[0] in _WRITE
        and not target.startswith(("/sys/", "/proc/"))
    ):
        return "the file system is full: free some space there"
    return ERRNO_ADVICE.get(errno, "")


DBUS_ADVICE = {
    "org.freedesktop.DBus.Error.AccessDenied": "run it as root",
    "org.freedesktop.systemd1.UnitExists": "a unit of that name is loaded: see `systemctl reset-failed`",
    "org.freedesktop.DBus.Error.PropertyReadOnly": "it can be set only when the container is started",
}


def in_use(what: str, users: list[str], hint: str = "", kind: str = "container") -> Conflict:
    """The refusal to remove what containers have, or pods as `kind`, these by their names."""
    end = "s" if len(users) > 1 else ""
    return Conflict(
        f"{what} is in use by {kind}{end} {', '.join(users)}",
        hint=hint or f"remove the {kind}{end} first",
    )


def described(error: BaseException, doing: str = "") -> SysboxError:
    """What to tell the user of any exception: itself if it is a SysboxError. `doing` is what failed, if the
    error of a system call does not say it.
    """
    if isinstance(error, SysboxError):
        return error
    if isinstance(error, OSError):
        target = error.filename if isinstance(error.filename, str) else doing
        hint = ERRNO_ADVICE.get(error.errno or 0, "")
        reason = error.strerror or f"{error}"
        found = SysboxError(f"{target}: {reason}" if target else reason, hint=hint)
        found.__context__ = error  # for `needs_root`
        return found
    if isinstance(error, MemoryError):
        return KernelError("allocate memory", "", _errno.ENOMEM)
    if isinstance(error, ImportError):
        # modules are read on first use, and memory or descriptors may have run out by then
        hint = "a module of sysbox or Python cannot be read: if this persists, install sysbox again"
        return SysboxError(f"{error}", hint=hint)
    return SysboxError(
        f"{type(error).__name__}: {error}",
        hint="this is a bug; run it as `sysbox --debug ...` for the traceback",
    )


def needs_root(error: SysboxError) -> str:
    """The hint for a caller who is not root, and was refused something for that; else "".

    Whatever files a verb looks at first, they are root's: their permissions are as they should be.
    """
    import posix

    if isinstance(error, OutputError) or (error.hint and error.hint not in ERRNO_ADVICE.values()):
        return ""
    if not posix.geteuid():
        return ""
    one: BaseException | None = error
    while one is not None:
        if getattr(one, "errno", 0) in (_errno.EPERM, _errno.EACCES):
            return "only root can do this: run it with sudo"
        one = one.__context__
    return ""


def strerror(errno: int) -> str:
    """strerror(3), without importing `os`."""
    import posix

    return posix.strerror(errno)


def signal_status(signal: int) -> int:
    """The exit status of a process that `signal` ended."""
    return SIGNALLED + signal

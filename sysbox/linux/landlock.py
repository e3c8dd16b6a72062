"""Landlock: a process restricts itself, and whatever it starts, to what lies below a directory. landlock(7).

A path is followed upward to the root of its mount namespace, through mount points: what is mounted below the
directory counts as below it, also later, and a descriptor of another tree leads nowhere. What a process has
open stays open. stat(2), chdir(2), chmod(2), chown(2), utime(2) and extended attributes are not restricted.
"""

from __future__ import annotations

import _stat
import errno
import fcntl
import posix
import sys

from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen
from sysbox.linux import _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# linux/landlock.h
_CREATE_RULESET_VERSION = 1
EXECUTE, WRITE_FILE, READ_FILE = 1 << 0, 1 << 1, 1 << 2
REFER, TRUNCATE, IOCTL_DEV, RESOLVE_UNIX = 1 << 13, 1 << 14, 1 << 15, 1 << 16
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1 << 0, 1 << 1
# the access rights that each version of the ABI has brought (the kernel's landlock.rst)
_RIGHTS = {1: REFER - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEV, 9: RESOLVE_UNIX}
_SCOPES = 6  # the version that has brought both
# a ruleset without REFER forbids every rename and link between directories, and with it ordinary work
LEAST = 2


class Domain(Frozen):
    """What a process gives up outside of its root directory."""

    rights: int  # LANDLOCK_ACCESS_FS_*
    # LANDLOCK_SCOPE_*: what it cannot reach of processes that are not its descendants
    scopes: int = 0


def abi() -> int:
    """The version of Landlock's ABI in this kernel; 0 without Landlock."""
    try:
        return _sys.landlock_create_ruleset(None, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def lack() -> str:
    """Why this kernel has no Landlock, "" if it has."""
    try:
        _sys.landlock_create_ruleset(None, _CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return "it is not among the modules of lsm= on the kernel's command line"
        return "the kernel has none (CONFIG_SECURITY_LANDLOCK)"
    return ""


def rights_of(version: int) -> int:
    """The mask of all access rights to files that a version of the ABI knows."""
    return sum(rights for since, rights in _RIGHTS.items() if since <= version)


def scopes_of(version: int) -> int:
    """The mask of the scopes that a version of the ABI knows."""
    return SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL if version >= _SCOPES else 0


def confine(root: int, domain: Domain, streams: Iterable[int] = (0, 1, 2)) -> None:
    """Restrict this process to what lies below `root`, a descriptor; this cannot be undone.

    Named pipes and devices among `streams` can be opened once more, as /dev/stdin is, for what they are open
    for. The caller has no_new_privs or CAP_SYS_ADMIN in its user namespace (else EPERM). Raises KernelError.
    """
    words = (domain.rights, 0, domain.scopes) if domain.scopes else (domain.rights,)
    try:
        ruleset = _sys.landlock_create_ruleset(
            b"".join(word.to_bytes(8, sys.byteorder) for word in words), 0
        )
        try:
            _sys.landlock_add_path(ruleset, root, domain.rights)
            for fd in streams:
                _allow_again(ruleset, fd, domain.rights)
            _sys.landlock_restrict_self(ruleset, 0)
        finally:
            posix.close(ruleset)
    except OSError as error:
        raise KernelError.of("confine the process with Landlock", "", error) from None


def _allow_again(ruleset: int, fd: int, rights: int) -> None:
    # a descriptor of a directory is a way into its tree, which is what this is against
    if _stat.S_ISDIR(posix.fstat(fd).st_mode):
        return
    mode = fcntl.fcntl(fd, fcntl.F_GETFL) & (posix.O_RDONLY | posix.O_WRONLY | posix.O_RDWR)
    access = READ_FILE if mode != posix.O_WRONLY else 0
    access |= WRITE_FILE | TRUNCATE if mode != posix.O_RDONLY else 0
    try:
        _sys.landlock_add_path(ruleset, fd, access & rights)
    except OSError as error:
        # ignoring: a pipe or a socket, which can be opened again without a rule
        if error.errno != errno.EBADFD:
            raise

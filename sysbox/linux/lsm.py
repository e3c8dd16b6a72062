"""Which security modules the kernel runs, and the label that the next execve takes.

Linux kernel: Documentation/admin-guide/LSM/; the files of a process: proc_pid_attr(5). An attribute is
written by the process that opened it, for itself alone; a child inherits what its parent has written.
"""

from __future__ import annotations

import errno as _errno
import posix

from sysbox.base.errors import KernelError
from sysbox.base.look import read_text
from sysbox.linux import _sys, mount

SELINUX = "selinux"
APPARMOR = "apparmor"
SELINUXFS = "/sys/fs/selinux"
FILE_LABEL = "security.selinux"  # the extended attribute
_LIST = "/sys/kernel/security/lsm"
_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_PERMISSIVE = 1  # SELINUX_AVD_FLAGS_PERMISSIVE: nothing is denied to this type
_MAX = 4096  # bytes: more than any of these files has


def active() -> tuple[str, ...]:
    """The names of the security modules, in the order in which the kernel asks them.

    Where securityfs is not mounted, only those of SELinux and AppArmor that are there.
    """
    if names := _read(_LIST):
        return tuple(names.split(","))
    found = ((SELINUX, has_selinux()), (APPARMOR, has_apparmor()))
    return tuple(name for name, there in found if there)


def has_selinux() -> bool:
    """Whether SELinux has a policy: its file system is mounted where it belongs. One stat(2)."""
    try:
        posix.stat(f"{SELINUXFS}/enforce")
    except OSError:
        return False
    return True


def is_enforcing() -> bool:
    """Whether SELinux denies, and does not only log."""
    return _read(f"{SELINUXFS}/enforce") == "1"


def is_known(label: str) -> bool:
    """Whether SELinux's loaded policy has a label; where that cannot be asked, the kernel tells later."""
    try:
        fd = posix.open(f"{SELINUXFS}/context", posix.O_RDWR | posix.O_CLOEXEC)
        try:
            posix.write(fd, label.encode("utf-8", "surrogateescape"))
        finally:
            posix.close(fd)
    except OSError as error:
        return error.errno != _errno.EINVAL
    return True


def allows(source: str, target: str, kind: str, permission: str) -> bool:
    """Whether the loaded policy lets processes of a label do this to what has another, of a class of objects.

    Where the policy does not tell, as for a label that it lacks, it does not. selinuxfs: access, class/.
    """
    place = f"{SELINUXFS}/class/{kind}"
    index, bit = _read(f"{place}/index"), _read(f"{place}/perms/{permission}")
    if not index or not bit:
        return False
    try:
        fd = posix.open(f"{SELINUXFS}/access", posix.O_RDWR | posix.O_CLOEXEC)
        try:
            posix.write(fd, f"{source} {target} {index}".encode())
            return _is_granted(posix.read(fd, _MAX).decode(), int(bit))
        finally:
            posix.close(fd)
    except (OSError, ValueError, IndexError):
        return False


def _is_granted(answer: str, bit: int) -> bool:
    """What selinuxfs's `access` answers of a permission, the `bit`th of its class from 1.

    Six numbers: the first has the bits that are allowed, the last the flags. Of a permissive type all is.
    Raises ValueError, IndexError for another answer.
    """
    words = answer.split()
    return bool(int(words[0], 16) & (1 << (bit - 1))) or bool(int(words[5], 16) & _PERMISSIVE)


def own_label() -> str:
    """The SELinux label of this process; "" without SELinux."""
    return _read("/proc/self/attr/current").strip("\0")


def has_apparmor() -> bool:
    """Whether AppArmor is on. One open(2)."""
    return _read(_APPARMOR) == "Y"


def open_exec_label(procfs: int, module: str) -> int:
    """A descriptor of this thread's attribute from which the next execve(2) takes its label or profile.

    `procfs` is the host's, `module` SELINUX or APPARMOR. A fork keeps what was written, and execve(2) clears
    it. Raises KernelError.
    """
    if module == APPARMOR:
        try:
            return open_attribute(procfs, "apparmor/exec")
        except KernelError as error:
            if error.errno != _errno.ENOENT:  # before Linux 5.8
                raise
    return open_attribute(procfs, "exec")


def open_attribute(procfs: int, name: str) -> int:
    """A descriptor for writing attr/`name` of this thread.

    Whatever is mounted over it in a container, and however its /proc was made, this is a file of the kernel:
    a label that went into another one would be lost (CVE-2019-16884, CVE-2025-52881). Raises KernelError.
    """
    path = f"thread-self/attr/{name}"
    fd = mount.open_beneath(procfs, path, posix.O_WRONLY | posix.O_CLOEXEC)
    if _sys.fstatfs_type(fd) != mount.PROC_SUPER_MAGIC:
        posix.close(fd)
        raise KernelError("open", f"/proc/{path}", _errno.ENODEV)
    return fd


def write(fd: int, label: str) -> None:
    """Write a label to an attribute; "" takes back what was written.

    Raises KernelError: EINVAL for a label that the policy does not have, EACCES where the policy forbids it.
    """
    try:
        # one byte at least: nothing happens when none is written
        posix.write(fd, label.encode("utf-8", "surrogateescape") or b"\n")
    except OSError as error:
        raise KernelError.of("set the label", label, error) from None


class Sockets:
    """A context in which this thread makes sockets with a label; "" changes nothing. Raises KernelError."""

    def __init__(self, label: str) -> None:
        self._label = label

    def __enter__(self) -> None:
        self._write(self._label)

    def __exit__(self, *_: object) -> None:
        self._write("")

    def _write(self, label: str) -> None:
        if not self._label:
            return
        procfs = mount.open_procfs()
        try:
            fd = open_attribute(procfs, "sockcreate")
            try:
                write(fd, label)
            finally:
                posix.close(fd)
        finally:
            posix.close(procfs)


def set_file_label(file: int | str, label: str) -> None:
    """Give a file its SELinux label: an open one, or a path. Raises KernelError."""
    try:
        posix.setxattr(file, FILE_LABEL, label.encode("utf-8", "surrogateescape") + b"\0")
    except OSError as error:
        raise KernelError.of("set the label of", str(file), error) from None


def file_label(path: str) -> str:
    """The SELinux label of a file, of a symbolic link its own; "" where it has none or cannot be asked."""
    try:
        found = posix.getxattr(path, FILE_LABEL, follow_symlinks=False)
    except OSError:
        return ""
    return found.rstrip(b"\0").decode("utf-8", "replace")


def label_mount(procfs: int, mount_fd: int, label: str) -> None:
    """Label the root directory of a mount that takes no option for it; "" leaves it as it is.

    `procfs` is the host's. Raises KernelError.
    """
    if label:
        fd = mount.reopen(procfs, mount_fd, posix.O_RDONLY)
        try:
            set_file_label(fd, label)
        finally:
            posix.close(fd)


def _read(path: str) -> str:
    """The text of a small file of the kernel's, without the newline; "" where it cannot be read."""
    return read_text(path, _MAX).strip()

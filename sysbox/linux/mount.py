"""The mount API by file descriptor: make a detached mount, change it, attach it last.

mount(2), fsopen(2), open_tree(2), move_mount(2), mount_setattr(2), openat2(2). No path leads to a detached
mount, so it is complete (read-only, private, with its options) before any process can reach it.
"""

from __future__ import annotations

import _stat
import errno as _errno
import posix

from sysbox.base.errors import KernelError
from sysbox.linux import _sys

# mount(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_STRICTATIME = 1 << 24

# umount2(2)
MNT_DETACH = 2

# mount_setattr(2)
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000

# open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2)
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = posix.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

AT_FDCWD = -100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# openat2(2)
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
# pseudo file systems, whose files are kernel interfaces or devices though fstat(2) calls them regular:
# linux/magic.h, and statfs(2)
KERNELS_MAGIC = frozenset((
    PROC_SUPER_MAGIC, SYSFS_MAGIC, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202, 0x64626720, 0x74726163,
    0x73636673, 0xF97CFF8C, 0xCAFE4A11, 0x6165676C, 0xDE5E81E4, 0x62656570, 0x65735543, 0x42494E4D,
    0x6E736673, 0x67596969,
))  # fmt: skip
_RACES = 64  # attempts at openat2(2) that end in EAGAIN


def new_filesystem(fstype: str, options: tuple[tuple[str, str | None], ...], attrs: int) -> int:
    """A descriptor of a detached mount of a new file system.

    An option without a value is a flag; the option "source" is the device. A value has at most 255 bytes
    (fsconfig(2)). Raises KernelError, whose hint is the kernel's own explanation where it gives one.
    """
    context = -1
    option = ""
    try:
        context = _sys.fsopen(fstype, FSOPEN_CLOEXEC)
        for key, value in options:
            option = key
            command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
            _sys.fsconfig(context, command, key, value, 0)
        option = ""
        _sys.fsconfig(context, FSCONFIG_CMD_CREATE, None, None, 0)
        return _sys.fsmount(context, FSMOUNT_CLOEXEC, attrs)
    except OSError as error:
        what = f"{fstype}, option '{option}'" if option else fstype
        raise KernelError(
            "make the file system", what, error.errno or _errno.EIO, hint=_explanation(context)
        ) from None
    finally:
        if context >= 0:
            posix.close(context)


def _explanation(context: int) -> str:
    """The kernel's messages in the log of a file-system context: lines such as "e overlay: No changes"."""
    lines = []
    try:
        while context >= 0:
            lines.append(posix.read(context, 512)[2:].decode("utf-8", "replace").strip())
    except OSError:  # ignoring: ENODATA ends the log
        pass
    return "; ".join(lines)


def appended(options: tuple[tuple[str, str], ...]) -> str:
    """Options as text that follows others in mount(2): a label has commas, and so needs quotes."""
    return "".join(f',{name}="{value}"' for name, value in options)


def clone_tree(path: str, *, recursive: bool, dirfd: int = AT_FDCWD) -> int:
    """A descriptor of a detached bind mount of `path` below `dirfd` ("" is `dirfd` itself).

    Symbolic links are followed. Raises KernelError.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_NO_AUTOMOUNT
    flags |= AT_RECURSIVE if recursive else 0
    flags |= 0 if path else AT_EMPTY_PATH
    try:
        return _sys.open_tree(dirfd, path, flags)
    except OSError as error:
        raise KernelError.of("bind", path, error) from None


def clone_mapped(
    path: str, user_namespace: int, *, recursive: bool = False, dirfd: int = AT_FDCWD
) -> int:
    """`clone_tree` of `path`, with its ids mapped as in a user namespace, an fd. Raises KernelError."""
    copy = clone_tree(path, recursive=recursive, dirfd=dirfd)
    try:
        set_attributes(copy, set=MOUNT_ATTR_IDMAP, recursive=recursive, userns_fd=user_namespace)
    except BaseException:
        posix.close(copy)
        raise
    return copy


def map_ids(fd: int, user_namespace: int, *, recursive: bool) -> bool:
    """Map the ids of a detached mount as in a user namespace, an fd. Raises KernelError.

    False where its file system, or one below it, cannot be mapped or is mapped already (mount_setattr(2)).
    """
    try:
        set_attributes(fd, set=MOUNT_ATTR_IDMAP, recursive=recursive, userns_fd=user_namespace)
    except KernelError as error:
        if error.errno not in (_errno.EINVAL, _errno.EPERM):
            raise
        return False
    return True


def set_attributes(
    fd: int,
    *,
    set: int = 0,
    clear: int = 0,
    recursive: bool = False,
    propagation: int = 0,
    userns_fd: int = -1,
) -> None:
    """Change MOUNT_ATTR_* and the propagation (one of MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE).

    With MOUNT_ATTR_IDMAP, ids are mapped as in the user namespace `userns_fd`. Raises KernelError.
    """
    if set & MOUNT_ATTR__ATIME:
        clear |= MOUNT_ATTR__ATIME  # an enumeration, not flags: the kernel wants it cleared first
    if not (set or clear or propagation):
        return
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    try:
        _sys.mount_setattr(fd, "", flags, set, clear, propagation, userns_fd)
    except OSError as error:
        raise KernelError.of("change the attributes of a mount", "", error) from None


def attach(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount on the file or directory `target_fd`. Raises KernelError."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    try:
        _sys.move_mount(mount_fd, "", target_fd, "", flags)
    except OSError as error:
        raise KernelError.of("attach a mount", "", error) from None


def attach_as(mount_fd: int, name: str) -> None:
    """Attach a detached mount as `name`, a directory or file that is made for it; close its descriptor.

    Raises OSError, KernelError.
    """
    try:
        if _stat.S_ISDIR(posix.fstat(mount_fd).st_mode):
            posix.mkdir(name)
        else:
            flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
            posix.close(posix.open(name, flags, 0o600))
        target = posix.open(name, posix.O_PATH | posix.O_CLOEXEC)
        try:
            attach(mount_fd, target)
        finally:
            posix.close(target)
    finally:
        posix.close(mount_fd)


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` with `root_fd` as the root, for symbolic links and `..` too; magic links are refused.

    Every name that an image or a container's process chose is opened this way: a link that is swapped
    meanwhile cannot lead out of the root (CVE-2018-15664, CVE-2021-30465). Raises KernelError.
    """
    return _openat2(root_fd, path or "/", flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def open_root() -> int:
    """An O_PATH descriptor of this process's root directory. Raises KernelError."""
    try:
        return posix.open("/", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as error:
        raise KernelError.of("open", "/", error) from None


def reopen(procfs: int, fd: int, flags: int) -> int:
    """Reopen an O_PATH descriptor that the caller has checked; its name is not looked up again.

    `procfs` must be trusted: the host's, never a container's. Raises KernelError.
    """
    flags |= posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY
    try:
        return posix.open(f"self/fd/{fd}", flags, dir_fd=procfs)
    except OSError as error:
        raise KernelError.of("open", f"descriptor {fd}", error) from None


def is_plain_file(fd: int) -> bool:
    """Whether a descriptor (O_PATH suffices) is of a regular file that is not a kernel interface.

    /proc/kmsg is a regular file by fstat(2), but reading it consumes the kernel's log.
    """
    return _stat.S_ISREG(posix.fstat(fd).st_mode) and _sys.fstatfs_type(fd) not in KERNELS_MAGIC


def path_of(procfs: int, fd: int) -> str:
    """The path of an O_PATH descriptor, from this process's root. Raises KernelError."""
    try:
        return posix.readlink(f"self/fd/{fd}", dir_fd=procfs)
    except OSError as error:
        raise KernelError.of("read the path of", f"descriptor {fd}", error) from None


def open_beneath(dirfd: int, path: str, flags: int) -> int:
    """Open a relative `path` that stays below `dirfd` and on its mount: for procfs and cgroupfs.

    A file with another mount on it (a fake /proc/sys, CVE-2019-16884, CVE-2025-52881) fails with EXDEV.
    Raises KernelError.
    """
    resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS
    return _openat2(dirfd, path, flags, 0, resolve)


def openat2(dirfd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """openat2(2) with O_CLOEXEC, repeated where a rename or a mount elsewhere makes it fail with EAGAIN.

    Raises OSError.
    """
    flags |= posix.O_CLOEXEC
    for _ in range(_RACES - 1):
        try:
            return _sys.openat2(dirfd, path, flags, mode, resolve)
        except BlockingIOError:  # EAGAIN
            pass
    return _sys.openat2(dirfd, path, flags, mode, resolve)


def _openat2(dirfd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    try:
        return openat2(dirfd, path, flags, mode, resolve)
    except OSError as error:
        raise KernelError.of("open", path, error) from None


def open_procfs(path: str = "/proc") -> int:
    """An O_PATH descriptor of a verified procfs. Raises KernelError (ENODEV for any other file system)."""
    try:
        fd = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    except OSError as error:
        raise KernelError.of("open", path, error) from None
    if _sys.fstatfs_type(fd) != PROC_SUPER_MAGIC:
        posix.close(fd)
        raise KernelError("open", path, _errno.ENODEV, hint="what is mounted there is not a procfs")
    return fd

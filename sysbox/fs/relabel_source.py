"""Open what a mount's source is, to relabel it, and refuse what must keep its labels.

What the host cannot do without is known by what it is: whichever path leads there, device and inode are the
same. A symbolic link of a user on the way must lead to a file of that user, as with fs.protected_symlinks
(proc_sys_fs(5)): else whoever owns a directory on the way would have root relabel what is another's.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import paths
from sysbox.base.errors import SpecError
from sysbox.host import read_text
from sysbox.linux import _sys, mount

# as container-selinux's users have learnt them, and what each program of the host reads
SYSTEM = (
    "/", "/etc", "/var", "/bin", "/boot", "/dev", "/etc/group", "/etc/passwd", "/etc/pki", "/etc/shadow",
    "/home", "/lib", "/lib32", "/lib64", "/media", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys",
    "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/share", "/var/lib", "/var/log", "/var/tmp",
    "/dev/log", "/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/ld.so.cache", "/etc/localtime",
    "/etc/machine-id", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/ssl", "/etc/ssl/certs",
    "/var/log/journal", paths.VOLUMES, paths.RUN,
)  # fmt: skip
# all that is below these, too
_TREES = (
    "/bin", "/boot", "/etc/pam.d", "/etc/selinux", "/etc/ssh", "/etc/systemd", "/lib", "/lib32", "/lib64",
    "/run/dbus", "/run/systemd", "/run/udev", "/sbin", "/usr", paths.CONTAINERS, f"{paths.IMAGES}/layers",
    paths.LEVELS, paths.SECRETS, paths.NAMES, paths.NETWORKS, paths.PODS, paths.EVENT_KEY, paths.CACHE,
    paths.RUN_CONTAINERS, paths.RUN_PODS, paths.NETWORK,
)  # fmt: skip
_FREE = ("/usr/local", "/usr/src")  # of /usr, these are the administrator's
_HOMES = "/home"
_HANDLE = posix.O_PATH | posix.O_CLOEXEC
_LINKS = 40  # as many as the kernel follows (path_resolution(7))


def open_source(path: str, option: str) -> int:
    """An O_PATH descriptor of the file or directory `path`, which `option` (z, Z) is to relabel.

    Raises SpecError for what must keep its labels, OSError where it cannot be opened.
    """
    try:
        top = mount.openat2(mount.AT_FDCWD, path, _HANDLE, 0, mount.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        top = _through_links(path, option)
    try:
        _refuse(top, path, option)
    except BaseException:
        posix.close(top)
        raise
    return top


def _through_links(path: str, option: str) -> int:
    """As `open_source`, of a path with symbolic links: each is opened, so that none changes meanwhile."""
    owners: list[int] = []
    names = path.split("/")[::-1]
    top = posix.open("/" if path[:1] == "/" else ".", _HANDLE)
    try:
        while names:
            found = posix.open(names.pop() or ".", _HANDLE | posix.O_NOFOLLOW, dir_fd=top)
            status = posix.fstat(found)
            if not _stat.S_ISLNK(status.st_mode):
                posix.close(top)
                top = found
                continue
            owners.append(status.st_uid)
            leads = posix.readlink("", dir_fd=found)
            posix.close(found)
            if len(owners) > _LINKS:
                raise OSError(errno.ELOOP, posix.strerror(errno.ELOOP))
            names += leads.split("/")[::-1]
            if leads[:1] == "/":
                posix.close(top)
                top = posix.open("/", _HANDLE)
        _check_owners(owners, top, path, option)
    except BaseException:
        posix.close(top)
        raise
    return top


def _check_owners(owners: list[int], top: int, path: str, option: str) -> None:
    theirs = posix.fstat(top).st_uid
    for uid in owners:
        if uid not in (0, theirs):
            raise SpecError(
                f"volume {path}: {option} must not relabel through a symbolic link of user {uid}, "
                f"which leads to {_path_of(top)}",
                hint="that is not the user's own: mount it by that path, if it is meant",
            )


def _refuse(top: int, path: str, option: str) -> None:
    """Raise SpecError for what the host, or sysbox, needs with its own labels."""
    what = _system(top) or _below(top)
    if what:
        raise SpecError(
            f"volume {path}: {option} must not relabel {what}: the host needs its labels",
            hint=f"mount another directory, or leave out {option}",
        )


def _system(top: int) -> str:
    """The place of the host that it is, or in which that is; "" for no such place."""
    wanted = posix.fstat(top)
    for one in (*SYSTEM, *_TREES, *_homes()):
        for place in _way_to(one):
            try:
                found = posix.stat(place)
            except OSError:
                continue  # this host has none
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return place if place == one else f"{place}, in which {one} is"
    return ""


def _below(top: int) -> str:
    """What it is, where it lies below a place of the host's; "" for no such file."""
    mode = posix.fstat(top).st_mode
    path = _path_of(top)
    is_kernels = _sys.fstatfs_type(top) in mount.KERNELS_MAGIC
    if is_kernels or _stat.S_ISCHR(mode) or _stat.S_ISBLK(mode):
        return f"{path}, which is the kernel's"
    if path.rpartition("/")[0] == _real(_HOMES):
        return f"{path}, a home directory"
    if any(path.startswith(f"{_real(free)}/") for free in _FREE):
        return ""
    for tree in _TREES:
        if path.startswith(f"{_real(tree)}/"):
            return f"{path}, which is in {tree}"
    return ""


def _path_of(fd: int) -> str:
    return posix.readlink(f"/proc/self/fd/{fd}")


def _real(path: str) -> str:
    """Where a path leads; itself where there is nothing."""
    try:
        fd = posix.open(path, _HANDLE)
    except OSError:
        return path
    try:
        return _path_of(fd)
    finally:
        posix.close(fd)


def _way_to(path: str) -> list[str]:
    """The path, where it leads, and each directory above, the root too."""
    found = _real(path)
    way = [path]
    while found:
        way.append(found)
        found = found.rpartition("/")[0]
    return [*way, "/"]


def _homes() -> list[str]:
    """The home directories of the caller, and of who became root by sudo(8)."""
    found = [posix.environ.get(b"HOME", b"").decode("utf-8", "surrogateescape")]
    uid = posix.environ.get(b"SUDO_UID", b"").decode("ascii", "replace")
    for line in read_text("/etc/passwd").splitlines() if uid else ():
        words = line.split(":")
        if len(words) > 5 and words[2] == uid:
            found.append(words[5])
    return [one for one in found if one.startswith("/")]

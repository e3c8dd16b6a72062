"""Find the disk of a path: the kernel limits whole disks, not partitions, directories or links."""

from __future__ import annotations

import _stat
import posix

from sysbox.base.errors import SpecError
from sysbox.host import exists, read_text

_SYSFS = "/sys/dev/block"
_COSTS = "/sys/fs/cgroup/io.cost.qos"  # cgroup-v2.rst; v2 only


def resolve_block_device(path: str, flag: str) -> str:
    """The `/dev` node of the disk that `path` is, is a partition of, or is stored on.

    Raises SpecError, naming `flag`, if there is none: systemd would only log that and ignore the limit.
    """
    if not path.startswith("/") or not path.isprintable() or " " in path:
        raise SpecError(f"{flag} {path!r}: must be an absolute path, such as /dev/sda")
    try:
        status = posix.stat(path)
    except OSError as error:
        raise SpecError(
            f"{flag} {path}: {posix.strerror(error.errno or 0)}", hint="`lsblk` lists the disks"
        ) from None
    if _stat.S_ISBLK(status.st_mode):
        number = status.st_rdev
    elif _stat.S_ISREG(status.st_mode) or _stat.S_ISDIR(status.st_mode):
        number = status.st_dev
    else:
        raise SpecError(f"{flag} {path}: not a block device", hint="`lsblk` lists the disks")
    entry = f"{_SYSFS}/{posix.major(number)}:{posix.minor(number)}"
    if posix.major(number) == 0 or not exists(entry):
        raise SpecError(
            f"{flag} {path}: its file system is not on one block device",
            hint="name the disk itself; `lsblk` lists them",
        )
    return _whole_disk(entry, path, flag)


def _whole_disk(entry: str, path: str, flag: str) -> str:
    if exists(f"{entry}/partition"):
        entry = f"{entry}/.."
    for line in read_text(f"{entry}/uevent").splitlines():
        if line.startswith("DEVNAME="):
            node = f"/dev/{line.removeprefix('DEVNAME=')}"
            if exists(node):
                return node
    raise SpecError(f"{flag} {path}: /dev has no node for its disk")


def disk_number(path: str, flag: str) -> str:
    """MAJOR:MINOR of the disk that `path` is, is a partition of, or is stored on. Raises SpecError."""
    number = posix.stat(resolve_block_device(path, flag)).st_rdev
    return f"{posix.major(number)}:{posix.minor(number)}"


def check_weighed(path: str, flag: str) -> None:
    """Raise SpecError for a disk whose I/O is not shared by weight: no BFQ, and no cost model (v2)."""
    number = disk_number(path, flag)
    scheduler = read_text(f"{_SYSFS}/{number}/queue/scheduler")
    costs = read_text(_COSTS).splitlines()
    if "[bfq]" in scheduler or any(line.startswith(f"{number} enable=1") for line in costs):
        return
    name = resolve_block_device(path, flag).removeprefix("/dev/")
    raise SpecError(
        f"{flag} {path}: the I/O scheduler of /dev/{name} does not share by weight",
        hint=f"echo bfq >/sys/block/{name.replace('/', '!')}/queue/scheduler",
    )

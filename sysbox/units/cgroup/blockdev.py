"""Find the disk of a path: the kernel limits whole disks, not partitions, directories or links."""

from __future__ import annotations

import _stat
import posix

from sysbox.host import exists, read_text
from sysbox.units.limits.disks import Disk, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.host import HostFacts
    from sysbox.spec import ContainerSpec
    from sysbox.units.limits.disks import Disks

_SYSFS = "/sys/dev/block"
_COSTS = "/sys/fs/cgroup/io.cost.qos"  # cgroup-v2.rst; v2 only


def disks_of(spec: ContainerSpec, facts: HostFacts) -> Disks:
    """Those that its limits and properties name."""
    return look(paths(spec.limits, spec.properties, facts))


def look(named: Iterable[str]) -> Disks:
    """The disk of each path, or why there is none."""
    return {path: disk_of(path) for path in named}


def disk_of(path: str) -> Disk:
    """The disk that `path` is, is a partition of, or is stored on.

    If there is none, the planners raise: systemd would only log that and ignore the limit.
    """
    if not path.startswith("/") or not path.isprintable() or " " in path:
        return Disk(reason=f"{path!r}: must be an absolute path, such as /dev/sda")
    try:
        status = posix.stat(path)
    except OSError as error:
        return _none(path, posix.strerror(error.errno or 0), "`lsblk` lists the disks")
    if _stat.S_ISBLK(status.st_mode):
        number = status.st_rdev
    elif _stat.S_ISREG(status.st_mode) or _stat.S_ISDIR(status.st_mode):
        number = status.st_dev
    else:
        return _none(path, "not a block device", "`lsblk` lists the disks")
    entry = f"{_SYSFS}/{posix.major(number)}:{posix.minor(number)}"
    if posix.major(number) == 0 or not exists(entry):
        return _none(
            path,
            "its file system is not on one block device",
            "name the disk itself; `lsblk` lists them",
        )
    return _whole_disk(entry, path)


def _none(path: str, why: str, advice: str = "") -> Disk:
    return Disk(reason=f"{path}: {why}", advice=advice)


def _whole_disk(entry: str, path: str) -> Disk:
    if exists(f"{entry}/partition"):
        entry = f"{entry}/.."
    for line in read_text(f"{entry}/uevent").splitlines():
        if line.startswith("DEVNAME="):
            node = f"/dev/{line.removeprefix('DEVNAME=')}"
            try:
                device = posix.stat(node).st_rdev
            except OSError:
                continue
            number = f"{posix.major(device)}:{posix.minor(device)}"
            return Disk(node=node, number=number, weighed=_is_weighed(number))
    return _none(path, "/dev has no node for its disk")


def _is_weighed(number: str) -> bool:
    scheduler = read_text(f"{_SYSFS}/{number}/queue/scheduler")
    costs = read_text(_COSTS).splitlines()
    return "[bfq]" in scheduler or any(line.startswith(f"{number} enable=1") for line in costs)

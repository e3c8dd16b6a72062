"""The disks that limits name, as they were looked up (units/cgroup/blockdev.py), for the planners. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.host import HostFacts
    from sysbox.spec import Limits

    Disks = dict[str, "Disk"]  # by the path that was given

_FIELDS = (
    "blkio_weight_device",
    "device_read_bps",
    "device_write_bps",
    "device_read_iops",
    "device_write_iops",
)


class Disk(Frozen):
    """The whole disk that a path stands for: the kernel limits no partitions, directories or links."""

    node: str = ""  # its path in /dev
    number: str = ""  # MAJOR:MINOR
    weighed: bool = False  # shared by weight: BFQ schedules it, or it has a cost model
    reason: str = ""  # why there is none: an error's text, without the flag ahead of it
    advice: str = ""  # the hint of that error


def paths(limits: Limits, texts: Iterable[str], facts: HostFacts) -> tuple[str, ...]:
    """The paths of devices in limits, and in texts of `--property`; of a bad text none."""
    found = [path for field in _FIELDS for path, _ in getattr(limits, field)]
    for text in texts:
        from sysbox.units.limits.allowlist import parse_property  # a table that only this needs

        try:
            one = parse_property(text, facts)
        except SpecError:
            continue  # ignoring: the planner says what is wrong with it
        if one.signature == "a(st)":
            found += [path for path, _ in one.value]
    return tuple(dict.fromkeys(found))


def find(disks: Disks, path: str, flag: str) -> Disk:
    """The disk of a path that was looked up. Raises SpecError, naming `flag`, where there is none."""
    one = disks[path]
    if one.reason:
        raise SpecError(f"{flag} {one.reason}", hint=one.advice)
    return one


def check_weighed(disks: Disks, path: str, flag: str) -> None:
    """Raise SpecError for a disk that nothing shares by weight: no BFQ, and no cost model (v2)."""
    one = find(disks, path, flag)
    if not one.weighed:
        name = one.node.removeprefix("/dev/")
        raise SpecError(
            f"{flag} {path}: the I/O scheduler of /dev/{name} does not share by weight",
            hint=f"echo bfq >/sys/block/{name.replace('/', '!')}/queue/scheduler",
        )

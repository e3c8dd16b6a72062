"""Plan the limits of block I/O: weights, bytes and operations per second; called by plan.py."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.units.limits.disks import check_weighed, find
from sysbox.units.limits.properties import (
    CgroupWrite,
    Property,
    check_range,
    io_weight_of_blkio,
    require_controller,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.spec import Limits
    from sysbox.units.limits.disks import Disks

_MOST_OPERATIONS = (1 << 32) - 1  # per second: an unsigned int in the kernel
_MOST_BYTES = (1 << 63) - 1


def plan(
    limits: Limits,
    facts: HostFacts,
    disks: Disks,
    properties: list[Property],
    writes: list[CgroupWrite],
) -> None:
    """Append properties and writes for the limits. Raises SpecError and Unsupported that name the flag."""
    unified = facts.cgroup_mode == "v2"
    controller = "io" if unified else "blkio"
    weight = limits.blkio_weight
    if weight:  # docker: 0 is the default weight
        require_controller(facts, controller, "--blkio-weight")
        check_range("--blkio-weight", weight, 10, 1000)
        if unified:
            properties.append(
                Property(name="IOWeight", signature="t", value=io_weight_of_blkio(weight))
            )
        else:
            properties.append(Property(name="BlockIOWeight", signature="t", value=weight))
    if limits.blkio_weight_device:
        require_controller(facts, controller, "--blkio-weight-device")
        _plan_device_weights(limits, disks, properties, writes, unified=unified)
    for flag, devices, old, new in (
        ("--device-read-bps", limits.device_read_bps, "BlockIOReadBandwidth", "IOReadBandwidthMax"),
        (
            "--device-write-bps",
            limits.device_write_bps,
            "BlockIOWriteBandwidth",
            "IOWriteBandwidthMax",
        ),
    ):
        if devices:
            require_controller(facts, controller, flag)
            _check_rates(flag, devices, _MOST_BYTES)
            name = new if unified else old
            properties.append(Property(name=name, signature="a(st)", value=list(devices)))
    _plan_operations(limits, facts, disks, properties, writes)


def _check_rates(flag: str, devices: tuple[tuple[str, int], ...], high: int) -> None:
    for device, rate in devices:
        if rate <= 0:
            raise SpecError(f"{flag} {device}:{rate}: the rate must be above 0")
        if rate > high:
            raise SpecError(f"{flag} {device}:{rate}: the range is 1 to {high}")


def _plan_operations(
    limits: Limits,
    facts: HostFacts,
    disks: Disks,
    out: list[Property],
    writes: list[CgroupWrite],
) -> None:
    """Only v2 has properties for operations per second."""
    for flag, devices, file, name in (
        (
            "--device-read-iops",
            limits.device_read_iops,
            "blkio.throttle.read_iops_device",
            "IOReadIOPSMax",
        ),
        (
            "--device-write-iops",
            limits.device_write_iops,
            "blkio.throttle.write_iops_device",
            "IOWriteIOPSMax",
        ),
    ):
        if not devices:
            continue
        require_controller(facts, "io" if facts.cgroup_mode == "v2" else "blkio", flag)
        _check_rates(flag, devices, _MOST_OPERATIONS)
        if facts.cgroup_mode == "v2":
            out.append(Property(name=name, signature="a(st)", value=list(devices)))
        else:
            writes += _per_disk(file, flag, devices, disks)


def _plan_device_weights(
    limits: Limits,
    disks: Disks,
    out: list[Property],
    writes: list[CgroupWrite],
    *,
    unified: bool,
) -> None:
    flag = "--blkio-weight-device"
    for device, weight in limits.blkio_weight_device:
        check_range(f"{flag} {device}:", weight, 10, 1000)
        check_weighed(disks, device, flag)
    if unified:
        value = [
            (device, io_weight_of_blkio(weight)) for device, weight in limits.blkio_weight_device
        ]
        out.append(Property(name="IODeviceWeight", signature="a(st)", value=value))
    else:
        # systemd's BlockIODeviceWeight writes only the file of CFQ, which Linux 5.0 removed
        weights = tuple((disk, bfq_weight(one)) for disk, one in limits.blkio_weight_device)
        writes += _per_disk("blkio.bfq.weight_device", flag, weights, disks)


def bfq_weight(weight: int) -> int:
    """BFQ's weight (1 to 1000) for a block I/O weight, as systemd converts the scope's own weight."""
    return weight if weight <= 100 else 100 + (weight - 100) * 900 // 9900


def _per_disk(
    file: str, flag: str, devices: tuple[tuple[str, int], ...], disks: Disks
) -> tuple[CgroupWrite, ...]:
    """One write for each disk; of two values for one disk the last counts."""
    found = {find(disks, device, flag).number: value for device, value in devices}
    return tuple(
        CgroupWrite(controller="blkio", file=file, value=f"{number} {value}")
        for number, value in found.items()
    )

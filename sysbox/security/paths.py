"""Which paths of a container are masked and which are read-only.

Masked paths expose or control the host (memory, keys, timers, power: CVE-2015-3630, GO-2023-2412,
GHSA-6fw5-f8r9-fgfm) and are of no use in a container. Read-only paths are kernel settings without a
namespace. A masked file is covered by the verified null device, a directory by an empty read-only tmpfs.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.spec import Security

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)

THERMAL = "/sys/devices/system/cpu/cpu{}/thermal_throttle"

READ_ONLY = (
    "/proc/bus",
    "/proc/dynamic_debug",  # the debug messages of the kernel's log
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/sys",
)

ALL = "ALL"


def plan(security: Security, cpus: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(masked, read-only): absolute container paths, in the order of covering.

    `cpus` is the host's list of CPUs ("0-3", HostFacts.cpus); the thermal counters of each are a side
    channel and masked too. A path need not exist in the container. A privileged container and one with
    `systempaths=unconfined` (unmask ALL) have none of ours. `unmask=PATTERN` leaves out those of ours that
    match it (podman's rule: /sys does not stand for what is below it); `mask=PATH` adds one in any case.
    Raises SpecError for a pattern that is malformed, or does not begin at the root.
    """
    if security.privileged:
        return security.mask, ()
    thermal = tuple(THERMAL.format(cpu) for cpu in _numbers(cpus))
    masked = (*kept(MASKED + thermal, security.unmask), *security.mask)
    return tuple(dict.fromkeys(masked)), kept(READ_ONLY, security.unmask)


def _numbers(text: str) -> list[int]:
    """The numbers of the kernel's list "0-2,5"."""
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def kept(paths: tuple[str, ...], unmask: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `paths` that no pattern of `unmask` leaves out. Raises SpecError."""
    if not unmask:
        return paths
    return tuple(path for path in paths if not any(_unmasked(path, pattern) for pattern in unmask))


def _unmasked(path: str, pattern: str) -> bool:
    from sysbox.base import patterns  # few containers need it

    if pattern.upper() == ALL:
        return True
    if not pattern.startswith("/") or "\0" in pattern or ".." in pattern.split("/"):
        raise SpecError(f"unmask={pattern}: must be ALL or an absolute path without '..'")
    try:
        return patterns.matches(pattern.rstrip("/"), path)
    except ValueError as error:
        raise SpecError(f"unmask={pattern}: not a pattern: {error}") from None

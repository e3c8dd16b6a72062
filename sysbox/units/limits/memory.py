"""Plan the limits of memory and swap; called by plan.py. As in docker, `--memory-swap` is both together."""

from __future__ import annotations

from sysbox.base.errors import SpecError, Unsupported
from sysbox.units.limits.properties import (
    INFINITY,
    CgroupWrite,
    Property,
    check_range,
    require_controller,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.spec import Limits

_LEAST = 6 << 20  # bytes; below, no process can start (docker's limit)


def plan(
    limits: Limits, facts: HostFacts, properties: list[Property], writes: list[CgroupWrite]
) -> None:
    """Append properties and writes for the limits. Raises SpecError and Unsupported that name the flag."""
    memory, reservation = limits.memory or 0, limits.memory_reservation or 0
    unified = facts.cgroup_mode == "v2"
    _check(limits, memory, reservation)
    if memory:
        require_controller(facts, "memory", "--memory")
        name = "MemoryMax" if unified else "MemoryLimit"
        properties.append(Property(name=name, signature="t", value=memory))
        _plan_swap(memory, limits.memory_swap or 0, properties, writes, unified=unified)
    if reservation:
        require_controller(facts, "memory", "--memory-reservation")
        if unified:
            properties.append(Property(name="MemoryLow", signature="t", value=reservation))
        else:
            writes.append(_write("memory.soft_limit_in_bytes", reservation))
    if unified:
        _plan_unified(limits, facts, properties)
    else:
        _plan_old(limits, facts, writes)


def _write(file: str, value: int, *, optional: bool = False) -> CgroupWrite:
    return CgroupWrite(controller="memory", file=file, value=str(value), optional=optional)


def _check(limits: Limits, memory: int, reservation: int) -> None:
    swap, high, least = limits.memory_swap or 0, limits.memory_high or 0, limits.memory_min or 0
    for flag, size in (
        ("--memory", memory),
        ("--memory-reservation", reservation),
        ("--memory-high", high),
    ):
        if size and size < _LEAST:
            raise SpecError(f"{flag} {size}: at least 6m ({_LEAST} bytes)")
    for flag, size in (("--memory-reservation", reservation), ("--memory-min", least)):
        if memory and size > memory:
            raise SpecError(f"{flag} {size}: must not exceed --memory, which is {memory}")
    if swap < -1:
        raise SpecError(f"--memory-swap {swap}: a size, or -1 for unlimited")
    if swap > 0 and not memory:
        raise SpecError(
            "--memory-swap: --memory must be given too; the swap is counted on top of it"
        )
    if 0 < swap < memory:
        raise SpecError(
            f"--memory-swap {swap}: must not be below --memory, which is {memory}:"
            " it is memory and swap together"
        )
    if limits.memory_swappiness is not None:
        check_range("--memory-swappiness", limits.memory_swappiness, 0, 100)


def _plan_swap(
    memory: int, swap: int, out: list[Property], writes: list[CgroupWrite], *, unified: bool
) -> None:
    """`swap` is memory and swap together, in bytes; 0 is twice the memory, -1 unlimited."""
    total = swap or 2 * memory
    if unified:
        value = INFINITY if total == -1 else total - memory
        out.append(Property(name="MemorySwapMax", signature="t", value=value))
    elif total != -1:
        # the kernel refuses a value below the memory limit, which systemd has set by then
        writes.append(_write("memory.memsw.limit_in_bytes", total, optional=not swap))


def _plan_unified(limits: Limits, facts: HostFacts, out: list[Property]) -> None:
    if limits.memory_swappiness is not None:
        raise Unsupported(
            "--memory-swappiness: cgroup v2 has no swappiness of one container",
            hint="limit its swap (--memory-swap), or set vm.swappiness for the host",
        )
    if limits.oom_kill_disable:
        raise Unsupported(
            "--oom-kill-disable: cgroup v2 always kills when a limit is reached",
            hint="--memory-high slows it down before; --oom-policy says what becomes of the rest",
        )
    for flag, name, size in (
        ("--memory-high", "MemoryHigh", limits.memory_high),
        ("--memory-min", "MemoryMin", limits.memory_min),
    ):
        if size:
            require_controller(facts, "memory", flag)
            out.append(Property(name=name, signature="t", value=size))


def _plan_old(limits: Limits, facts: HostFacts, writes: list[CgroupWrite]) -> None:
    for flag, size, instead in (
        ("--memory-high", limits.memory_high, "--memory, or --memory-reservation to reclaim first"),
        ("--memory-min", limits.memory_min, "--memory-reservation"),
    ):
        if size:
            raise Unsupported(
                f"{flag}: this host's controllers are cgroup v1, it needs v2",
                hint=f"the nearest on v1: {instead}",
            )
    if limits.memory_swappiness is not None:
        require_controller(facts, "memory", "--memory-swappiness")
        writes.append(_write("memory.swappiness", limits.memory_swappiness))
    if limits.oom_kill_disable:
        require_controller(facts, "memory", "--oom-kill-disable")
        writes.append(_write("memory.oom_control", 1))

"""The limits that the flags of `run`, `create` and `update` ask for, parsed.

`units/limits/` checks their ranges and combinations.
"""

from __future__ import annotations

from sysbox.parse import common as parse
from sysbox.spec import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def build(given: Values) -> Limits:
    """All limits. Raises SpecError."""
    found = limits(given).replace(device_rules=device_rules(given.device_cgroup_rule))
    if found.ip_allow and not found.ip_deny:
        from sysbox.cli.output import note

        note(
            "--ip-allow alone allows what is allowed anyway: add --ip-deny any, unless its slice has it"
        )
    return found


def limits(given: Values) -> Limits:
    """All limits except the rules of the device controller. Raises SpecError."""

    def integer(text: str | None, flag: str, low: int = 0) -> int | None:
        """The number; None for 0, which docker takes for "not given"."""
        if text in (None, "0"):
            return None
        return parse.parse_int(text or "", flag, low, 1 << 53)

    def cpuset(text: str | None, flag: str) -> str | None:
        return parse.parse_cpuset(text, flag) if text else None

    if given.kernel_memory is not None:
        _check_kernel_memory(given.kernel_memory)
    found = Limits(
        cpu_shares=integer(given.cpu_shares, "--cpu-shares"),
        cpu_idle=given.cpu_idle or None,
        nano_cpus=parse.parse_cpus(given.cpus, "--cpus") if given.cpus not in (None, "0") else None,
        cpu_quota=integer(given.cpu_quota, "--cpu-quota", -1),
        cpu_period=integer(given.cpu_period, "--cpu-period"),
        cpuset_cpus=cpuset(given.cpuset_cpus, "--cpuset-cpus"),
        cpuset_mems=cpuset(given.cpuset_mems, "--cpuset-mems"),
        memory=_memory(given.memory, "--memory"),
        memory_swap=_memory(given.memory_swap, "--memory-swap", unlimited=True),
        memory_reservation=_memory(given.memory_reservation, "--memory-reservation"),
        memory_high=_memory(given.memory_high, "--memory-high"),
        memory_min=_memory(given.memory_min, "--memory-min"),
        memory_swappiness=_swappiness(given.memory_swappiness),
        oom_kill_disable=given.oom_kill_disable or None,
        oom_policy=_oom_policy(given.oom_policy),
        pids=_pids(given.pids_limit),
        blkio_weight=integer(given.blkio_weight, "--blkio-weight"),
        ip_accounting=given.ip_accounting or None,
        ip_allow=networks(given.ip_allow, "--ip-allow"),
        ip_deny=networks(given.ip_deny, "--ip-deny"),
    )
    return _with_devices(found, given)


def _check_kernel_memory(text: str) -> None:
    """docker's limit, which Linux 5.16 dropped: a note says so. Raises SpecError where it is no size."""
    from sysbox.cli.output import note

    if text not in ("-1", "0", "unset"):
        parse.parse_size(text, "--kernel-memory")
    note(
        "--kernel-memory has no effect: Linux 5.16 dropped it, and --memory counts that memory too"
    )


def _with_devices(found: Limits, given: Values) -> Limits:
    """Add the limits that name a disk, a size of huge pages or a network class."""
    if not (
        given.device_read_bps or given.device_write_bps or given.device_read_iops
        or given.device_write_iops or given.blkio_weight_device or given.net_cls or given.hugetlb
    ):  # fmt: skip
        return found
    from sysbox.parse.limits import parse_class_id, parse_device_number, parse_huge_pages

    rates, number = parse.parse_bytes_rate, parse_device_number
    reads, writes = "--device-read-iops", "--device-write-iops"
    weight, high = "--blkio-weight-device", (1 << 32) - 1
    return found.replace(
        blkio_weight_device=tuple(
            number(one, weight, 10, 1000) for one in given.blkio_weight_device
        ),
        device_read_bps=tuple(rates(one, "--device-read-bps") for one in given.device_read_bps),
        device_write_bps=tuple(rates(one, "--device-write-bps") for one in given.device_write_bps),
        device_read_iops=tuple(number(one, reads, 1, high) for one in given.device_read_iops),
        device_write_iops=tuple(number(one, writes, 1, high) for one in given.device_write_iops),
        net_cls=parse_class_id(given.net_cls, "--net-cls") if given.net_cls else None,
        hugetlb=tuple(dict(parse_huge_pages(one, "--hugetlb") for one in given.hugetlb).items()),
    )


def networks(texts: list[str], flag: str) -> tuple[str, ...]:
    """Networks in their normal form, each once. Raises SpecError."""
    if not texts:
        return ()
    from sysbox.parse.addresses import parse_network

    return tuple(dict.fromkeys(parse_network(text, flag) for text in texts))


def device_rules(texts: list[str]) -> tuple[str, ...]:
    """Rules of the device controller in their normal form. Raises SpecError."""
    if not texts:
        return ()
    from sysbox.parse.limits import parse_device_rule

    return tuple(parse_device_rule(text, "--device-cgroup-rule") for text in texts)


def _swappiness(text: str | None) -> int | None:
    if text in (None, "-1"):  # docker's -1: the value of the host
        return None
    return parse.parse_int(text or "", "--memory-swappiness", 0, 100)


def _oom_policy(text: str | None) -> str | None:
    if text not in (None, "continue", "stop", "kill"):
        parse.bad("--oom-policy", text or "", "unknown policy", "continue, stop or kill")
    return text


def _pids(text: str | None) -> int | None:
    if text is None:
        return None
    from sysbox.parse.limits import parse_pids

    return parse_pids(text, "--pids-limit")


def _memory(text: str | None, flag: str, *, unlimited: bool = False) -> int | None:
    if text is None or text == "0":
        return None
    return -1 if unlimited and text == "-1" else parse.parse_size(text, flag)

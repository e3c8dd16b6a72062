"""Plan the class of a container's packets, and huge pages: no unit property sets them. Called by plan.py."""

from __future__ import annotations

from sysbox.base.errors import SpecError, Unsupported
from sysbox.parse.limits import page_size, page_size_name
from sysbox.units.limits.properties import CgroupWrite, check_range, require_controller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.spec import Limits

_MOST_CLASS = (1 << 32) - 1


def plan(limits: Limits, facts: HostFacts, writes: list[CgroupWrite]) -> None:
    """Append writes for the limits. Raises SpecError and Unsupported that name the flag."""
    unified = facts.cgroup_mode == "v2"
    if limits.net_cls is not None:
        if unified:
            raise Unsupported(
                "--net-cls: cgroup v2 has no classes of packets",
                hint="match the scope's cgroup instead: nft `socket cgroupv2 level 2`, iptables"
                " `-m cgroup --path`; or shape its veth with tc(8)",
            )
        require_controller(facts, "net_cls", "--net-cls")
        check_range("--net-cls", limits.net_cls, 1, _MOST_CLASS)
        value = str(limits.net_cls)
        writes.append(CgroupWrite(controller="net_cls", file="net_cls.classid", value=value))
    if limits.hugetlb:
        require_controller(facts, "hugetlb", "--hugetlb")
        _plan_huge_pages(limits, facts, writes)


def _plan_huge_pages(limits: Limits, facts: HostFacts, writes: list[CgroupWrite]) -> None:
    known = [page_size_name(size) for size in facts.huge_pages]
    for name, size in limits.hugetlb:
        if name not in known:
            raise SpecError(
                f"--hugetlb {name}={size}: this host has no huge pages of that size",
                hint=f"it has {', '.join(known)}" if known else "its kernel has none at all",
            )
        if size < 0:
            raise SpecError(f"--hugetlb {name}={size}: a size of 0 or more")
        last = "max" if facts.cgroup_mode == "v2" else "limit_in_bytes"
        # the kernel counts whole pages
        value = str(size - size % page_size(name))
        writes.append(CgroupWrite(controller="hugetlb", file=f"hugetlb.{name}.{last}", value=value))

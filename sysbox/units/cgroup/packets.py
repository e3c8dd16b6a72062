"""Whether systemd filters and counts the packets of a scope.

Where the kernel or systemd lacks what that needs, systemd starts the unit all the same, and only logs that
(systemd.resource-control(5)). So the kernel is asked for the programs.
"""

from __future__ import annotations

from sysbox.base.errors import KernelError, Unsupported
from sysbox.linux import bpf
from sysbox.units.cgroup.files import unified_mount
from sysbox.units.limits.network import ADVICE, LACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.host import HostFacts
    from sysbox.units.limits.properties import Property

LISTS = ("IPAddressAllow", "IPAddressDeny")
_FLAGS = {
    "IPAddressAllow": "--ip-allow",
    "IPAddressDeny": "--ip-deny",
    "IPAccounting": "--ip-accounting",
}


def lack(path: str, facts: HostFacts) -> str:
    """Why the packets of the cgroup `path` are neither filtered nor counted; "" if they are."""
    mount = unified_mount(facts)
    if not mount:
        return LACK
    try:
        received, sent = bpf.filters(mount + path)
    except KernelError as error:
        return str(error)
    return "" if received and sent else "systemd has attached no BPF program to its cgroup"


def check(
    properties: Iterable[Property], path: str, facts: HostFacts, *, at_links: bool = False
) -> None:
    """Raise Unsupported if properties of the scope with the cgroup `path` need programs that it lacks.

    `at_links`: its lists of networks can be applied at its links instead.
    """
    flags = [
        _FLAGS[one.name]
        for one in properties
        if one.name in _FLAGS and one.value and not (at_links and one.name in LISTS)
    ]
    reason = lack(path, facts) if flags else ""
    if reason:
        raise Unsupported(f"{', '.join(dict.fromkeys(flags))}: {reason}", hint=ADVICE)

"""The mark of the rules that are in place: the network namespace, the packet filter, the bridges' policies.

The start of a container reads it, and looks whether the packet filter still has what it says. Hosts on one
network have one packet filter: what one of them has chosen holds for the marks of all (`shared_rules`).
"""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.errors import KernelError
from sysbox.base.files import read_file, write_file
from sysbox.base.frozen import Frozen
from sysbox.netns.rules import FIREWALLS, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

MARK = f"{paths.NETWORK}/rules"
AUTO, *BACKENDS = FIREWALLS
NFT, IPTABLES_NFT, IPTABLES_LEGACY = BACKENDS
OF_ALL = "it has the rules of all hosts on this network"


def module(name: str) -> ModuleType:
    """The module that writes to a packet filter: apply, publish, withdraw, in_place, remove, lacking."""
    # only one of them is needed, and none by a command that only reads the mark
    if name == NFT:
        from sysbox.netns import firewall_nft as nft

        return nft
    if name == IPTABLES_NFT:
        from sysbox.netns import firewall_iptables as restore

        return restore
    from sysbox.netns import firewall_legacy as legacy

    return legacy


class Mark(Frozen):
    """What is in place in this network namespace."""

    backend: str
    why: str = ""  # why that packet filter
    policies: tuple[Policy, ...] = ()
    host: str = ""  # rules.FIREWALLD or UFW, where one of them governs this host
    ask: bool = False  # that one decides who reaches published ports (Ports=ask)

    def settled(self, policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
        """These policies with what is the same for all of this host."""
        mine = (self.host, self.ask)
        if all((one.host_firewall, one.ask) == mine for one in policies):
            return policies
        return tuple(one.replace(host_firewall=self.host, ask=self.ask) for one in policies)


def read() -> Mark | None:
    """The mark; None where there is none, or that of another network namespace, or a damaged one."""
    lines = (read_file(MARK) or b"").decode("ascii", "replace").splitlines()
    inode, _, rest = lines[0].partition(" ") if lines else ("", "", "")
    if inode != namespace():
        return None
    # without a name it is of a version that knew the legacy tables only
    backend, _, why = rest.partition(" ")
    backend = backend or IPTABLES_LEGACY
    if backend not in BACKENDS:
        return None
    try:
        policies = tuple(Policy.read(line) for line in lines[1:])
    except ValueError:  # damaged: the rules are made again
        return None
    shared = shared_backend()
    if shared not in ("", backend):
        backend, why = shared, OF_ALL
    host, ask = (policies[0].host_firewall, policies[0].ask) if policies else ("", False)
    return Mark(backend=backend, why=why, policies=policies, host=host, ask=ask)


def shared_backend() -> str:
    """The packet filter that has the rules of all hosts on this network; "" where nobody has chosen."""
    from sysbox.netns import shared_rules

    found = shared_rules.backend()
    return found if found in BACKENDS else ""


def write(mark: Mark) -> None:
    """Replace the mark. Raises KernelError."""
    first = f"{namespace()} {mark.backend} {mark.why}".strip()
    lines = [first, *(policy.line() for policy in mark.policies)]
    write_file(MARK, ("\n".join(lines) + "\n").encode("ascii"))


def has(policies: tuple[Policy, ...]) -> bool:
    """Whether the rules of the bridges of these policies are in place. Raises KernelError."""
    mark = read()
    if mark is None or not set(mark.settled(policies)) <= set(mark.policies):
        return False
    return in_place(mark)


def in_place(mark: Mark) -> bool:
    """Whether the packet filter has the chains of a mark. Raises KernelError."""
    from sysbox.netns import shared_rules

    return bool(
        module(mark.backend).in_place((*mark.policies, *shared_rules.others(mark.policies)[0]))
    )


def namespace() -> str:
    """The inode of this process's network namespace. Raises KernelError."""
    try:
        return str(posix.stat("/proc/self/ns/net").st_ino)
    except OSError as error:
        raise KernelError.of("look at", "/proc/self/ns/net", error) from None

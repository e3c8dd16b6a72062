"""The packet filter's rules as data: pure, and the same for python-iptables and iptables-restore.

A rule is a dictionary in the form of python-iptables' `easy` module, which is also what that module
reads back, so that what is in place can be compared with what should be. Chains of our own carry
all rules; each built-in chain has exactly one jump to them. Only published ports have rules per
container.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.netns.topology import NetPlan
from sysbox.spec import Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Rule = dict[str, Any]

DNAT = "SYSBOX-DNAT"  # published ports
POSTROUTING = "SYSBOX-POSTROUTING"
FORWARD = "SYSBOX-FORWARD"
INPUT = "SYSBOX-INPUT"
RAW = "SYSBOX-RAW"
TABLES = ("raw", "nat", "filter")
_LOOPBACK = "127.0.0.0/8"


class Policy(Frozen):
    """What the rules of one bridge depend on; kept as one line of the mark of rules in place."""

    bridge: str
    subnet: str
    isolate: bool = False
    host_access: bool = True

    def line(self) -> str:
        """ "sysbox0 10.90.0.0/16 isolate=0 host=1"."""
        switches = f"isolate={self.isolate:d} host={self.host_access:d}"
        return f"{self.bridge} {self.subnet} {switches}"

    @classmethod
    def read(cls, line: str) -> Policy:
        """The policy that `line` wrote; ValueError for anything else."""
        bridge, subnet, isolate, host = line.split(" ")
        return cls(
            bridge=bridge,
            subnet=subnet,
            isolate=isolate == "isolate=1",
            host_access=host == "host=1",
        )


class Published(Frozen):
    """One published port of a container, with the host port it got."""

    id: str
    address: str  # the container's
    port: Port


def policies_of(plan: NetPlan) -> tuple[Policy, ...]:
    """The part of a container's plan that the rules of its bridges depend on."""
    return tuple(
        Policy(
            bridge=one.bridge,
            subnet=one.subnet,
            isolate=one.isolate,
            host_access=one.host_access,
        )
        for one in plan.attachments
    )


def chains(
    policies: tuple[Policy, ...], published: tuple[Published, ...]
) -> dict[str, dict[str, list[Rule]]]:
    """Table -> chain of ours -> its rules, in order."""
    return {
        "raw": {RAW: [_no_loopback(policy) for policy in policies]},
        "nat": {
            DNAT: [dnat(entry) for entry in published],
            POSTROUTING: [rule for policy in policies for rule in _masquerade(policy)],
        },
        "filter": {
            # What comes in is decided for all bridges before what goes out is accepted for any: a
            # packet from one bridge to another must meet the second one's DROP
            FORWARD: [rule for policy in policies for rule in _into(policy)]
            + [_out_of(policy) for policy in policies],
            INPUT: [rule for policy in policies for rule in _to_host(policy)],
        },
    }


def jumps() -> dict[str, list[tuple[str, Rule, bool]]]:
    """Table -> (built-in chain, the jump, whether it goes first).

    First where a verdict of the host's own rules would come too early; last in nat, where others
    may have translations of their own.
    """
    local = {"dst-type": "LOCAL"}
    return {
        "raw": [("PREROUTING", {"target": RAW}, True)],
        "nat": [
            # From outside a loopback address is never translated, else a port published on
            # 127.0.0.1 would be open to the neighbours on the LAN; untranslated, the kernel drops
            # such a packet
            ("PREROUTING", {"dst": f"!{_LOOPBACK}", "addrtype": local, "target": DNAT}, False),
            ("OUTPUT", {"addrtype": local, "target": DNAT}, False),
            ("POSTROUTING", {"target": POSTROUTING}, False),
        ],
        "filter": [
            ("FORWARD", {"target": FORWARD}, True),
            ("INPUT", {"target": INPUT}, True),
        ],
    }


def dnat(entry: Published) -> Rule:
    """One published port. The comment names the container, for people and for `gc`."""
    port = entry.port
    rule: Rule = {"dst": f"{port.host_ip}/32"} if port.host_ip not in ("", "0.0.0.0") else {}
    return rule | {
        "protocol": port.protocol,
        port.protocol: {"dport": str(port.host_port)},
        "comment": {"comment": f"sysbox:{entry.id}"},
        "target": {"DNAT": {"to-destination": f"{entry.address}:{port.container_port}"}},
    }


def dnat_words(entry: Published) -> list[str]:
    """The same rule in the words of iptables(8), without a command."""
    port = entry.port
    words = ["-d", f"{port.host_ip}/32"] if port.host_ip not in ("", "0.0.0.0") else []
    words += ["-p", port.protocol, "-m", port.protocol, "--dport", str(port.host_port)]
    words += ["-m", "comment", "--comment", f"sysbox:{entry.id}"]
    return [*words, "-j", "DNAT", "--to-destination", f"{entry.address}:{port.container_port}"]


def restore_text(command: str, entries: tuple[Published, ...]) -> bytes:
    """Input of iptables-restore(8) --noflush: `command` is -A or -D."""
    lines = [" ".join([command, DNAT, *dnat_words(entry)]) for entry in entries]
    return "\n".join(["*nat", *lines, "COMMIT", ""]).encode("ascii")


def _no_loopback(policy: Policy) -> Rule:
    # The bridge has route_localnet, so that the host reaches published ports through 127.0.0.1; a
    # container must not reach the host's own loopback services that way (CVE-2020-8558)
    return {"dst": _LOOPBACK, "in-interface": policy.bridge, "target": "DROP"}


def _masquerade(policy: Policy) -> list[Rule]:
    bridge, outside = policy.bridge, f"!{policy.bridge}"
    return [
        {"src": policy.subnet, "out-interface": outside, "target": "MASQUERADE"},
        # to a published port from the host's loopback, and from another container by way of the
        # host's address: the answer has to come back through us
        {"src": _LOOPBACK, "out-interface": bridge, "target": "MASQUERADE"},
        {
            "src": policy.subnet,
            "out-interface": bridge,
            "conntrack": {"ctstate": "DNAT"},
            "target": "MASQUERADE",
        },
    ]


def _into(policy: Policy) -> list[Rule]:
    bridge = policy.bridge
    among = {"in-interface": bridge, "out-interface": bridge}
    return [
        among | {"target": "DROP" if policy.isolate else "ACCEPT"},
        {
            "out-interface": bridge,
            "conntrack": {"ctstate": "RELATED,ESTABLISHED"},
            "target": "ACCEPT",
        },
        {"out-interface": bridge, "conntrack": {"ctstate": "DNAT"}, "target": "ACCEPT"},
        {"out-interface": bridge, "target": "DROP"},
    ]


def _out_of(policy: Policy) -> Rule:
    return {"in-interface": policy.bridge, "target": "ACCEPT"}


def _to_host(policy: Policy) -> list[Rule]:
    if policy.host_access:
        return []
    return [
        {
            "in-interface": policy.bridge,
            "conntrack": {"ctstate": "RELATED,ESTABLISHED"},
            "target": "ACCEPT",
        },
        {"in-interface": policy.bridge, "target": "DROP"},
    ]

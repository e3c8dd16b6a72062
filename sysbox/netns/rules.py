"""The packet filter's rules as data: pure, and the same for python-iptables and iptables-restore.

A rule is a dictionary as python-iptables' `easy` module writes and reads it, so that rules in the kernel can
be compared with the wanted ones. All rules are in chains of sysbox; each built-in chain has exactly one jump
to one of these. Only published ports have rules per container.
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
    """The settings that a bridge's rules depend on; one line of the mark in `firewall.MARK`."""

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
        """The policy in a line that `line` wrote. Raises ValueError for any other text."""
        bridge, subnet, isolate, host = line.split(" ")
        return cls(
            bridge=bridge,
            subnet=subnet,
            isolate=isolate == "isolate=1",
            host_access=host == "host=1",
        )


class Published(Frozen):
    """One published port of a container, with its host port."""

    id: str
    address: str  # the container's
    port: Port


def policies_of(plan: NetPlan) -> tuple[Policy, ...]:
    """The settings in a container's plan that the rules of its bridges depend on."""
    return tuple(
        Policy(
            bridge=one.bridge,
            subnet=one.subnet,
            isolate=not one.icc,
            host_access=one.host_access,
        )
        for one in plan.attachments
    )


def chains(
    policies: tuple[Policy, ...], published: tuple[Published, ...]
) -> dict[str, dict[str, list[Rule]]]:
    """Table -> sysbox's chain -> its rules, in order."""
    return {
        "raw": {RAW: [_no_loopback(policy) for policy in policies]},
        "nat": {
            DNAT: [dnat(entry) for entry in published],
            POSTROUTING: [rule for policy in policies for rule in _masquerade(policy)],
        },
        "filter": {
            # the rules for packets to any bridge are before those that accept packets from one: a
            # packet from one bridge to another must meet the DROP of the second
            FORWARD: [rule for policy in policies for rule in _into(policy)]
            + [_out_of(policy) for policy in policies],
            INPUT: [rule for policy in policies for rule in _to_host(policy)],
        },
    }


def jumps() -> dict[str, list[tuple[str, Rule, bool]]]:
    """Table -> (built-in chain, the jump, whether it is the first rule).

    It is first where the host's own rules could decide before; last in nat, where other programs may have
    translations of their own.
    """
    local = {"dst-type": "LOCAL"}
    return {
        "raw": [("PREROUTING", {"target": RAW}, True)],
        "nat": [
            # A packet from outside to a loopback address is not translated, so the kernel drops it:
            # translated, a port published on 127.0.0.1 would be open to neighbours on the LAN
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
    """The rule of one published port. Its comment names the container."""
    port = entry.port
    rule: Rule = {"dst": f"{port.host_ip}/32"} if port.host_ip not in ("", "0.0.0.0") else {}
    return rule | {
        "protocol": port.protocol,
        port.protocol: {"dport": str(port.host_port)},
        "comment": {"comment": f"sysbox:{entry.id}"},
        "target": {"DNAT": {"to-destination": f"{entry.address}:{port.container_port}"}},
    }


def dnat_words(entry: Published) -> list[str]:
    """The rule of `dnat` as arguments of iptables(8), without a command."""
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
    # the bridge has route_localnet, so that the host reaches published ports at 127.0.0.1; by it a
    # container must not reach services on the host's loopback (CVE-2020-8558)
    return {"dst": _LOOPBACK, "in-interface": policy.bridge, "target": "DROP"}


def _masquerade(policy: Policy) -> list[Rule]:
    bridge, outside = policy.bridge, f"!{policy.bridge}"
    return [
        {"src": policy.subnet, "out-interface": outside, "target": "MASQUERADE"},
        # to a published port, from the host's loopback, and from another container through the host's
        # address: the reply must return through the host, which translates it back
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

"""The packet filter's rules, whoever writes them: pure.

`chains` has every rule of sysbox once, for both families; `rules_iptables` and `rules_nft` put them into the
words of a packet filter. All rules are in chains of sysbox. Only published ports have rules per container.
"""

from __future__ import annotations

import _socket

from sysbox.base.frozen import Frozen
from sysbox.netns.network import BRIDGE
from sysbox.netns.topology import NetPlan
from sysbox.spec import Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.netns.attachment import Attachment

FIREWALLS = ("auto", "nft", "iptables-nft", "iptables-legacy")  # Firewall= of sysbox.conf
ANYWHERE = ("", "0.0.0.0", "::")  # host addresses of a port that is published on every address
LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}
ACCEPT, DROP, MASQUERADE = "accept", "drop", "masquerade"
RETURN, MARK = "return", "mark"  # to the rules of the host itself; set the bit ALLOWED of the mark
FIREWALLD, UFW = "firewalld", "ufw"  # what may govern the host, and decide about published ports
PORTS = ("open", "ask")  # Ports= of sysbox.conf
# of a packet's mark: a zone of firewalld lets it come to published ports
ALLOWED = 0x1000
KNOWN = "RELATED,ESTABLISHED"  # packets of connections that were accepted before
TRANSLATED = "DNAT"  # packets to a published port
RAW, POSTROUTING, FORWARD, INPUT = "raw", "postrouting", "forward", "input"
_DNS = 53  # RFC 1035
_NEIGHBOUR = (135, 136)  # ICMPv6 types of neighbour discovery (RFC 4861): IPv6's ARP


class Policy(Frozen):
    """The settings that a bridge's rules depend on; one line of the mark (`firewall_mark`)."""

    bridge: str
    subnet: str = ""  # IPv4; "" without
    subnet6: str = ""
    gateway: str = ""  # the bridge's own addresses, where the network's resolver is
    gateway6: str = ""
    isolate: bool = False  # containers do not reach each other
    apart: bool = (
        True  # other networks' containers do not reach it, unless they are not apart either
    )
    host_access: bool = True  # containers may open connections to the host itself
    internal: bool = False  # no way out, and no way in but from the host itself
    nic: str = ""  # the only link of the host that connections may leave by; "" is any
    masquerade: bool = True  # outgoing packets get the host's address
    masquerade6: bool = True
    host_firewall: str = ""  # FIREWALLD or UFW, where one of them governs this host
    ask: bool = False  # that one decides who reaches published ports

    def line(self) -> str:
        """ "sysbox0 10.90.0.0/16 isolate=0 host=1", and what differs from a policy's defaults."""
        switches = f"isolate={self.isolate:d} host={self.host_access:d}"
        more = [f"{word}={getattr(self, field)}" for word, field in _TEXTS if getattr(self, field)]
        more += [
            f"{word}={getattr(self, field):d}"
            for word, field, usual in _SWITCHES
            if getattr(self, field) != usual
        ]
        return " ".join((self.bridge, self.subnet or "-", switches, *more))

    @classmethod
    def read(cls, line: str) -> Policy:
        """The policy in a line that `line` wrote, also that of an older version. Raises ValueError."""
        bridge, subnet, *words = line.split(" ")
        given = dict(word.split("=", 1) for word in words)
        isolate, host = given.pop("isolate", ""), given.pop("host", "")
        texts = {field: given.pop(word, "") for word, field in _TEXTS}
        switches = {field: given.pop(word, f"{usual:d}") == "1" for word, field, usual in _SWITCHES}
        if given or not isolate or not host:
            raise ValueError(f"not the policy of a bridge: {line}")
        values = {**texts, **switches, "isolate": isolate == "1", "host_access": host == "1"}
        return cls(bridge=bridge, subnet="" if subnet == "-" else subnet, **values)  # type: ignore[arg-type]


# words of a mark's line -> fields of Policy
_TEXTS = (
    ("subnet6", "subnet6"),
    ("gw", "gateway"),
    ("gw6", "gateway6"),
    ("nic", "nic"),
    ("by", "host_firewall"),
)
_SWITCHES = (
    ("apart", "apart", True),
    ("internal", "internal", False),
    ("masquerade", "masquerade", True),
    ("masquerade6", "masquerade6", True),
    ("ask", "ask", False),
)


class Published(Frozen):
    """One published port of a container, with its host port, at one of the container's addresses."""

    id: str
    address: str  # the container's; its family is that of the rule
    port: Port

    @property
    def family(self) -> int:
        return 6 if ":" in self.address else 4


class Rule(Frozen):
    """One rule: what a packet must be, and what happens to it. An empty field is any."""

    verdict: str  # ACCEPT, DROP, MASQUERADE, RETURN, MARK
    family: int = 0  # 4, 6; 0 is both
    came_by: str = ""  # the link that it came by
    leaves_by: str = ""  # "!sysbox0" is any other link
    source: str = ""  # a subnet
    destination: str = ""  # a subnet, or an address with its full mask
    state: str = ""  # KNOWN, TRANSLATED
    protocol: str = ""  # tcp, udp, icmpv6
    port: int = 0  # of the destination; with icmpv6 the type


def policy_of(one: Attachment) -> Policy:
    """The settings of a network that its bridge's rules depend on."""
    return Policy(
        bridge=one.bridge,
        subnet=one.subnet,
        subnet6=one.subnet6,
        gateway=one.gateway,
        gateway6=one.gateway6,
        isolate=not one.icc,
        apart=one.isolate,
        host_access=one.host_access,
        internal=one.internal,
        nic=one.nic,
        masquerade=one.masquerade,
        masquerade6=one.gateway_mode_ipv6 == "nat",
    )


def policies_of(plan: NetPlan) -> tuple[Policy, ...]:
    """The settings in a container's plan that the rules of its bridges depend on; other links have none."""
    return tuple(policy_of(one) for one in plan.attachments if one.driver == BRIDGE)


def published(
    container_id: str, ports: tuple[Port, ...], addresses: tuple[str, ...]
) -> tuple[Published, ...]:
    """Each port at each of the container's addresses that its host address's family allows.

    A port without a host address is published in both families, if the container has both.
    """
    return tuple(
        Published(id=container_id, address=address, port=port)
        for port in ports
        for address in addresses
        if address and (not port.host_ip or (":" in port.host_ip) == (":" in address))
    )


def chains(policies: tuple[Policy, ...]) -> dict[str, list[Rule]]:
    """sysbox's chain -> its rules, in order; without those of published ports."""

    def each(*parts: Callable[[Policy], list[Rule]]) -> list[Rule]:
        return [rule for part in parts for policy in policies for rule in part(policy)]

    together = [policy.bridge for policy in policies if not policy.apart and not policy.internal]
    return {
        RAW: each(_no_loopback, _allowed),
        POSTROUTING: each(_translate),
        # first what a network forbids its own containers; then all rules for packets to any bridge, and only
        # then those that accept packets from one: a packet from one bridge to another must meet the DROP of
        # the second
        FORWARD: [
            *each(_confined),
            *(
                Rule(verdict=ACCEPT, came_by=one, leaves_by=other)
                for one in together
                for other in together
                if one != other
            ),
            *each(_from_ours),
            *each(_into, _out_of),
        ],
        INPUT: each(_to_host),
    }


def _no_loopback(policy: Policy) -> list[Rule]:
    # the bridge has route_localnet, so that the host reaches published ports at 127.0.0.1; by it a
    # container must not reach services on the host's loopback (CVE-2020-8558)
    return [Rule(verdict=DROP, family=4, came_by=policy.bridge, destination=LOOPBACK[4])]


def _allowed(policy: Policy) -> list[Rule]:
    # what comes from containers needs no zone that allows it
    asks = asked((policy,)) == FIREWALLD
    return [Rule(verdict=MARK, came_by=policy.bridge)] if asks else []


def _translate(policy: Policy) -> list[Rule]:
    bridge, made = policy.bridge, []
    for family, subnet, outgoing in (
        (4, policy.subnet, policy.masquerade),
        (6, policy.subnet6, policy.masquerade6),
    ):
        if not subnet:
            continue
        masquerade = Rule(verdict=MASQUERADE, family=family)
        if outgoing and not policy.internal:
            made.append(masquerade.replace(source=subnet, leaves_by=f"!{bridge}"))
        made += [
            # to a published port, from the host's loopback, and from another container through the host's
            # address: the reply must return through the host, which translates it back
            masquerade.replace(source=LOOPBACK[family], leaves_by=bridge),
            masquerade.replace(source=subnet, leaves_by=bridge, state=TRANSLATED),
        ]
    return made


def _confined(policy: Policy) -> list[Rule]:
    """What decides before any other network's rules: among the containers, and where they may not go."""
    bridge = policy.bridge
    made = [
        Rule(verdict=DROP if policy.isolate else ACCEPT, came_by=bridge, leaves_by=bridge),
    ]
    if policy.internal:
        made += [Rule(verdict=DROP, came_by=bridge), Rule(verdict=DROP, leaves_by=bridge)]
    elif policy.nic:
        made += [
            Rule(verdict=ACCEPT, came_by=bridge, state=KNOWN),
            Rule(verdict=DROP, came_by=bridge, leaves_by=f"!{policy.nic}"),
        ]
    return made


def _from_ours(policy: Policy) -> list[Rule]:
    # of `_into`, for what ufw is not asked about
    asks = asked((policy,)) == UFW
    return [Rule(verdict=ACCEPT, came_by=policy.bridge, state=TRANSLATED)] if asks else []


def _into(policy: Policy) -> list[Rule]:
    bridge = policy.bridge
    published = RETURN if asked((policy,)) == UFW else ACCEPT
    return [
        Rule(verdict=ACCEPT, leaves_by=bridge, state=KNOWN),
        Rule(verdict=published, leaves_by=bridge, state=TRANSLATED),
        Rule(verdict=DROP, leaves_by=bridge),
    ]


def _out_of(policy: Policy) -> list[Rule]:
    return [Rule(verdict=ACCEPT, came_by=policy.bridge)]


def _to_host(policy: Policy) -> list[Rule]:
    if policy.host_access and policy.host_firewall != UFW:
        return []
    bridge = policy.bridge
    made = [] if policy.host_access else [Rule(verdict=ACCEPT, came_by=bridge, state=KNOWN)]
    for family, gateway, mask in ((4, policy.gateway, 32), (6, policy.gateway6, 128)):
        made += [
            Rule(verdict=ACCEPT, family=family, came_by=bridge, destination=f"{gateway}/{mask}",
                 protocol=protocol, port=_DNS)
            for protocol in ("udp", "tcp") if gateway
        ]  # fmt: skip
    if policy.host_access:
        return made  # ufw drops what it does not know, and so all questions to the resolver
    if policy.subnet6:
        # without these the host would not find the containers either
        made += [
            Rule(verdict=ACCEPT, family=6, came_by=bridge, protocol="icmpv6", port=kind)
            for kind in _NEIGHBOUR
        ]
    return [*made, Rule(verdict=DROP, came_by=bridge)]


def asked(policies: tuple[Policy, ...]) -> str:
    """Who decides about published ports of these bridges: FIREWALLD, UFW, or "" for nobody."""
    return next((one.host_firewall for one in policies if one.ask), "")


def is_everywhere(port: Port) -> bool:
    """Whether a port is published on every address of the host."""
    return port.host_ip in ANYWHERE


def is_loopback(address: str) -> bool:
    """Whether an address is one of the host's loopback link."""
    return address == "::1" or address.startswith("127.")


def packed(address: str) -> bytes:
    """An address in network order; 4 or 16 bytes."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    return _socket.inet_pton(family, address)

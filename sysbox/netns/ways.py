"""The ways of packets from and to a container, through the rules of `rules.chains`: pure.

Each way is a packet that might come, and what meets it: for `sysbox network explain`, and for tests that ask
whether the rules mean what the policies say.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.netns import rules, rules_iptables, rules_nft, subnets
from sysbox.netns.rules import ACCEPT, DROP, RETURN, TRANSLATED, Policy, Published, Rule

ELSEWHERE = "(another link)"  # a link of the host that is no bridge of sysbox
OUTSIDE = {4: "203.0.113.1", 6: "2001:db8::1"}  # RFC 5737 and 3849: an address out there


class Packet(Frozen):
    """The first packet of a connection, where it meets the rules."""

    family: int
    source: str
    destination: str
    came_by: str = ""  # "" is the host itself
    leaves_by: str = ""  # "" is to the host itself
    protocol: str = "tcp"
    port: int = 0
    state: str = ""  # rules.KNOWN, rules.TRANSLATED


class Step(Frozen):
    """What a packet met: a chain, the rule that decided, and the verdict."""

    chain: str
    rule: str  # "" where no rule of sysbox is about it
    verdict: str


class Way(Frozen):
    """One kind of packet, and its steps up to the last one."""

    name: str
    steps: tuple[Step, ...]
    asked: str = ""  # the host's firewall, where it decides in the end

    @property
    def passes(self) -> bool:
        return all(step.verdict != DROP for step in self.steps)

    @property
    def outcome(self) -> str:
        """ "passes", "dropped", or whose word it needs."""
        if not self.passes:
            return "dropped"
        return f"passes if {self.asked} allows it" if self.asked else "passes"


def matches(rule: Rule, packet: Packet) -> bool:
    """Whether a rule is about a packet."""
    return (
        rule.family in (0, packet.family)
        and _is_link(rule.came_by, packet.came_by)
        and _is_link(rule.leaves_by, packet.leaves_by)
        and _is_in(rule.source, packet.source)
        and _is_in(rule.destination, packet.destination)
        and rule.protocol in ("", packet.protocol)
        and rule.port in (0, packet.port)
        and rule.state in ("", packet.state)
    )


def first(made: list[Rule], packet: Packet) -> Rule | None:
    """The rule of a chain that decides about a packet."""
    return next((rule for rule in made if matches(rule, packet)), None)


def _is_link(wanted: str, link: str) -> bool:
    if wanted.startswith("!"):
        return link != wanted[1:]
    return wanted in ("", link)


def _is_in(subnet: str, address: str) -> bool:
    base, _, bits = subnet.partition("/")
    if bits == ("128" if ":" in base else "32"):
        return base == address
    return not subnet or subnets.contains(subnet, address)


class Filter:
    """The rules of this host, in the words of its packet filter."""

    def __init__(self, policies: tuple[Policy, ...], backend: str) -> None:
        self.policies = policies
        self.asked = rules.asked(policies)
        self._chains = rules.chains(policies)
        self._nft = backend == "nft"

    def through(self, packet: Packet) -> tuple[Step, ...]:
        """The steps of a packet that is routed from one link to another, or comes to the host itself."""
        steps = []
        chains = [rules.RAW] if packet.came_by else []
        if packet.came_by:
            chains.append(rules.FORWARD if packet.leaves_by else rules.INPUT)
        if packet.leaves_by:
            chains.append(rules.POSTROUTING)
        for chain in chains:
            rule = first(self._chains[chain], packet)
            if rule is None and chain == rules.RAW:
                continue
            verdict = (
                rule.verdict if rule else "unchanged" if chain == rules.POSTROUTING else ACCEPT
            )
            if rule is None and chain == rules.FORWARD:
                verdict = "as the host's own rules say"
            if verdict == RETURN:
                verdict = f"as {self.asked} says"
            steps.append(Step(chain=chain, rule=self._text(rule), verdict=verdict))
            if verdict == DROP:
                break
        return tuple(steps)

    def from_elsewhere(self, entry: Published) -> tuple[Step, ...]:
        """The steps of a packet to a published port that comes from outside, up to its translation."""
        translated = self.translated(entry)
        if self.asked != rules.FIREWALLD:
            return (translated,)
        asked = Step(chain=rules.FIREWALLD, rule=rules_nft.ALLOWED, verdict="as its zone says")
        return (asked, translated)

    def translated(self, entry: Published) -> Step:
        """The step of a packet to a published port."""
        if self._nft:
            words = f"map {rules_nft.map_of(entry)}: {rules_nft.element(entry)}"
        else:
            words = " ".join((rules_iptables.DNAT, *rules_iptables.dnat_words(entry)))
        address = f"[{entry.address}]" if entry.family == 6 else entry.address
        to = f"to {address}:{entry.port.container_port}"
        return Step(chain="published", rule=words, verdict=to)

    def _text(self, rule: Rule | None) -> str:
        if rule is None:
            return ""
        if self._nft:
            return rules_nft.text(rule)
        return " ".join(rules_iptables.words(rules_iptables.easy(rule)))


def of_port(found: Filter, bridge: str, entry: Published, gateway: str) -> list[Way]:
    """The ways to one published port: from another machine, from the host, from another network."""
    family, port = entry.family, entry.port
    inside = Packet(
        family=family, source=OUTSIDE[family], destination=entry.address, leaves_by=bridge,
        protocol=port.protocol, port=port.container_port, state=TRANSLATED,
    )  # fmt: skip
    local = rules.is_loopback(port.host_ip)
    to = f"{port.host_port}/{port.protocol}, IPv{family}"
    drop = Step(chain="kernel", rule="an address of the loopback link from outside", verdict=DROP)
    from_outside = (
        (drop,)
        if local
        else (*found.from_elsewhere(entry), *found.through(inside.replace(came_by=ELSEWHERE)))
    )
    from_host = inside.replace(source=rules.LOOPBACK[family].partition("/")[0])
    ways = [
        Way(name=f"from another machine to {to}", steps=from_outside, asked=found.asked),
        Way(
            name=f"from the host to {to}",
            steps=(found.translated(entry), *found.through(from_host)),
        ),
    ]
    if not local and gateway:
        back = inside.replace(came_by=bridge, source=entry.address)
        steps = (found.translated(entry), *found.through(back))
        ways.append(Way(name=f"from its own network to {to}", steps=steps))
    return ways


def of_network(found: Filter, policy: Policy, family: int, address: str, gateway: str) -> list[Way]:
    """The ways from a container and to it that need no published port."""
    begin = Packet(
        family=family, source=address, destination=OUTSIDE[family], came_by=policy.bridge
    )
    words = f"IPv{family}"
    ways = [
        Way(
            name=f"to other machines, {words}",
            steps=found.through(begin.replace(leaves_by=policy.nic or ELSEWHERE)),
        ),
        Way(
            name=f"to the host, {words}",
            steps=found.through(begin.replace(destination=gateway)),
        ),
        Way(name=f"among its own network, {words}", steps=_among(policy)),
        Way(
            name=f"from other machines, not published, {words}",
            steps=found.through(
                begin.replace(
                    came_by=ELSEWHERE, leaves_by=policy.bridge, source=OUTSIDE[family],
                    destination=address,
                )
            ),
        ),
    ]  # fmt: skip
    for other in found.policies:
        subnet = other.subnet6 if family == 6 else other.subnet
        if other.bridge != policy.bridge and subnet:
            packet = begin.replace(leaves_by=other.bridge, destination=subnets.first(subnet))
            name = f"to the containers of {other.bridge}, {words}"
            ways.append(Way(name=name, steps=found.through(packet)))
    return ways


def _among(policy: Policy) -> tuple[Step, ...]:
    if policy.isolate:
        return (Step(chain="bridge", rule="both ports are isolated", verdict=DROP),)
    return (Step(chain="bridge", rule="", verdict=ACCEPT),)

"""The rules in the words of nft(8): one table of sysbox's own, for both families. Pure.

A published port is no rule, but one element of a map: a packet costs the same with one port and with a
thousand, and a publish is one element (`firewall_nft`).
"""

from __future__ import annotations

from sysbox.netns import rules
from sysbox.netns.rules import LOOPBACK, Policy, Published, Rule

TABLE = "sysbox"
# chain -> its hook; the priorities are those of the iptables tables of these names
_HOOKS = {
    rules.RAW: "type filter hook prerouting priority -300;",
    "prerouting": "type nat hook prerouting priority -100;",
    "output": "type nat hook output priority -100;",
    rules.POSTROUTING: "type nat hook postrouting priority 100;",
    rules.FORWARD: "type filter hook forward priority 0;",
    rules.INPUT: "type filter hook input priority 0;",
}
PUBLISHED = "published"
_ADDRESS = {4: "ipv4_addr", 6: "ipv6_addr"}
_WORD = {4: "ip", 6: "ip6"}
# firewalld's own rules set the mark before, at the priority -140
ALLOWED = f"meta mark & {rules.ALLOWED:#x} == {rules.ALLOWED:#x}"


def map_of(entry: Published) -> str:
    """The map that a published port is in: "everywhere4", "at6", ..."""
    return f"{'everywhere' if rules.is_everywhere(entry.port) else 'at'}{entry.family}"


def script(policies: tuple[Policy, ...], entries: tuple[Published, ...]) -> str:
    """Input of `nft -f -` that makes everything, whatever there is of it, in one transaction."""
    lines = [f"add table inet {TABLE}"]
    lines += [f"add chain inet {TABLE} {PUBLISHED}"]
    lines += [f"add chain inet {TABLE} {name} {{ {hook} }}" for name, hook in _HOOKS.items()]
    lines += [f"flush chain inet {TABLE} {name}" for name in (PUBLISHED, *_HOOKS)]
    for family, address in _ADDRESS.items():
        to = f"{address} . inet_service"
        lines += [
            f"add map inet {TABLE} at{family} {{ type {address} . inet_proto . inet_service : {to}; }}",
            f"add map inet {TABLE} everywhere{family} {{ type inet_proto . inet_service : {to}; }}",
        ]
    maps = [f"{kind}{family}" for kind in ("at", "everywhere") for family in _ADDRESS]
    lines += [f"flush map inet {TABLE} {name}" for name in maps]
    lines += [f"add rule inet {TABLE} {chain} {text}" for chain, text in _fixed(policies)]
    lines += [
        f"add rule inet {TABLE} {chain} {text(rule)}"
        for chain, made in rules.chains(policies).items()
        for rule in made
    ]
    for name in maps:
        found = [element(entry) for entry in entries if map_of(entry) == name]
        if found:
            lines.append(f"add element inet {TABLE} {name} {{ {', '.join(found)} }}")
    return "\n".join([*lines, ""])


def _fixed(policies: tuple[Policy, ...]) -> list[tuple[str, str]]:
    """The rules that lead to the maps."""
    local = f"fib daddr type local jump {PUBLISHED}"
    allowed = f"{ALLOWED} " if rules.asked(policies) == rules.FIREWALLD else ""
    made = [
        # A packet from outside to a loopback address is not translated, so the kernel drops it:
        # translated, a port published on 127.0.0.1 would be open to neighbours on the LAN
        ("prerouting", f"ip daddr {LOOPBACK[4]} return"),
        ("prerouting", f"ip6 daddr {LOOPBACK[6]} return"),
        ("prerouting", f"{allowed}{local}"),
        ("output", local),
    ]
    key = "meta l4proto . th dport"
    for family, word in _WORD.items():
        made += [
            (PUBLISHED, f"dnat {word} to {word} daddr . {key} map @at{family}"),
            (
                PUBLISHED,
                f"meta nfproto ipv{family} dnat {word} to {key} map @everywhere{family}",
            ),
        ]
    return made


def element(entry: Published) -> str:
    """The element of one published port. Its comment names the container."""
    port = entry.port
    address = "" if rules.is_everywhere(port) else f"{port.host_ip} . "
    key = f'{address}{port.protocol} . {port.host_port} comment "sysbox:{entry.id}"'
    return f"{key} : {entry.address} . {port.container_port}"


def text(rule: Rule) -> str:
    """One rule."""
    words = [
        _link("iifname", rule.came_by),
        _link("oifname", rule.leaves_by),
        *([f"meta nfproto ipv{rule.family}"] if rule.family else []),
        f"{_WORD[rule.family]} saddr {rule.source}" if rule.source else "",
        f"{_WORD[rule.family]} daddr {rule.destination}" if rule.destination else "",
        _transport(rule),
        {
            "": "",
            rules.KNOWN: "ct state established,related",
            rules.TRANSLATED: "ct status dnat",
        }[rule.state],
        f"meta mark set meta mark | {rules.ALLOWED:#x}"
        if rule.verdict == rules.MARK
        else rule.verdict,
    ]
    return " ".join(word for word in words if word)


def _link(word: str, name: str) -> str:
    if not name:
        return ""
    return f'{word} != "{name[1:]}"' if name[0] == "!" else f'{word} "{name}"'


def _transport(rule: Rule) -> str:
    if rule.protocol == "icmpv6":
        return f"icmpv6 type {rule.port}"
    return f"{rule.protocol} dport {rule.port}" if rule.protocol else ""

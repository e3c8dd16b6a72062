"""The rules in the words of iptables: arguments of iptables(8) and input of iptables-restore(8). Pure.

A rule is also a dictionary as python-iptables' `easy` module writes and reads it, so that rules in the kernel
can be compared with the wanted ones.
"""

from __future__ import annotations

from sysbox.netns import rules
from sysbox.netns.rules import LOOPBACK, Policy, Published, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Easy = dict[str, Any]

DNAT = "SYSBOX-DNAT"  # published ports
# (table, sysbox's chain) -> chain of `rules.chains`
CHAINS = {
    ("raw", "SYSBOX-RAW"): rules.RAW,
    ("nat", DNAT): "",
    ("nat", "SYSBOX-POSTROUTING"): rules.POSTROUTING,
    ("filter", "SYSBOX-FORWARD"): rules.FORWARD,
    ("filter", "SYSBOX-INPUT"): rules.INPUT,
}
# family -> its tables: IPv6 has no rules in raw
TABLES = {4: ("raw", "nat", "filter"), 6: ("nat", "filter")}


def families(policies: tuple[Policy, ...]) -> tuple[int, ...]:
    """The families that have rules: on a host without IPv6 networks its ip6tables is left alone."""
    return (4, 6) if any(policy.subnet6 for policy in policies) else (4,)


def table(
    family: int, name: str, policies: tuple[Policy, ...], entries: tuple[Published, ...]
) -> dict[str, list[Easy]]:
    """sysbox's chains of one table -> their rules, in order, as dictionaries."""
    all_rules = rules.chains(policies)
    made: dict[str, list[Easy]] = {}
    for (where, chain), source in CHAINS.items():
        if where == name:
            wanted = all_rules[source] if source else ()
            made[chain] = [easy(rule) for rule in wanted if rule.family in (0, family)]
    if DNAT in made:
        made[DNAT] = [dnat(entry) for entry in entries if entry.family == family]
    return made


def jumps(family: int, name: str) -> list[tuple[str, Easy, bool]]:
    """The jumps to sysbox's chains of one table: (built-in chain, the jump, whether it is the first rule).

    It is first where the host's own rules could decide before; last in nat, where other programs may have
    translations of their own.
    """
    local = {"dst-type": "LOCAL"}
    made: dict[str, list[tuple[str, Easy, bool]]] = {
        "raw": [("PREROUTING", {"target": "SYSBOX-RAW"}, True)],
        "nat": [
            # A packet from outside to a loopback address is not translated, so the kernel drops it:
            # translated, a port published on 127.0.0.1 would be open to neighbours on the LAN
            (
                "PREROUTING",
                {"dst": f"!{LOOPBACK[family]}", "addrtype": local, "target": DNAT},
                False,
            ),
            ("OUTPUT", {"addrtype": local, "target": DNAT}, False),
            ("POSTROUTING", {"target": "SYSBOX-POSTROUTING"}, False),
        ],
        "filter": [
            ("FORWARD", {"target": "SYSBOX-FORWARD"}, True),
            ("INPUT", {"target": "SYSBOX-INPUT"}, True),
        ],
    }
    return made[name]


def easy(rule: Rule) -> Easy:
    """A rule as a dictionary."""
    made: Easy = {}
    for key, value in (
        ("src", rule.source),
        ("dst", rule.destination),
        ("in-interface", rule.came_by),
        ("out-interface", rule.leaves_by),
        ("protocol", rule.protocol),
    ):
        if value:
            made[key] = value
    if rule.protocol == "icmpv6":
        made["icmp6"] = {"icmpv6-type": str(rule.port)}
    elif rule.protocol:
        made[rule.protocol] = {"dport": str(rule.port)}
    if rule.state:
        made["conntrack"] = {"ctstate": rule.state}
    return {**made, "target": rule.verdict.upper()}


def dnat(entry: Published) -> Easy:
    """The rule of one published port. Its comment names the container."""
    port = entry.port
    rule: Easy = {} if rules.is_everywhere(port) else {"dst": _whole(port.host_ip)}
    return rule | {
        "protocol": port.protocol,
        port.protocol: {"dport": str(port.host_port)},
        "comment": {"comment": f"sysbox:{entry.id}"},
        "target": {"DNAT": {"to-destination": _endpoint(entry)}},
    }


def dnat_words(entry: Published) -> list[str]:
    """The rule of `dnat` as arguments of iptables(8), without a command."""
    port = entry.port
    words = [] if rules.is_everywhere(port) else ["-d", _whole(port.host_ip)]
    words += ["-p", port.protocol, "-m", port.protocol, "--dport", str(port.host_port)]
    words += ["-m", "comment", "--comment", f"sysbox:{entry.id}"]
    return [*words, "-j", "DNAT", "--to-destination", _endpoint(entry)]


def restore_text(command: str, entries: tuple[Published, ...]) -> bytes:
    """Input of iptables-restore(8) --noflush for ports of one family: `command` is -A or -D."""
    lines = [" ".join([command, DNAT, *dnat_words(entry)]) for entry in entries]
    return "\n".join(["*nat", *lines, "COMMIT", ""]).encode("ascii")


def base_text(
    family: int, policies: tuple[Policy, ...], entries: tuple[Published, ...], saved: str
) -> bytes:
    """Input of iptables-restore(8) --noflush that makes everything, whatever there is of it.

    `saved` is what iptables-save(8) printed: a jump is deleted where it is, and made again in its place.
    """
    lines = []
    for name in TABLES[family]:
        lines.append(f"*{name}")
        wanted = table(family, name, policies, entries)
        # with --noflush this makes a chain, or empties it
        lines += [f":{chain} - [0:0]" for chain in wanted]
        lines += [
            f"-A {chain} {' '.join(words(rule))}" for chain, made in wanted.items() for rule in made
        ]
        lines += _deletions(saved, name)
        for builtin, jump, first in jumps(family, name):
            lines.append(f"{'-I' if first else '-A'} {builtin} {' '.join(words(jump))}")
        lines.append("COMMIT")
    return "\n".join([*lines, ""]).encode("ascii")


def removal_text(saved: str) -> bytes:
    """Input of iptables-restore(8) --noflush that removes sysbox's jumps and chains; b"" without any."""
    lines = []
    for name in TABLES[4]:
        there = [chain for where, chain in CHAINS if where == name and _has(saved, name, chain)]
        if there:
            lines += [f"*{name}", *_deletions(saved, name)]
            lines += [f":{chain} - [0:0]" for chain in there]
            lines += [f"-X {chain}" for chain in there]
            lines.append("COMMIT")
    return "\n".join([*lines, ""]).encode("ascii") if lines else b""


def words(rule: Easy) -> list[str]:
    """A dictionary as arguments of iptables(8), without a command."""
    made: list[str] = []
    flags = {
        "src": "-s",
        "dst": "-d",
        "in-interface": "-i",
        "out-interface": "-o",
        "protocol": "-p",
    }
    for key, flag in flags.items():
        value = rule.get(key, "")
        if value:
            made += ["!", flag, value[1:]] if value[0] == "!" else [flag, value]
    for match in ("tcp", "udp", "sctp", "icmp6", "addrtype", "conntrack", "comment"):
        for option, value in rule.get(match, {}).items():
            made += ["-m", match, f"--{option}", value]
    target = rule["target"]
    if isinstance(target, str):
        return [*made, "-j", target]
    for name, options in target.items():
        made += ["-j", name]
        for option, value in options.items():
            made += [f"--{option}", value]
    return made


def _tables(saved: str) -> dict[str, list[str]]:
    """Table -> its lines in the output of iptables-save(8)."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            current = found.setdefault(line[1:].strip(), [])
        else:
            current.append(line)
    return found


def _deletions(saved: str, name: str) -> list[str]:
    """Lines that delete every jump from a built-in chain to one of sysbox's."""
    ours = {chain for where, chain in CHAINS if where == name}
    found = []
    for line in _tables(saved).get(name, ()):
        fields = line.split()
        if fields[:1] == ["-A"] and fields[1] not in ours and fields[-2] == "-j":
            found += [f"-D {line[3:]}"] if fields[-1] in ours else []
    return found


def _has(saved: str, name: str, chain: str) -> bool:
    return any(line.startswith(f":{chain} ") for line in _tables(saved).get(name, ()))


def _whole(address: str) -> str:
    return f"{address}/128" if ":" in address else f"{address}/32"


def _endpoint(entry: Published) -> str:
    address = f"[{entry.address}]" if entry.family == 6 else entry.address
    return f"{address}:{entry.port.container_port}"

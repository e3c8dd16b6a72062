"""Which packet filter sysbox writes its rules to: the one that has rules already, else nf_tables.

A packet must be accepted by each of them. Where the host's own rules drop what they do not know, only a rule
before them in the same tables helps; and an administrator looks for rules where the others are.
"""

from __future__ import annotations

from sysbox.base.errors import KernelError, Unsupported
from sysbox.netns import nfnetlink, rules_nft, xtables
from sysbox.netns.firewall_mark import (
    AUTO,
    BACKENDS,
    IPTABLES_LEGACY,
    IPTABLES_NFT,
    NFT,
    module,
)

# the tables that iptables-nft makes in nf_tables, and the families that it makes them in
_TABLES = ("filter", "nat", "mangle", "raw", "security")
_FAMILIES = (2, 10)  # NFPROTO_IPV4, NFPROTO_IPV6
_BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
# tables that come and go by themselves, and say nothing of the administrator's choice
_TRANSIENT = (rules_nft.TABLE, "io.systemd.nat")
_OURS = "SYSBOX-"


def choose(asked: str, host: tuple[str, str] = ("", "")) -> tuple[str, str]:
    """(backend, why) for this network namespace; `asked` is Firewall= of sysbox.conf, `host` the program that
    governs it and the backend that this one needs (`host_firewall.find`).

    Raises Unsupported where the host has none of them, or not the one that was asked for.
    """
    if asked != AUTO:
        lacking = module(asked).lacking()
        if lacking:
            raise Unsupported(
                f"the packet filter: Firewall={asked} in sysbox.conf: {lacking}",
                hint="install it, or set Firewall=auto",
            )
        return asked, "Firewall= in sysbox.conf"
    preferred = [(name, f"it has {found}") for name, found in with_rules().items()]
    others = [(name, "no packet filter had rules") for name in BACKENDS]
    program, needed = host
    if program:
        preferred.insert(0, (needed, f"{program} is running"))
    problems = {}
    for name, why in (*preferred, *others):
        problems[name] = module(name).lacking()
        if not problems[name]:
            return name, why
    raise Unsupported(
        f"the packet filter: {', '.join(problems.values())}",
        hint="install the package `nftables` or `iptables`, or use --network host or none",
    )


def with_rules() -> dict[str, str]:
    """Backend -> what of others it has in this network namespace; those that need sysbox's rules first."""
    found = {}
    legacy = _legacy()
    if legacy:
        found[IPTABLES_LEGACY] = legacy
    try:
        with nfnetlink.Socket() as wire:
            chains = [one for one in wire.chains() if one.table not in _TRANSIENT]
    except KernelError:
        return found  # ignoring: this kernel has no nf_tables, and so no rules in it
    ours = [one for one in chains if one.name.startswith(_OURS)]
    chains = [one for one in chains if one not in ours]
    # a chain of iptables-nft that has nothing but the jumps to sysbox's does not count
    compat = [one for one in chains if _is_compat(one)]
    count = sum(one.used for one in compat) - (len(ours) + 1 if ours else 0)
    if count > 0 or any(one.drops for one in compat):
        found[IPTABLES_NFT] = f"rules of iptables-nft ({compat[0].table})"
    native = [one for one in chains if one not in compat and (one.used or one.drops)]
    own = [one for one in native if one.family not in _FAMILIES or one.table not in _TABLES]
    if own:
        found[NFT] = f"the table {own[0].table}"
    return found


def chains_of(name: str) -> list[str]:
    """The flavours of iptables, as backends, in which FORWARD of IPv4 jumps to this chain of others."""
    found = []
    try:
        with nfnetlink.Socket() as wire:
            there = [one for one in wire.chains() if one.name == name and one.used]
    except KernelError:
        there = []  # ignoring: this kernel has no nf_tables
    if any(one.family == _FAMILIES[0] and one.table in _TABLES for one in there):
        found.append(IPTABLES_NFT)
    legacy = xtables.read(4, "filter")
    if legacy and ("FORWARD", name) in legacy.jumps:
        found.append(IPTABLES_LEGACY)
    return found


def _is_compat(one: nfnetlink.Chain) -> bool:
    return one.family in _FAMILIES and one.table in _TABLES and one.name in _BUILT_IN


def _legacy() -> str:
    for family in (4, 6):
        for name in xtables.tables(family):
            try:
                found = xtables.read(family, name)
            except KernelError:
                continue  # ignoring: what cannot be read is not known to have rules
            if found is None:
                continue
            ours = [chain for _, chain in found.jumps if chain.startswith(_OURS)]
            if found.drops or found.rules > len(ours):
                return f"rules in the legacy table {name}"
    return ""

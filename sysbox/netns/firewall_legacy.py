"""iptables' legacy tables: the rules of IPv4 by python-iptables, those of IPv6 and ports by restore programs.

python-iptables knows only the legacy tables, has no MASQUERADE for IPv6, and does not take the lock of the
iptables programs, so this module takes it. Importing it costs a quarter of a second, so the start of a
container only looks whether the jumps are there.
"""

from __future__ import annotations

from sysbox.base.errors import KernelError, SysboxError, Unsupported
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.host import exists
from sysbox.linux.process import find_program, spawn
from sysbox.netns import firewall_iptables, rules_iptables, xtables
from sysbox.netns.rules import Policy, Published

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.netns.rules_iptables import Easy

XTABLES_LOCK = "/run/xtables.lock"  # iptables(8), -w
_HINT = "install the package `iptables` (its legacy programs), or use --network host or none"


def lacking() -> str:
    """Why the legacy tables cannot be used on this host, or ""."""
    program = "iptables-legacy-restore"
    return "" if "/" in find_program(program) else f"{program} is not installed"


def in_place(policies: tuple[Policy, ...]) -> bool:
    """Whether the jumps to sysbox's chains are there. Raises KernelError."""
    for family in rules_iptables.families(policies):
        for name in rules_iptables.TABLES[family]:
            found = xtables.read(family, name)
            wanted = {
                (builtin, jump["target"]) for builtin, jump, _ in rules_iptables.jumps(family, name)
            }
            if found is None or not wanted <= set(found.jumps):
                return False
    return True


def apply(policies: tuple[Policy, ...], entries: tuple[Published, ...]) -> None:
    """Make all rules, each table in at most one commit.

    Raises Unsupported, SysboxError, Conflict where another program holds the lock for half a minute.
    """
    iptc = _import()
    with _xtables_lock():
        try:
            for name in rules_iptables.TABLES[4]:
                _apply_table(iptc, name, rules_iptables.table(4, name, policies, entries))
        finally:
            _close_tables(iptc)
    if 6 in rules_iptables.families(policies):
        firewall_iptables.apply_family(6, firewall_iptables.LEGACY, policies, entries)


def publish(entries: tuple[Published, ...]) -> bool:
    """Add ports; False where a chain is missing. Raises Unsupported."""
    return firewall_iptables.publish(entries, firewall_iptables.LEGACY)


def withdraw(entries: tuple[Published, ...]) -> bool:
    """Remove ports; False where not all could be removed. Raises Unsupported."""
    return firewall_iptables.withdraw(entries, firewall_iptables.LEGACY)


def remove() -> None:
    """Remove all chains of sysbox. Raises Unsupported, SysboxError, Conflict."""
    if xtables.tables(6):
        firewall_iptables.remove_family(6, firewall_iptables.LEGACY)
    there = [name for name in rules_iptables.TABLES[4] if name in xtables.tables(4)]
    if not there:
        return
    iptc = _import()
    with _xtables_lock():
        try:
            for name in there:
                _remove_table(iptc, name)
        finally:
            _close_tables(iptc)


def _xtables_lock() -> Lock:
    """The lock of the iptables programs, whose file the first user creates.

    Where sysbox creates it, the file gets its label from the policy: otherwise SELinux would deny it to
    iptables.
    """
    if exists(XTABLES_LOCK) or not exists("/sys/fs/selinux/enforce"):
        return Lock(XTABLES_LOCK, timeout=BRIEFLY)
    with Lock(XTABLES_LOCK, timeout=BRIEFLY):
        try:
            spawn(["restorecon", XTABLES_LOCK])
        except KernelError:
            pass  # ignoring: without restorecon(8) the policy may still allow the access
    return Lock(XTABLES_LOCK, timeout=BRIEFLY)


def _import() -> Any:
    """Import python-iptables. Raises Unsupported."""
    from sysbox.base import program

    program.load_site()
    import os
    import sys

    if "XTABLES_LIBDIR" not in os.environ:
        # without it python-iptables runs ldconfig, which takes longer than making all rules
        machine = getattr(sys.implementation, "_multiarch", "")
        for directory in (f"/usr/lib/{machine}/xtables", "/usr/lib64/xtables", "/usr/lib/xtables"):
            if os.path.isdir(directory):
                os.environ["XTABLES_LIBDIR"] = directory
                break
    try:
        import iptc
        import iptc.easy
    except Exception as error:  # noqa: BLE001 (its import raises errors of many types)
        raise Unsupported(
            f"the packet filter: cannot load python-iptables: {error}", hint=_HINT
        ) from None
    return iptc


def _close_tables(iptc: Any) -> None:
    """Close all tables, and drop uncommitted changes.

    All are closed together and removed from the library's cache: it reads every cached table whenever it
    makes a rule, and reading a closed one crashes the process.
    """
    for table in iptc.Table._cache.values():
        table.close()
    iptc.Table._cache.clear()


def _open_table(iptc: Any, name: str) -> Any:
    try:
        table = iptc.Table(name, autocommit=False)
        table.refresh()
    except iptc.IPTCError as error:
        raise Unsupported(
            f"the packet filter: no legacy iptables table '{name}': {error}",
            hint="load the kernel modules ip_tables, iptable_nat, iptable_filter and iptable_raw",
        ) from None
    return table


def _apply_table(iptc: Any, name: str, wanted: dict[str, list[Easy]]) -> None:
    """Make one table's chains and jumps as wanted, in at most one commit.

    Raises SysboxError, Unsupported.
    """
    table = _open_table(iptc, name)
    changed = False
    try:
        for chain_name, chain_rules in wanted.items():
            if not table.is_chain(chain_name):
                table.create_chain(chain_name)
                changed = True
            chain = iptc.Chain(table, chain_name)
            if [_read(iptc, rule) for rule in chain.rules] != chain_rules:
                chain.flush()
                for rule in chain_rules:
                    chain.append_rule(_rule(iptc, rule))
                changed = True
        for builtin, jump, first in rules_iptables.jumps(4, name):
            changed |= _ensure_jump(iptc, iptc.Chain(table, builtin), jump, first=first)
        if changed:
            table.commit()
    except iptc.IPTCError as error:
        raise SysboxError(f"the packet filter: table {name}: {error}") from None


def _ensure_jump(iptc: Any, chain: Any, jump: Easy, *, first: bool) -> bool:
    mine = [rule for rule in chain.rules if rule.target and rule.target.name == jump["target"]]
    if len(mine) == 1 and _read(iptc, mine[0]) == jump:
        return False
    for rule in mine:
        chain.delete_rule(rule)
    if first:
        chain.insert_rule(_rule(iptc, jump))
    else:
        chain.append_rule(_rule(iptc, jump))
    return True


def _remove_table(iptc: Any, name: str) -> None:
    table = _open_table(iptc, name)
    ours = [
        chain for where, chain in rules_iptables.CHAINS if where == name and table.is_chain(chain)
    ]
    try:
        for builtin, jump, _ in rules_iptables.jumps(4, name):
            chain = iptc.Chain(table, builtin)
            for rule in chain.rules:
                if rule.target and rule.target.name == jump["target"]:
                    chain.delete_rule(rule)
        for chain_name in ours:
            iptc.Chain(table, chain_name).flush()
            table.delete_chain(chain_name)
        if ours:
            table.commit()
    except iptc.IPTCError as error:
        raise SysboxError(f"the packet filter: table {name}: {error}") from None


def _rule(iptc: Any, wanted: Easy) -> Any:
    """The library's object for a rule. Raises Unsupported.

    It is read back and compared: the library silently leaves out what it cannot express, and a rule without
    its match would apply to all packets.
    """
    rule = iptc.easy.encode_iptc_rule(dict(wanted))
    made = _read(iptc, rule)
    if made != wanted:
        raise Unsupported(
            f"the packet filter: cannot express {wanted}, only {made}",
            hint="the match extensions of iptables are missing on this host",
        )
    return rule


def _read(iptc: Any, rule: Any) -> Easy:
    fields: Easy = iptc.easy.decode_iptc_rule(rule)
    fields.pop("counters", None)
    return fields

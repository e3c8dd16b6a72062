"""The packet filter: base rules by python-iptables once per boot, ports by iptables-restore.

python-iptables knows only the legacy tables, and does not take the lock of the iptables programs, so this
module takes it. Importing it costs a quarter of a second, so the start of a container only reads a mark: the
inode of the network namespace, and the bridges whose rules are in place there.
"""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.errors import KernelError, SysboxError, Unsupported
from sysbox.base.files import read_file, write_file
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.host import exists
from sysbox.netns import ports, rules
from sysbox.netns.rules import Policy, Published
from sysbox.netns.topology import NetPlan
from sysbox.spec import Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MARK = f"{paths.NETWORK}/rules"
XTABLES_LOCK = "/run/xtables.lock"  # iptables(8), -w
_LOCK = f"{paths.NETWORK}/firewall.lock"
_WAIT = "30"  # seconds that iptables waits for its lock
_RESOURCE_PROBLEM = 4  # exit status of iptables where it cannot get its lock or the kernel's tables
_PROGRAMS = ("/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin")
_HINT = "install the package `iptables` (its legacy programs), or use --network host or none"


def ensure(plan: NetPlan) -> None:
    """Make sure that the rules of the plan's bridges are in place; reads only the mark if that lists them.

    Raises Unsupported where the kernel or the host has no legacy iptables, Conflict where another program
    holds a lock for half a minute, KernelError, SysboxError.
    """
    policies = rules.policies_of(plan)
    if not policies or set(policies) <= set(_marked_policies()):
        return
    with Lock(_LOCK, timeout=BRIEFLY):
        mine = {one.bridge for one in policies}
        others = tuple(other for other in _marked_policies() if other.bridge not in mine)
        _apply((*others, *policies), ports.load())


def publish(plan: NetPlan, address: str) -> tuple[Port, ...]:
    """Publish the plan's ports at the container's address; returns them with the host port of each.

    Raises Conflict where a port is taken, Unsupported, KernelError, SysboxError.
    """
    if not plan.ports:
        return ()
    unpublish(plan.id)
    with Lock(_LOCK, timeout=BRIEFLY):
        others = ports.load()
        resolved = ports.resolve(plan.ports, others)
        mine = tuple(Published(id=plan.id, address=address, port=port) for port in resolved)
        # the record first: after a crash gc finds the rules to remove
        ports.store(others + mine)
        try:
            if _restore(rules.restore_text("-A", mine)):
                # another program removed sysbox's chains: make all rules again, including these
                _apply(_marked_policies() or rules.policies_of(plan), others + mine)
        except SysboxError:
            ports.store(others)
            raise
    _forget_flows(resolved)
    return resolved


def unpublish(container_id: str) -> None:
    """Remove the container's published ports; missing rules are success."""
    if any(entry.id == container_id for entry in ports.load()):
        _withdraw(lambda one: one == container_id)


def reclaim(is_alive: Callable[[str], bool]) -> list[str]:
    """Unpublish the ports of all containers that are not alive; returns their ids.

    `is_alive` is called under the lock, while no other process can publish a port; it must return True for a
    container that is starting.
    """
    return _withdraw(lambda one: not is_alive(one)) if ports.load() else []


def _withdraw(is_meant: Callable[[str], bool]) -> list[str]:
    with Lock(_LOCK, timeout=BRIEFLY):
        entries = ports.load()
        meant = [one for one in sorted({entry.id for entry in entries}) if is_meant(one)]
        mine = tuple(entry for entry in entries if entry.id in meant)
        others = tuple(entry for entry in entries if entry.id not in meant)
        if mine and _restore(rules.restore_text("-D", mine)):
            # a missing rule fails the whole transaction, so remove each by itself
            results = [_restore(rules.restore_text("-D", (entry,))) for entry in mine]
            if _RESOURCE_PROBLEM in results:
                _apply(_marked_policies(), others)
        if mine:
            ports.store(others)
    _forget_flows(tuple(entry.port for entry in mine))
    return meant


def remove() -> None:
    """Remove all rules of sysbox. The caller has unpublished all ports."""
    with Lock(_LOCK, timeout=BRIEFLY), _xtables_lock():
        iptc = _import()
        try:
            _remove_rules(iptc)
        finally:
            _close_tables(iptc)
        write_file(MARK, b"")


def _forget_flows(of: tuple[Port, ...]) -> None:
    udp = {port.host_port for port in of if port.protocol == "udp"}
    if udp:
        from sysbox.netns import conntrack

        conntrack.forget_udp(udp)


def _marked_policies() -> tuple[Policy, ...]:
    """The policies whose rules are in place in this network namespace."""
    lines = (read_file(MARK) or b"").decode("ascii", "replace").splitlines()
    if not lines or lines[0] != _namespace():
        return ()
    try:
        return tuple(Policy.read(line) for line in lines[1:])
    except ValueError:  # damaged: the rules are made again
        return ()


def _namespace() -> str:
    try:
        return str(posix.stat("/proc/self/ns/net").st_ino)
    except OSError as error:
        raise KernelError.of("look at", "/proc/self/ns/net", error) from None


def _apply(policies: tuple[Policy, ...], entries: tuple[Published, ...]) -> None:
    from sysbox.netns import links  # most starts find their rules in place and do not need it

    links.enable_forwarding()
    iptc = _import()
    wanted = rules.chains(policies, entries)
    with _xtables_lock():
        try:
            for table in rules.TABLES:
                _apply_table(iptc, table, wanted[table])
        finally:
            _close_tables(iptc)
    lines = [_namespace(), *(policy.line() for policy in policies)]
    write_file(MARK, ("\n".join(lines) + "\n").encode("ascii"))


def _xtables_lock() -> Lock:
    """The lock of the iptables programs, whose file the first user creates.

    Where sysbox creates it, the file gets its label from the policy: otherwise SELinux would deny it to
    iptables.
    """
    if exists(XTABLES_LOCK) or not exists("/sys/fs/selinux/enforce"):
        return Lock(XTABLES_LOCK, timeout=BRIEFLY)
    from sysbox.linux.process import spawn

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


def _close_tables(iptc: Any) -> None:
    """Close all tables, and drop uncommitted changes.

    All are closed together and removed from the library's cache: it reads every cached table whenever it
    makes a rule, and reading a closed one crashes the process.
    """
    for table in iptc.Table._cache.values():
        table.close()
    iptc.Table._cache.clear()


def _apply_table(iptc: Any, name: str, wanted: dict[str, list[rules.Rule]]) -> None:
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
        for builtin, jump, first in rules.jumps()[name]:
            changed |= _ensure_jump(iptc, iptc.Chain(table, builtin), jump, first=first)
        if changed:
            table.commit()
    except iptc.IPTCError as error:
        raise SysboxError(f"the packet filter: table {name}: {error}") from None


def _ensure_jump(iptc: Any, chain: Any, jump: rules.Rule, *, first: bool) -> bool:
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


def _remove_rules(iptc: Any) -> None:
    for name, jumps in rules.jumps().items():
        table = _open_table(iptc, name)
        ours = [chain for chain in rules.chains((), ())[name] if table.is_chain(chain)]
        try:
            for builtin, jump, _ in jumps:
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


def _rule(iptc: Any, wanted: rules.Rule) -> Any:
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


def _read(iptc: Any, rule: Any) -> rules.Rule:
    fields: rules.Rule = iptc.easy.decode_iptc_rule(rule)
    fields.pop("counters", None)
    return fields


def _restore(text: bytes) -> int:
    """Run iptables-legacy-restore --noflush; its exit status. Raises Unsupported where there is none."""
    from sysbox.linux.process import spawn

    for directory in _PROGRAMS:
        path = f"{directory}/iptables-legacy-restore"
        try:
            posix.stat(path)
        except OSError:
            continue
        # its messages are dropped: a missing rule is expected, and `_apply` reports other errors
        status, _ = spawn([path, "-w", _WAIT, "--noflush"], None, text, merge_stderr=True)
        return status
    raise Unsupported("the packet filter: no iptables-legacy-restore on this host", hint=_HINT)

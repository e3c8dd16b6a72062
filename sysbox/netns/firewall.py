"""The packet filter: rules of bridges when they are first needed, published ports one by one.

Which packet filter has them is decided once (`firewall_choice`) and kept in the mark (`firewall_mark`), so
the start of a container only looks whether everything is in place.
"""

from __future__ import annotations

from sysbox.base import paths
from sysbox.base.errors import SysboxError
from sysbox.base.files import unlink
from sysbox.netns import firewall_mark, ports, rules, shared_rules, topology
from sysbox.netns.firewall_mark import BACKENDS, Mark, module
from sysbox.netns.rules import Policy, Published
from sysbox.netns.shared_rules import Locks
from sysbox.netns.topology import NetPlan
from sysbox.spec import Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.conf.values import Settings
    from sysbox.netns.attachment import Attachment

MARK = firewall_mark.MARK
_LOCK = f"{paths.NETWORK}/firewall.lock"


def ensure(plan: NetPlan) -> None:
    """Make sure that the rules of the plan's bridges are in place; changes nothing if they are.

    Raises Unsupported where the kernel or the host has no packet filter that sysbox knows, Conflict where
    another program holds a lock for half a minute, KernelError, SysboxError.
    """
    ensure_policies(rules.policies_of(plan))


def ensure_policies(policies: tuple[Policy, ...]) -> None:
    """`ensure` for the bridges of these policies."""
    if not policies or firewall_mark.has(policies):
        return
    with Locks(_LOCK):
        # of containers that start at once, the first to get the lock has made them for all
        if not firewall_mark.has(policies):
            _apply(_with(policies), ports.load())


def publish(plan: NetPlan, address: str, address6: str = "") -> tuple[Port, ...]:
    """Publish the plan's ports at the container's addresses; returns them with the host port of each.

    Raises Conflict where a port is taken, Unsupported, KernelError, SysboxError.
    """
    if not plan.ports:
        return ()
    unpublish(plan.id)
    wanted = at_binding(plan.ports, topology.outward(plan.attachments))
    return add(plan.id, wanted, (address, address6), rules.policies_of(plan))


def at_binding(wanted: tuple[Port, ...], one: Attachment | None) -> tuple[Port, ...]:
    """The ports, those without a host address at the one that their network says (host_binding)."""
    if one is None or not one.host_binding:
        return wanted
    return tuple(
        port if port.host_ip else port.replace(host_ip=one.host_binding) for port in wanted
    )


def add(
    container_id: str,
    wanted: tuple[Port, ...],
    addresses: tuple[str, ...],
    policies: tuple[Policy, ...] = (),
) -> tuple[Port, ...]:
    """Publish ports of a container besides those that it has; returns them with the host port of each.

    `policies` are made where no rules are in place. Raises as `publish`.
    """
    with Locks(_LOCK):
        others = ports.lines()
        resolved = ports.resolve(wanted, [*others, *shared_rules.others()[1]], addresses)
        mine = rules.published(container_id, resolved, addresses)
        both = [*others, *ports.render(mine)]
        _ask_host()
        # the record first: after a crash gc finds the rules to remove
        ports.store(both)
        try:
            mark = firewall_mark.read()
            if not mark or not module(mark.backend).publish(mine):
                # another program removed sysbox's rules: make all again, including these
                _apply(_with(policies), ports.parse(both))
        except SysboxError:
            ports.store(others)
            raise
        _tell_others()
    _forget_flows(resolved)
    return resolved


def withdraw(container_id: str, unwanted: tuple[Port, ...]) -> None:
    """Unpublish some ports of a container; missing ones are success. Raises as `publish`."""
    _withdraw(container_id.__eq__, set(unwanted))


def unpublish(container_id: str) -> None:
    """Remove the container's published ports; missing rules are success."""
    if ports.has(container_id):
        _withdraw(container_id.__eq__)


def reclaim(is_alive: Callable[[str], bool]) -> list[str]:
    """Unpublish the ports of all containers that are not alive; returns their ids.

    `is_alive` is called under the lock, while no other process can publish a port; it must return True for a
    container that is starting.
    """
    return _withdraw(lambda one: not is_alive(one)) if ports.lines() else []


def release(bridge: str) -> None:
    """Remove the rules of a bridge that goes; with the last one everything, and the sysctls are as before.

    Raises as `ensure`.
    """
    with Locks(_LOCK):
        mark = firewall_mark.read()
        if not mark:
            return
        left = tuple(policy for policy in mark.policies if policy.bridge != bridge)
        if left or shared_rules.others()[0]:
            _forget(mark, bridge)
            _apply(left, ports.load(), mark)
        else:
            _remove()
        if not left:
            unlink(MARK)


def reload(settings: Settings) -> str:
    """Make all rules again, whatever has become of them; returns the packet filter, "" for no rules.

    `settings` are those of sysbox.conf: another packet filter than before gets the rules at once; with
    Firewall=auto the one that has them keeps them, unless the host has got another firewall. Raises as
    `ensure`, and Conflict where ports are published and Ports=ask has nobody to ask; all is as before then.
    """
    with Locks(_LOCK):
        mark = firewall_mark.read()
        if not mark:
            return ""
        from sysbox.netns import host_firewall

        mark = host_firewall.decide(settings, mark)
        entries = ports.load()
        if entries:
            host_firewall.require(mark)
        _apply(mark.policies, entries, mark)
        return mark.backend


def leave(name: str) -> tuple[str, ...]:
    """Forget an embedded host that has ended, and make the rules of the others again without its own.

    Called on the machine, while that host's network is known (`shared_rules`). Returns the bridges that it
    alone had rules for. Raises as `ensure`.
    """
    with Locks(_LOCK):
        mark = firewall_mark.read()
        before = {one.bridge for one in shared_rules.others()[0]}
        had = shared_rules.forget(name)
        left = {
            one.bridge for one in shared_rules.with_others(mark.policies if mark else (), ())[0]
        }
        if mark and had:
            _apply(mark.policies, ports.load(), mark)
        elif mark:
            # which packet filter all have stays known when the last one has gone
            firewall_mark.write(mark)
        elif had:
            policies, entries = shared_rules.with_others((), ())
            backend = firewall_mark.shared_backend()
            if not policies:
                _remove()
            elif backend:
                module(backend).apply(policies, entries)
    return tuple(sorted(before - left))


def remove() -> None:
    """Remove all rules of sysbox from each packet filter. The caller has unpublished all ports."""
    with Locks(_LOCK):
        _remove()


def _remove() -> None:
    from sysbox.netns import forwarding

    _forget(firewall_mark.read())
    for name in BACKENDS:
        backend = module(name)
        if not backend.lacking():
            backend.remove()
    unlink(MARK)
    shared_rules.choose("")
    forwarding.restore()


def _forget(mark: Mark | None, bridge: str = "") -> None:
    if mark and mark.host:
        from sysbox.netns import host_firewall  # most hosts have no other program for it

        host_firewall.forget(mark, bridge)


def _ask_host() -> None:
    """Raises Conflict where Ports=ask has nobody to ask."""
    mark = firewall_mark.read()
    if mark and mark.ask:
        from sysbox.netns import host_firewall  # only with Ports=ask

        host_firewall.require(mark)


def _withdraw(is_meant: Callable[[str], bool], unwanted: set[Port] | None = None) -> list[str]:
    """Remove ports of the containers that are meant, all or the unwanted ones; the containers' ids."""
    with Locks(_LOCK):
        before = ports.lines()
        ids = {one for one in {ports.owner(line) for line in before} if is_meant(one)}
        mine = ports.parse([line for line in before if ports.owner(line) in ids])
        if unwanted is not None:
            mine = tuple(entry for entry in mine if entry.port in unwanted)
        gone = set(ports.render(mine))
        others = [line for line in before if line not in gone]
        if mine:
            mark = firewall_mark.read()
            if mark and not module(mark.backend).withdraw(mine):
                _apply(mark.policies, ports.parse(others), mark)
            ports.store(others)
            _tell_others()
    _forget_flows(tuple(entry.port for entry in mine))
    return sorted({entry.id for entry in mine})


def _forget_flows(of: tuple[Port, ...]) -> None:
    udp = {port.host_port for port in of if port.protocol == "udp"}
    if udp:
        from sysbox.netns import conntrack

        conntrack.forget_udp(udp)


def _with(policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
    """The policies that are in place, and these in place of older ones of their bridges."""
    mark = firewall_mark.read()
    mine = {one.bridge for one in policies}
    others = mark.policies if mark else ()
    return (*(other for other in others if other.bridge not in mine), *policies)


def _apply(
    policies: tuple[Policy, ...], entries: tuple[Published, ...], mark: Mark | None = None
) -> None:
    """Make all rules in the packet filter of the mark, or in one that is chosen now; no other keeps any."""
    from sysbox.netns import forwarding  # most starts find their rules in place and do not need it

    forwarding.enable(ipv6=any(policy.subnet6 for policy in policies))
    known = firewall_mark.read()
    before = known.backend if known else firewall_mark.shared_backend()
    mark = mark or known
    if mark is None:
        from sysbox.conf.settings import settings
        from sysbox.netns import host_firewall

        mark = host_firewall.decide(settings())
        if entries:
            host_firewall.require(mark)
    mark = mark.replace(policies=mark.settled(policies))
    if mark.host:
        from sysbox.netns import host_firewall

        # before sysbox's rules: where it refuses, they stay as they are
        host_firewall.tell(mark)
    module(mark.backend).apply(*shared_rules.with_others(mark.policies, entries))
    firewall_mark.write(mark)
    shared_rules.choose(mark.backend)
    _tell_others()
    if before not in ("", mark.backend):
        # only now: a packet is never without rules
        module(before).remove()


def _tell_others() -> None:
    mark = firewall_mark.read()
    shared_rules.announce(mark.policies if mark else (), ports.lines())


def share() -> None:
    """Tell embedded hosts on this network what this machine has; before the first one boots."""
    with Locks(_LOCK):
        mark = firewall_mark.read()
        if mark:
            shared_rules.choose(mark.backend)
        _tell_others()

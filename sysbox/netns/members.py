"""A container joins its networks, and leaves them: the first one makes the bridge, the last one removes it.

An address is leased before the bridge and the rules are made, and released before they are removed, both
under the network's lock: so what a starting container has found there stays. The bridge of the network
`bridge` stays for good.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, NotFound
from sysbox.base.files import read_file, unlink, write_file
from sysbox.host import exists, read_text
from sysbox.linux import _sys, process
from sysbox.netns import firewall_mark, leases, links, rules
from sysbox.netns.network import BRIDGE, vlan_of
from sysbox.netns.topology import bridge_mac, shares_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from typing import NoReturn

    from sysbox.base.flock import Held
    from sysbox.netns.attachment import Attachment
    from sysbox.netns.network import Network
    from sysbox.netns.topology import NetPlan


class Rest:
    """What else is to be done where the last container of a network has ended, under a lock of its own."""

    def __init__(self, lock: Held, work: Callable[[], None]) -> None:
        self.lock = lock
        self.work = work
        self.left = False  # to a child

    def finish(self) -> None:
        """Do it, unless a child does."""
        if not self.left:
            self.left = True
            try:
                self.work()
            finally:
                self.lock.release()


def join(plan: NetPlan) -> tuple[tuple[Attachment, ...], tuple[int, ...]]:
    """(the plan's attachments with their addresses, the interface indexes of the bridges and parents).

    They and the rules are in place then. What is leased is released by `leave`, also after an error. Raises
    Conflict for an address that is taken, a subnet that the host uses or a network that is full, NotFound for
    a network that was removed, Unsupported, KernelError.
    """
    attached = tuple(lease(plan.id, one) for one in plan.attachments)
    bridges = tuple(links.near(one) for one in attached)
    policies = rules.policies_of(plan)
    if policies and not firewall_mark.has(policies):
        from sysbox.netns import firewall  # the first container of a network needs it

        firewall.ensure_policies(policies)
    return attached, bridges


def lease(container_id: str, attachment: Attachment) -> Attachment:
    """The attachment with its addresses, which the container has from now on. Raises as `join` does."""
    network_id = attachment.network_id
    with leases.NetworkLock(network_id):
        if not network_id:
            return _lease(container_id, attachment)
        try:
            _note_bridge(attachment)
            if attachment.driver == BRIDGE:
                return _lease(container_id, attachment)
            return _lease_below(container_id, attachment)
        except BaseException:
            if not users(network_id):
                take_down(network_id)
            raise


def _lease_below(container_id: str, one: Attachment) -> Attachment:
    """The addresses of a link below one of the host's, and its MAC."""
    from sysbox.netns import parents  # which few containers need

    others = [other for other in users(one.network_id) if other != container_id]
    if one.mode == "passthru" and others:
        raise Conflict(
            f"network {one.network}: passthru allows one container, and {others[0][:12]} is on it",
            hint="stop that container, or make a network of another mode",
        )
    parents.note(one)
    if shares_mac(one):
        # of a VLAN that is made only later: it has the MAC of its link
        one = one.replace(mac=parents.mac_of(one.parent) or parents.mac_of(vlan_of(one.parent)[0]))
    return _lease(container_id, one, parents.host_addresses())


def _lease(container_id: str, one: Attachment, host: AbstractSet[str] = frozenset()) -> Attachment:
    address6 = ""
    address = leases.lease(
        one.network_id, container_id, one.subnet, one.gateway,
        ip_range=one.ip_range, wanted=one.address, host=host,
    )  # fmt: skip
    if one.subnet6:
        address6 = leases.lease(
            one.network_id, container_id, one.subnet6, one.gateway6,
            ip_range=one.ip_range6, wanted=one.address6, host=host,
        )  # fmt: skip
    return one.replace(address=address, address6=address6)


def _note_bridge(attachment: Attachment) -> None:
    """Keep the bridge's name for the end, when the definition may be gone. Raises NotFound."""
    from sysbox.netns import networks  # the network `bridge` has no definition

    if networks.load(attachment.network).id != attachment.network_id:
        raise NotFound(
            f"the network {attachment.network} was removed, and another one has its name now",
            hint="start the container again",
        )
    path = _bridge_file(attachment.network_id)
    if attachment.bridge and read_file(path) is None:
        write_file(path, f"{attachment.bridge} {attachment.gateway}".encode("ascii"))


def leave(container_id: str, *, behind: bool = False, rest: Rest | None = None) -> None:
    """Release what a container has of all networks, and finish `rest`; nothing is success.

    With `behind` a child goes on to do the rest and to remove bridges, which takes the kernel as long as all
    the rest of an end: for a process that is about to exit. Raises KernelError.
    """
    try:
        from sysbox.netns import firewall  # a start does not need it

        firewall.unpublish(container_id)
        leases.release(container_id)
        for network_id in leases.in_use():
            leave_one(container_id, network_id, behind=behind, rest=rest)
    finally:
        if rest:
            rest.finish()


def leave_one(
    container_id: str, network_id: str, *, behind: bool = False, rest: Rest | None = None
) -> None:
    """Release what a container has of one network; the last one removes the network's bridge."""
    if not network_id:
        leases.release(container_id)
    elif any(container_id in leases.all(network_id, family) for family in (4, 6)):
        _drop(network_id, (container_id,).__contains__, behind=behind, rest=rest)


def reclaim(is_alive: Callable[[str], bool]) -> list[str]:
    """Release the addresses of all containers that are not alive; their ids, each once.

    `is_alive` is called under a network's lock; it must return True for a container that is starting.
    """
    dead = leases.reclaim(is_alive)
    for network_id in leases.in_use():
        dead += _drop(network_id, lambda one: not is_alive(one))
    return list(dict.fromkeys(dead))


def remove_stale(network: Network) -> bool:
    """Remove the link of a network without containers, which a killed command has left; whether it did.

    Another program's link of that name stays: sysbox's bridge has a MAC made from the gateway's address, and
    a parent an alias.
    """
    if network.driver != BRIDGE:
        return _remove_stale_parent(network)
    if not exists(f"/sys/class/net/{network.bridge}/bridge"):
        return False
    with leases.NetworkLock(network.id):
        stale = not users(network.id) and _is_ours(network.bridge, network.gateway)
        if stale:
            links.remove_link(network.bridge)
        if not users(network.id):
            take_down(network.id)
        return stale


def _remove_stale_parent(network: Network) -> bool:
    from sysbox.netns import parents

    if not network.parent or not parents.is_ours(network.parent, network.id):
        return False
    with leases.NetworkLock(network.id):
        stale = not users(network.id)
        if stale:
            links.remove_link(network.parent)
            take_down(network.id)
        return stale


def users(network_id: str) -> list[str]:
    """The ids of the containers that have an address of a network."""
    return list(
        {**leases.all(network_id), **leases.all(network_id, 6)} if network_id else leases.all()
    )


def _drop(
    network_id: str,
    is_meant: Callable[[str], bool],
    *,
    behind: bool = False,
    rest: Rest | None = None,
) -> list[str]:
    lock = leases.NetworkLock(network_id)
    rest = None if rest and rest.left else rest
    try:
        dropped = leases.drop(network_id, is_meant)
        last = not users(network_id)
        if last and not behind:
            take_down(network_id)
        elif last and posix.fork() == 0:
            _take_down_and_exit(network_id, lock, rest)
    except BaseException:
        lock.release()
        raise
    if last and behind:
        lock.leave_to_child()
        if rest:
            rest.left = True
            rest.lock.leave_to_child()
    else:
        lock.release()
    return dropped


def _take_down_and_exit(network_id: str, lock: Held, rest: Rest | None) -> NoReturn:
    """In a child that holds the locks: who waits for the parent's output, or sends its group a signal, does
    not mean this one.
    """
    try:
        posix.setsid()
        null = posix.open("/dev/null", posix.O_RDWR)
        for number in range(3):
            posix.dup2(null, number)
        held = {lock.fileno(), rest.lock.fileno()} if rest else {lock.fileno()}
        process.close_fds_except(held)
        if rest:
            rest.finish()
        take_down(network_id)
    except BaseException:  # noqa: BLE001 (there is nobody to tell; `gc` finds the bridge)
        pass  # ignoring: see above
    _sys.leave(0)


def take_down(network_id: str) -> None:
    """Remove what a network has while containers are on it; nothing is success. The caller holds its lock.

    Another program's link of the bridge's name stays, as after a start that was refused for it.
    """
    path = _bridge_file(network_id)
    name, _, gateway = (read_file(path) or b"").decode("ascii", "replace").partition(" ")
    if name:
        if _is_ours(name, gateway):
            links.remove_link(name)
        unlink(path)
    else:
        from sysbox.netns import parents

        if parent := parents.noted(network_id):
            links.remove_link(parent)
    leases.forget(network_id)


def _is_ours(name: str, gateway: str) -> bool:
    """Whether a link is the bridge that sysbox makes for a gateway; "" is any, from an older version."""
    directory = f"/sys/class/net/{name}"
    mac = bridge_mac(gateway) if gateway else bridge_mac("0.0.0.0").removesuffix(":00" * 4)
    return exists(f"{directory}/bridge") and read_text(f"{directory}/address").startswith(mac)


def _bridge_file(network_id: str) -> str:
    return f"{leases.directory(network_id)}/bridge"

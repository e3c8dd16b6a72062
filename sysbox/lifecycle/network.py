"""Make, look at and remove networks."""

from __future__ import annotations

from sysbox.base.errors import (
    Conflict,
    FormatError,
    NotFound,
    SpecError,
    SysboxError,
    Unsupported,
    UsageError,
    in_use,
)
from sysbox.base.frozen import Frozen
from sysbox.container import events, identity, pods, store
from sysbox.host import exists, read_text
from sysbox.lifecycle import network_drivers, network_look
from sysbox.lifecycle.prune import Removed
from sysbox.netns import firewall, leases, members, network, networks, subnets, sysctls
from sysbox.netns.network import BELOW, BRIDGE, NULL, Network
from sysbox.netns.topology import SUBNETS
from sysbox.parse.network_options import parse_options
from sysbox.spec import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.lifecycle.prune import Needed, Wanted

# the subnets of networks that name none: /22, as many addresses as a bridge has ports, from the first on
_POOL = ("10.100.0.0", "10.255.252.0", 22)


class Wish(Frozen):
    """What `network create` asks for; addresses and subnets of both families, in any order."""

    name: str
    driver: str = "bridge"
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ip_ranges: tuple[str, ...] = ()
    ipv6: bool = False
    internal: bool = False
    dns: bool = True
    dns_servers: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    bridge: str = ""  # of --interface-name
    options: tuple[str, ...] = ()  # NAME=VALUE
    labels: dict[str, str] = {}  # noqa: RUF012


def create(wish: Wish) -> Network:
    """Define a network; nothing of it is made before its first container starts.

    Raises Conflict for a name, a link or a subnet that is in use, SpecError, Unsupported, KernelError.
    """
    networks.check(wish.name)
    wish = wish.replace(driver=network_drivers.driver_of(wish.driver))
    uplink = network_drivers.uplink()
    with networks.Lock():
        if networks.exists(wish.name):
            raise Conflict(
                f"network with name {wish.name} already exists",
                hint=f"`sysbox network rm {wish.name}` removes it",
            )
        made = plan(wish, identity.new_id(), _subnets_in_use(), store.now_ns(), _routes(), uplink)
        _check_bridge(made)
        network_drivers.check(made, networks.all_networks())
        networks.store(made)
        leases.announce(networks.subnets_of())
    events.emit("network", "create", made.id, {"name": made.name, "type": made.driver}, made.name)
    return made


def plan(
    wish: Wish,
    network_id: str,
    taken: list[tuple[str, str]],
    now_ns: int,
    routes: list[tuple[str, str]] = [],  # noqa: B006 (is not changed)
    uplink: str = "",
) -> Network:
    """The network that a wish leads to. Pure, but for IPv6 of the kernel.

    `taken` are (subnet, who has it) of networks, `routes` (subnet, link) of the host, `uplink` is the link of
    its default route. Raises SpecError, Conflict, Unsupported.
    """
    options, fields = parse_options(list(wish.options), driver=wish.driver)
    if wish.driver == NULL:
        network_drivers.refuse_links(wish)
    made = Network(**{
        "name": wish.name,
        "id": network_id,
        "driver": wish.driver,
        "internal": wish.internal,
        "dns": wish.dns,
        "dns_servers": wish.dns_servers,
        "routes": wish.routes,
        "options": options,
        "labels": wish.labels,
        "created_ns": now_ns,
        **_subnets(wish, network_id, taken, routes),
        **fields,
        **network_drivers.fields(wish, network_id, fields, uplink),
    })  # fmt: skip
    try:
        network.check(made)
    except SpecError as error:
        raise SpecError(f"--{error.message}", hint=error.hint) from None
    return made


def _subnets(
    wish: Wish, network_id: str, taken: list[tuple[str, str]], routes: list[tuple[str, str]]
) -> dict[str, Any]:
    """The fields about subnets, each checked against the others and against `taken`.

    Below a parent the host's own routes do not matter: its wire is that of the containers.
    """
    chosen: dict[int, str] = {}
    if wish.driver == NULL:
        return {}
    others = taken if wish.driver in BELOW else [*routes, *taken]
    for subnet in wish.subnets:
        base, bits = subnets.split(subnet)
        family = subnets.family_of(subnet)
        if family in chosen:
            raise SpecError(
                f"--subnet {subnet}: a network has one subnet of each family, {chosen[family]} is given",
                hint="make a second network",
            )
        if clash := subnets.taken(subnet, others):
            raise Conflict(f"--subnet {subnet}: overlaps {clash}", hint="choose another subnet")
        chosen[family] = f"{subnets.text_of(base, family)}/{bits}"
    if 4 not in chosen:
        chosen[4] = choose_subnet([*routes, *taken])
    if wish.ipv6 and 6 not in chosen:
        chosen[6] = network.unique_local(network_id)
    if 6 in chosen and not sysctls.has_ipv6():
        raise Unsupported("the network has IPv6, and this kernel has none", hint="leave out --ipv6")
    return _fields_of(wish, chosen)


def _fields_of(wish: Wish, chosen: dict[int, str]) -> dict[str, Any]:
    """The fields about the chosen subnets. Raises SpecError."""
    fields: dict[str, Any] = {}
    for family, subnet in chosen.items():
        end = "6" if family == 6 else ""
        fields[f"subnet{end}"] = subnet
        fields[f"gateway{end}"] = subnets.first(subnet)
    given = (("gateway", wish.gateways), ("ip-range", wish.ip_ranges))
    for what, texts in given:
        field = what.replace("-", "_")
        for text in texts:
            family = subnets.family_of(text)
            if family not in chosen:
                raise SpecError(
                    f"--{what} {text}: the network has no IPv6", hint="add --ipv6 or --subnet"
                )
            fields[f"{field}{'6' if family == 6 else ''}"] = text
    return fields


def choose_subnet(taken: list[tuple[str, str]]) -> str:
    """The first subnet of the pool that nobody has. Raises Conflict."""
    low, high, bits = _POOL
    step = 1 << (32 - bits)
    for base in range(subnets.number_of(low), subnets.number_of(high) + 1, step):
        subnet = f"{subnets.text_of(base, 4)}/{bits}"
        if not subnets.taken(subnet, taken):
            return subnet
    raise Conflict(
        f"all subnets from {low} to {high} are in use", hint="give the network one with --subnet"
    )


def _subnets_in_use() -> list[tuple[str, str]]:
    """(subnet, who has it): of the network `bridge`, and of all other networks."""
    found = [(one.subnet, "the network bridge") for one in (network_look.default_network(),)]
    found += [(subnet, "the network bridge, which may need it") for subnet in SUBNETS]
    for one in networks.all_networks():
        found += [(subnet, f"the network {one.name}") for _, subnet, _, _ in network.ends(one)]
    return found + leases.announced()


def _routes() -> list[tuple[str, str]]:
    """(subnet, link) of the host's routes."""
    return subnets.routes(read_text("/proc/net/route"), read_text("/proc/net/ipv6_route"))


def _check_bridge(made: Network) -> None:
    """Raises Conflict if another network or another program has a link of the bridge's name."""
    if made.driver != BRIDGE:
        return
    for one in (network_look.default_network(), *networks.all_networks()):
        if one.bridge == made.bridge:
            raise Conflict(
                f"the bridge {made.bridge} is that of the network {one.name}",
                hint="choose another name",
            )
    if exists(f"/sys/class/net/{made.bridge}"):
        raise Conflict(f"this host has a link {made.bridge}", hint="choose another name")


def remove(word: str) -> str:
    """Remove a network without running containers; its name. Raises NotFound, Conflict, SysboxError."""
    found = network_look.find(word)
    if isinstance(found, str):
        raise Conflict(f"{found} is a pre-defined network and cannot be removed")
    networks.refuse_declared(found.name)
    with networks.Lock(), leases.NetworkLock(found.id):
        running = members.users(found.id)
        if running:
            names = sorted(map(_name_of, running))
            one = names[0] if len(names) == 1 else "CONTAINER"
            raise in_use(
                f"network {found.name}",
                names,
                hint=f"stop {'it' if len(names) == 1 else 'them'}, or "
                f"`sysbox network disconnect {found.name} {one}`",
            )
        # rules of a bridge that is not there harm nobody, and the next start finds them in place; but now
        # no start will come
        if found.driver == BRIDGE:
            firewall.release(found.bridge)
        networks.forget(found.name)
        members.take_down(found.id)
        leases.announce(networks.subnets_of())
    events.emit(
        "network", "destroy", found.id, {"name": found.name, "type": found.driver}, found.name
    )
    return found.name


def update(
    word: str,
    *,
    labels: dict[str, str],
    without: tuple[str, ...],
    servers: tuple[str, ...],
    no_servers: tuple[str, ...],
) -> None:
    """Change the labels and DNS servers of a network; its containers ask new servers at once.

    Raises NotFound, Conflict for a built-in network, UsageError if nothing changes.
    """
    if not (labels or without or servers or no_servers):
        raise UsageError("network update: nothing to change", hint="give --label or --dns-add")
    from sysbox.run import resolver_units

    with networks.Lock():
        found = network_look.find(word)
        if isinstance(found, str):
            raise Conflict(f"{found} is a pre-defined network and cannot be changed")
        networks.refuse_declared(found.name)
        for one in no_servers:
            if one not in found.dns_servers:
                raise NotFound(f"--dns-drop {one}: is no DNS server of the network {found.name}")
        kept = {key: value for key, value in found.labels.items() if key not in without}
        asked = [one for one in (*found.dns_servers, *servers) if one not in no_servers]
        changed = found.replace(labels={**kept, **labels}, dns_servers=tuple(dict.fromkeys(asked)))
        networks.store(changed)
        resolver_units.configure(changed)
    events.emit(
        "network", "update", found.id, {"name": found.name, "type": found.driver}, found.name
    )


def remove_damaged(name: str) -> bool:
    """Remove a definition that cannot be read (`rm --force`); whether there was one."""
    if not networks.exists(name):
        return False
    try:
        networks.load(name)
        return False
    except FormatError:
        networks.refuse_declared(name)
        with networks.Lock():
            return networks.forget(name)


def _name_of(container_id: str) -> str:
    try:
        return store.load(container_id).name
    except SysboxError:
        return pods.name_of(container_id) or container_id[:12]


def prune(which: Wanted, needed: Callable[[], Needed] = dict) -> Removed:
    """Remove networks that no container is made for. `needed` tells which belong to active units.

    Raises FormatError: a record that cannot be read may be of a container on any network.
    """

    def refuse(error: FormatError) -> None:
        raise error

    specs = [one.spec for one in store.all_records(refuse)]
    specs += [one.spec for one in pods.all_pods(refuse)]
    used = {endpoint.network for spec in specs for endpoint in spec.networks}
    gone, left = [], []
    defined = networks.all_networks()
    units = needed()  # after the networks: a service that makes one meanwhile is known
    for one in defined:
        if one.name in used or not which.matches(one.created_ns / 1e9, one.labels):
            continue
        if one.name in units:
            left.append(units[one.name])
            continue
        try:
            gone.append(remove(one.name))
        except (Conflict, NotFound):
            continue  # a container has just started on it, or another command was faster
    events.pruned("network", 0)
    return Removed(names=tuple(gone), left=tuple(left))

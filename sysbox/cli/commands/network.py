"""`sysbox network create|ls|inspect|rm|exists|update|reload`."""

from __future__ import annotations

from sysbox.base.errors import NotFound, Unsupported
from sysbox.cli import standing
from sysbox.cli.each import FAILED_ONE, each, exists, inspect_each
from sysbox.cli.output import emit, line, print_list
from sysbox.docker import network as shown
from sysbox.lifecycle import network as lifecycle
from sysbox.lifecycle import network_look
from sysbox.lifecycle.network import Wish
from sysbox.netns import networks
from sysbox.netns.network import BUILTIN, Network
from sysbox.parse.filters import (
    check_bool,
    check_choice,
    grouped,
    has_label,
    matches_pattern,
    parse_bool,
)
from sysbox.parse.network import check_link, parse_ip
from sysbox.parse.network_options import parse_route
from sysbox.parse.process import parse_label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.cli.table.options import Values

_COLUMNS = (("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope"))
_HEADERS = {
    "CreatedAt": "CREATED AT",
    "Driver": "DRIVER",
    "ID": "NETWORK ID",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "Name": "NAME",
    "Scope": "SCOPE",
}
_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
_CHECKS: dict[str, Callable[[str], str]] = {
    "dangling": lambda value: check_bool("dangling", value),
    "type": lambda value: check_choice("type", value, ("custom", "builtin")),
}


def main(values: Values) -> int:
    """0, 1 if one of several could not be found or removed."""
    return _VERBS[values.verb.name.partition(" ")[2]](values)


def wish_of(values: Values) -> Wish:
    """What the flags of `network create` ask for. Raises SpecError, Unsupported."""
    _check_fixed(values)
    labels = dict(parse_label(text, "--label") for text in values.label)
    servers = tuple(parse_ip(text, "--dns") for text in values.dns)
    bridge = values.interface_name
    return Wish(
        name=values.network,
        driver=values.driver or "bridge",
        subnets=tuple(values.subnet),
        gateways=tuple(parse_ip(text, "--gateway") for text in values.gateway),
        ip_ranges=tuple(values.ip_range),
        ipv6=values.ipv6,
        internal=values.internal,
        dns=not values.disable_dns,
        dns_servers=servers,
        routes=tuple(parse_route(text, "--route") for text in values.route),
        bridge=check_link(bridge, "--interface-name") if bridge else "",
        options=tuple(values.opt),
        labels=labels,
    )


def _create(values: Values) -> int:
    wish = wish_of(values)
    if values.ignore and networks.exists(wish.name):
        line(networks.load(wish.name).id)
        return 0
    line(lifecycle.create(wish).id)
    return 0


def _check_fixed(values: Values) -> None:
    """Raises Unsupported for a flag of docker's that asks for what no network here is."""
    if values.ipam_driver not in (None, "default", "host-local"):
        raise Unsupported(f"--ipam-driver {values.ipam_driver}: there is none", hint="leave it out")
    if values.scope not in (None, "local"):
        raise Unsupported(f"--scope {values.scope}: a network is of one host", hint="leave it out")
    if not values.ipv4:
        raise Unsupported("--ipv4=false: a network has an IPv4 subnet", hint="leave it out")


def _list(values: Values) -> int:
    wanted = grouped(values.filter, _FILTERS, _CHECKS)
    damaged: list[str] = []
    rows = [
        _shorten(shown.row(one), full=values.no_trunc)
        for one in sorted(network_look.listed(damaged), key=lambda one: one.name)
        if _matches(one, wanted)
    ]
    quiet = "ID" if values.quiet else ""
    print_list(rows, _COLUMNS, headers=_HEADERS, format=values.format, quiet=quiet)
    for text in damaged:
        emit(f"sysbox: {text}\n", 2)
    return FAILED_ONE if damaged else 0


def _shorten(row: dict[str, Any], *, full: bool) -> dict[str, Any]:
    return row if full else {**row, "ID": row["ID"][:12]}


def _matches(network: Network, wanted: dict[str, list[str]]) -> bool:
    def any_of(key: str, test: Callable[[str], bool]) -> bool:
        return key not in wanted or any(test(value) for value in wanted[key])

    kind = "builtin" if network.name in BUILTIN else "custom"
    unused = (
        kind == "custom" and not network_look.users(network.name) if "dangling" in wanted else False
    )
    return (
        all(has_label(network.labels, want) for want in wanted.get("label", []))
        and any_of("driver", network.driver.__eq__)
        and any_of("id", lambda want: matches_pattern("id", want, network.id))
        and any_of("name", lambda want: matches_pattern("name", want, network.name))
        and any_of("scope", "local".__eq__)
        and any_of("type", kind.__eq__)
        and any_of("dangling", lambda want: parse_bool("dangling", want) == unused)
    )


def _found(word: str) -> Network:
    found = network_look.find(word)
    return network_look.builtin(found) if isinstance(found, str) else found


def _inspect(values: Values) -> int:
    return inspect_each(values.network, lambda word: shown.describe(_found(word)), values.format)


def _exists(values: Values) -> int:
    return exists(network_look.find, values.network)


def _remove(values: Values) -> int:
    gone: list[str] = []

    def remove(word: str) -> None:
        if values.force and lifecycle.remove_damaged(word):
            line(word)
            return
        try:
            name = lifecycle.remove(word)
        except NotFound:
            if not values.force:
                raise
            return
        gone.append(name)
        line(name)

    status = each(values.network, remove)
    standing.tell_gone(standing.NETWORK, gone)
    return status


def _update(values: Values) -> int:
    lifecycle.update(
        values.network,
        labels=dict(parse_label(text, "--label") for text in values.label),
        without=tuple(values.label_rm),
        servers=tuple(parse_ip(text, "--dns-add") for text in values.dns_add),
        no_servers=tuple(values.dns_drop),
    )
    return 0


def _reload(values: Values) -> int:
    """Prints the packet filter; nothing where no container has had a network yet."""
    del values
    from sysbox.conf.settings import settings
    from sysbox.netns import firewall  # only this verb of them changes rules
    from sysbox.run import resolver_units

    resolver_units.tell_host()
    # last: systemd drops a reload of sysbox-firewall.service that is asked for while this is still running
    backend = firewall.reload(settings())
    if backend:
        line(backend)
    return 0


_VERBS: dict[str, Callable[[Values], int]] = {
    "create": _create,
    "ls": _list,
    "inspect": _inspect,
    "exists": _exists,
    "rm": _remove,
    "update": _update,
    "reload": _reload,
}

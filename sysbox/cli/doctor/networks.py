"""The defined networks: their files, and the bridges of those that containers are on."""

from __future__ import annotations

from sysbox.base.errors import NotFound, SysboxError
from sysbox.cli.doctor.check import Check, useful
from sysbox.netns import members, networks
from sysbox.netns.network import BELOW
from sysbox.run import resolver_units
from sysbox.units import resolverplan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.netns.network import Network

_AREA = "network"


def defined() -> list[Check]:
    """A check of each network that cannot be read, or that has containers; [] without such a network."""
    damaged: list[str] = []
    try:
        found = networks.all_networks(damaged)
    except OSError:
        return []  # only root may read them
    checks = [
        useful(_AREA, "definition", text, "", "`sysbox network rm --force`") for text in damaged
    ]
    used = [one for one in found if members.users(one.id)]
    wrong = dict(resolver_units.failures()) if used else {}
    return (
        checks
        + [_check(one) for one in used]
        + [_names(one, wrong.get(one.name, "")) for one in used if one.dns]
    )


def _names(network: Network, problem: str) -> Check:
    from sysbox.resolver import probe

    taken = 0.0
    if not problem:
        taken = probe.ask(network.gateway)
        problem = "" if taken else f"its resolver at {network.gateway} does not answer"
    return useful(
        _AREA,
        f"names on {network.name}",
        problem,
        f"{network.gateway} answers in {taken * 1000:.1f} ms",
        f"`journalctl -u {resolverplan.service_unit(network.name)}` may tell why; the next start of a"
        " container on it makes the resolver anew",
    )


def _check(network: Network) -> Check:
    if network.driver in BELOW:
        return _check_parent(network)
    from sysbox.netns import bridges

    advice = f"`sysbox restart` the containers on it: {network.name} is made again with the first"
    try:
        bridge = bridges.inspect(network.bridge)
    except NotFound:
        return useful(_AREA, network.name, f"its bridge {network.bridge} is missing", "", advice)
    except SysboxError as error:
        return useful(_AREA, network.name, error.message, "", error.hint)
    wrong = "; ".join(bridges.verify(bridge, network))
    return useful(
        _AREA,
        network.name,
        wrong,
        f"{', '.join(bridge.addresses)}, {len(bridge.ports)} links",
        advice,
    )


def _check_parent(network: Network) -> Check:
    from sysbox.netns import parents

    return useful(
        _AREA,
        network.name,
        parents.problem(network),
        f"{network.driver} below {network.parent}",
        f"bring {network.parent} back, then `sysbox restart` the containers on {network.name}",
    )

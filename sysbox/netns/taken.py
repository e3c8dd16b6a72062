"""Whether other containers have the ports and addresses that a container asks for, before it is started."""

from __future__ import annotations

from sysbox.netns import leases, networks, ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.spec import ContainerSpec


def owners(spec: ContainerSpec) -> set[str]:
    """The ids of the containers that have a port or an address which it asks for.

    Raises NotFound for a network that is not there, FormatError.
    """
    found = ports.owners(spec.ports)
    found |= {leases.owner(*one) for one in _addresses(spec)}
    return found - {""}


def check(spec: ContainerSpec, without: str) -> None:
    """Raise Conflict for a port or an address that a container other than the one of id `without` has.

    A later start may still find it taken. Raises NotFound for a network that is not there, FormatError.
    """
    ports.check_others(spec.ports, without)
    for network_id, family, address in _addresses(spec):
        leases.check_others(network_id, family, address, without)


def _addresses(spec: ContainerSpec) -> Iterator[tuple[str, int, str]]:
    """(the network's id, the family, the address) of each address that it asks for."""
    for one in spec.networks:
        if not one.address and not one.address6:
            continue
        network_id = "" if one.network == "bridge" else networks.find(one.network).id
        for family, address in ((4, one.address), (6, one.address6)):
            if address:
                yield network_id, family, address

"""Whether other containers have the ports and addresses that a container asks for, before it is started."""

from __future__ import annotations

from sysbox.netns import leases, networks, ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec


def check(spec: ContainerSpec, without: str) -> None:
    """Raise Conflict for a port or an address that a container other than the one of id `without` has.

    A later start may still find it taken. Raises NotFound for a network that is not there, FormatError.
    """
    ports.check_others(spec.ports, without)
    for one in spec.networks:
        network_id = "" if one.network == "bridge" else networks.find(one.network).id
        for family, address in ((4, one.address), (6, one.address6)):
            if address:
                leases.check_others(network_id, family, address, without)

"""Publish and unpublish ports of a container, running or not.

The record has what was asked, so that the next start publishes the same. The rules are made first: a port
that is taken changes nothing.
"""

from __future__ import annotations

from sysbox.base.errors import Conflict, NotFound, SysboxError, UsageError
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.netns import firewall, links, rules, topology
from sysbox.netns import rtnetlink as rt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record, Runtime
    from sysbox.spec import Port


def publish(record: Record, wanted: tuple[Port, ...]) -> tuple[Port, ...]:
    """Publish more ports; returns them, with their host ports where the container runs.

    Raises Conflict for a port that is published already or taken, UsageError for a container without a
    network of its own, SysboxError.
    """
    with Lock(record.id):
        record = store.load(record.id)
        _need_network(record)
        runtime = _running(record)
        published = runtime.ports if runtime else record.spec.ports
        for port in wanted:
            if any(topology.ports_overlap(port, other) for other in published):
                raise Conflict(
                    f"port {topology.port_text(port)}: {record.name} publishes it already"
                )
        spec = record.spec.replace(ports=topology.check_ports((*record.spec.ports, *wanted)))
        if runtime is None:
            store.save(record.replace(spec=spec))
            return wanted
        made = _make(record, runtime, wanted)
        store.save(record.replace(spec=spec))
        return made


def unpublish(record: Record, unwanted: tuple[Port, ...]) -> None:
    """Unpublish ports. `unwanted` names ports of the host: a container port of 0 is any, and so is a host
    address of "".

    Raises NotFound for one that is not published; nothing is changed then. SysboxError.
    """
    with Lock(record.id):
        record = store.load(record.id)
        runtime = _running(record)
        published = runtime.ports if runtime else record.spec.ports
        gone: list[Port] = []
        for port in unwanted:
            found = [one for one in published if _matches(one, port)]
            if not found:
                raise NotFound(
                    f"port {_asked(port)}: {record.name} does not publish it",
                    hint=f"`sysbox port {record.name}` lists what it publishes",
                )
            gone += [one for one in found if one not in gone]
        if runtime is not None:
            firewall.withdraw(record.id, tuple(gone))
            left = tuple(port for port in runtime.ports if port not in gone)
            store.write_runtime(record, runtime.replace(ports=left))
        store.save(record.replace(spec=record.spec.replace(ports=_without(record, gone))))


def _without(record: Record, gone: list[Port]) -> tuple[Port, ...]:
    """What the next start publishes: there a free port is 0 still."""
    left = list(record.spec.ports)
    for port in gone:
        asked = [one for one in left if _became(one, port)]
        if asked:
            left.remove(port if port in asked else asked[0])
    return tuple(left)


def _became(asked: Port, port: Port) -> bool:
    """Whether a start may have published `port` for what the specification asks for."""
    return (
        (asked.container_port, asked.protocol) == (port.container_port, port.protocol)
        and asked.host_ip in ("", port.host_ip)  # "": at the address that its network says
        and (asked.host_port == 0 or _covers(asked, port.host_port))
    )


def _covers(port: Port, number: int) -> bool:
    return port.host_port <= number <= (port.host_last or port.host_port)


def _make(record: Record, runtime: Runtime, wanted: tuple[Port, ...]) -> tuple[Port, ...]:
    first = topology.publishing(runtime.attachments())
    if first is None:
        way = topology.outward(runtime.attachments())
        if way is not None:
            raise Conflict(
                f"{record.name} has its default route on {way.network}, a network of the driver {way.driver}",
                hint=f"all its ports are reachable at {way.address}",
            )
        raise Conflict(
            f"{record.name} is on no network that leads out",
            hint="`sysbox network connect` it to one that is not internal",
        )
    wanted = firewall.at_binding(wanted, first)
    addresses = (first.address, first.address6)
    policies = (rules.policy_of(first),) if first.bridge else ()
    made = firewall.add(record.id, wanted, addresses, policies)
    try:
        if first.host_link and not runtime.ports:
            # a frame of its own to its own published port goes back where it came from
            with rt.Socket() as link:
                link.request([links.bridge_port(first, hairpin=True)])
        store.write_runtime(record, runtime.replace(ports=(*runtime.ports, *made)))
    except SysboxError:
        firewall.withdraw(record.id, made)
        raise
    return made


def _running(record: Record) -> Runtime | None:
    runtime = store.runtime(record.id)
    return runtime if runtime and runtime.started_ns and runtime.alive() else None


def _need_network(record: Record) -> None:
    mode = record.spec.namespaces.network
    if mode != "bridge":
        raise UsageError(
            f"{record.name}: ports cannot be published with --network {mode}",
            hint="`host` needs none; of a joined namespace, its owner publishes them",
        )


def _matches(one: Port, asked: Port) -> bool:
    return (
        one.protocol == asked.protocol
        and (_covers(asked, one.host_port) or one.host_text == asked.host_text)
        and asked.host_ip in ("", one.host_ip)
        and asked.container_port in (0, one.container_port)
    )


def _asked(port: Port) -> str:
    address = f"[{port.host_ip}]:" if ":" in port.host_ip else port.host_ip and f"{port.host_ip}:"
    return f"{address}{port.host_text}/{port.protocol}"

"""`sysbox network connect` and `disconnect`: change the networks of a container, running or not.

The record keeps the change for the next start. Of a running container the run is recorded before a link is
made, so that what a killed command leaves can be disconnected.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, FormatError, NotFound, SysboxError
from sysbox.base.files import read_file, write_all
from sysbox.base.undo import Undo
from sysbox.container import events, store
from sysbox.container.locks import Lock
from sysbox.host import probe
from sysbox.lifecycle import network_look
from sysbox.linux.namespace import open_ns
from sysbox.netns import dns, firewall, inside, links, members, port_filter
from sysbox.netns.network import BRIDGE, BUILTIN, NULL
from sysbox.netns.topology import NetPlan, attach, outward, publishing
from sysbox.run import identity_files, packet_lists, planning, resolver_units
from sysbox.spec import Endpoint
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record, Runtime
    from sysbox.netns.attachment import Attachment
    from sysbox.netns.network import Network
    from sysbox.spec import ContainerSpec

_DEFAULT = Endpoint(network="bridge")


def connect(record: Record, endpoint: Endpoint) -> None:
    """Connect a container to one more network; `endpoint` names it by name or id.

    Raises NotFound, Conflict, SpecError, KernelError; the container is then as before.
    """
    network = _linked(endpoint.network)
    endpoint = endpoint.replace(network=network.name)
    with Lock(record.id):
        record = store.load(record.id)
        spec = _with(record, endpoint)
        after = record.replace(spec=spec)
        planned = planning.plan_of(after, probe())  # raises for what could not be started again
        runtime = _running(record.id)
        if runtime is None:
            store.save(after)
        else:
            before = runtime.attachments()
            one = attach(record.id, network, endpoint, before)
            made = _connect(after, runtime, one)
            _tell_hosts(after, planned.process.hostname, added=(made,))
    _tell("connect", network, record)


def _connect(record: Record, runtime: Runtime, wanted: Attachment) -> Attachment:
    before = runtime.attachments()
    with Undo() as undo:
        undo.add(lambda _: store.write_runtime(record, runtime))
        undo.add(lambda _: members.leave_one(record.id, wanted.network_id))
        one = members.lease(record.id, wanted)
        now = runtime.replace(networks=(*before, one))
        store.write_runtime(record, now)
        undo.add(lambda _: _unlink(runtime, one, before))
        spec = record.spec
        plan = NetPlan(
            id=record.id,
            mode="bridge",
            attachments=(one,),
            ports=spec.ports,
            bandwidth=spec.bandwidth,
        )
        bridge = links.near(one)
        firewall.ensure(plan)
        fd = open_ns(runtime.pid, "network")
        try:
            # it runs: what it may not send is filtered before the link carries anything
            links.connect(plan, 0, fd, (bridge,), lambda: _filter(record, runtime, one))
            missing = tuple(family for family in (4, 6) if outward(before, family) is None)
            inside.configure(fd, one, missing)
        finally:
            posix.close(fd)
        if spec.ports and outward(before) is None and publishing((one,)):
            now = now.replace(ports=firewall.publish(plan, one.address, one.address6))
            store.write_runtime(record, now)
        if one.dns:
            undo.add(lambda _: resolver_units.withdraw(record.id, (one.network,)))
            resolver_units.add(record.id, one)
        resolver_units.publish(record, now)
        store.save(record)
    identity_files.renew_resolv_conf(record, before, now.attachments())
    return one


def _filter(record: Record, runtime: Runtime, one: Attachment) -> None:
    if not record.spec.security.privileged:
        port_filter.install((one,))
    with Bus.connect() as bus:
        packet_lists.apply(bus, record, (one,), runtime.cgroup)


def _tell_hosts(
    record: Record,
    hostname: str,
    *,
    gone: tuple[Attachment, ...] = (),
    added: tuple[Attachment, ...] = (),
) -> None:
    """Change the addresses of the container's own name in its /etc/hosts, in place: it is mounted there."""
    path = f"{record.directory}/hosts"
    lost, new = (
        tuple(text for one in some for text in (one.address, one.address6) if text)
        for some in (gone, added)
    )
    try:
        text = (read_file(path) or b"").decode("utf-8", "surrogateescape")
        name = identity_files.full_name(hostname or posix.uname().nodename, record.spec)
        data = dns.changed_hosts(text, name, lost, new).encode("utf-8", "surrogateescape")
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
        try:
            write_all(fd, data)
            posix.ftruncate(fd, len(data))
        finally:
            posix.close(fd)
    except (OSError, FormatError):
        pass  # ignoring: the file is the container's, which may have removed it


def disconnect(record: Record, word: str) -> None:
    """Disconnect a container from a network, which may be gone. Raises NotFound, Conflict, KernelError."""
    name = _name(word)
    with Lock(record.id):
        record = store.load(record.id)
        after = record.replace(spec=_without(record, name))
        runtime = _running(record.id)
        gone = (
            next((one for one in runtime.attachments() if one.network == name), None)
            if runtime
            else None
        )
        if runtime is not None and gone is not None:
            _disconnect(record, runtime, gone)
            _tell_hosts(record, "", gone=(gone,))
        store.save(after)
    try:
        _tell("disconnect", _linked(name), record)
    except SysboxError:
        pass  # ignoring: the network was removed, and has no id to report


def _disconnect(record: Record, runtime: Runtime, gone: Attachment) -> None:
    before = runtime.attachments()
    rest = tuple(one for one in before if one.network != gone.network)
    moves = outward(before) == gone
    if moves:
        firewall.unpublish(record.id)
    resolver_units.withdraw(record.id, (gone.network,))
    _unlink(runtime, gone, rest)
    members.leave_one(record.id, gone.network_id)
    now = runtime.replace(networks=rest, ports=() if moves else runtime.ports)
    store.write_runtime(record, now)
    resolver_units.publish(record, now)
    identity_files.renew_resolv_conf(record, before, rest)
    fd = open_ns(runtime.pid, "network")
    try:
        inside.route(fd, rest)
    finally:
        posix.close(fd)
    way = publishing(rest)
    # where the way out had no published ports, as below a parent, those that were asked for
    wanted = runtime.ports or (record.spec.ports if gone.driver != BRIDGE else ())
    if moves and way is not None and wanted:
        plan = NetPlan(id=record.id, mode="bridge", attachments=rest, ports=wanted)
        store.write_runtime(
            record, now.replace(ports=firewall.publish(plan, way.address, way.address6))
        )


def _unlink(runtime: Runtime, gone: Attachment, rest: tuple[Attachment, ...]) -> None:
    """Remove a container's link; `rest` are its others."""
    if gone.host_link:
        links.remove_link(gone.host_link)
        return
    fd = open_ns(runtime.pid, "network")
    try:
        inside.remove(fd, gone, rest)
    finally:
        posix.close(fd)


def _linked(word: str) -> Network:
    """A network that containers have links to. Raises NotFound, Conflict for `host` and `none`."""
    found = network_look.find(word)
    if not isinstance(found, str):
        if found.driver == NULL:
            raise Conflict(
                f"a container cannot be connected to the network {found.name}, whose driver gives it no link",
                hint=f"make it with --network {found.name}",
            )
        return found
    if found != _DEFAULT.network:
        raise Conflict(
            f"a container cannot be connected to the network {found}",
            hint=f"make it with --network {found}",
        )
    return network_look.default_network()


def _name(word: str) -> str:
    """The name of a network; the word itself where no network has it, which may have been removed."""
    try:
        found = network_look.find(word)
    except NotFound:
        return word
    return found if isinstance(found, str) else found.name


def _running(container_id: str) -> Runtime | None:
    runtime = store.runtime(container_id)
    if runtime is None or not runtime.started_ns or not runtime.alive():
        return None
    return runtime


def _endpoints(record: Record) -> tuple[Endpoint, ...]:
    """The networks of a container. Raises Conflict where it has no network namespace of its own."""
    spec = record.spec
    mode = spec.namespaces.network
    if mode == "none":
        return ()
    if mode != "bridge":
        raise Conflict(
            f"container {record.name} has no network of its own, but --network {mode}",
            hint="networks are those of the container that it shares, or of the host",
        )
    return spec.networks or (_DEFAULT,)


def _with(record: Record, endpoint: Endpoint) -> ContainerSpec:
    there = _endpoints(record)
    if any(one.network == endpoint.network for one in there):
        raise Conflict(
            f"container {record.name} is on the network {endpoint.network} already",
            hint=f"`sysbox network disconnect {endpoint.network} {record.name}` first, to change it",
        )
    return _changed(record, (*there, endpoint))


def _without(record: Record, name: str) -> ContainerSpec:
    there = _endpoints(record)
    if not any(one.network == name for one in there):
        some = ", ".join(one.network for one in there) or "no network"
        raise NotFound(
            f"container {record.name} is not on the network {name}", hint=f"it is on {some}"
        )
    return _changed(record, tuple(one for one in there if one.network != name))


def _changed(record: Record, endpoints: tuple[Endpoint, ...]) -> ContainerSpec:
    spec = record.spec
    mode = "bridge" if endpoints else "none"
    return spec.replace(
        namespaces=spec.namespaces.replace(network=mode),
        networks=() if endpoints == (_DEFAULT,) else endpoints,
    )


def _tell(action: str, network: Network, record: Record) -> None:
    attributes = {"container": record.id, "name": network.name, "type": network.driver}
    network_id = BUILTIN.get(network.name, network.id)
    events.emit("network", action, network_id, attributes, network.name)

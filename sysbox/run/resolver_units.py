"""Names of containers on networks, and the units that answer: made with the first, gone with the last.

The socket of a network is there while its directory of names is (netns/names.py). Who makes or removes the
two has the lock of the names, so that a start never relies on a socket that an end is about to remove.
"""

from __future__ import annotations

import time

from sysbox import scope
from sysbox.base import paths, program
from sysbox.base.errors import SysboxError, SystemdError
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.base.frozen import Frozen
from sysbox.container.hostname import hostname_of
from sysbox.host import exists
from sysbox.netns import names
from sysbox.units import resolverplan
from sysbox.units.bus import MANAGER, MANAGER_PATH, SYSTEMD, Bus
from sysbox.units.resolverplan import ResolverPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.base.undo import Undo
    from sysbox.container.store import Record, Runtime
    from sysbox.netns.attachment import Attachment
    from sysbox.netns.network import Network
    from sysbox.units.linkdns import Told

_EXISTS = f"{SYSTEMD}.UnitExists"
_LOCK = f"{paths.NETWORK}/names.lock"
_TRANSIENT = "/run/systemd/transient"
_RESOLVED = (
    "/run/systemd/resolve/io.systemd.Resolve"  # systemd-resolved's; there since its first start
)
_PATIENCE = 10.0  # seconds for the socket to be made
_STEP = 0.004  # seconds


class Starting(Frozen):
    """A socket that was asked for."""

    network: str
    address: str
    plan: ResolverPlan
    new: bool  # whether the directory of names was made: a socket that is there is about to go
    serial: int  # of the call


class Place:
    """A container's place on each of its networks that has a resolver, from before its link is there.

    PID 1 forks for each address on which a socket listens: it is asked early, and goes on beside the start.
    """

    def __init__(self, bus: Bus, container: str, attachments: tuple[Attachment, ...]) -> None:
        self._bus = bus
        self._container = container
        self._wanted = names.resolved(attachments)
        self._sockets: list[Starting] = []
        self._told: tuple[Told, ...] = ()

    def reserve(self) -> None:
        """Reserve it; ask for the sockets that are missing. Raises SystemdError, KernelError."""
        with Lock(_LOCK, timeout=BRIEFLY):
            for one in self._wanted:
                new = names.reserve(self._container, one.network)
                # the file is there for as long as the unit is loaded
                if new or not exists(f"{_TRANSIENT}/{resolverplan.socket_unit(one.network)}"):
                    self._ask(one, new=new)

    def _ask(self, one: Attachment, *, new: bool) -> None:
        plan = _plan(one)
        self._sockets.append(
            Starting(
                network=one.network,
                address=one.gateway or one.gateway6,
                plan=plan,
                new=new,
                serial=_request(self._bus, plan),
            )
        )

    def take(self) -> None:
        """Tell the resolvers about their networks, and the host about the resolvers.

        Only now, when the container has an address on each of them: a network that was removed and made again
        meanwhile is not touched. Raises KernelError.
        """
        with Lock(_LOCK, timeout=BRIEFLY):
            for one in self._wanted:
                names.configure(one.network, one)
        self._told = _tell_host(self._wanted)

    def wait(self) -> None:
        """Return once all sockets listen: a question that comes now is answered. Raises SystemdError."""
        while self._sockets:
            _await_listening(self._bus, self._sockets.pop())
        _await_told(self._told)

    def abandon(self) -> None:
        """Wait until PID 1 knows of the sockets that `wait` has not reached: a stop then finds them."""
        for told in self._told:
            told.bus.close()
        for one in self._sockets:
            try:
                self._bus.reply(one.serial)
            except SysboxError:
                pass  # ignoring: then there is no such unit


def reserve(bus: Bus, container: str, attachments: tuple[Attachment, ...], undo: Undo) -> Place:
    """A container's place, reserved; `undo` abandons it. Raises SystemdError, KernelError."""
    place = Place(bus, container, attachments)
    undo.add(lambda _: place.abandon())
    place.reserve()
    return place


def add(container: str, attachment: Attachment) -> None:
    """The place of a running container on one more network, once it has an address there.

    Raises SystemdError, KernelError.
    """
    with Bus.connect() as bus:
        place = Place(bus, container, (attachment,))
        place.reserve()
        place.take()
        place.wait()


def tell_host() -> None:
    """Tell systemd-resolved of the networks with containers that it does not know, and wait for it."""
    from sysbox.netns import networks

    present = names.networks()
    _await_told(_tell_host(tuple(one for one in networks.all_networks() if one.name in present)))


def _tell_host(wanted: tuple[Attachment | Network, ...]) -> tuple[Told, ...]:
    if not exists(_RESOLVED):
        return ()
    from sysbox.units import linkdns  # many hosts have no systemd-resolved

    begun = (linkdns.begin(one.bridge, _gateways(one)) for one in wanted if one.bridge)
    return tuple(told for told in begun if told)


def _await_told(told: tuple[Told, ...]) -> None:
    if told:
        from sysbox.units import linkdns

        for one in told:
            linkdns.finish(one)


def _await_listening(bus: Bus, one: Starting) -> None:
    try:
        _await(bus, one)
    except SystemdError as error:
        unit = resolverplan.socket_unit(one.network)
        what, hint = "cannot be made", error.hint
        if error.result == "failed":
            what = f"cannot listen on {one.address} port {resolverplan.PORT}"
            hint = (
                f"`journalctl -u {unit}` tells why; a DNS server of this host may have the port on all"
                " addresses: let it listen on its own ones only"
            )
        failed = SystemdError(
            f"network {one.network}: its resolver {what}: {error.message}", unit=unit
        )
        failed.hint = hint
        raise failed from None


def publish(record: Record, runtime: Runtime) -> None:
    """Name a running container on its networks: at once, for as long as its first process runs."""
    names.publish(
        record.id,
        (record.name, hostname_of(record)),
        (runtime.pid, runtime.start_time),
        runtime.attachments(),
        record.spec.dns.servers,
        {alias: target for target, _, alias in (one.partition(":") for one in record.spec.links)},
    )


def _await(bus: Bus, one: Starting) -> None:
    unit = resolverplan.socket_unit(one.network)
    deadline = time.monotonic() + _PATIENCE
    serial = one.serial
    while True:
        try:
            (job,) = bus.reply(serial)
            scope.wait_job(bus, unit, job, "start", deadline - time.monotonic())
            return
        except SystemdError as error:
            if error.dbus_name != _EXISTS or time.monotonic() > deadline:
                raise
        if scope.active_state(bus, unit) != "active":
            scope.reset_failed(bus, unit)
        elif one.new:
            # of a network that had the name before: its stop is on the way, or was lost
            scope.request_stop(bus, unit)
        else:
            return  # another start has asked first
        time.sleep(_STEP)
        serial = _request(bus, one.plan)


def _request(bus: Bus, plan: ResolverPlan) -> int:
    return bus.retry(lambda: _send(bus, plan))


def _send(bus: Bus, plan: ResolverPlan) -> int:
    beside = (
        (
            resolverplan.service_unit(plan.network),
            scope.variants(resolverplan.service_properties(plan)),
        ),
    )
    unit = resolverplan.socket_unit(plan.network)
    args = (unit, "fail", scope.variants(resolverplan.socket_properties(plan)), beside)
    return bus.send(MANAGER_PATH, MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", args)


def _plan(one: Attachment) -> ResolverPlan:
    return ResolverPlan(
        network=one.network,
        directory=names.directory_of(one.network),
        run=paths.RUN,
        addresses=_gateways(one),
        launcher=program.launcher,
        package=paths.PACKAGE,
    )


def _gateways(one: Attachment | Network) -> tuple[str, ...]:
    return tuple(address for address in (one.gateway, one.gateway6) if address)


def withdraw(container: str, networks: tuple[str, ...] = ()) -> None:
    """Name a container no longer: on these networks, or on all. The last one takes the units along.

    A container without a name is success. Raises KernelError, Conflict.
    """
    lock, last = begin_withdraw(container, networks)
    if lock:
        try:
            stop(last)
        finally:
            lock.release()


def begin_withdraw(
    container: str, networks: tuple[str, ...] = ()
) -> tuple[Lock | None, tuple[str, ...]]:
    """`withdraw`, but for the units: (the lock, the networks of which they are to be stopped under it).

    (None, ()) where no units go.
    """
    if not exists(names.DIRECTORY):
        return None, ()
    lock = Lock(_LOCK, timeout=BRIEFLY)
    try:
        last = tuple(
            network
            for network in networks or names.networks()
            if exists(f"{names.directory_of(network)}/{container}")
            and names.withdraw(container, network)
        )
    except BaseException:
        lock.release()
        raise
    if last:
        return lock, last
    lock.release()
    return None, ()


def configure(network: Network) -> None:
    """Tell the resolver of a network that has containers about a changed definition. Raises KernelError."""
    if exists(names.directory_of(network.name)):
        with Lock(_LOCK, timeout=BRIEFLY):
            if exists(names.directory_of(network.name)):
                names.configure(network.name, network)


def reclaim(is_alive: Callable[[str], bool]) -> list[str]:
    """Name all containers no longer that are not alive; returns their ids. For `sysbox gc`.

    `is_alive` must return True for a container that is starting.
    """
    if not exists(names.DIRECTORY):
        return []
    with Lock(_LOCK, timeout=BRIEFLY):
        dead = names.dead(is_alive)
        for network, container in dead:
            if names.withdraw(container, network):
                stop((network,))
    return sorted({container for _, container in dead})


def stop_stale() -> list[str]:
    """Stop the sockets of networks without names, whose last container was withdrawn by a process that was
    killed then; returns their units. For `sysbox gc`. Raises SysboxError.
    """
    from sysbox.units import listing  # a start needs no lists of units

    with Bus.connect() as bus:
        loaded = [one.name for one in listing.list_units(bus, resolverplan.socket_unit("*"))]
        if set(loaded) <= _wanted():
            return []
        with Lock(_LOCK, timeout=BRIEFLY):
            # with a job its stop is on the way
            stale = [
                unit
                for unit in set(loaded) - _wanted()
                if scope.progress(bus, unit) == ("active", 0)
            ]
            for unit in stale:
                scope.request_stop(bus, unit)
    return sorted(stale)


def _wanted() -> set[str]:
    return set(map(resolverplan.socket_unit, names.networks()))


def stop(networks: tuple[str, ...]) -> None:
    """Stop the units of networks without containers; the caller holds the lock of the names."""
    try:
        with Bus.connect() as bus:
            for network in networks:
                # queued before the lock is released: a start that comes next finds the name taken, and waits
                scope.request_stop(bus, resolverplan.socket_unit(network))
    except SysboxError:
        pass  # ignoring: without systemd there is no socket


def failures() -> list[tuple[str, str]]:
    """(network, what is wrong) of each network whose resolver does not listen. Raises SystemdError."""
    found = ((network, failure(network)) for network in names.networks())
    return [one for one in found if one[1]]


def failure(network: str) -> str:
    """What is wrong with the resolver of a network, "" also where the network has no container.

    Raises SystemdError.
    """
    if not names.containers(network):
        return ""
    units = resolverplan.socket_unit(network), resolverplan.service_unit(network)
    with Bus.connect() as bus:
        socket, service = (scope.active_state(bus, unit) for unit in units)
    if socket != "active":
        return f"{units[0]} is {socket}"
    return f"{units[1]} has failed" if service == "failed" else ""

"""A `.socket` file among declarations: the socket unit of a container's service. Pure.

It belongs to the container of its own name, or of Service= in it. Its unit is as it is written, but that
Service= names what takes the connections: the container's service, or the proxy before it (sockets.py).
"""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.units.quadlet import units
from sysbox.units.quadlet.units import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.sources import Assignment, Source
    from sysbox.units.quadlet.units import Declared

_LISTENS = "Listen"  # the keys of systemd.socket(5) that begin so are sockets
_YES = ("1", "yes", "true", "on", "y", "t")


def container_of(source: Source, declared: Declared) -> Source:
    """The container whose service a `.socket` file is to start. Raises FormatError where there is none."""
    given = [one for one in source.assignments if (one.section, one.key) == ("Socket", "Service")]
    where = f"{given[-1].file}:{given[-1].line}: Service=" if given else source.path
    name = (given[-1].value if given else "") or f"{source.stem}.container"
    found = declared.container_called(name)
    if found is None:
        raise FormatError(f"{where}: there is no {name} whose service it could start")
    return found


def of_container(container: Source, declared: Declared) -> list[Source]:
    """The `.socket` files that belong to a container."""
    found = []
    for one in declared.socket_files():
        try:
            if container_of(one, declared) is container:
                found.append(one)
        except FormatError:
            continue  # it says so itself
    return found


def unit_of(source: Source, declared: Declared, target: str, container: Source) -> Service:
    """The socket unit; `target` is the service that takes the connections. Raises FormatError."""
    if source.error:
        raise FormatError(source.error)
    units.check_sections(source, "Socket", ("Unit", "Install"))
    keys = [one for one in source.assignments if one.section == "Socket"]
    for one in keys:
        check_accept(one)
    if not any(one.key.startswith(_LISTENS) for one in keys):
        raise FormatError(f"{source.path}: [Socket] without a socket", hint="ListenStream= is one")
    made = Service(
        unit=source.name,
        source=source,
        section="Socket",
        unit_keys=tuple(declared.translated(source)),
        service_keys=(
            *((one.key, one.value) for one in keys if one.key != "Service"),
            ("Service", target),
        ),
        declared_by=container.path,
    )
    units.check_text(made)
    return made


def check_accept(one: Assignment) -> None:
    """Raises FormatError for Accept=yes, with which each connection has a process of its own."""
    if one.key == "Accept" and one.value.lower() in _YES:
        where = f"{one.file}:{one.line}: {one.key}="
        raise FormatError(f"{where}: one container has all connections", hint="leave it out")


def stray(source: Source, declared: Declared) -> tuple[Service, ...]:
    """Of a `.socket` file by itself: what is wrong with it where it belongs to no container."""
    try:
        container_of(source, declared)
    except FormatError as error:
        return (Service(unit=source.name, source=source, error=error.message, section="Socket"),)
    return ()

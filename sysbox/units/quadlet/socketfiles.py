"""A `.socket` file among declarations: the socket unit of a container's service. Pure.

It belongs to the container of its own name, or of Service= in it. Its unit is as it is written, but that
Service= names what takes the connections: the container's service, or the proxy before it (sockets.py).
That of a template makes a unit for each instance with a file of its own, too: that one's service is another.
"""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.units.quadlet import units
from sysbox.units.quadlet.units import Service
from sysbox.units.quadlet.values import TRUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.sources import Assignment, Source
    from sysbox.units.quadlet.units import Declared

_LISTENS = "Listen"  # the keys of systemd.socket(5) that begin so are sockets


def container_of(source: Source, declared: Declared) -> Source:
    """The container whose service a `.socket` file is to start. Raises FormatError where there is none.

    For an instance without a file of its own that is the template, for a template without one an instance.
    """
    name, where = _named(source)
    found = declared.container_called(name) or declared.container_called(_template_of(name))
    if found is None:
        every = declared.sources.values()
        found = next((one for one in every if name == _template_of(one.name)), None)
    if found is None:
        raise FormatError(f"{where}: there is no {name} whose service it could start")
    if found.is_template and not source.is_template and not _template_of(name):
        hint = f"one of {name.replace('@.', '@a.')}, or a template as this file's name"
        raise FormatError(f"{where}: {name} is a template", hint=hint)
    return found


def _named(source: Source) -> tuple[str, str]:
    """(the container or service that a `.socket` file is for, the place where it says so)."""
    given = [one for one in source.assignments if (one.section, one.key) == ("Socket", "Service")]
    own = f"{source.stem}.container"
    if not given:
        return own, source.path
    return given[-1].value or own, f"{given[-1].file}:{given[-1].line}: Service="


def _instance_in(name: str) -> str:
    """The instance in the name of a file or a unit; "" for a template and for what is neither."""
    return name.rpartition(".")[0].partition("@")[2]


def _template_of(name: str) -> str:
    """The template of an instance; "" for anything else."""
    instance = _instance_in(name)
    return name.replace(f"@{instance}.", "@.") if instance else ""


def of_container(container: Source, declared: Declared) -> list[Source]:
    """The `.socket` files that belong to a container; of an instance those of its template, as its own."""
    found = []
    instance = _instance_in(container.name)
    templates = {_template_of(one) for one in (container.name, f"{container.stem}.service")} - {""}
    for one in declared.socket_files():
        if one.is_template and _named(one)[0] in templates:
            own = one.replace(name=one.name.replace("@.", f"@{instance}."))
            if own.name not in declared.sources:
                found.append(own)
            continue
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
    if container.is_template and not source.is_template:
        target = target.replace("@%i.", f"@{_instance_in(_named(source)[0])}.")
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
    if one.key == "Accept" and one.value.lower() in TRUE:
        where = f"{one.file}:{one.line}: {one.key}="
        raise FormatError(f"{where}: one container has all connections", hint="leave it out")


def stray(source: Source, declared: Declared) -> tuple[Service, ...]:
    """Of a `.socket` file by itself: what is wrong with it where it belongs to no container."""
    try:
        container_of(source, declared)
    except FormatError as error:
        return (Service(unit=source.name, source=source, error=error.message, section="Socket"),)
    return ()

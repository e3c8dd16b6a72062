"""The sockets of a declared container, as its declaration has them: no other place says all of them."""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import FormatError
from sysbox.lifecycle import unit_files
from sysbox.units.bus import Bus
from sysbox.units.quadlet import socketfiles
from sysbox.units.quadlet.writer import Sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.units.quadlet.sources import Source

_KEYS = (
    "ListenStream", "ListenDatagram", "ListenSequentialPacket", "ProxyPort", "IdleStop", "IdleFreeze",
)  # fmt: skip


def find(record: Record) -> Sockets:
    """Those of a container, if it has any. Raises FormatError where its declaration cannot be read."""
    unit = record.spec.unit
    if not unit:
        return Sockets()
    with Bus.connect() as bus:
        path = scope.properties(bus, unit, scope.UNIT, ("SourcePath",))["SourcePath"]
    if not path.endswith(".container"):
        return Sockets()  # a service of another maker, or one whose file is gone
    (chosen,) = unit_files.chosen([path])
    source = next(one for one in chosen.sources if one.path == path)
    if source.error:
        raise FormatError(f"{source.error}: it says which sockets {unit} has")
    return _of(source, socketfiles.of_container(source, chosen.declared))


def _of(source: Source, files: list[Source]) -> Sockets:
    keys = [
        (one.key, one.value)
        for one in source.assignments
        if one.section == "Container" and one.key in _KEYS and one.value
    ]
    listens = bool(files) or any(key.startswith("Listen") for key, _ in keys)
    own = _section(source, "Socket")
    return Sockets(
        keys=tuple(keys),
        socket=own,
        install=_section(source, "Install") if own or listens else (),
        beside=tuple((_section(one, "Socket"), _section(one, "Install")) for one in files),
    )


def _section(source: Source, name: str) -> tuple[tuple[str, str], ...]:
    return tuple((one.key, one.value) for one in source.assignments if one.section == name)

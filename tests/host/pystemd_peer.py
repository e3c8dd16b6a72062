"""A transient unit as pystemd starts it, to hold what sysbox sends against."""

from __future__ import annotations

from typing import Any

from sysbox.units.bus import MANAGER, MANAGER_PATH, PRIVATE_SOCKET, SYSTEMD
from sysbox.units.limits.properties import Property


def start_transient(unit: str, properties: tuple[Property, ...]) -> None:
    """Ask for the unit. Not awaited."""
    from pystemd import dbuslib

    bus = dbuslib.DBusAddress(f"unix:path={PRIVATE_SOCKET}".encode(), peer_to_peer=True)
    bus.open()
    bus.call_method(
        SYSTEMD.encode(),
        MANAGER_PATH.encode(),
        MANAGER.encode(),
        b"StartTransientUnit",
        _arguments(dbuslib.apply_signature, unit, properties),
    )
    bus.close()


def _arguments(apply: Any, unit: str, properties: tuple[Property, ...]) -> list[Any]:
    """`ssa(sv)a(sa(sv))` as pystemd wants it: container by container, opened and closed."""
    args = list(apply(b"ss", [unit.encode(), b"fail"]))
    args.append((ord("a"), b"(sv)"))
    for one in properties:
        kind = one.signature.encode()
        args += [(ord("r"), b"sv"), *apply(b"s", [one.name.encode()]), (ord("v"), kind)]
        value = list(one.value) if one.signature == "ay" else _encoded(one.value)
        args += [*apply(kind, [value]), (-1, None), (-1, None)]
    args += [(-1, None), (ord("a"), b"(sa(sv))"), (-1, None)]
    return args


def _encoded(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, list | tuple):
        return type(value)(_encoded(one) for one in value)
    return value

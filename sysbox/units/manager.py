"""The system manager as cold verbs see it, through pystemd: what it is, and what it knows.

The hot way to start and change units is `bus.py`; a host test holds the two against each other.
"""

from __future__ import annotations

from sysbox.base.errors import SystemdError
from sysbox.host import exists
from sysbox.units import names
from sysbox.units.bus import MANAGER, MANAGER_PATH, PRIVATE_SOCKET, SYSTEMD
from sysbox.units.limits.properties import Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

_INTERFACE_OF = {"scope": "Scope", "service": "Service", "slice": "Slice"}


class Manager:
    """A connection for the length of a `with` block; every failure is a SystemdError."""

    def __init__(self) -> None:
        from pystemd import dbuslib

        self._dbuslib: Any = dbuslib
        if exists(PRIVATE_SOCKET):
            self._bus: Any = dbuslib.DBusAddress(
                f"unix:path={PRIVATE_SOCKET}".encode(), peer_to_peer=True
            )
        else:
            self._bus = dbuslib.DBus()

    def __enter__(self) -> Self:
        self._guard("connect to systemd", self._bus.open)
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.close()

    def describe(self) -> dict[str, str]:
        """Version, compiled-in features, virtualisation, state: for `info` and `doctor`."""
        wanted = {
            "Version": "s",
            "Features": "s",
            "Virtualization": "s",
            "Architecture": "s",
            "SystemState": "s",
        }
        return {name: _text(self._manager_property(name, kind)) for name, kind in wanted.items()}

    def version(self) -> int:
        """systemd's major version: 252 from "252.38-1~deb12u1"."""
        text = _text(self._manager_property("Version", "s"))
        digits = text[: len(text) - len(text.lstrip("0123456789"))]
        return int(digits or 0)

    def unit_property(self, unit: str, name: str, signature: str) -> Any:
        """One property of a unit, from whichever of its interfaces has it."""
        for interface in ("Unit", _kind(unit)):
            known = self.property_types(unit, interface)
            if name in known:
                return self._guard(
                    f"read {name} of {unit}",
                    self._bus.get_property,
                    SYSTEMD.encode(),
                    names.object_path(unit).encode(),
                    f"{SYSTEMD}.{interface}".encode(),
                    name.encode(),
                    signature.encode(),
                )
        raise SystemdError(f"{unit}: this systemd has no property {name}", unit=unit)

    def property_types(self, unit: str, interface: str) -> dict[str, str]:
        """Name -> D-Bus type of every property that this systemd has for a kind of unit.

        By introspection: `doctor` tells from it which limits this host knows.
        """
        from pystemd.base import SDObject

        subject = SDObject(SYSTEMD.encode(), names.object_path(unit).encode(), bus=self._bus)
        self._guard(f"introspect {unit}", subject.load)
        found = subject._interfaces.get(f"{SYSTEMD}.{interface}")
        if found is None:
            return {}
        return {name: str(one.get("type")) for name, one in found._properties_xml.items()}

    def start_transient(self, unit: str, properties: tuple[Property, ...]) -> str:
        """Ask for a transient unit; the job's path. Not awaited."""
        job = self._guard(
            f"start {unit}",
            self._bus.call_method,
            SYSTEMD.encode(),
            MANAGER_PATH.encode(),
            MANAGER.encode(),
            b"StartTransientUnit",
            self._arguments(unit, properties),
        )
        return _text(job.body)

    def _arguments(self, unit: str, properties: tuple[Property, ...]) -> list[Any]:
        """`ssa(sv)a(sa(sv))` as pystemd wants it: container by container, opened and closed."""
        apply = self._dbuslib.apply_signature
        args = list(apply(b"ss", [unit.encode(), b"fail"]))
        args.append((ord("a"), b"(sv)"))
        for one in properties:
            kind = one.signature.encode()
            args += [(ord("r"), b"sv"), *apply(b"s", [one.name.encode()]), (ord("v"), kind)]
            value = list(one.value) if one.signature == "ay" else _encoded(one.value)
            args += [*apply(kind, [value]), (-1, None), (-1, None)]
        args += [(-1, None), (ord("a"), b"(sa(sv))"), (-1, None)]
        return args

    def _manager_property(self, name: str, signature: str) -> Any:
        return self._guard(
            f"read the manager's {name}",
            self._bus.get_property,
            SYSTEMD.encode(),
            MANAGER_PATH.encode(),
            MANAGER.encode(),
            name.encode(),
            signature.encode(),
        )

    def _guard(self, what: str, call: Any, *args: Any) -> Any:
        from pystemd.dbusexc import DBusBaseError

        try:
            return call(*args)
        except DBusBaseError as error:
            raise SystemdError(f"{what}: {error}") from None
        except OSError as error:
            raise SystemdError(f"{what}: {error.strerror or error}") from None


def _kind(unit: str) -> str:
    return _INTERFACE_OF.get(unit.rpartition(".")[2], "Unit")


def _encoded(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, list | tuple):
        return type(value)(_encoded(one) for one in value)
    return value


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

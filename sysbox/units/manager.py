"""Read the system manager's properties through pystemd, for `info` and `doctor`.

Hot verbs start and change units through `bus.py`; a host test compares the two.
"""

from __future__ import annotations

from sysbox.base.errors import SystemdError, Unsupported
from sysbox.units.bus import MANAGER, MANAGER_PATH, PRIVATE_SOCKET, SYSTEMD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DESCRIBED = ("Version", "SystemState", "Virtualization")


def describe() -> dict[str, str]:
    """The manager's version, state and virtualization, by property name (org.freedesktop.systemd1(5)).

    Raises SystemdError if no systemd answers, Unsupported if pystemd is not installed.
    """
    bus = _connect()
    try:
        return {name: _property(bus, name) for name in _DESCRIBED}
    finally:
        bus.close()


def _connect() -> Any:
    """Connect to PID 1's private socket, else to the system bus, which unprivileged users may use too."""
    from sysbox.base import program

    program.load_site()
    try:
        from pystemd import dbuslib
    except ImportError as error:
        raise Unsupported(f"cannot load pystemd: {error}", hint="install sysbox anew") from None
    private = dbuslib.DBusAddress(f"unix:path={PRIVATE_SOCKET}".encode(), peer_to_peer=True)
    try:
        private.open()
    except Exception:  # noqa: BLE001 (pystemd has its own classes; the next attempt reports the reason)
        return _open(dbuslib.DBus())
    return private


def _open(bus: Any) -> Any:
    _guard("connect to systemd", bus.open)
    return bus


def _property(bus: Any, name: str) -> str:
    value = _guard(
        f"read the manager's {name}",
        bus.get_property,
        SYSTEMD.encode(),
        MANAGER_PATH.encode(),
        MANAGER.encode(),
        name.encode(),
        b"s",
    )
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _guard(what: str, call: Any, *args: Any) -> Any:
    from pystemd.dbusexc import DBusBaseError

    try:
        return call(*args)
    except DBusBaseError as error:
        raise SystemdError(f"{what}: {error}") from None
    except OSError as error:
        raise SystemdError(f"{what}: {error.strerror or error}") from None

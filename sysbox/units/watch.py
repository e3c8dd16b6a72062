"""Watch units change state, through dbus-next, for `events`; a start awaits its own job over `bus.py`.

Needs the system bus, since dbus-next cannot connect without a broker.
"""

from __future__ import annotations

from sysbox.base.errors import SystemdError
from sysbox.base.frozen import Frozen
from sysbox.units import names
from sysbox.units.bus import MANAGER, MANAGER_PATH, PROPERTIES, SYSTEMD

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable
    from typing import Any

_UNIT = f"{SYSTEMD}.Unit"


class UnitEvent(Frozen):
    """One change of one unit: `active_state` as systemd has it, or "gone" once it is unloaded."""

    unit: str
    active_state: str


async def changes(
    prefix: str = "docker-", suffix: str = ".scope", *, begun: Callable[[], None] = lambda: None
) -> AsyncIterator[UnitEvent]:
    """Changes of the units with this prefix and suffix; none is missed once `begun` has been called.

    Raises SystemdError.
    """
    watcher = await _Watcher.connect()
    begun()
    try:
        while True:
            event: UnitEvent = await watcher.queue.get()
            if event.unit.startswith(prefix) and event.unit.endswith(suffix):
                yield event
    finally:
        watcher.bus.disconnect()


class _Watcher:
    """A connection to the system bus that puts every unit's changes into a queue."""

    def __init__(self, bus: Any, queue: asyncio.Queue[UnitEvent]) -> None:
        self.bus = bus
        self.queue = queue

    @classmethod
    async def connect(cls) -> _Watcher:
        import asyncio

        from dbus_next.aio import MessageBus
        from dbus_next.constants import BusType

        try:
            bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        except (OSError, EOFError) as error:
            raise SystemdError(f"connect to the system bus: {error}") from None
        watcher = cls(bus, asyncio.Queue())
        bus.add_message_handler(watcher._take)
        signals = f"type='signal',sender='{SYSTEMD}'"
        rules = (
            f"{signals},interface='{MANAGER}',member='UnitRemoved'",
            f"{signals},interface='{PROPERTIES}',member='PropertiesChanged',arg0='{_UNIT}'",
        )
        for rule in rules:
            await watcher._call(
                "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                "AddMatch", "s", [rule],
            )  # fmt: skip
        await watcher._call(SYSTEMD, MANAGER_PATH, MANAGER, "Subscribe", "", [])
        return watcher

    async def _call(
        self, to: str, path: str, interface: str, member: str, signature: str, body: list[Any]
    ) -> list[Any]:
        from dbus_next.constants import MessageType
        from dbus_next.message import Message

        reply = await self.bus.call(
            Message(
                destination=to, path=path, interface=interface, member=member,
                signature=signature, body=body,
            )
        )  # fmt: skip
        if reply.message_type is MessageType.ERROR:
            text = reply.body[0] if reply.body else reply.error_name
            raise SystemdError(f"systemd: {text}", dbus_name=reply.error_name)
        return list(reply.body)

    def _take(self, message: Any) -> bool:
        """Put a unit's change into the queue; False lets dbus-next process the message further."""
        if message.member == "UnitRemoved":
            self.queue.put_nowait(UnitEvent(unit=message.body[0], active_state="gone"))
        elif message.member == "PropertiesChanged" and message.body[0] == _UNIT:
            state = message.body[1].get("ActiveState")
            if state is not None:
                unit = names.unit_of(message.path)
                self.queue.put_nowait(UnitEvent(unit=unit, active_state=state.value))
        return False

"""Storage drivers: what makes the root of a container out of the layers of its image.

Each is a module of its own beside this one, with the functions of `Driver`. Which one a container has is kept
in its record, so that another default changes no container.
"""

from __future__ import annotations

from sysbox.base.errors import Unsupported
from sysbox.fs.drivers import overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from sysbox.container.records import Record
    from sysbox.fs.rootfs import RootPlan

    class Driver(Protocol):
        """What a driver does. Paths are absolute; `directory` is the container's own."""

        NAME: str

        def prepare(self, directory: str) -> None:
            """Make the writable layer; once, when the container is made. Raises OSError."""

        def renew(self, directory: str) -> None:
            """Have a volatile writable layer, whose run has just ended, mounted once more. Raises OSError."""

        def mount_root(self, plan: RootPlan) -> int:
            """Mount the root in the caller's mount namespace; an O_PATH descriptor of it.

            In the child of a start: it imports nothing. Raises KernelError, Unsupported.
            """

        def writable(self, directory: str) -> str:
            """The directory with what the container has written, as a layer of an image has it."""

        def describe(self, layers: tuple[str, ...], directory: str = "") -> dict[str, str]:
            """docker's GraphDriver.Data of an image's `layers` (lowest first), or of a container above."""


DEFAULT = overlay.NAME
_DRIVERS: dict[str, Driver] = {overlay.NAME: overlay}


def named(name: str) -> Driver:
    """Raises Unsupported where this version has no such driver."""
    try:
        return _DRIVERS[name]
    except KeyError:
        raise Unsupported(
            f"storage driver {name}: not known",
            hint=f"known: {', '.join(_DRIVERS)}; the container was made by another version of sysbox",
        ) from None


def driver_of(record: Record) -> Driver:
    """That of a container. Raises Unsupported."""
    return named(record.resolved.driver if record.resolved else DEFAULT)

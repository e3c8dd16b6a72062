"""The interface of storage drivers, which make a container's root from the layers of its image.

Each driver is a module beside this one, with the functions of `Driver`. A container's record names its
driver, so a change of the default affects only new containers.
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
        """The functions of a driver. Paths are absolute; `directory` is the container's directory."""

        NAME: str

        def prepare(self, directory: str) -> None:
            """Make the writable layer. Called once, when the container is made. Raises OSError."""

        def renew(self, directory: str) -> None:
            """Allow a volatile writable layer to be mounted again after its run ended. Raises OSError."""

        def mount_root(self, plan: RootPlan) -> int:
            """Mount the root in the caller's mount namespace and return an O_PATH descriptor of it.

            Called in the forked child, so it must not import anything. Raises KernelError, Unsupported.
            """

        def mount_mapped(self, plan: RootPlan, target: str, user_namespace: int) -> None:
            """Mount the root on `target`, a name in the working directory, with its ids mapped as in the user
            namespace `user_namespace`, an fd.

            Called by the builder, whose effective ids are those of root in that namespace. It must not import
            anything. Raises KernelError, Unsupported.
            """

        def writable(self, directory: str) -> str:
            """The directory with the container's changes, in the format of an image layer."""

        def describe(self, layers: tuple[str, ...], directory: str = "") -> dict[str, str]:
            """docker's GraphDriver.Data of an image's `layers` (lowest first) or of a container."""


DEFAULT = overlay.NAME
_DRIVERS: dict[str, Driver] = {overlay.NAME: overlay}


def by_name(name: str) -> Driver:
    """The driver of that name. Raises Unsupported where this version has no such driver."""
    try:
        return _DRIVERS[name]
    except KeyError:
        raise Unsupported(
            f"storage driver {name}: not known",
            hint=f"known: {', '.join(_DRIVERS)}; the container was made by another version of sysbox",
        ) from None


def driver_of(record: Record) -> Driver:
    """The driver of a container. Raises Unsupported."""
    return by_name(record.resolved.driver if record.resolved else DEFAULT)

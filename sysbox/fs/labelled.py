"""Plan the labels of the file systems of a container's own: mount options of SELinux. Pure.

mount(8), "context=": every file has the label, whatever its own is. proc and sysfs take none. mqueue is
mounted already where its IPC namespace was made, without a label: its root directory gets one later.
"""

from __future__ import annotations

from sysbox.fs.rootfs import Bind, Filesystem
from sysbox.linux.lsm import SELINUXFS
from sysbox.security import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.fs.rootfs import Operation
    from sysbox.spec import ContainerSpec


def option(label: str, *, nested: bool = False) -> tuple[str, str]:
    """The mount option of the root and of a tmpfs; `nested`: files on it may get other labels."""
    return ("rootcontext" if nested else "context"), label


def plan(
    operations: Iterable[Operation], spec: ContainerSpec, label: str
) -> tuple[tuple[Operation, ...], tuple[tuple[str, str], ...]]:
    """(the operations with the label of the container's files, the option of its root)."""
    nested = labels.NESTED in spec.security.label
    return _applied(operations, label, nested=nested), (option(label),)


def _applied(operations: Iterable[Operation], label: str, *, nested: bool) -> tuple[Operation, ...]:
    """`nested` shows the container the kernel's SELinux too, and lets it label what is on a tmpfs.

    The root is as ever, which is podman's rule: without the option its files would have the labels that they
    have on disk, where layers are read-only for every container.
    """
    found: list[Operation] = []
    for one in operations:
        made = one
        if isinstance(one, Filesystem) and one.fstype == "tmpfs":
            made = one.replace(options=(*one.options, option(label, nested=nested)))
        elif isinstance(one, Filesystem) and one.fstype == "devpts":
            made = one.replace(options=(*one.options, option(label)))
        elif isinstance(one, Filesystem) and one.fstype == "mqueue":
            made = one.replace(label=label)
        found.append(made)
    if nested:
        found.append(Bind(source=SELINUXFS, target=SELINUXFS, mapped=False))
    return tuple(found)

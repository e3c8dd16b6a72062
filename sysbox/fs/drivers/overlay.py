"""The overlay driver: shared read-only layers below, one writable layer per container.

Kernel document: Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import posix

from sysbox.errors import KernelError, Unsupported
from sysbox.files import remove_tree
from sysbox.linux import _sys
from sysbox.paths import IMAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.fs.rootfs import RootPlan

_PAGE = 4096  # mount(2) takes one page of options


def prepare(directory: str) -> None:
    """Make the writable layer of a container; done once, when it is created."""
    for name in ("upper", "work", "merged"):
        posix.mkdir(f"{directory}/{name}", 0o755 if name == "upper" else 0o700)


def renew(directory: str) -> None:
    """Have the writable layer of a container that has just ended mounted once more, though it is volatile.

    The kernel refuses that, since after a crash of the host it might be damaged (overlayfs.rst, "Volatile
    mount"); there was none.
    """
    remove_tree(f"{directory}/work")
    posix.mkdir(f"{directory}/work", 0o700)


def options(plan: RootPlan) -> str:
    """The options of mount(2); the lower directories are relative to the store's layers."""
    lower = ":".join(reversed(plan.layers))
    text = f"lowerdir={lower},upperdir={plan.directory}/upper,workdir={plan.directory}/work"
    return f"{text},volatile" if plan.volatile else text


def mount_root(plan: RootPlan) -> int:
    """Mount the root in the caller's mount namespace; an O_PATH fd of it.

    Raises KernelError; Unsupported for more layers than one mount call can name.
    """
    text = options(plan)
    if len(text) >= _PAGE:
        raise Unsupported(
            f"{len(plan.layers)} layers are more than one overlay mount can name",
            hint="squash the image",
        )
    target = f"{plan.directory}/merged"
    try:
        posix.chdir(f"{IMAGES}/layers")
        _sys.mount("overlay", target, "overlay", 0, text)
        return posix.open(target, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as error:
        raise KernelError.of("mount the overlay of", plan.directory, error) from None

"""The overlay driver: shared read-only layers below, one writable layer per container.

Kernel documentation: Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError, Unsupported
from sysbox.base.files import remove_tree
from sysbox.base.paths import IMAGES
from sysbox.linux import _sys, mount, overlayfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.fs.rootfs import RootPlan

NAME = "overlay"
_OVERLAYFS_SUPER_MAGIC = 0x794C7630  # linux/magic.h
_PAGE = 4096  # bytes: mount(2) accepts one page of options


def prepare(directory: str) -> None:
    """Make the writable layer. Raises OSError."""
    for name in ("upper", "work", "merged"):
        posix.mkdir(f"{directory}/{name}", 0o700)
    # the mode of the container's root: not less what the caller's umask takes away
    posix.chmod(f"{directory}/upper", 0o755)


def renew(directory: str) -> None:
    """Allow a volatile writable layer to be mounted again after its run ended.

    The kernel refuses that, since a crash of the host may have damaged the layer (overlayfs.rst, "Volatile
    mount"). Within one boot there was no crash, so the mark in the work directory is removed.
    """
    remove_tree(f"{directory}/work")
    posix.mkdir(f"{directory}/work", 0o700)


def writable(directory: str) -> str:
    """The upper directory, whose whiteouts and opaque directories are those of an image layer."""
    return f"{directory}/upper"


def describe(layers: tuple[str, ...], directory: str = "") -> dict[str, str]:
    """By docker's names. An image's topmost layer is its UpperDir, and it has no MergedDir and WorkDir."""
    ordered = layers[::-1]
    return {
        "LowerDir": ":".join(ordered if directory else ordered[1:]),
        "MergedDir": directory and f"{directory}/merged",
        "UpperDir": f"{directory}/upper" if directory else "".join(ordered[:1]),
        "WorkDir": directory and f"{directory}/work",
    }


def options(plan: RootPlan, directory: str) -> str:
    """The options for mount(2); the lower directories are relative to the image store's layers."""
    lower = ":".join(reversed(plan.layers))
    text = f"lowerdir={lower},upperdir={directory}/upper,workdir={directory}/work"
    # diff and commit read the writable layer like an image layer
    text += f",{overlayfs.options()}{mount.appended(plan.options)}"
    return f"{text},volatile" if plan.volatile else text


def mount_root(plan: RootPlan) -> int:
    """Mount the root in the caller's mount namespace and return an O_PATH descriptor of it.

    Raises KernelError; Unsupported for more layers than one call of mount(2) can name.
    """
    target = f"{plan.directory}/merged"
    try:
        _mount(plan, f"{IMAGES}/layers", plan.directory, target)
        return posix.open(target, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EINVAL and _is_overlay(plan.directory):
            raise Unsupported(
                f"{plan.directory} is on an overlay itself, and the kernel allows no second one on top",
                hint="it needs a file system of its own: run the container around it with -v /var/lib/sysbox",
            ) from None
        raise KernelError.of("mount the overlay of", plan.directory, error) from None


def mount_mapped(plan: RootPlan, target: str, user_namespace: int) -> None:
    """Mount the root on `target` in the working directory, over mapped copies of its directories.

    One copy of the layers' common parent serves them all, however many there are. Raises KernelError,
    Unsupported.
    """
    here = posix.open(".", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    for name, source in (("layers", f"{IMAGES}/layers"), ("own", plan.directory)):
        mount.attach_as(mount.clone_mapped(source, user_namespace), name)
    try:
        _mount(plan, "layers", "../own", f"../{target}")
        posix.fchdir(here)
    except OSError as error:
        raise KernelError.of("mount the overlay of", plan.directory, error) from None
    posix.close(here)


def _mount(plan: RootPlan, layers: str, directory: str, target: str) -> None:
    """Mount on `target`; it and `directory` are relative to `layers`, which becomes the working directory.

    Raises OSError; Unsupported for more layers than one call of mount(2) can name.
    """
    text = options(plan, directory)
    if len(text) >= _PAGE:
        raise Unsupported(
            f"{len(plan.layers)} layers are more than one overlay mount can name",
            hint="squash the image",
        )
    posix.chdir(layers)
    _sys.mount("overlay", target, "overlay", 0, text)


def _is_overlay(path: str) -> bool:
    fd = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        return _sys.fstatfs_type(fd) == _OVERLAYFS_SUPER_MAGIC
    finally:
        posix.close(fd)

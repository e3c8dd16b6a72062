"""The root of a stage as a descriptor, for the steps that run no program: COPY, ADD, WORKDIR.

It is mounted by a helper in a mount namespace of its own, as `content/root.py` does it for containers; every
path in it is opened with RESOLVE_IN_ROOT, so that no symbolic link of an image leads out.
"""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError, SpecError
from sysbox.fs import place, rootfs
from sysbox.fs.drivers import driver
from sysbox.linux import _sys, mount, namespace
from sysbox.run import helper
from sysbox.run.process import ids_of_user
from sysbox.security.identity import parse_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from sysbox.build.layers import StackLayer

_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
_HANDLE = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC


class StageRoot:
    """Layers with an empty writable layer above them; a context manager. `directory` is an empty one.

    With no layers the root is the writable layer itself.
    """

    def __init__(self, layers: tuple[StackLayer, ...], directory: str) -> None:
        self._layers = tuple(one.name for one in layers)
        self._directory = directory
        self.fd = -1
        self.upper = f"{directory}/upper"

    def __enter__(self) -> Self:
        driver.by_name(driver.DEFAULT).prepare(self._directory)
        if self._layers:
            plan = rootfs.RootPlan(
                driver=driver.DEFAULT,
                layers=self._layers,
                directory=self._directory,
                volatile=True,
                operations=(),
                late=(),
            )
            (self.fd,) = helper.have_done("mount the stage's root", lambda: _mounted(plan), 1)
        else:
            self.fd = posix.open(self.upper, _HANDLE)
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            posix.close(self.fd)
            self.fd = -1


def _mounted(plan: rootfs.RootPlan) -> tuple[int]:
    """In the helper: the root, as a detached mount."""
    _sys.unshare(namespace.CLONE_NEWNS)
    _sys.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE, None)
    root = driver.by_name(plan.driver).mount_root(plan)
    return (mount.clone_tree("", recursive=False, dirfd=root),)


def make_directory(root: int, path: str, owner: tuple[int, int] = (0, 0)) -> tuple[int, bool]:
    """(a readable descriptor of the directory `path` in the root, whether it was made).

    Missing ones above it are made too, with mode 0755 and this owner. Raises KernelError, SpecError.
    """
    made = False
    done = ""
    fd = mount.open_in_root(root, "/", _DIRECTORY)
    for part in (one for one in path.split("/") if one not in ("", ".")):
        done = f"{done}/{part}"
        try:
            inner = mount.open_in_root(root, done, _DIRECTORY)
            made = False
        except KernelError as error:
            if error.errno != errno.ENOENT:
                posix.close(fd)
                raise SpecError(f"{done}: {posix.strerror(error.errno).lower()}") from None
            inner = _make(fd, part, done, owner)
            made = True
        posix.close(fd)
        fd = inner
    return fd, made


def _make(parent: int, name: str, shown: str, owner: tuple[int, int]) -> int:
    """Make the directory `name`. Raises Conflict where a dangling link is in the way, KernelError."""
    try:
        fd, _ = place.make_directory(parent, name, shown)
    except OSError as error:
        raise KernelError.of("make", shown, error) from None
    posix.fchown(fd, *owner)
    posix.fchmod(fd, 0o755)
    return fd


def owner_of(root: int, text: str) -> tuple[int, int]:
    """(uid, gid) of `--chown=USER[:GROUP]`, with names looked up in the root. Raises StartError, SpecError.

    A number without a group is the group too; a name without one has the group of its entry (BuildKit).
    """
    user, colon, group = text.partition(":")
    if user.isdecimal() and (group.isdecimal() or not colon):
        uid = parse_id(user)
        return uid, parse_id(group) if colon else uid
    return ids_of_user(root, text if user else f"0:{group}")


def owner_of_user(root: int, user: str) -> tuple[int, int]:
    """(uid, gid) of the directories that WORKDIR makes after `USER user`, "" for none; root's where the root
    does not know that name yet (BuildKit). Raises StartError.
    """
    try:
        return owner_of(root, user) if user else (0, 0)
    except SpecError:
        return 0, 0  # ignoring: a RUN as that user fails, and a later step may still make it known

"""The names of containers: symbolic links to ids, so that taking one is atomic."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.base.files import (
    NOT_THERE,
    is_directory,
    remove_tree,
    unlink,
)
from sysbox.base.paths import CONTAINERS, NAMES
from sysbox.container.identity import is_id
from sysbox.container.locks import ContainersLock
from sysbox.container.records import (
    Record,
)


def take_name(name: str, container_id: str) -> bool:
    """Take a name for a container; False where another container has it. Raises KernelError."""
    while True:
        with ContainersLock():
            try:
                posix.symlink(container_id, f"{NAMES}/{name}")
                return True
            except FileExistsError:
                pass
        if not _free_stale_name(name):
            return False


def _free_stale_name(name: str) -> bool:
    with ContainersLock(exclusive=True):  # no process takes a name meanwhile
        stale = is_stale(name)
        if stale:
            remove_tree(f"{NAMES}/{name}")
        return stale


def is_stale(name: str) -> bool:
    """Whether a name leads to no container: a removal was interrupted, or sysbox did not make it."""
    owner = owner_of(name)
    return owner is None or not is_directory(f"{CONTAINERS}/{owner}")


def owner_of(name: str) -> str | None:
    """The id that a name leads to; None where it is free, or leads to no id. Raises KernelError."""
    try:
        owner = posix.readlink(f"{NAMES}/{name}")
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise KernelError.of("read the name", name, error) from None
    return owner if is_id(owner) else None


def release_name(name: str, container_id: str) -> bool:
    """Free a name if it leads to this container; returns whether it did."""
    with ContainersLock():
        mine = owner_of(name) == container_id
        if mine:
            unlink(f"{NAMES}/{name}")
        return mine


def owns_name(record: Record) -> bool:
    """Whether the container's name leads to its id: false while it is being made or removed."""
    return owner_of(record.name) == record.id


def taken_names() -> dict[str, str]:
    """Every name that is taken, with the id that it leads to."""
    try:
        return {name: owner for name in posix.listdir(NAMES) if (owner := owner_of(name))}
    except FileNotFoundError:
        return {}

"""What interrupted commands have left below the directories of container/store.py: drafts, names, runs."""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, KernelError, NotFound
from sysbox.base.files import is_directory, remove_tree
from sysbox.base.paths import CONTAINERS, NAMES, RUN_CONTAINERS
from sysbox.container.locks import REMOVED, ContainersLock
from sysbox.container.names import is_stale
from sysbox.container.store import DRAFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def discard_drafts() -> list[str]:
    """Remove directories of containers whose making or removal was interrupted; returns their ids."""
    left = _sweep(CONTAINERS, lambda name: name.startswith((DRAFT, REMOVED)))
    return [name.removeprefix(DRAFT).removeprefix(REMOVED) for name in left]


def free_stale_names() -> list[str]:
    """Free all names that lead to no container; returns them."""
    return _sweep(NAMES, is_stale)


def forget_stale_runs() -> list[str]:
    """Remove the runs of containers that no longer exist; returns their ids."""
    return _sweep(RUN_CONTAINERS, lambda name: not is_directory(f"{CONTAINERS}/{name}"))


def _sweep(directory: str, is_stale_entry: Callable[[str], bool]) -> list[str]:
    """Remove the entries for which `is_stale_entry`; none while a process adds or removes a container."""
    try:
        with ContainersLock(exclusive=True, wait=False):
            left = [name for name in posix.listdir(directory) if is_stale_entry(name)]
            _remove_all(f"{directory}/{name}" for name in left)
    except (Conflict, FileNotFoundError, NotFound):
        return []
    return left


def _remove_all(paths: Iterable[str]) -> None:
    """Remove all paths; raises the first KernelError when all have been tried."""
    failed: list[KernelError] = []
    for path in paths:
        try:
            remove_tree(path)
        except KernelError as error:
            failed.append(error)
    if failed:
        raise failed[0]
